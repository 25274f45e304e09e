"""A consumer group at work: its members and those who write for it are processes of their own, and tell events.

Owns the processes and what they told. Does not judge it.
"""

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from .cluster import Cluster, end_with_parent
from .families import Family
from .history import History, Poll
from .outcome import expect

SETTLE_SECONDS_MAX = 60
END_SECONDS_MAX = 30
COMMAND_SECONDS_MAX = 40


class Told:
    """A process that tells events; they go into a history."""

    def __init__(self, who: str, command: list, history: History, cluster: Cluster):
        self.who = who
        self.history = history
        self.log = cluster.directory / f"{re.sub('[^A-Za-z0-9.-]+', '-', who)}.log"
        with open(self.log, "ab") as log:
            words = [str(word) for word in command]
            pipes = {"stdout": subprocess.PIPE, "stderr": log, "stdin": subprocess.DEVNULL}
            self.process = subprocess.Popen(words, preexec_fn=end_with_parent, **pipes)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        for line in self.process.stdout:
            try:
                self.history.add(self.who, json.loads(line))
            except ValueError:  # killed amid a line, or a library that talks
                with open(self.log, "ab") as log:
                    log.write(line)

    def lives(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9: it commits nothing and tells nobody."""
        self.process.kill()
        self.process.wait()
        self.reader.join(END_SECONDS_MAX)

    def end(self) -> None:
        """Asks it to end in an orderly way, and waits until it has."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            expect(False, f"{self.who} does not end")
        self.reader.join(END_SECONDS_MAX)
        expect(code in (0, 143), f"{self.who} ends with code {code}: {self.last_lines()}")  # 143: Java, after SIGTERM

    def last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-2:])[-300:]


class Crew:
    """A group, its topic, and its members."""

    def __init__(self, cluster: Cluster, name: str, topic: str, partitions: int):
        self.cluster = cluster
        self.name = name
        self.topic = topic
        self.partitions = partitions
        self.history = History()
        self.members: dict[str, Told] = {}
        self.writers: list[Told] = []
        self.writers_begun = 0

    def start(self, family: Family, who: str, **options) -> Told:
        """Starts a member."""
        options.setdefault("session_ms", 1000 * family.session_seconds)
        bootstrap = native(self.cluster) if family.name.startswith("ackord") else self.cluster.bootstrap
        command = [*family.command, bootstrap, self.name, self.topic, json.dumps(options)]
        self.members[who] = Told(f"{self.name}-{who}", command, self.history, self.cluster)
        return self.members[who]

    def write(self, program: list, **options) -> Told:
        """Starts a producer."""
        self.writers_begun += 1
        who = f"{self.name}-writer-{self.writers_begun}"
        options |= {"partitions": self.partitions, "prefix": f"{who} "}
        command = [*program, self.cluster.bootstrap, self.topic, json.dumps(options)]
        self.writers.append(Told(who, command, self.history, self.cluster))
        return self.writers[-1]

    def end_writers(self) -> None:
        while self.writers:
            writer = self.writers.pop()
            wrote = lambda: bool(self.history.of_whom(writer.who)) or not writer.lives()  # noqa: B023, E731
            self.wait_for(wrote, END_SECONDS_MAX, lambda: "nothing can be written")
            writer.end()

    def describe(self) -> dict:
        """What `ackord group describe` says; nothing if it can't be learnt at the moment."""
        shown = ackord(self.cluster, "group", "describe", self.name, "--json")
        return json.loads(shown.stdout) if shown.returncode == 0 else {"state": "?", "members": [], "partitions": []}

    def poll(self) -> Poll:
        """Asks the server once."""
        began = time.time()
        shown = self.describe()
        mine = [row for row in shown["partitions"] if row["topic"] == self.topic]
        covered = sum(row["member"] is not None for row in mine) == self.partitions
        offsets = {row["partition"]: row["offset"] for row in mine if row["offset"] is not None}
        return Poll(began, time.time(), shown["state"] == "Stable" and covered, offsets)

    def settle(self, members: int, seconds: float = SETTLE_SECONDS_MAX) -> dict:
        """Waits until so many members share all partitions; what the server shows then."""
        deadline = time.monotonic() + seconds
        while True:
            shown = self.describe()
            owners = {row["partition"]: row["member"] for row in shown["partitions"] if row["member"]}
            if shown["state"] == "Stable" and len(shown["members"]) == members and len(owners) == self.partitions:
                return shown
            for member in self.members.values():
                expect(member.lives(), f"{member.who} has ended: {member.last_lines()}")
            if time.monotonic() > deadline:
                here = f"{shown['state']}, {len(shown['members'])} members, {len(owners)} partitions given out"
                expect(False, f"after {seconds:.0f} s not {members} members at work: {here}{self.complaint()}")
            time.sleep(0.2)

    def complaint(self) -> str:
        errors = self.history.errors()
        return f"; {errors[-1][:200]}" if errors else ""

    def wait_for(self, holds: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                expect(False, otherwise() + self.complaint())
            time.sleep(0.1)

    def close(self) -> None:
        """Ends whatever still runs, without ceremony, and leaves the history beside the nodes' logs."""
        for process in [*self.members.values(), *self.writers]:
            if process.lives():
                process.kill()
        self.members.clear()
        self.writers.clear()
        with open(self.cluster.directory / f"{self.name}.history.jsonl", "w") as file:
            for who, event in self.history.of_all():
                file.write(json.dumps({"who": who, **event}) + "\n")


def native(cluster: Cluster) -> str:
    return ",".join(node.address("native") for node in cluster.nodes)


def ackord(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess:
    """Runs the program itself."""
    command = [cluster.binary, *arguments, "--bootstrap", native(cluster)]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX)


def make_topic(cluster: Cluster, name: str, partitions: int) -> str:
    numbers = ["--partitions", str(partitions), "--replication-factor", "3"]
    done = ackord(cluster, "topic", "create", name, *numbers)
    expect(done.returncode == 0, f"ackord topic create: {done.stderr.strip()}")
    return name
