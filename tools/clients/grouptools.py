"""Command line tools for consumer groups: Apache Kafka's own, and Ackord's. Each is tried step by step on one group.

What a tool changed is looked up with the other one, or with a member that tells what it finds.
"""

import json
import time
from collections.abc import Callable

from .cluster import Cluster
from .commands import KafkaTools
from .crew import Crew, ackord, make_topic
from .families import Family
from .outcome import FAILED, NotOffered, cell, expect

PARTITIONS = 3
RECORDS = 30

READS = "reads as a member, stores offsets"
LISTS = "lists groups, with their state"
DESCRIBES = "describes offsets, members, state"
REFUSES = "does not move offsets under members"
RESETS = "resets offsets: shows, then does it"
DELETES_OFFSETS = "deletes offsets"
DELETES = "deletes a group"
CAPABILITIES = [READS, LISTS, DESCRIBES, REFUSES, RESETS, DELETES_OFFSETS, DELETES]


class Tool:
    """What a tool is asked for; offsets are by partition."""

    def read(self, crew: Crew) -> list[str]:
        raise NotImplementedError

    def states(self) -> dict[str, str]:
        raise NotImplementedError

    def describe(self, crew: Crew) -> tuple[str, list[int], dict[int, int], dict[int, int]]:
        """State, partitions of each member, stored offsets, lag."""
        raise NotImplementedError

    def reset(self, crew: Crew, to: str, execute: bool) -> dict[int, int]:
        raise NotImplementedError

    def delete_offsets(self, crew: Crew) -> None:
        raise NotOffered

    def delete(self, crew: Crew) -> None:
        raise NotImplementedError


class Kafkas(Tool):
    """kafka-console-consumer and kafka-consumer-groups."""

    def __init__(self, cluster: Cluster):
        self.tools = KafkaTools(cluster.bootstrap)

    def groups(self, *arguments: str) -> list[list[str]]:
        """The words of every line of a table."""
        output = self.tools.tool("consumer.group.ConsumerGroupCommand", *arguments).decode()
        if "Error:" in output:
            raise RuntimeError(output.strip())
        return [line.split() for line in output.splitlines() if line.strip()]

    def rows(self, crew: Crew, *arguments: str) -> list[dict[str, str]]:
        """A table with its heads; the group's rows only."""
        lines = self.groups("--group", crew.name, *arguments)
        heads = next((line for line in lines if line[0] == "GROUP"), [])
        return [dict(zip(heads, line)) for line in lines if line[0] == crew.name]

    def read(self, crew):
        limits = ["--max-messages", str(RECORDS), "--timeout-ms", "30000", "--from-beginning"]
        arguments = ["--topic", crew.topic, "--group", crew.name, *limits]
        return self.tools.tool("consumer.ConsoleConsumer", *arguments).decode().splitlines()

    def states(self):
        return {line[0]: line[-1] for line in self.groups("--list", "--state")[1:]}

    def describe(self, crew):
        rows = self.rows(crew, "--describe")
        stored = {int(row["PARTITION"]): int(row["CURRENT-OFFSET"]) for row in rows if row["CURRENT-OFFSET"] != "-"}
        lag = {int(row["PARTITION"]): int(row["LAG"]) for row in rows if row["LAG"] != "-"}
        members = [int(row["#PARTITIONS"]) for row in self.rows(crew, "--describe", "--members")]
        (state,) = self.groups("--group", crew.name, "--describe", "--state")[1:]
        known = [name for name in ("Stable", "Empty", "Dead") if name in state]
        return known[0] if known else " ".join(state), members, stored, lag

    def reset(self, crew, to, execute):
        where = ["--to-earliest"] if to == "earliest" else ["--to-offset", to.split(":")[1]]
        rows = self.rows(crew, "--reset-offsets", "--topic", crew.topic, *where, "--execute" if execute else "--dry-run")
        return {int(row["PARTITION"]): int(row["NEW-OFFSET"]) for row in rows}

    def delete_offsets(self, crew):
        lines = self.groups("--group", crew.name, "--delete-offsets", "--topic", crew.topic)
        expect(any("Successful" in line for line in lines), f"it says {lines[-1]}")

    def delete(self, crew):
        lines = self.groups("--group", crew.name, "--delete")
        expect(any("successful." in line for line in lines), f"it says {lines[-1]}")


