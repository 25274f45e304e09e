"""A member of a consumer group: confluent-kafka, over librdkafka."""

from confluent_kafka import Consumer, KafkaException, TopicPartition
from events import BATCH_RECORDS, POLL_SECONDS, Job, say

STYLES = {"range": "range", "cooperative": "cooperative-sticky", "default": "range,roundrobin"}


class Member:
    """The consumer and its job."""

    def __init__(self, job: Job):
        self.job = job
        settings = {
            "bootstrap.servers": job.bootstrap,
            "group.id": job.group,
            "session.timeout.ms": job.session_ms,
            "heartbeat.interval.ms": job.heartbeat_ms,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "partition.assignment.strategy": STYLES[job.style],
            "error_cb": lambda error: say("error", text=str(error)),
        }
        if job.instance:
            settings["group.instance.id"] = job.instance
        self.consumer = Consumer(settings)
        callbacks = {"on_assign": self.assigned, "on_revoke": self.revoked, "on_lost": self.lost}
        self.consumer.subscribe([job.topic], **callbacks)

    def assigned(self, consumer, places) -> None:
        say("assigned", partitions=[place.partition for place in places])
        if self.job.show:
            for place in consumer.committed(places, timeout=10):
                found = [place.offset, place.metadata, place.leader_epoch]
                say("found", partition=place.partition, found=found)

    def revoked(self, _consumer, places) -> None:
        partitions = [place.partition for place in places]
        self.job.commit(partitions, self.store)
        self.job.forget(partitions)
        say("revoked", partitions=partitions)

    def lost(self, _consumer, places) -> None:
        self.job.forget([place.partition for place in places])
        say("lost", partitions=[place.partition for place in places])

    def store(self, positions: dict) -> None:
        place = lambda item: TopicPartition(self.job.topic, item[0], item[1][0], self.job.metadata, item[1][1])  # noqa: E731
        for stored in self.consumer.commit(offsets=[place(item) for item in positions.items()], asynchronous=False):
            if stored.error:
                raise KafkaException(stored.error)

    def run(self) -> None:
        while not self.job.ending:
            for message in self.consumer.consume(BATCH_RECORDS, POLL_SECONDS):
                if message.error():
                    say("error", text=str(message.error()))
                    continue
                self.job.processed(message.partition(), message.offset(), message.value(), message.leader_epoch())
            if self.job.commit_is_due():
                self.job.commit(None, self.store)
        self.job.commit(None, self.store)
        self.consumer.close()
        say("ended")


Member(Job()).run()
