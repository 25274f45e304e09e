"""A member of a consumer group: kafka-python, 2 and 3."""

import logging

import kafka
from events import BATCH_RECORDS, POLL_SECONDS, Job, say
from kafka import KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import OffsetAndMetadata


class Member:
    """The consumer and its job."""

    def __init__(self, job: Job):
        self.job = job
        self.to_show: list[TopicPartition] = []
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
        self.consumer.subscribe([job.topic], listener=LISTENER(self))

    def assigned(self, places) -> None:
        say("assigned", partitions=[place.partition for place in places])
        self.to_show = list(places) if self.job.show else []

    def revoked(self, partitions: list[int]) -> None:
        self.job.forget(partitions)
        say("revoked", partitions=partitions)

    def lost(self, places) -> None:
        self.job.forget([place.partition for place in places])
        say("lost", partitions=[place.partition for place in places])

    def show(self) -> None:
        """Not in the listener: there kafka-python 3 takes no call that waits."""
        for place in self.to_show:
            stored = self.consumer.committed(place, metadata=True)
            found = [stored.offset, stored.metadata, stored.leader_epoch] if stored else [-1, "", -1]
            say("found", partition=place.partition, found=found)
        self.to_show = []

    def places(self, positions: dict) -> dict:
        what = lambda offset, epoch: OffsetAndMetadata(offset, self.job.metadata, epoch)  # noqa: E731
        return {TopicPartition(self.job.topic, partition): what(*item) for partition, item in positions.items()}

    def store(self, positions: dict) -> None:
        self.consumer.commit(self.places(positions))

    def run(self) -> None:
        while not self.job.ending:
            read = self.consumer.poll(timeout_ms=int(POLL_SECONDS * 1000), max_records=BATCH_RECORDS)
            self.show()
            for record in (record for records in read.values() for record in records):
                epoch = getattr(record, "leader_epoch", -1)
                self.job.processed(record.partition, record.offset, record.value, epoch)
            if self.job.commit_is_due():
                self.job.commit(None, self.store)
        self.job.commit(None, self.store)
        self.consumer.close(autocommit=False)
        say("ended")


class Listener(kafka.ConsumerRebalanceListener):
    """kafka-python 2 calls it where the program polls: it may commit."""

    def __init__(self, member: Member):
        self.member = member

    def on_partitions_assigned(self, assigned) -> None:
        self.member.assigned(assigned)

    def on_partitions_revoked(self, revoked) -> None:
        partitions = [place.partition for place in revoked]
        self.member.job.commit(partitions, self.member.store)
        self.member.revoked(partitions)


class AsyncListener(getattr(kafka, "AsyncConsumerRebalanceListener", object)):
    """kafka-python 3 calls it in a thread of its own, which must not wait: the commit is awaited."""

    def __init__(self, member: Member):
        self.member = member

    async def on_partitions_assigned(self, assigned) -> None:
        self.member.assigned(assigned)

    async def on_partitions_revoked(self, revoked) -> None:
        partitions, job = [place.partition for place in revoked], self.member.job
        open_now = {key: value for key, value in job.positions.items() if key in partitions}
        failure = None
        try:
            if open_now:
                await self.member.consumer.commit_async(self.member.places(open_now))
        except Exception as error:  # whatever the client says
            failure = error

        def outcome(_positions: dict) -> None:
            if failure:
                raise failure

        job.commit(list(open_now), outcome)
        self.member.revoked(partitions)

    async def on_partitions_lost(self, lost) -> None:
        self.member.lost(lost)


LISTENER = AsyncListener if hasattr(kafka, "AsyncConsumerRebalanceListener") else Listener
logging.basicConfig(level=logging.WARNING)  # to the standard error output, which is kept
Member(Job()).run()
