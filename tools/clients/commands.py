"""Clients that are command line tools: kcat, and the console tools of Apache Kafka itself."""

import json
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from . import venv
from .cluster import ClusterError
from .outcome import NotOffered

COMMAND_SECONDS_MAX = 60
KAFKA_VERSION = "4.1.1"
SLF4J_VERSION = "1.7.36"


def run(command: list, feed=None) -> bytes:
    """Runs a command to its end. `feed` writes its input."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if feed is not None:
        threading.Thread(target=feed, args=[process.stdin], daemon=True).start()
    try:
        output, complaints = collect(process)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise RuntimeError(f"{command[0]} does not end") from None
    if process.returncode != 0:
        lines = complaints.decode(errors="replace").strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"exit code {process.returncode}")
    return output


def collect(process: subprocess.Popen) -> tuple[bytes, bytes]:
    """Output and complaints. Not `communicate`, which would write the input itself."""
    complaints: list[bytes] = []
    errors = threading.Thread(target=lambda: complaints.append(process.stderr.read()), daemon=True)
    errors.start()
    timer = threading.Timer(COMMAND_SECONDS_MAX, process.kill)
    timer.start()
    output = process.stdout.read()
    process.wait(COMMAND_SECONDS_MAX)
    timer.cancel()
    errors.join()
    return output, complaints[0]


def lines(records, pace: float, line):
    """Writes a line for each record, so far apart."""

    def feed(stream):
        try:
            for key, value, headers in records:
                stream.write(line(key, value, headers) + b"\n")
                if pace:
                    stream.flush()
                    time.sleep(pace)
            stream.close()
        except BrokenPipeError:
            pass  # the tool has ended, and its exit code says why

    return feed


class Kcat:
    """kcat: its input is lines, or a file that is one record."""

    def __init__(self, bootstrap: str):
        self.bootstrap = bootstrap

    def create_topic(self, topic, partitions, configs):
        raise NotOffered("kcat creates no topics")

    def alter_configs(self, kind, name, settings, deleted):
        raise NotOffered("kcat changes no settings")

    def delete_records(self, topic, partition, before):
        raise NotOffered("kcat deletes no records")

    def produce(self, topic, records, options):
        command = ["kcat", "-P", "-b", self.bootstrap, "-t", topic, "-X", "log_level=0"]
        if codec := options.get("codec"):
            command += ["-z", codec]
        if options.get("idempotence"):
            command += ["-X", "enable.idempotence=true"]
        if limit := options.get("bytes_max"):
            command += ["-X", f"message.max.bytes={limit}"]
        if (partition := options.get("partition")) is not None:
            command += ["-p", str(partition)]
        for name, value in records[0][2]:
            command += ["-H", f"{name}={value}"]
        if len(records) > 1:
            keyed = records[0][0] is not None
            line = lambda key, value, _headers: f"{key}\t{value}".encode() if keyed else value.encode()  # noqa: E731
            run([*command, *(["-K\t"] if keyed else [])], lines(records, options.get("pace", 0), line))
            return
        key, value, _headers = records[0]
        with tempfile.NamedTemporaryFile() as file:
            file.write(value.encode())
            file.flush()
            run([*command, *([] if key is None else ["-k", key]), file.name], lambda stream: stream.close())

    def consume(self, topic, partition, start, count):
        place = f"s@{start['time']}" if "time" in start else str(start.get("offset", "beginning"))
        command = ["kcat", "-C", "-b", self.bootstrap, "-t", topic, "-p", str(partition), "-o", place, "-c", str(count)]
        form = "%o %T %K %S %h\n%k%s\n"
        output = run([*command, "-e", "-q", "-f", form, "-X", "fetch.message.max.bytes=16777216"])
        read = []
        while output:
            head, output = output.split(b"\n", 1)
            offset, stamp, key_length, length, headers = head.split(b" ", 4)
            key, value = max(int(key_length), 0), int(length)
            pairs = [pair.decode().split("=", 1) for pair in headers.split(b",") if pair]
            text = output[: key + value].decode()
            read.append([int(offset), int(stamp), None if int(key_length) < 0 else text[:key], text[key:], pairs])
            output = output[key + value + 1 :]
        return read

    def list_offsets(self, topic, partition):
        ask = lambda when: run(["kcat", "-Q", "-b", self.bootstrap, "-t", f"{topic}:{partition}:{when}"])  # noqa: E731
        return [int(ask(when).split()[-1]) for when in (-2, -1)]

    def close(self) -> None:
        pass


class KafkaTools:
    """The console tools of Apache Kafka, over its Java client. Every call starts a Java machine."""

    def __init__(self, bootstrap: str):
        self.bootstrap = bootstrap
        self.libraries = java_libraries()

    def tool(self, name: str, *arguments: str, feed=None, package="org.apache.kafka.tools") -> bytes:
        java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", f"{self.libraries}/*"]
        feed = feed or (lambda stream: stream.close())
        return run([*java, f"{package}.{name}", "--bootstrap-server", self.bootstrap, *arguments], feed)

    def configs(self, kind, name, *arguments: str) -> bytes:
        entity = ["--entity-type", f"{kind}s", "--entity-name", name]
        return self.tool("ConfigCommand", *entity, *arguments, package="kafka.admin")

    def alter_configs(self, kind, name, settings, deleted):
        pairs = ",".join(f"{setting}={value}" for setting, value in settings.items())
        self.configs(kind, name, "--alter", "--add-config", pairs, *(["--delete-config", *deleted] if deleted else []))

    def describe_configs(self, kind, name):
        shown = {}
        for line in self.configs(kind, name, "--describe", "--all").decode().splitlines():
            setting, separator, rest = line.strip().partition("=")
            if separator and " sensitive=" in rest:
                value, _, where = rest.partition(" sensitive=")
                shown[setting] = [value, "DYNAMIC_TOPIC_CONFIG" in where]
        return shown

    def delete_records(self, topic, partition, before):
        place = {"topic": topic, "partition": partition, "offset": before}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"partitions": [place], "version": 1}, file)
            file.flush()
            output = self.tool("DeleteRecordsCommand", "--offset-json-file", file.name).decode()
        if "low_watermark" not in output:
            raise RuntimeError(output.strip().splitlines()[-1])

    def create_topic(self, topic, partitions, configs):
        settings = [word for name, value in configs.items() for word in ("--config", f"{name}={value}")]
        numbers = ["--partitions", str(partitions), "--replication-factor", "3"]
        self.tool("TopicCommand", "--create", "--topic", topic, *numbers, *settings)

    def produce(self, topic, records, options):
        if options.get("partition") is not None:
            raise NotOffered("kafka-console-producer takes no partition")
        arguments = ["--topic", topic]
        if codec := options.get("codec"):
            arguments += ["--compression-codec", codec]
        if options.get("idempotence"):
            arguments += ["--producer-property", "enable.idempotence=true"]
        if limit := options.get("bytes_max"):
            for name, factor in (("max.request.size", 1), ("buffer.memory", 4), ("batch.size", 0)):
                arguments += ["--producer-property", f"{name}={limit * factor}"]
        keyed, headed = records[0][0] is not None, bool(records[0][2])
        for name, wanted in (("parse.key", keyed), ("parse.headers", headed)):
            arguments += ["--property", f"{name}=true"] if wanted else []

        def line(key, value, headers) -> bytes:
            parts = [",".join(f"{name}:{text}" for name, text in headers)] if headed else []
            return "\t".join([*parts, *([key] if keyed else []), value]).encode()

        self.tool("ConsoleProducer", *arguments, feed=lines(records, options.get("pace", 0), line))

    def consume(self, topic, partition, start, count):
        offset = start.get("offset", "earliest")
        if "time" in start:
            offset = self.offset(topic, partition, start["time"])
        place = ["--topic", topic, "--partition", str(partition), "--offset", str(offset)]
        shown = [f"print.{what}=true" for what in ("offset", "timestamp", "key", "headers")]
        properties = [word for name in shown for word in ("--property", name)]
        limits = ["--max-messages", str(count), "--timeout-ms", "20000"]
        output = self.tool("consumer.ConsoleConsumer", *place, *limits, *properties)
        read = []
        for line in output.decode().splitlines():
            stamp, at, headers, key, value = line.split("\t", 4)
            pairs = [] if headers == "NO_HEADERS" else [pair.split(":", 1) for pair in headers.split(",")]
            number = lambda text: int(text.split(":")[1])  # noqa: E731
            read.append([number(at), number(stamp), None if key == "null" else key, value, pairs])
        return read

    def offset(self, topic, partition, when) -> int:
        output = self.tool("GetOffsetShell", "--topic-partitions", f"{topic}:{partition}", "--time", str(when))
        return int(output.split(b":")[-1])

    def list_offsets(self, topic, partition):
        return [self.offset(topic, partition, when) for when in (-2, -1)]

    def close(self) -> None:
        pass


def java_libraries() -> Path:
    """A folder with Apache Kafka's tools, made where it is missing."""
    folder = venv.CACHE / f"kafka-tools-{KAFKA_VERSION}"
    missing = [command for command in ("java", "mvn") if shutil.which(command) is None]
    if missing:
        raise ClusterError(f"{' and '.join(missing)}: not installed; apt-get install default-jre-headless maven")
    if folder.exists():
        return folder
    artifacts = {"kafka-tools": KAFKA_VERSION, "kafka_2.13": KAFKA_VERSION}
    dependencies = [("org.apache.kafka", name, version) for name, version in artifacts.items()]
    dependencies.append(("org.slf4j", "slf4j-nop", SLF4J_VERSION))
    entry = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
    project = (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>ackord</groupId>'
        "<artifactId>test-clients</artifactId><version>1</version><dependencies>"
        + "".join(entry.format(*dependency) for dependency in dependencies)
        + "</dependencies></project>"
    )
    with tempfile.TemporaryDirectory(dir=venv.CACHE) as directory:
        Path(directory, "pom.xml").write_text(project)
        run(["mvn", "-q", "-B", "-f", directory, "dependency:copy-dependencies", f"-DoutputDirectory={directory}/lib"])
        shutil.move(f"{directory}/lib", folder)
    return folder

