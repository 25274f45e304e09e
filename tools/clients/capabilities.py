"""What one client alone is asked to do: topics, records, settings, and a leader that is killed."""

import re
import subprocess
import threading
import time

from . import wire
from .cluster import Cluster
from .driven import Driven
from .outcome import NotOffered, expect

SIZES = [1, 100, 1 << 10, 64 << 10, 900 << 10]
LARGE_SIZES = [1 << 20, 8 << 20]
LARGE_LIMIT = 16 << 20
KILL_RECORDS = 600
KILL_PACE_SECONDS = 0.008


def values(count: int, prefix: str = "value") -> list:
    return [[None, f"{prefix} {number}", []] for number in range(count)]


class Bench:
    """A client before a cluster, and the topics that are made for it."""

    def __init__(self, cluster: Cluster, name: str, client):
        self.cluster = cluster
        self.client = client
        self.prefix = re.sub("[^a-z0-9]+", "-", name.lower())
        self.topics = 0

    def topic(self, partitions: int = 1, **configs: str) -> str:
        """A new topic; made with the program itself, so that a client which can't make one can be tried."""
        self.topics += 1
        name = f"{self.prefix}-{self.topics}"
        settings = [word for key, value in configs.items() for word in ("--config", f"{key.replace('_', '.')}={value}")]
        native = ",".join(node.address("native") for node in self.cluster.nodes)
        numbers = ["--partitions", str(partitions), "--replication-factor", "3"]
        command = [self.cluster.binary, "topic", "create", name, *numbers, *settings, "--bootstrap", native]
        done = subprocess.run(command, capture_output=True, text=True, timeout=40)
        expect(done.returncode == 0, f"ackord topic create: {done.stderr.strip()}")
        return name

    def stored(self, topic: str, partition: int = 0) -> list[wire.Batch]:
        return wire.batches(self.cluster.bootstrap, topic, partition)

    def read(self, topic: str, count: int, partition: int = 0, **start: int) -> list:
        return self.client.consume(topic, partition, start, count)

    def round_trip(self, records: list, **options) -> str:
        topic = self.topic(max_message_bytes=str(LARGE_LIMIT))
        self.client.produce(topic, records, options)
        back = self.read(topic, len(records))
        same = [row[3] for row in back] == [row[1] for row in records]
        expect(same, f"{len(back)} of {len(records)}, or others, came back")
        return topic


def create_topic(bench: Bench) -> None:
    bench.client.create_topic(f"{bench.prefix}-own", 3, {"max.message.bytes": "2000000"})
    for partition in range(3):
        expect(bench.stored(f"{bench.prefix}-own", partition) == [], "the new partition is not empty")


def produce_unkeyed(bench: Bench) -> None:
    topic = bench.topic(3)
    bench.client.produce(topic, values(100), {})
    counts = [sum(batch.count for batch in bench.stored(topic, partition)) for partition in range(3)]
    expect(sum(counts) == 100, f"{counts} records are stored")
    filled = [(partition, count) for partition, count in enumerate(counts) if count]
    back = [row[3] for partition, count in filled for row in bench.read(topic, count, partition)]
    expect(sorted(back) == sorted(row[1] for row in values(100)), "others came back")


def produce_keyed(bench: Bench) -> None:
    topic = bench.topic(3)
    records = [[f"key{number % 10}", f"value {number}", []] for number in range(200)]
    bench.client.produce(topic, records, {})
    seen: dict[str, list] = {}
    for partition in range(3):
        count = sum(batch.count for batch in bench.stored(topic, partition))
        for row in bench.read(topic, count, partition) if count else []:
            seen.setdefault(row[2], []).append((partition, row[3]))
    expect(len(seen) == 10, f"{len(seen)} keys came back")
    for key, rows in seen.items():
        expect(len({partition for partition, _ in rows}) == 1, f"{key} is in several partitions")
        wanted = [value for other, value, _ in records if other == key]
        expect([value for _, value in rows] == wanted, f"{key}: another order")


def codec(name: str):
    def capability(bench: Bench) -> None:
        topic = bench.round_trip(values(50, "compressible " * 20), codec=name)
        stored = {batch.codec for batch in bench.stored(topic)}
        expect(stored == {name}, f"stored as {', '.join(sorted(stored))}")

    return capability


def sizes(bench: Bench) -> None:
    topic = bench.topic()
    for size in SIZES:
        bench.client.produce(topic, [[None, "x" * size, []]], {})
    back = [len(row[3]) for row in bench.read(topic, len(SIZES))]
    expect(back == SIZES, f"{back} bytes came back")


def large(bench: Bench) -> None:
    for size in LARGE_SIZES:
        bench.round_trip([[None, "x" * size, []]], bytes_max=LARGE_LIMIT)


def headers(bench: Bench) -> None:
    topic = bench.topic()
    sent = [["a", "1"], ["b", "x"], ["a", "2"]]
    bench.client.produce(topic, [["key", "value", sent]], {})
    back = bench.read(topic, 1)[0]
    expect(back[2] == "key" and [list(pair) for pair in back[4]] == sent, f"{back[4]} came back")


def octets(bench: Bench) -> None:
    if not isinstance(bench.client, Driven):
        raise NotOffered("it reads lines")
    topic = bench.topic()
    everything = "".join(map(chr, range(256)))
    sent = [["a", everything], ["a", ""]]
    bench.client.produce(topic, [[everything, everything, sent]], {})
    back = bench.read(topic, 1)[0]
    expect(back[2:4] == [everything, everything], "other bytes came back")
    expect([list(pair) for pair in back[4]] == sent, "other headers came back")


def idempotence(bench: Bench) -> None:
    topic = bench.round_trip(values(50), idempotence=True)
    expect(all(batch.producer_id >= 0 for batch in bench.stored(topic)), "its batches carry no producer id")


