"""What every member written in Python has in common: its options, its events, when to end.

A member is `PROGRAM BOOTSTRAP GROUP TOPIC OPTIONS`; OPTIONS is an object in JSON, all of whose fields may be missing:
session_ms, heartbeat_ms; style ("range", "cooperative", or the client's own "default"); instance (a static member's
name); commit_ms (0, the default: after every batch); metadata (a text stored with every offset); show (tells the stored
offsets it finds, with all that is stored beside them). SIGTERM ends it in an orderly way.

Events are JSON, one per line: {"t": seconds, "event": ...} with assigned, revoked or lost (partitions), record
(partition, offset, value), committed (offsets, once they are acknowledged), failed (what could not be committed), found
(partition: offset, text, epoch), error, ended.
"""

import json
import signal
import sys
import time

BATCH_RECORDS = 100
POLL_SECONDS = 0.1


def say(event: str, **fields) -> None:
    print(json.dumps({"t": time.time(), "event": event, **fields}), flush=True)


class Job:
    """What a program was started for."""

    def __init__(self):
        self.bootstrap, self.group, self.topic = sys.argv[1:4]
        options = json.loads(sys.argv[4])
        self.session_ms = options.get("session_ms", 6_000)
        self.heartbeat_ms = options.get("heartbeat_ms", 1_000)
        self.style = options.get("style", "default")
        self.instance = options.get("instance")
        self.commit_ms = options.get("commit_ms", 0)
        self.metadata = options.get("metadata", "")
        self.show = options.get("show", False)
        self.ending = False
        self.committed_at = 0.0
        self.positions: dict[int, tuple[int, int]] = {}  # what is yet to be committed: next offset and its epoch
        signal.signal(signal.SIGTERM, self.end)

    def end(self, *_signal) -> None:
        self.ending = True

    def processed(self, partition: int, offset: int, value: bytes, epoch: int = -1) -> None:
        say("record", partition=partition, offset=offset, value=value.decode())
        self.positions[partition] = (offset + 1, -1 if epoch is None else epoch)

    def commit_is_due(self) -> bool:
        due = time.monotonic() - self.committed_at >= self.commit_ms / 1000
        return due and bool(self.positions)

    def commit(self, partitions: list[int] | None, store) -> None:
        """Has `store` commit what is open, of these partitions or of all; it returns or raises."""
        taken = {key: self.positions[key] for key in list(self.positions) if partitions is None or key in partitions}
        if not taken:
            return
        self.committed_at = time.monotonic()
        offsets = {partition: offset for partition, (offset, _epoch) in taken.items()}
        try:
            store(taken)
        except Exception as error:  # whatever the client says; what is open stays so
            say("failed", offsets=offsets, text=f"{type(error).__name__}: {error}")
            return
        for partition in taken:
            del self.positions[partition]
        say("committed", offsets=offsets)

    def forget(self, partitions: list[int]) -> None:
        """They are another member's now."""
        for partition in partitions:
            self.positions.pop(partition, None)
