"""Programs that have to be made before they can be started: in Java, Go and JavaScript, once per machine and version.

Each is made in a folder of its own under the user's cache, named after what it is made of.
"""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import venv
from .cluster import ClusterError
from .commands import java_libraries

MEMBERS = Path(__file__).resolve().parent / "members"
NEEDED = {"javac": "default-jdk-headless", "go": "golang", "npm": "npm", "node": "nodejs", "kcat": "kcat"}


def need(*commands: str) -> None:
    """Says what to install where a command is missing."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        packages = " ".join(sorted(NEEDED[command] for command in missing))
        raise ClusterError(f"{' and '.join(missing)}: not installed; apt-get install {packages}")


def made(name: str, sources: list[Path], make: Callable[[Path], None]) -> Path:
    """The folder that `make` has filled from these sources; made where it is missing, by one process at a time."""
    content = hashlib.sha256()
    for source in sources:
        content.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    folder = venv.CACHE / f"members-{name}-{content.hexdigest()[:16]}"
    venv.CACHE.mkdir(parents=True, exist_ok=True)
    with open(venv.CACHE / f"members-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            print(f"building the members in {name}", flush=True)
            with tempfile.TemporaryDirectory(dir=venv.CACHE) as directory:
                unfinished = Path(directory, "made")
                unfinished.mkdir()
                make(unfinished)
                shutil.move(unfinished, folder)
    return folder


def run(command: list, directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"{command[0]}: {(done.stderr or done.stdout).strip()}")


def java() -> list[str]:
    """The command that starts a class of members/java; its name follows."""
    need("javac")
    libraries, sources = java_libraries(), sorted((MEMBERS / "java").glob("*.java"))
    compile_all = lambda folder: run(["javac", "-cp", f"{libraries}/*", "-d", folder, *sources], MEMBERS)  # noqa: E731
    folder = made("java", sources, compile_all)
    return ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{folder}:{libraries}/*"]


def franz() -> list[str]:
    """The program of members/franz; `member` or `producer` follows."""
    need("go")
    directory = MEMBERS / "franz"
    sources = [*sorted(directory.glob("*.go")), directory / "go.mod", directory / "go.sum"]
    folder = made("go", sources, lambda folder: run(["go", "build", "-o", folder / "franz", "."], directory))
    return [str(folder / "franz")]


def kafkajs() -> list[str]:
    """The command that starts members/kafkajs."""
    need("node", "npm")
    sources = [MEMBERS / "kafkajs" / name for name in ("member.mjs", "package.json", "package-lock.json")]

    def make(folder: Path) -> None:
        for source in sources:
            shutil.copy(source, folder)
        run(["npm", "ci", "--no-audit", "--no-fund"], folder)

    return ["node", str(made("node", sources, make) / "member.mjs")]
