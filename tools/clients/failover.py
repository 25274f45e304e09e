"""Groups at work while the nodes that coordinate them are killed: several clients' groups at a time, node by node."""

import time
from collections.abc import Callable

from . import history as rules
from . import wire
from .cluster import Cluster
from .crew import Crew
from .families import Family
from .outcome import FAILED, cell, expect
from .stories import RATE, Story

CAPABILITY = "`kill -9` of the node that coordinates it: it goes on"
AT_ONCE = 3
SESSION_SECONDS = 10
DOWN_SECONDS = 3
AGAIN_SECONDS_MAX = 25


class Group:
    """A client's group in this trial."""

    def __init__(self, story: Story):
        self.story = story
        self.family = story.family
        self.crew: Crew | None = None
        self.said: str | None = None
        self.generation = -1
        self.killed_at = 0.0

    def attempt(self, step: Callable[[], str | None]) -> None:
        """The first step that fails is what the table says."""
        said = cell(step)
        if self.said is None or not self.said.startswith(FAILED):
            self.said = said

    def start(self) -> None:
        self.crew = self.story.crew("coordinator")
        self.crew.write(self.story.producer, rate=RATE)
        for who in ("one", "two", "three"):
            self.crew.start(self.family, who, session_ms=1000 * max(SESSION_SECONDS, self.family.session_seconds))

    def settle(self) -> None:
        self.generation = self.crew.settle(3)["generation"]
        self.story.let_work(self.crew)

    def judge(self) -> str:
        """What became of it since its coordinator was killed."""
        partitions = set(range(self.crew.partitions))
        taken = self.story.taken_over(self.crew, "", partitions, self.killed_at, AGAIN_SECONDS_MAX)
        shown = self.crew.settle(3)
        self.story.let_work(self.crew)
        lost = rules.commits_lost(self.crew.history, [self.crew.poll()])
        expect(not lost, lost[0] if lost else "")
        note = self.story.once(self.crew)
        moved = self.crew.history.of("assigned", "revoked", "lost", since=self.killed_at)
        again = shown["generation"] != self.generation or bool(moved)
        return f" ({taken:.1f} s{', with a rebalance' if again else ''})" + note


def run(cluster: Cluster, families: list[Family], producer: list, report: Callable[[Family, str, float], None]) -> None:
    """Tries all, some at a time."""
    for first in range(0, len(families), AT_ONCE):
        started = time.monotonic()
        groups = [Group(Story(cluster, family, producer)) for family in families[first : first + AT_ONCE]]
        for group in groups:
            group.attempt(group.start)
        for group in groups:
            group.attempt(group.settle)
        at_work = [group for group in groups if not group.said.startswith(FAILED)]
        coordinators = {group.family.name: wire.coordinator(cluster.bootstrap, group.crew.name) for group in at_work}
        for number in sorted(set(coordinators.values())):
            mine = [group for group in at_work if coordinators[group.family.name] == number]
            kill_under(cluster, number, mine)
        for group in groups:
            report(group.family, group.said, time.monotonic() - started)
            if group.crew:
                group.crew.close()


def kill_under(cluster: Cluster, number: int, groups: list[Group]) -> None:
    """Kills a node; its groups must go on while it is away, and when it is there again."""
    node = cluster.node(number)
    for group in groups:  # whatever happened to it when others were killed
        group.attempt(group.settle)
        group.killed_at = time.time()
    node.kill()
    time.sleep(DOWN_SECONDS)
    node.start()
    cluster.wait_until_ready()
    for group in groups:
        group.attempt(group.judge)
