"""What members and producers told, and what must hold of it.

Knows no processes and no cluster: a history is a list of events, and the rules are functions of it, so that they can be
tried on histories that break them (test_history.py). Times are seconds of this machine's clock.
"""

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Delivery:
    """A member was given a record."""

    t: float
    who: str
    partition: int
    offset: int
    value: str


@dataclass(frozen=True)
class Commit:
    """A member was told that an offset is stored."""

    t: float
    who: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Poll:
    """What the server showed of a group to somebody who asked."""

    began: float
    ended: float
    settled: bool
    """Whether it had a stable assignment of every partition."""
    offsets: dict[int, int]
    """The stored offsets, by partition; empty if they could not be learnt."""


@dataclass
class History:
    """Events of one group and of those who write for it, as they came in; several threads add to it."""

    events: list[tuple[str, dict]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, who: str, event: dict) -> None:
        with self.lock:
            self.events.append((who, event))

    def of(self, *kinds: str, since: float = 0, until: float = float("inf")) -> list[tuple[str, dict]]:
        with self.lock:
            return [(who, e) for who, e in self.events if e["event"] in kinds and since < e["t"] <= until]

    def of_all(self) -> list[tuple[str, dict]]:
        with self.lock:
            return list(self.events)

    def of_whom(self, who: str) -> list[dict]:
        with self.lock:
            return [event for teller, event in self.events if teller == who]

    def acked(self) -> set[str]:
        """Values of the records that were acknowledged."""
        return {event["value"] for _, event in self.of("acked")}

    def deliveries(self, since: float = 0) -> list[Delivery]:
        """In the order of their time."""
        events = self.of("record", since=since)
        what = lambda who, e: Delivery(e["t"], who, e["partition"], e["offset"], e["value"])  # noqa: E731
        return sorted((what(who, event) for who, event in events), key=lambda delivery: delivery.t)

    def commits(self) -> list[Commit]:
        """In the order in which they were acknowledged."""
        told = self.of("committed")
        flat = [Commit(e["t"], who, int(key), offset) for who, e in told for key, offset in e["offsets"].items()]
        return sorted(flat, key=lambda commit: commit.t)

    def errors(self) -> list[str]:
        told = self.of("error", "failed", "refused")
        return [f"{who}: {event['event']}: {event.get('text', '')}" for who, event in told]


def missing(history: History) -> set[str]:
    """Acknowledged records that no member was given."""
    return history.acked() - {delivery.value for delivery in history.deliveries()}


def repeated(history: History) -> list[Delivery]:
    """Deliveries of what had been delivered before."""
    seen: set[tuple[int, int]] = set()
    again = []
    for delivery in history.deliveries():
        place = (delivery.partition, delivery.offset)
        if place in seen:
            again.append(delivery)
        seen.add(place)
    return again


def repeated_after_commit(history: History) -> list[Delivery]:
    """Deliveries of what the group had stored as read."""
    # In one millisecond a record comes before it is stored as read.
    told = sorted([*history.deliveries(), *history.commits()], key=lambda event: event.t)
    stored: dict[int, int] = {}
    wrong = []
    for event in told:
        if isinstance(event, Commit):
            stored[event.partition] = max(event.offset, stored.get(event.partition, 0))
        elif event.offset < stored.get(event.partition, 0):
            wrong.append(event)
    return wrong


def out_of_order(history: History) -> list[Delivery]:
    """Deliveries to a member that skip offsets: neither the next one, nor one from which it begins again."""
    reached: dict[tuple[str, int], int] = {}
    highest: dict[int, int] = {}
    wrong = []
    for delivery in history.deliveries():
        key, at = (delivery.who, delivery.partition), delivery.offset
        begins_anew = at <= highest.get(delivery.partition, -1) + 1
        if at != reached.get(key, -1) + 1 and not begins_anew:
            wrong.append(delivery)
        reached[key] = at
        highest[delivery.partition] = max(at, highest.get(delivery.partition, -1))
    return wrong


def commits_moved_back(history: History) -> list[tuple[Commit, Commit]]:
    """Members that stored less than what they or others had stored: they were made to begin too early."""
    last: dict[int, Commit] = {}
    wrong = []
    for commit in history.commits():
        before = last.get(commit.partition)
        if before and commit.offset < before.offset:
            wrong.append((before, commit))
        last[commit.partition] = commit
    return wrong


def commits_lost(history: History, polls: list[Poll]) -> list[str]:
    """What the server showed less of than it had acknowledged before it was asked, or than it had shown."""
    wrong = []
    commits = history.commits()
    acknowledged: dict[int, Commit] = {}
    shown: dict[int, int] = {}
    at = 0
    for poll in polls:
        while at < len(commits) and commits[at].t < poll.began:
            commit = commits[at]
            known = acknowledged.get(commit.partition)
            if known is None or commit.offset >= known.offset:
                acknowledged[commit.partition] = commit
            at += 1
        if not poll.offsets:
            continue
        for partition, commit in acknowledged.items():
            if poll.offsets.get(partition, -1) < commit.offset:
                now = poll.offsets.get(partition, "nothing")
                wrong.append(f"partition {partition}: {commit.who} stored {commit.offset}, then {now} is shown")
        for partition, offset in shown.items():
            if poll.offsets.get(partition, -1) < offset:
                wrong.append(f"partition {partition}: {offset} was shown, then {poll.offsets.get(partition, 'nothing')}")
        shown.update(poll.offsets)
    return wrong


def longest_unsettled(polls: list[Poll]) -> float:
    """The longest time without a stable assignment of all partitions, from the first such assignment on."""
    longest, good = 0.0, None
    for poll in polls:
        if good is not None:
            longest = max(longest, poll.ended - good)
        if poll.settled:
            good = poll.began
    return longest


def lost_from_log(acked: set[str], log: list[str]) -> tuple[set[str], list[str]]:
    """Acknowledged records that are not in the log, and records that are there more than once."""
    counts = Counter(log)
    return acked - set(counts), sorted(value for value, count in counts.items() if count > 1)