class Ackords(Tool):
    """`ackord group` and `ackord consume --group`."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster

    def run(self, *arguments: str) -> str:
        done = ackord(self.cluster, *arguments)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout

    def read(self, crew):
        start = ["--group", crew.name, "--from", "beginning", "--max", str(RECORDS)]
        return self.run("consume", crew.topic, *start).splitlines()

    def states(self):
        return {group["group"]: group["state"] for group in json.loads(self.run("group", "list", "--json"))}

    def describe(self, crew):
        shown = json.loads(self.run("group", "describe", crew.name, "--json"))
        rows = [row for row in shown["partitions"] if row["topic"] == crew.topic]
        stored = {row["partition"]: row["offset"] for row in rows if row["offset"] is not None}
        lag = {row["partition"]: row["lag"] for row in rows if row["lag"] is not None}
        members = [sum(row["member"] == member["member"] for row in rows) for member in shown["members"]]
        return shown["state"], members, stored, lag

    def reset(self, crew, to, execute):
        flag = ["--execute"] if execute else []
        shown = json.loads(self.run("group", "reset-offsets", crew.name, "--to", to, "--json", *flag))
        return {row["partition"]: row["after"] for row in shown["partitions"]}

    def delete(self, crew):
        self.run("group", "delete", crew.name)


class Trial:
    """A tool before a group of its own. `witness` shows what is stored; `member` is a client that reads."""

    def __init__(self, cluster: Cluster, tool: Tool, witness: Tool, member: Family, producer: list, name: str):
        self.tool = tool
        self.witness = witness
        self.member = member
        self.crew = Crew(cluster, name, make_topic(cluster, name, PARTITIONS), PARTITIONS)
        self.producer = producer
        self.full = {partition: RECORDS // PARTITIONS for partition in range(PARTITIONS)}

    def run(self, report: Callable[[str, str, float], None]) -> None:
        steps = [self.reads, self.lists, self.describes, self.refuses, self.resets, self.deletes_offsets, self.deletes]
        failed = False
        for capability, step in zip(CAPABILITIES, steps):
            started = time.monotonic()
            said = f"{FAILED}: not reached" if failed else cell(step)
            failed = failed or said.startswith(FAILED)
            report(capability, said, time.monotonic() - started)
        self.crew.close()

    def stored(self) -> dict[int, int]:
        return self.witness.describe(self.crew)[2]

    def reads(self) -> None:
        self.crew.write(self.producer, rate=1000, count=RECORDS).process.wait()
        self.crew.end_writers()
        written = sorted(self.crew.history.acked())
        back = sorted(self.tool.read(self.crew))
        expect(back == written, f"{len(back)} of {len(written)} records, or others, came back")
        expect(self.stored() == self.full, f"{self.stored()} is stored, not {self.full}")

    def lists(self) -> None:
        state = self.tool.states().get(self.crew.name)
        expect(state == "Empty", f"the group's state is shown as {state}")

    def describes(self) -> None:
        self.crew.write(self.producer, rate=1000, count=PARTITIONS).process.wait()
        state, members, stored, lag = self.tool.describe(self.crew)
        expect((state, members) == ("Empty", []), f"without members: {state}, members {members}")
        expect(stored == self.full, f"offsets {stored} are shown, not {self.full}")
        expect(lag == dict.fromkeys(self.full, 1), f"lag {lag} is shown, not 1 each")
        self.crew.start(self.member, "reader")
        self.crew.settle(1)
        state, members, _, _ = self.tool.describe(self.crew)
        expect((state, members) == ("Stable", [PARTITIONS]), f"with a member: {state}, members with {members}")

    def refuses(self) -> None:
        before = self.stored()
        try:
            self.tool.reset(self.crew, "earliest", True)
        except RuntimeError:
            pass  # with a sentence of its own
        after = self.stored()
        moved = [partition for partition, offset in before.items() if after[partition] < offset]
        expect(not moved, f"{before} became {after}")

    def resets(self) -> None:
        self.crew.members.pop("reader").end()
        before = self.stored()
        shown = self.tool.reset(self.crew, "earliest", False)
        expect(shown == dict.fromkeys(self.full, 0), f"it shows {shown}")
        expect(self.stored() == before, f"showing it changed {before} to {self.stored()}")
        self.tool.reset(self.crew, "offset:4", True)
        expect(self.stored() == dict.fromkeys(self.full, 4), f"{self.stored()} is stored, not 4 each")

    def deletes_offsets(self) -> None:
        self.tool.delete_offsets(self.crew)
        expect(self.stored() == {}, f"{self.stored()} is still stored")

    def deletes(self) -> None:
        self.tool.delete(self.crew)
        expect(self.crew.name not in self.tool.states(), "it is still there")