def places(bench: Bench) -> None:
    topic = bench.topic()
    bench.client.produce(topic, values(20), {})
    time.sleep(0.05)
    bench.client.produce(topic, values(5, "later"), {})
    begin, end = bench.client.list_offsets(topic, 0)
    expect((begin, end) == (0, 25), f"ListOffsets says {begin} to {end}")
    back = bench.read(topic, 18, offset=7)
    expect([row[0] for row in back] == list(range(7, 25)), "not the records from offset 7 on")
    stamp = bench.read(topic, 1, offset=20)[0][1]
    back = bench.read(topic, 5, time=stamp)
    expect([row[0] for row in back] == list(range(20, 25)), f"from time {stamp} on: offsets {[row[0] for row in back]}")


def settings(bench: Bench) -> None:
    topic, client = bench.topic(max_message_bytes="2000000"), bench.client
    client.alter_configs("topic", topic, {"retention.ms": "3600000", "segment.ms": "60000"}, [])
    shown = described(client, topic, "retention.ms", ["3600000", True])
    expect(shown["max.message.bytes"] == ["2000000", True], f"max.message.bytes is {shown['max.message.bytes']}")
    expect(shown["min.insync.replicas"] == ["2", False], f"min.insync.replicas is {shown['min.insync.replicas']}")
    client.alter_configs("topic", topic, {"max.message.bytes": "3000000"}, ["retention.ms"])
    shown = described(client, topic, "retention.ms", ["604800000", False])
    expect(shown["max.message.bytes"] == ["3000000", True], f"max.message.bytes is {shown['max.message.bytes']}")
    expect(shown["segment.ms"] == ["60000", True], f"segment.ms is {shown['segment.ms']}, which nobody touched")
    refused(client, "topic", topic, {"cleanup.policy": "compact"}, "compaction is not there yet")
    refused(client, "broker", "1", {"num.partitions": "7"}, "in its file")
    node = client.describe_configs("broker", "1")
    expect(node["node.id"][0] == "1" and node["num.partitions"][0] != "7", f"node 1 says {node['node.id']}")


def described(client, topic: str, name: str, wanted: list) -> dict:
    """All settings, as soon as one is what it should be: any node may be asked, and hears of it a moment later."""
    deadline = time.monotonic() + 10
    while True:
        shown = client.describe_configs("topic", topic)
        if shown.get(name) == wanted:
            return shown
        expect(time.monotonic() < deadline, f"{name} is {shown.get(name)}, not {wanted}")
        time.sleep(0.1)


def refused(client, kind: str, name: str, settings: dict, reason: str) -> None:
    try:
        client.alter_configs(kind, name, settings, [])
    except RuntimeError as error:
        expect(reason in str(error), f"{settings} is refused without its reason: {error}")
    else:
        expect(False, f"{settings} is not refused")


def deletes_records(bench: Bench) -> None:
    topic = bench.topic()
    for number in range(10):
        bench.client.produce(topic, values(1, f"batch {number}"), {})
    bench.client.delete_records(topic, 0, 7)
    begin, end = bench.client.list_offsets(topic, 0)
    expect((begin, end) == (7, 10), f"the partition reaches from {begin} to {end}")
    back = bench.read(topic, 3)
    expect([row[0] for row in back] == [7, 8, 9], f"offsets {[row[0] for row in back]} came back")
    bench.client.delete_records(topic, 0, -1)  # all that is committed
    begin, end = bench.client.list_offsets(topic, 0)
    expect((begin, end) == (10, 10), f"the emptied partition reaches from {begin} to {end}")


def survives_kill(bench: Bench) -> str:
    topic = bench.topic()
    bench.client.produce(topic, values(1, "first"), {})
    leader = None
    for node in bench.cluster.nodes:
        if wire.fetch(node.address("kafka"), topic, 0)[0] == 0:
            leader = node
    expect(leader is not None, "nobody leads the partition")
    killer = threading.Timer(KILL_RECORDS * KILL_PACE_SECONDS / 4, leader.kill)
    killer.start()
    try:
        bench.client.produce(topic, values(KILL_RECORDS), {"pace": KILL_PACE_SECONDS})
    finally:
        killer.join()
        leader.start()
        bench.cluster.wait_until_ready()
    stored = sum(batch.count for batch in bench.stored(topic))
    back = [row[3] for row in bench.read(topic, stored)][1:]
    wanted = [row[1] for row in values(KILL_RECORDS)]
    missing = len(set(wanted) - set(back))
    expect(not missing, f"{missing} of {KILL_RECORDS} acknowledged records are not there")
    once = list(dict.fromkeys(back))
    numbered = all(batch.producer_id >= 0 for batch in bench.stored(topic))
    expect(once == wanted or not numbered, "another order")
    expect(back == wanted or not numbered, "there twice, although its batches are numbered")
    notes = [f"{len(back) - len(wanted)} twice"] if len(back) > len(wanted) else []
    notes += [] if once == wanted else ["reordered by its retries"]
    return f" ({', '.join(notes)})" if notes else ""


CAPABILITIES = {
    "create a topic": create_topic,
    "produce, no keys": produce_unkeyed,
    "produce, keys": produce_keyed,
    "gzip": codec("gzip"),
    "snappy": codec("snappy"),
    "lz4": codec("lz4"),
    "zstd": codec("zstd"),
    "1 B to 900 KiB": sizes,
    "1 and 8 MiB, limits raised": large,
    "headers, names repeated": headers,
    "any bytes": octets,
    "idempotent": idempotence,
    "from an offset, from a time": places,
    "alter and describe settings": settings,
    "delete records": deletes_records,
    "`kill -9` of the leader": survives_kill,
}
