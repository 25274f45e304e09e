//! Writing and reading records: produce, fetch, offsets and epochs.
//!
//! Batches are opaque bytes here. The room `record` knows what is inside.

use super::{ConnectionId, PartitionIndex, Reservation, Result, TopicName};
use crate::types::{LeaderEpoch, LogId, Offset};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// One partition's batch, on its way in.
#[derive(Clone, Debug)]
pub struct Produce {
    /// The connection it came on.
    pub connection: ConnectionId,
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The record batch exactly as the producer sent it: a slice of its frame. Not yet validated.
    pub records: Bytes,
    /// How long the producer waits before it counts the outcome as unknown.
    pub timeout: Duration,
}

/// A committed batch's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// The offset of its first record; of the first copy, if it was a duplicate.
    pub base_offset: Offset,
    /// The log's first offset now.
    pub log_start: Offset,
    /// The time the log gave it, in milliseconds since 1970, if the topic stamps batches itself (LogAppendTime).
    pub append_time_ms: Option<i64>,
    /// The entry of the partition's Raft log that decided it; a duplicate's is the one of this try.
    pub position: LogId,
    /// Whether an earlier try had written it already.
    pub duplicate: bool,
}

/// What becomes of an admitted batch.
pub type ProduceOutcome = Pin<Box<dyn Future<Output = Result<Produced>> + Send>>;

/// A producer's identity, for idempotence (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// Never given twice.
    pub id: i64,
    /// Counts the incarnations of one id.
    pub epoch: i16,
}

/// Whether readers see records of unfinished transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Everything below the high watermark.
    ReadUncommitted,
    /// Everything below the last stable offset.
    ReadCommitted,
}

/// A read of several partitions.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// How long to wait for `min_bytes`.
    pub max_wait: Duration,
    /// How many bytes of records are worth an answer before `max_wait` is over.
    pub min_bytes: usize,
    /// How many bytes of records the whole answer may hold, but for the first batch: see [`FetchAllowance`].
    pub max_bytes: usize,
    /// What unfinished transactions mean to the reader.
    pub isolation: Isolation,
    /// Where to read. In the order in which `max_bytes` is spent.
    pub partitions: Vec<FetchPartition>,
}

/// A read of one partition.
#[derive(Clone, Debug)]
pub struct FetchPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset wanted. The answer begins with the batch that holds it.
    pub offset: Offset,
    /// The leader epoch the reader believes in; unchecked without one.
    pub current_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record the reader has, to detect divergence (KIP-595).
    pub last_epoch: Option<LeaderEpoch>,
    /// How many bytes this partition may add.
    pub max_bytes: usize,
}

/// What a fetch found, one result per partition asked for.
#[derive(Debug, Default)]
pub struct FetchAnswer {
    /// In the order of the request.
    pub partitions: Vec<Result<FetchedPartition>>,
    /// The share of the node's memory that these batches occupy; given back when the answer has been sent.
    pub held: Option<Reservation>,
}

/// Committed batches of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPartition {
    /// The first offset not yet committed.
    pub high_watermark: Offset,
    /// The first offset no transaction holds back. The high watermark until transactions exist.
    pub last_stable: Offset,
    /// The first offset still in the log.
    pub log_start: Offset,
    /// Where the reader's log left the leader's, if `last_epoch` shows that it did; then there are no batches.
    pub diverging: Option<EndOfEpoch>,
    /// Whole batches, ascending.
    pub batches: Vec<FetchedBatch>,
}

/// One stored batch. What it is at (offset, epoch) lies beside it, because the bytes are the producer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedBatch {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The epoch under which it was written.
    pub leader_epoch: LeaderEpoch,
    /// The batch as it was produced; its own base offset and leader epoch fields mean nothing.
    pub bytes: Bytes,
}

/// Spends a fetch's byte limits (KIP-74): batches are taken whole while they fit the answer's and the partition's
/// limit, and the very first one even if it does not, so that a reader with small limits still moves on.
#[derive(Clone, Debug)]
pub struct FetchAllowance {
    /// Bytes the answer may still take.
    remaining: usize,
    /// Whether nothing has been taken yet.
    first: bool,
}

impl FetchAllowance {
    /// An answer of up to `max_bytes`.
    #[must_use]
    pub const fn new(max_bytes: usize) -> Self {
        Self { remaining: max_bytes, first: true }
    }

    /// Whether the next batch of `batch_bytes` goes into the answer; `partition_remaining` is what its partition may
    /// still add. Both are spent if so.
    pub fn take(&mut self, batch_bytes: usize, partition_remaining: &mut usize) -> bool {
        let fits = batch_bytes <= self.remaining && batch_bytes <= *partition_remaining;
        if !fits && !self.first {
            return false;
        }
        self.first = false;
        self.remaining = self.remaining.saturating_sub(batch_bytes);
        *partition_remaining = partition_remaining.saturating_sub(batch_bytes);
        true
    }
}

/// Which offset is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The end: the high watermark, or the last stable offset for [`Isolation::ReadCommitted`].
    Latest,
    /// The start.
    Earliest,
    /// The first record at or after a time, in milliseconds since 1970.
    AtTime(i64),
    /// The record with the highest timestamp (KIP-734).
    HighestTimestamp,
}

/// A search in one partition.
#[derive(Clone, Debug)]
pub struct OffsetTarget {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The leader epoch the reader believes in; unchecked without one.
    pub current_epoch: Option<LeaderEpoch>,
    /// What unfinished transactions mean to the reader.
    pub isolation: Isolation,
    /// What is searched.
    pub query: OffsetQuery,
}

/// An offset that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAt {
    /// The offset.
    pub offset: Offset,
    /// The record's time in milliseconds since 1970; none for a log's ends.
    pub timestamp_ms: Option<i64>,
    /// The epoch of the record there, or of the leader at the end.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// Records to be removed from the front of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRecords {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset that stays; without one, all that is committed goes.
    pub before: Option<Offset>,
}

/// "Where does this epoch end in your log?"
#[derive(Clone, Debug)]
pub struct EpochQuery {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The leader epoch the reader believes in; unchecked without one.
    pub current_epoch: Option<LeaderEpoch>,
    /// The epoch asked about.
    pub epoch: LeaderEpoch,
}

/// The end of an epoch in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfEpoch {
    /// The largest epoch in the log that is not above the one asked for.
    pub epoch: LeaderEpoch,
    /// The first offset after it.
    pub end: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_batch_is_taken_whatever_its_size_and_no_other() {
        let mut allowance = FetchAllowance::new(10);
        let mut partition = 10;
        assert!(allowance.take(100, &mut partition), "the first batch always goes out");
        assert!(!allowance.take(1, &mut partition), "it has spent everything");
        assert!(!allowance.take(1, &mut 50), "for other partitions too");
    }

    #[test]
    fn both_limits_hold() {
        let mut allowance = FetchAllowance::new(100);
        let (mut left, mut right) = (30, 1000);
        assert!(allowance.take(20, &mut left));
        assert!(!allowance.take(20, &mut left), "the partition's limit");
        assert!(allowance.take(80, &mut right));
        assert!(!allowance.take(1, &mut right), "the answer's limit");
    }
}
