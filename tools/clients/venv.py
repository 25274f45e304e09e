"""Python environments with pinned clients, made once per machine under the user's cache.

Knows how to make one and how to go on inside of it. Does not know what the clients are for.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ackord"


def python(name: str, requirements: list[str]) -> Path:
    """The interpreter of the environment `name`, which has exactly these requirements; makes it where it is missing."""
    directory = CACHE / name
    interpreter = directory / "bin" / "python"
    wanted = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()
    stamp = directory / "ackord-requirements"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two scripts started at once make one environment
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"installing {', '.join(requirements)} into {directory}", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
            install = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
            subprocess.run(install, check=True)
            stamp.write_text(wanted)
    return interpreter


def enter(name: str, requirements: list[str]) -> None:
    """Goes on in the environment `name`: runs this very script again with its interpreter, unless it does already."""
    if Path(sys.prefix) == CACHE / name:
        return
    interpreter = python(name, requirements)
    os.execv(interpreter, [str(interpreter), *sys.argv])
