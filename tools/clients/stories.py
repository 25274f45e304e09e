"""What a consumer group of one client has to go through, step by step. Every step is a capability for the table."""

import re
import time
from collections.abc import Callable

from . import history as rules
from .cluster import Cluster
from .crew import Crew, Told, make_topic
from .families import Family, ackord_consume
from .outcome import FAILED, NotOffered, cell, expect

PARTITIONS = 6
RATE = 60  # records a second, to all partitions in turn
DELIVER_SECONDS_MAX = 20
STATIC_SESSION_SECONDS = 20
AT_WORK_SECONDS = 2

SHARES = "three members share six partitions"
LEAVES = "one leaves: the others take over at once"
KILLED = "`kill -9` of one: taken over after its session timeout"
RESUMES = "all stop, one comes back: goes on where the group was"
METADATA = "offsets come back with their text"
STATIC = "a static member comes back: the others notice nothing"
COOPERATIVE = "cooperative: only what moves is taken away"
MIXED = "shares a group with `ackord consume`"
CAPABILITIES = [SHARES, LEAVES, KILLED, RESUMES, METADATA, STATIC, COOPERATIVE, MIXED]

Step = tuple[str, Callable[[], str | None]]


class Story:
    """A client, and the groups that are made of it."""

    def __init__(self, cluster: Cluster, family: Family, producer: list):
        self.cluster = cluster
        self.family = family
        self.producer = producer
        self.prefix = re.sub("[^a-z0-9]+", "-", family.name.lower()).strip("-")
        self.crews: list[Crew] = []

    def crew(self, what: str) -> Crew:
        name = f"{self.prefix}-{what}"
        self.crews.append(Crew(self.cluster, name, make_topic(self.cluster, name, PARTITIONS), PARTITIONS))
        return self.crews[-1]

    def run(self, report: Callable[[str, str, float], None]) -> None:
        """Tries everything; what can't be reached because something before it failed says so."""
        for steps in (self.life(), self.static(), self.cooperative(), self.mixed()):
            failed = False
            for capability, step in steps:
                started = time.monotonic()
                said = f"{FAILED}: not reached" if failed else cell(step)
                failed = failed or said.startswith(FAILED)
                report(capability, said, time.monotonic() - started)
            for crew in self.crews:
                crew.close()
            self.crews.clear()

    # One group's life: three members, two, one, none, one.

    def life(self) -> list[Step]:
        crew = self.crew("life")
        steps = [(SHARES, lambda: self.shares(crew)), (LEAVES, lambda: self.leaves(crew))]
        steps += [(KILLED, lambda: self.killed(crew)), (RESUMES, lambda: self.resumes(crew))]
        return [*steps, (METADATA, lambda: self.metadata(crew))]

    def shares(self, crew: Crew) -> str:
        crew.write(self.producer, rate=RATE)
        for who in ("one", "two", "three"):
            crew.start(self.family, who, metadata=f"by {who}")
        shown = crew.settle(3)
        each = [sum(row["member"] == member["member"] for row in shown["partitions"]) for member in shown["members"]]
        expect(each == [2, 2, 2], f"they have {each} partitions")
        settled = time.time()
        self.let_work(crew)
        readers: dict[int, set[str]] = {}
        for delivery in crew.history.deliveries(since=settled + AT_WORK_SECONDS / 2):
            readers.setdefault(delivery.partition, set()).add(delivery.who)
        shared = [partition for partition, who in readers.items() if len(who) > 1]
        expect(not shared, f"partitions {shared} are read by several members at once")
        return self.once(crew)

    def leaves(self, crew: Crew) -> str:
        leaving = crew.members.pop("three")
        share = shares_of(crew, leaving.who)
        began = self.end(crew, leaving)
        taken = self.taken_over(crew, leaving.who, share, began, self.family.session_seconds - 1)
        crew.settle(2)
        self.let_work(crew)
        return f" ({taken:.1f} s)" + self.once(crew)

    def killed(self, crew: Crew) -> str:
        dying = crew.members.pop("two")
        share = shares_of(crew, dying.who)
        began = time.time()
        dying.kill()
        taken = self.taken_over(crew, dying.who, share, began, self.family.session_seconds + 10)
        expect(taken > self.family.session_seconds - 4, f"taken over {taken:.1f} s after it: it was not waited for")
        self.let_work(crew)
        return f" ({taken:.1f} s)" + self.once(crew, after_kill=True)

    def resumes(self, crew: Crew) -> str:
        crew.end_writers()
        self.wait_for_all(crew)
        crew.members.pop("one").end()
        before = time.time()
        crew.write(self.producer, rate=1000, count=10 * PARTITIONS).process.wait()
        crew.end_writers()
        crew.start(self.family, "back", show=self.family.metadata, metadata="by back")
        self.wait_for_all(crew)
        crew.settle(1)
        back = [delivery.value for delivery in crew.history.deliveries(since=before)]
        old = len(set(back) - new_values(crew, before))
        expect(not old, f"{old} records are read again that were read before all stopped")
        expect(len(back) == 10 * PARTITIONS, f"{len(back)} records instead of {10 * PARTITIONS} are read")
        return ""

    def metadata(self, crew: Crew) -> str:
        if not self.family.metadata:
            raise NotOffered
        found = {event["partition"]: event["found"] for _, event in crew.history.of("found")}
        expect(len(found) == PARTITIONS, f"offsets of {len(found)} partitions are found{crew.complaint()}")
        for partition, (offset, text, epoch) in found.items():
            expect(text == "by one", f"partition {partition}: the text is {text!r}, not 'by one'")
            expect(offset > 0, f"partition {partition}: offset {offset}")
            expect(not self.family.epoch or (epoch or 0) > 0, f"partition {partition}: leader epoch {epoch}")
        return ", and with the leader epoch" if self.family.epoch else ""

    # Others.

    def static(self) -> list[Step]:
        return [(STATIC, self.comes_back)]

    def comes_back(self) -> str:
        if not self.family.static:
            raise NotOffered
        crew = self.crew("static")
        session_ms = 1000 * STATIC_SESSION_SECONDS
        crew.write(self.producer, rate=RATE)
        for who in ("one", "two", "three"):
            crew.start(self.family, who, instance=who, session_ms=session_ms)
        before = crew.settle(3)
        self.let_work(crew)
        dying = crew.members.pop("two")
        share = shares_of(crew, dying.who)
        began = time.time()
        dying.kill()
        back = crew.start(self.family, "two again", instance="two", session_ms=session_ms)
        self.taken_over(crew, dying.who, share, began, STATIC_SESSION_SECONDS)
        self.let_work(crew)
        after = crew.settle(3)
        others = [who for who, _ in crew.history.of("assigned", "revoked", "lost", since=began) if who != back.who]
        expect(not others, f"{', '.join(sorted(set(others)))} had partitions taken or given")
        generations = before["generation"], after["generation"]
        expect(generations[0] == generations[1], f"generation {generations[0]} became {generations[1]}")
        return self.once(crew, after_kill=True)

    def cooperative(self) -> list[Step]:
        return [(COOPERATIVE, self.moves_little)]

    def moves_little(self) -> str:
        if not self.family.cooperative:
            raise NotOffered
        crew = self.crew("cooperative")
        crew.write(self.producer, rate=RATE)
        for who in ("one", "two"):
            crew.start(self.family, who, style="cooperative")
        crew.settle(2)
        self.let_work(crew)
        began = time.time()
        crew.start(self.family, "three", style="cooperative")
        crew.settle(3)
        self.let_work(crew)
        self.expect_revoked(crew, began, 2)
        began = self.end(crew, crew.members.pop("three"))
        crew.settle(2)
        self.let_work(crew)
        self.expect_revoked(crew, began, 0)
        return self.once(crew)

    def expect_revoked(self, crew: Crew, since: float, count: int) -> None:
        told = crew.history.of("revoked", "lost", since=since)
        names = {member.who for member in crew.members.values()}
        revoked = sum(len(event["partitions"]) for who, event in told if who in names)
        expect(revoked == count, f"{revoked} partitions were taken from members that stayed, instead of {count}")

    def mixed(self) -> list[Step]:
        return [(MIXED, self.shares_with_ackord)]

    def shares_with_ackord(self) -> str:
        if not self.family.ranges or self.family.name.startswith("ackord"):
            raise NotOffered
        crew = self.crew("mixed")
        crew.write(self.producer, rate=RATE)
        for order in (("theirs", "ours"), ("ours", "theirs")):  # either may be the one that assigns
            for who in order:
                family = self.family if who == "theirs" else ackord_consume(self.cluster.binary)
                crew.start(family, f"{who} after {order[0]}", style="range")
                if who == order[0]:
                    crew.settle(1)
            settled = time.time()
            shown = crew.settle(2)
            each = [sum(row["member"] == one["member"] for row in shown["partitions"]) for one in shown["members"]]
            expect(each == [3, 3], f"they have {each} partitions")
            self.let_work(crew)
            readers = {delivery.who for delivery in crew.history.deliveries(since=settled)}
            expect(len(readers) >= 2, f"only {readers} read")
            for member in list(crew.members):
                self.end(crew, crew.members.pop(member))
        return self.once(crew)

    # What holds of all of them.

    def end(self, crew: Crew, member: Told) -> float:
        """Ends a member in an orderly way, amid records unless it can't do that; when it was told."""
        if self.family.drops_at_end:
            crew.end_writers()
            self.wait_for_all(crew)
        began = time.time()
        member.end()
        if not crew.writers:
            crew.write(self.producer, rate=RATE)
        return began

    def let_work(self, crew: Crew) -> None:
        """Some more records, which must all arrive."""
        time.sleep(AT_WORK_SECONDS)
        self.wait_for_all(crew)

    def wait_for_all(self, crew: Crew) -> None:
        written = crew.history.acked()
        expect(bool(written), f"nothing could be written{crew.complaint()}")
        arrived = lambda: written <= {delivery.value for delivery in crew.history.deliveries()}  # noqa: E731
        lacking = lambda: f"{len(rules.missing(crew.history) & written)} of {len(written)} records were given to nobody"  # noqa: E731
        crew.wait_for(arrived, DELIVER_SECONDS_MAX, lacking)

    def taken_over(self, crew: Crew, who: str, share: set[int], began: float, seconds: float) -> float:
        """Waits until others read all of a member's partitions; how long it took."""
        first: dict[int, float] = {}

        def all_are_read() -> bool:
            for delivery in crew.history.deliveries(since=began):
                if delivery.who != who:
                    first.setdefault(delivery.partition, delivery.t)
            return share <= set(first)

        expect(bool(share), f"{who} was given nothing")
        otherwise = lambda: f"after {seconds:.0f} s nobody reads partitions {sorted(share - set(first))}"  # noqa: E731
        crew.wait_for(all_are_read, seconds, otherwise)
        return max(first[partition] for partition in share) - began

    def once(self, crew: Crew, after_kill: bool = False) -> str:
        """None skipped, none twice after its commit; what came twice before it is noted."""
        skipped = rules.out_of_order(crew.history)
        expect(not skipped, f"{len(skipped)} records came after a gap, first {skipped[:1]}")
        wrong = rules.repeated_after_commit(crew.history)
        expect(not wrong, f"{len(wrong)} records came again after their commit, first {wrong[:1]}")
        again = len(rules.repeated(crew.history))
        return f" ({again} twice, before their commit)" if again and not after_kill else ""


def shares_of(crew: Crew, who: str) -> set[int]:
    """The partitions that a member was given records of, just now."""
    return {delivery.partition for delivery in crew.history.deliveries(since=time.time() - 2) if delivery.who == who}


def new_values(crew: Crew, since: float) -> set[str]:
    return {event["value"] for _, event in crew.history.of("acked", since=since)}
