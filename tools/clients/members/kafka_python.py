"""A member of a consumer group: kafka-python, 2 and 3."""

import logging

from events import BATCH_RECORDS, POLL_SECONDS, Job, say
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import OffsetAndMetadata


class Member(ConsumerRebalanceListener):
    """The consumer and its job."""

    def __init__(self, job: Job):
        self.job = job
        settings = {"group_instance_id": job.instance} if job.instance else {}
        if job.style == "range":
            settings["partition_assignment_strategy"] = [RangePartitionAssignor]
        if job.style == "cooperative":
            from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor  # only 3 has it

            settings["partition_assignment_strategy"] = [CooperativeStickyAssignor]
        self.consumer = KafkaConsumer(
            bootstrap_servers=job.bootstrap.split(","),
            group_id=job.group,
            session_timeout_ms=job.session_ms,
            heartbeat_interval_ms=job.heartbeat_ms,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **settings,
        )
        self.consumer.subscribe([job.topic], listener=self)

    def on_partitions_assigned(self, assigned) -> None:
        say("assigned", partitions=[place.partition for place in assigned])
        if self.job.show:
            for place in assigned:
                stored = self.consumer.committed(place, metadata=True)
                found = [stored.offset, stored.metadata, stored.leader_epoch] if stored else [-1, "", -1]
                say("found", partition=place.partition, found=found)

    def on_partitions_revoked(self, revoked) -> None:
        partitions = [place.partition for place in revoked]
        self.job.commit(partitions, self.store)
        self.job.forget(partitions)
        say("revoked", partitions=partitions)

    def on_partitions_lost(self, lost) -> None:
        self.job.forget([place.partition for place in lost])
        say("lost", partitions=[place.partition for place in lost])

    def store(self, positions: dict) -> None:
        what = lambda offset, epoch: OffsetAndMetadata(offset, self.job.metadata, epoch)  # noqa: E731
        places = {TopicPartition(self.job.topic, partition): what(*item) for partition, item in positions.items()}
        self.consumer.commit(places)

    def run(self) -> None:
        while not self.job.ending:
            read = self.consumer.poll(timeout_ms=int(POLL_SECONDS * 1000), max_records=BATCH_RECORDS)
            for record in (record for records in read.values() for record in records):
                epoch = getattr(record, "leader_epoch", -1)
                self.job.processed(record.partition, record.offset, record.value, epoch)
            if self.job.commit_is_due():
                self.job.commit(None, self.store)
        self.job.commit(None, self.store)
        self.consumer.close(autocommit=False)
        say("ended")


logging.basicConfig(level=logging.WARNING)  # to the standard error output, which is kept
Member(Job()).run()
