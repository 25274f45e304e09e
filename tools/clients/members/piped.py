"""A member of a consumer group that is a command: kcat, or `ackord consume --group`. Tells its output as events.

`piped.py kcat|ACKORD BOOTSTRAP GROUP TOPIC OPTIONS`. What it commits, and when, is its own affair.
"""

import ctypes
import json
import re
import signal
import subprocess
import sys
import threading

COMMAND = sys.argv.pop(1)
from events import Job, say  # noqa: E402


def end_with_parent() -> None:
    parent_death_signal = 1  # PR_SET_PDEATHSIG: `kill -9` of this process is one of the command
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


def command(job: Job) -> list[str]:
    if COMMAND != "kcat":
        where = ["--bootstrap", job.bootstrap, "--group", job.group, "--from", "beginning", "--format", "json"]
        return [COMMAND, "consume", job.topic, *where]
    settings = {
        "session.timeout.ms": job.session_ms,
        "heartbeat.interval.ms": job.heartbeat_ms,
        "auto.offset.reset": "earliest",
        "auto.commit.interval.ms": max(job.commit_ms, 100),
    }
    styles = {"range": "range", "cooperative": "cooperative-sticky"}
    settings |= {"partition.assignment.strategy": styles[job.style]} if job.style in styles else {}
    settings |= {"group.instance.id": job.instance} if job.instance else {}
    words = [word for name, value in settings.items() for word in ("-X", f"{name}={value}")]
    # -E: it goes on when it has lost all its connections, as other clients do.
    return ["kcat", "-E", "-b", job.bootstrap, "-u", "-f", "%p %o %s\n", *words, "-G", job.group, job.topic]


def watch(stream) -> None:
    """What kcat says of its group, beside the records."""
    for line in stream:
        print(line, end="", file=sys.stderr, flush=True)
        if "rebalanced" in line:
            given = re.search(r"[: ](assigned|assignment)[: ]", line) is not None
            say("assigned" if given else "revoked", partitions=[int(number) for number in re.findall(r"\[(\d+)\]", line)])
        elif "ERROR" in line or "FAIL" in line:
            say("error", text=line.strip())


def main() -> int:
    job = Job()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command(job), preexec_fn=end_with_parent, **pipes)
    stop = signal.SIGTERM if COMMAND == "kcat" else signal.SIGINT
    signal.signal(signal.SIGTERM, lambda *_signal: process.send_signal(stop))
    watcher = threading.Thread(target=watch, args=[process.stderr])
    watcher.start()
    for line in process.stdout:
        if COMMAND == "kcat":
            partition, offset, value = line.rstrip("\n").split(" ", 2)
            say("record", partition=int(partition), offset=int(offset), value=value)
        else:
            read = json.loads(line)
            say("record", partition=read["partition"], offset=read["offset"], value=read["value"])
    code = process.wait()
    watcher.join()
    say("ended")
    return code


sys.exit(main())
