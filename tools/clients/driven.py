"""Clients that are Python libraries, each driven by a process in its own environment.

Requests and answers are JSON, one per line; bytes are Latin-1 text. `python driven.py CLIENT BOOTSTRAP` is the process.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

ANSWER_SECONDS_MAX = 90


class Driven:
    """The calling side: a client with the operations of the process behind it."""

    def __init__(self, interpreter: Path, client: str, bootstrap: str):
        command = [interpreter, __file__, client, bootstrap]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __getattr__(self, operation: str):
        def call(*arguments):
            self.process.stdin.write(json.dumps([operation, *arguments], default=latin).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError("the client's process has ended")
            failure, result = json.loads(line)
            if failure:
                raise RuntimeError(failure)
            return result

        return call

    def close(self) -> None:
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()


def latin(value) -> str:
    return bytes(value).decode("latin-1")


def octets(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")


class Confluent:
    """confluent-kafka, over librdkafka."""

    def __init__(self, bootstrap: str):
        self.settings = {"bootstrap.servers": bootstrap, "log_level": 0}

    def create_topic(self, topic, partitions, configs):
        from confluent_kafka.admin import AdminClient, NewTopic

        new = NewTopic(topic, num_partitions=partitions, replication_factor=3, config=configs)
        admin = AdminClient(self.settings)
        admin.create_topics([new], request_timeout=20)[topic].result(20)

    def alter_configs(self, kind, name, settings, deleted):
        from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

        change = AlterConfigOpType
        entries = [ConfigEntry(key, value, incremental_operation=change.SET) for key, value in settings.items()]
        entries += [ConfigEntry(key, None, incremental_operation=change.DELETE) for key in deleted]
        resource = ConfigResource(ConfigResource.Type[kind.upper()], name, incremental_configs=entries)
        admin = AdminClient(self.settings)  # its requests end with it
        admin.incremental_alter_configs([resource], request_timeout=20)[resource].result(20)

    def describe_configs(self, kind, name):
        from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource

        resource = ConfigResource(ConfigResource.Type[kind.upper()], name)
        admin = AdminClient(self.settings)
        entries = admin.describe_configs([resource], request_timeout=20)[resource].result(20)
        of_topic = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        return {entry.name: [entry.value, entry.source == of_topic] for entry in entries.values()}

    def delete_records(self, topic, partition, before):
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import AdminClient

        place = TopicPartition(topic, partition, before)
        admin = AdminClient(self.settings)
        for future in admin.delete_records([place], request_timeout=20).values():
            future.result(20)

    def produce(self, topic, records, options):
        from confluent_kafka import Producer

        settings = dict(self.settings)
        if codec := options.get("codec"):
            settings |= {"compression.type": codec, "linger.ms": 50}
        if options.get("idempotence"):
            settings["enable.idempotence"] = True
        if limit := options.get("bytes_max"):
            settings["message.max.bytes"] = limit
        producer = Producer(settings)
        errors = []
        for key, value, headers in records:
            place = {} if options.get("partition") is None else {"partition": options["partition"]}
            headers = [(name, octets(text)) for name, text in headers] or None
            delivered = lambda error, _message: errors.append(str(error)) if error else None  # noqa: E731
            producer.produce(topic, octets(value), octets(key), headers=headers, on_delivery=delivered, **place)
            producer.poll(options.get("pace", 0))
        left = producer.flush(60)
        if left or errors:
            raise RuntimeError(f"{left} records without an answer; refused: {errors[:2]}")

    def consume(self, topic, partition, start, count):
        from confluent_kafka import Consumer, TopicPartition

        settings = {"group.id": "unused", "enable.auto.commit": False, "fetch.message.max.bytes": 16 << 20}
        consumer = Consumer({**self.settings, **settings})
        place = TopicPartition(topic, partition, start.get("offset", -2))
        if "time" in start:
            place = consumer.offsets_for_times([TopicPartition(topic, partition, start["time"])], timeout=20)[0]
        consumer.assign([place])
        read = []
        deadline = time.monotonic() + 20
        while len(read) < count and time.monotonic() < deadline:
            for message in consumer.consume(count - len(read), 0.2):
                if message.error():
                    raise RuntimeError(str(message.error()))
                place = [message.offset(), message.timestamp()[1]]
                read.append([*place, message.key(), message.value(), message.headers() or []])
        consumer.close()
        return read

    def list_offsets(self, topic, partition):
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({**self.settings, "group.id": "unused"})
        offsets = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
        consumer.close()
        return offsets


class KafkaPython:
    """kafka-python, 2 and 3."""

    def __init__(self, bootstrap: str):
        self.servers = bootstrap.split(",")

    def create_topic(self, topic, partitions, configs):
        from kafka.admin import KafkaAdminClient, NewTopic

        admin = KafkaAdminClient(bootstrap_servers=self.servers)
        new = NewTopic(topic, num_partitions=partitions, replication_factor=3, topic_configs=configs)
        admin.create_topics([new])
        admin.close()

    def alter_configs(self, kind, name, settings, deleted):
        from kafka import admin as library

        admin = library.KafkaAdminClient(bootstrap_servers=self.servers)
        resource = lambda changes: library.ConfigResource(kind, name, changes)  # noqa: E731
        if hasattr(library, "AlterConfigOp"):  # 3
            changes = settings | {key: (library.AlterConfigOp.DELETE, None) for key in deleted}
            answer = admin.alter_configs([resource(changes)], raise_on_unknown=False)[kind][name]
            failure = None if answer == "OK" else answer
        else:  # 2 can only say what all settings are to be
            kept = {key: value for key, (value, own) in self.describe_configs(kind, name).items() if own}
            wanted = {key: value for key, value in (kept | settings).items() if key not in deleted}
            code, message, *_ = admin.alter_configs([resource(wanted)]).resources[0]
            failure = f"{code}: {message}" if code else None
        admin.close()
        if failure:
            raise RuntimeError(failure)

    def describe_configs(self, kind, name):
        from kafka import admin as library

        of_topic = 1
        admin = library.KafkaAdminClient(bootstrap_servers=self.servers)
        resource = library.ConfigResource(kind, name)
        if hasattr(library, "AlterConfigOp"):  # 3
            entries = admin.describe_configs([resource], config_filter="all")[kind][name].items()
            shown = {key: [entry["value"], entry["config_source"] == "DYNAMIC_TOPIC_CONFIG"] for key, entry in entries}
        else:
            _, _, _, _, entries = admin.describe_configs([resource])[0].resources[0]
            shown = {key: [value, source == of_topic] for key, value, _, source, *_ in entries}
        admin.close()
        return shown

    def delete_records(self, topic, partition, before):
        from kafka import TopicPartition
        from kafka.admin import KafkaAdminClient

        admin = KafkaAdminClient(bootstrap_servers=self.servers)
        admin.delete_records({TopicPartition(topic, partition): before})
        admin.close()

    def produce(self, topic, records, options):
        from kafka import KafkaProducer

        settings = {}
        if codec := options.get("codec"):
            settings |= {"compression_type": codec, "linger_ms": 50}
        if options.get("idempotence"):
            settings["enable_idempotence"] = True
        if limit := options.get("bytes_max"):
            wanted = {"max_request_size": limit, "buffer_memory": 4 * limit}
            settings |= {name: bytes_max for name, bytes_max in wanted.items() if name in KafkaProducer.DEFAULT_CONFIG}
        producer = KafkaProducer(bootstrap_servers=self.servers, **settings)
        sent = []
        for key, value, headers in records:
            headers = [(name, octets(text)) for name, text in headers]
            partition = options.get("partition")
            sent.append(producer.send(topic, octets(value), octets(key), headers=headers, partition=partition))
            time.sleep(options.get("pace", 0))
        producer.flush(60)
        for future in sent:
            future.get(10)
        producer.close()

    def consume(self, topic, partition, start, count):
        from kafka import KafkaConsumer, TopicPartition

        settings = {"max_partition_fetch_bytes": 16 << 20}
        consumer = KafkaConsumer(bootstrap_servers=self.servers, group_id=None, **settings)
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        if "offset" in start:
            consumer.seek(place, start["offset"])
        elif "time" in start:
            consumer.seek(place, consumer.offsets_for_times({place: start["time"]})[place].offset)
        else:
            consumer.seek_to_beginning(place)
        read = []
        deadline = time.monotonic() + 20
        while len(read) < count and time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=200, max_records=count - len(read)).values():
                read += [[r.offset, r.timestamp, r.key, r.value, list(r.headers)] for r in records]
        consumer.close()
        return read

    def list_offsets(self, topic, partition):
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.servers, group_id=None)
        place = TopicPartition(topic, partition)
        offsets = [consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]]
        consumer.close()
        return offsets


def serve() -> None:
    client = {"confluent": Confluent, "kafka-python": KafkaPython}[sys.argv[1]](sys.argv[2])
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        operation, *arguments = json.loads(line)
        try:
            answer = [None, getattr(client, operation)(*arguments)]
        except Exception as error:  # whatever it is belongs into the client's cell
            answer = [f"{type(error).__name__}: {error}", None]
        print(json.dumps(answer, default=latin), file=answers, flush=True)


if __name__ == "__main__":
    serve()
