"""Kafka requests by hand: what lies in a partition as it is stored, which no client shows, and which nodes live."""

import socket
import struct
from dataclasses import dataclass

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
FETCH, FETCH_VERSION = 1, 10  # the first that is given zstd (KIP-110)
METADATA, METADATA_VERSION = 3, 1
FIND_COORDINATOR, FIND_COORDINATOR_VERSION = 10, 0
BYTES_MAX = 64 << 20
ANSWER_SECONDS_MAX = 5


@dataclass
class Batch:
    """A stored batch's header."""

    base_offset: int
    codec: str
    producer_id: int
    count: int


def batches(bootstrap: str, topic: str, partition: int) -> list[Batch]:
    """The headers of the first batches of a partition, from whichever node leads it."""
    errors = []
    for address in bootstrap.split(","):
        error, records = fetch(address, topic, partition)
        if error == 0:
            return list(read(records))
        errors.append(f"{address}: error {error}")
    raise ValueError(", ".join(errors))


def fetch(address: str, topic: str, partition: int) -> tuple[int, bytes]:
    """Asks one node: the error code, and what it has from offset 0 on."""
    name = topic.encode()
    body = struct.pack(">iiiibii", -1, 1000, 1, BYTES_MAX, 0, 0, -1)  # no replica; 1 s; 1 byte; no session
    body += struct.pack(">ih", 1, len(name)) + name + struct.pack(">iiiqqi", 1, partition, -1, 0, -1, BYTES_MAX)
    answer = ask(address, FETCH, FETCH_VERSION, body + struct.pack(">i", 0))
    at = struct.calcsize(">ihiih") + len(name) + 4  # throttle time, error, session, one topic, its name, one partition
    _index, error, _high, _stable, _start, aborted = struct.unpack_from(">ihqqqi", answer, at)
    at += struct.calcsize(">ihqqqi") + max(aborted, 0) * 16
    (size,) = struct.unpack_from(">i", answer, at)
    return error, answer[at + 4 : at + 4 + size]


def nodes_alive(address: str) -> int:
    """How many nodes this one names in its Metadata."""
    return struct.unpack_from(">i", ask(address, METADATA, METADATA_VERSION, struct.pack(">i", 0)))[0]


def coordinator(bootstrap: str, group: str) -> int:
    """The node that coordinates a consumer group, as the first that answers knows it."""
    name = group.encode()
    answers = []
    for address in bootstrap.split(","):
        try:
            body = struct.pack(">h", len(name)) + name
            answer = ask(address, FIND_COORDINATOR, FIND_COORDINATOR_VERSION, body)
        except OSError as error:
            answers.append(str(error))
            continue
        code, node = struct.unpack_from(">hi", answer)
        if code == 0:
            return node
        answers.append(f"{address}: error {code}")
    raise ValueError(", ".join(answers))


def ask(address: str, key: int, version: int, body: bytes) -> bytes:
    """What a node answers to one request, behind the correlation id."""
    host, port = address.split(":")
    request = struct.pack(">hhih", key, version, 1, -1) + body  # correlation id 1, no client id
    with socket.create_connection((host, int(port)), ANSWER_SECONDS_MAX) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as stream:
            length = stream.read(4)
            if len(length) < 4:
                raise ConnectionError(f"{address} closes the connection")
            return stream.read(*struct.unpack(">i", length))[4:]


def read(records: bytes):
    """Batch headers (KIP-98) one after the other; the last batch may be cut short."""
    while len(records) >= 61:
        offset, length, _epoch, magic, _crc, attributes = struct.unpack_from(">qiibIh", records)
        if magic != 2:
            raise ValueError(f"a batch of magic {magic}")
        _delta, _base, _max, producer, _producer_epoch, _sequence, count = struct.unpack_from(">iqqqhii", records, 23)
        yield Batch(offset, CODECS[attributes & 7], producer, count)
        records = records[12 + length :]
