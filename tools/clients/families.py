"""The clients whose members are tried in groups: how each is started, and what it offers."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import install, venv
from .commands import KAFKA_VERSION

CONFLUENT = "confluent-kafka==2.16.0"
CODECS = ["python-snappy==0.7.3", "lz4==4.4.5", "zstandard==0.25.0"]
KAFKA_PYTHON_2 = ["kafka-python==2.3.2", *CODECS]
KAFKA_PYTHON_3 = ["kafka-python==3.0.12", *CODECS]
AIOKAFKA = "aiokafka==0.12.0"


@dataclass(frozen=True)
class Family:
    """A client."""

    name: str
    """As the table calls it, with its version."""
    command: list
    """What starts a member; bootstrap, group, topic and options follow."""
    static: bool = True
    """Whether it has static membership."""
    cooperative: bool = False
    """Whether it has cooperative rebalancing."""
    ranges: bool = True
    """Whether it has an assignor that all others have, too."""
    tells: bool = True
    """Whether it tells what it has been assigned, and what it committed."""
    metadata: bool = True
    """Whether a text can be stored with an offset, and read."""
    epoch: bool = True
    """Whether that is so of the leader epoch."""
    drops_at_end: bool = False
    """Whether a record that arrives while it is told to end is stored as read, and shown to nobody."""
    session_seconds: int = 6
    """How long a silent member is waited for; not all clients can be told."""


def confluent_python() -> Path:
    return venv.python("venv-confluent-kafka", [CONFLUENT])


def all_families(binary: Path) -> Iterator[Family]:
    """Every client, made ready."""
    python = lambda program: str(install.MEMBERS / program)  # noqa: E731
    piped = [sys.executable, python("piped.py")]
    install.need("kcat")
    yield Family("kcat 1.7.1", [*piped, "kcat"], cooperative=True, metadata=False, epoch=False, drops_at_end=True)
    yield Family(shown(CONFLUENT), [confluent_python(), python("confluent.py")], cooperative=True)
    two = venv.python("venv-kafka-python-2", KAFKA_PYTHON_2)
    yield Family(shown(KAFKA_PYTHON_2[0]), [two, python("kafka_python.py")], epoch=False)  # it drops it
    three = venv.python("venv-kafka-python-3", KAFKA_PYTHON_3)
    yield Family(shown(KAFKA_PYTHON_3[0]), [three, python("kafka_python.py")], cooperative=True)
    aiokafka = venv.python("venv-aiokafka", [AIOKAFKA])
    yield Family(shown(AIOKAFKA), [aiokafka, python("aio.py")], epoch=False)
    yield Family(f"kafka-clients {KAFKA_VERSION} (Java)", [*install.java(), "Member"], cooperative=True)
    yield Family(f"franz-go {go_version()}", [*install.franz(), "member"], cooperative=True)
    yield Family("kafkajs 2.2.4", install.kafkajs(), static=False, epoch=False)
    yield ackord_consume(binary)


def ackord_consume(binary: Path) -> Family:
    """Ackord's own client, over the native protocol."""
    command = [sys.executable, str(install.MEMBERS / "piped.py"), str(binary)]
    silent = {"tells": False, "metadata": False, "epoch": False}
    return Family("ackord consume", command, static=False, session_seconds=45, **silent)


def shown(requirement: str) -> str:
    return requirement.replace("==", " ")


def go_version() -> str:
    return re.search(r"franz-go v([\d.]+)", (install.MEMBERS / "franz" / "go.mod").read_text())[1]


def producers() -> dict[str, list]:
    """Idempotent producers: bootstrap, topic and options follow."""
    return {
        "confluent-kafka": [confluent_python(), str(install.MEMBERS / "producer.py")],
        "Java": [*install.java(), "Producer"],
        "franz-go": [*install.franz(), "producer"],
    }
