"""A member of a consumer group: aiokafka."""

import asyncio
import logging
import signal

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.structs import OffsetAndMetadata
from events import BATCH_RECORDS, POLL_SECONDS, Job, say


class Member(ConsumerRebalanceListener):
    """The consumer and its job."""

    def __init__(self, job: Job):
        self.job = job
        settings = {"group_instance_id": job.instance} if job.instance else {}
        if job.style == "range":
            settings["partition_assignment_strategy"] = [RangePartitionAssignor]
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=job.bootstrap.split(","),
            group_id=job.group,
            session_timeout_ms=job.session_ms,
            heartbeat_interval_ms=job.heartbeat_ms,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **settings,
        )

    async def on_partitions_assigned(self, assigned) -> None:
        say("assigned", partitions=[place.partition for place in assigned])

    async def on_partitions_revoked(self, revoked) -> None:
        partitions = [place.partition for place in revoked]
        await self.commit(partitions)
        self.job.forget(partitions)
        if partitions:
            say("revoked", partitions=partitions)

    async def commit(self, partitions: list[int] | None) -> None:
        """Like Job.commit, around a call that has to be awaited."""
        taken = {key: value for key, value in self.job.positions.items() if partitions is None or key in partitions}
        what = lambda offset: OffsetAndMetadata(offset, self.job.metadata)  # noqa: E731
        places = {TopicPartition(self.job.topic, key): what(offset) for key, (offset, _) in taken.items()}
        failure = None
        try:
            if places:
                await self.consumer.commit(places)
        except Exception as error:  # whatever the client says
            failure = error

        def outcome(_positions: dict) -> None:
            if failure:
                raise failure

        self.job.commit(list(taken), outcome)

    async def show(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.job.bootstrap.split(","))
        await admin.start()
        for place, stored in (await admin.list_consumer_group_offsets(self.job.group)).items():
            say("found", partition=place.partition, found=[stored.offset, stored.metadata, -1])
        await admin.close()

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.job.end)
        if self.job.show:
            await self.show()
        await self.consumer.start()
        self.consumer.subscribe([self.job.topic], listener=self)
        while not self.job.ending:
            read = await self.consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=BATCH_RECORDS)
            for record in (record for records in read.values() for record in records):
                self.job.processed(record.partition, record.offset, record.value)
            if self.job.commit_is_due():
                await self.commit(None)
        await self.commit(None)
        await self.consumer.stop()
        say("ended")


async def main() -> None:
    await Member(Job()).run()


logging.basicConfig(level=logging.WARNING)  # to the standard error output, which is kept
asyncio.run(main())
