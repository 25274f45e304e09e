//! Reads of a partition: whole batches by offset, offsets by time, ends of epochs.
//!
//! Readers hold a `PartitionView` and the engine, never the state machine. What the view covers never changes below its
//! high watermark, except that it may be removed: when the log start moves past it, or when a snapshot replaces the
//! whole generation. A read that finds a hole therefore looks at the newest view before it cries damage.

use super::epochs::Epochs;
use super::rows;
use super::times::{Run, RunRow};
use crate::record::codec::DECOMPRESSED_BYTES_MAX;
use crate::record::{BatchError, RecordBatch};
use crate::storage::{Engine, EngineError, Family, WriteBatch};
use crate::types::{LeaderEpoch, Offset, RaftGroupId};
use bytes::Bytes;
use std::ops::ControlFlow;

/// What readers know of a partition. Cloning it copies no table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// The Raft group.
    pub group: RaftGroupId,
    /// Under which generation the rows lie.
    pub generation: u64,
    /// The first offset there is.
    pub log_start: Offset,
    /// The first offset that is not yet committed and applied.
    pub high_watermark: Offset,
    /// Which leader wrote which offsets.
    pub epochs: Epochs,
    /// The newest run of batches, which the time index has no row of yet.
    pub(super) run: Run,
}

/// A batch with what a consumer needs to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedBatch {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The leader that wrote it.
    pub leader_epoch: LeaderEpoch,
    /// The batch, checked against its checksum.
    pub batch: RecordBatch,
}

impl FetchedBatch {
    /// The offset after its last record.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.base_offset.0 + i64::from(self.batch.last_offset_delta()) + 1)
    }
}

/// A record that a search by time found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
    /// The leader that wrote it.
    pub leader_epoch: LeaderEpoch,
}

/// A run that a search came to.
#[derive(Clone, Copy, Debug)]
struct FoundRun {
    /// The base offset of the run's first batch.
    first: Offset,
    /// At least the greatest timestamp of the run.
    max_timestamp: i64,
}

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Below the log start or above the high watermark of this view.
    #[error("offset {offset} is not in {log_start} ..= {high_watermark}")]
    OutOfRange { offset: Offset, log_start: Offset, high_watermark: Offset },
    /// No batch holds an offset that the view covers. With a view that is still the newest: damage.
    #[error("no batch holds offset {0}")]
    Missing(Offset),
    /// A batch is not what its producer sent.
    #[error("the batch at offset {offset}: {error}")]
    Damaged { offset: Offset, error: BatchError },
    /// The database failed, or an index row can't be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl ReadError {
    /// Whether the newest state can't be read where it should be.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::OutOfRange { .. } => false,
            Self::Missing(_) | Self::Damaged { .. } => true,
            Self::Engine(error) => error.damage,
        }
    }
}

impl PartitionView {
    /// Whether the partition remembers the producer, and so judges its sequences. May be a little older than the view.
    pub fn knows_producer(&self, engine: &dyn Engine, producer: i64) -> Result<bool, EngineError> {
        if producer < 0 {
            return Ok(false);
        }
        Ok(engine.get(Family::Producers, &rows::key(self.group, self.generation, producer))?.is_some())
    }

    /// Whole batches from the one that holds `offset` on, in order, of at most `bytes_max` together; the first one
    /// regardless of its size if `at_least_one`. Empty at the high watermark.
    pub fn fetch(
        &self,
        engine: &dyn Engine,
        offset: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<Vec<FetchedBatch>, ReadError> {
        let (log_start, high_watermark) = (self.log_start, self.high_watermark);
        if offset < log_start || offset > high_watermark {
            return Err(ReadError::OutOfRange { offset, log_start, high_watermark });
        }
        if offset == high_watermark {
            return Ok(Vec::new());
        }
        let (mut batches, mut size) = (Vec::new(), 0);
        let mut fits = |bytes: usize| {
            let is_first = size == 0;
            size += bytes;
            size <= bytes_max || (is_first && at_least_one)
        };
        self.scan_batches(engine, offset, high_watermark, &mut fits, &mut |batch| {
            batches.push(batch);
            ControlFlow::Continue(())
        })?;
        Ok(batches)
    }

    /// The first record, by offset, whose timestamp is at least `timestamp`, as Kafka's ListOffsets has it.
    pub fn offset_for_timestamp(&self, engine: &dyn Engine, timestamp: i64) -> Result<Option<TimedOffset>, ReadError> {
        let mut from = self.first_run(engine)?;
        while let Some((run, end)) = self.next_run(engine, from, |max| max >= timestamp)? {
            let found = self.first_record_in(engine, run.first, end, |found| found >= timestamp)?;
            if found.is_some() {
                return Ok(found);
            }
            from = end;
        }
        Ok(None)
    }

    /// The first record that has the greatest timestamp of all (ListOffsets −3, KIP-734).
    pub fn offset_of_max_timestamp(&self, engine: &dyn Engine) -> Result<Option<TimedOffset>, ReadError> {
        let mut greatest: Option<i64> = None;
        let mut from = self.first_run(engine)?;
        while let Some((run, end)) = self.next_run(engine, from, |max| greatest.is_none_or(|found| max > found))? {
            // The greatest timestamp of the run around the log start may be below it.
            let is_cut = run.first < self.log_start;
            let here = if is_cut { self.max_timestamp_in(engine, run.first, end)? } else { Some(run.max_timestamp) };
            greatest = greatest.max(here);
            from = end;
        }
        greatest.map_or(Ok(None), |greatest| self.offset_for_timestamp(engine, greatest))
    }

    /// Where a leader epoch ends (OffsetForLeaderEpoch): with the newest epoch not above it. Nothing if it is unknown.
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_of(epoch, self.high_watermark)
    }

    /// Visits the batches from the one that holds `from` to the one that ends at `to`, until one doesn't fit; a hole is
    /// an error. Asked by size first: a batch that is not wanted is neither copied nor checked.
    fn scan_batches(
        &self,
        engine: &dyn Engine,
        from: Offset,
        to: Offset,
        fits: &mut dyn FnMut(usize) -> bool,
        visit: &mut dyn FnMut(FetchedBatch) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let (mut expected, mut flaw) = (from, None);
        engine.scan(Family::Records, &self.key(from), &self.key(to), &mut |key, value| {
            if !fits(value.len()) {
                expected = to;
                return ControlFlow::Break(());
            }
            match self.fetched(key, Bytes::copy_from_slice(value)) {
                // Only the first may begin earlier than expected: it holds the offset asked for.
                Ok(batch) if batch.base_offset == expected || (expected == from && batch.base_offset < from) => {
                    expected = batch.next_offset();
                    let flow = visit(batch);
                    if flow.is_break() {
                        expected = to;
                    }
                    flow
                }
                Ok(_) => ControlFlow::Break(()),
                Err(error) => {
                    flaw = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        match flaw {
            Some(error) => Err(error),
            None if expected < to => Err(ReadError::Missing(expected)),
            None => Ok(()),
        }
    }

    fn fetched(&self, key: &[u8], value: Bytes) -> Result<FetchedBatch, ReadError> {
        let last =
            rows::number(key).ok_or_else(|| EngineError::damaged(format!("the key {key:02x?} is not a record's")))?;
        let damaged = |error| ReadError::Damaged { offset: Offset(last), error };
        let batch = RecordBatch::parse_verified(value).map_err(damaged)?;
        let base_offset = Offset(last - i64::from(batch.last_offset_delta()));
        if base_offset.0 < 0 || base_offset.0 > last {
            return Err(damaged(BatchError::Length));
        }
        Ok(FetchedBatch { base_offset, leader_epoch: self.epochs.of(base_offset), batch })
    }

    pub(super) fn key(&self, offset: Offset) -> Vec<u8> {
        rows::key(self.group, self.generation, offset.0)
    }

    /// Writes the row of a full run.
    pub(super) fn put_run(&self, run: &Run, batch: &mut WriteBatch) {
        batch.put(Family::Times, self.key(run.first), run.row().encode());
    }

    /// Where the rows of the time index end for this view: later ones may exist by now.
    pub(super) fn rows_end(&self) -> Offset {
        if self.run.is_begun() { self.run.first } else { self.high_watermark }
    }

    /// The first offset of the run that holds the log start.
    pub(super) fn first_run(&self, engine: &dyn Engine) -> Result<Offset, EngineError> {
        if self.rows_end() <= self.log_start {
            return Ok(self.rows_end());
        }
        let row = engine.last_at_or_before(Family::Times, &self.key(Offset(0)), &self.key(self.log_start))?;
        Ok(row.and_then(|(key, _)| rows::number(&key)).map_or(self.log_start, Offset))
    }

    /// The first run from `from` on whose greatest timestamp `wanted` takes, and where the next one begins.
    fn next_run(
        &self,
        engine: &dyn Engine,
        from: Offset,
        wanted: impl Fn(i64) -> bool,
    ) -> Result<Option<(FoundRun, Offset)>, ReadError> {
        let rows_end = self.rows_end();
        let (mut run, mut end, mut flaw) = (None, rows_end, None);
        engine.scan(Family::Times, &self.key(from), &self.key(rows_end), &mut |key, value| {
            match (rows::number(key), RunRow::decode(value)) {
                (Some(first), _) if run.is_some() => {
                    end = Offset(first);
                    return ControlFlow::Break(());
                }
                (Some(first), Ok(RunRow { max_timestamp, .. })) => {
                    run = wanted(max_timestamp).then_some(FoundRun { first: Offset(first), max_timestamp });
                }
                (_, row) => {
                    flaw = Some(EngineError::damaged(format!("a row of the time index can't be read: {row:?}")));
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        if let Some(flaw) = flaw {
            return Err(flaw.into());
        }
        let Run { first, max_timestamp, .. } = self.run;
        if run.is_none() && self.run.is_begun() && from <= first && wanted(max_timestamp) {
            (run, end) = (Some(FoundRun { first, max_timestamp }), self.high_watermark);
        }
        Ok(run.map(|run| (run, end)))
    }

    /// The first record whose timestamp `wanted` takes, in the batches of a run.
    fn first_record_in(
        &self,
        engine: &dyn Engine,
        from: Offset,
        to: Offset,
        wanted: impl Fn(i64) -> bool,
    ) -> Result<Option<TimedOffset>, ReadError> {
        let (mut found, mut flaw) = (None, None);
        self.scan_run(engine, from, to, &mut |batch| {
            if !wanted(batch.batch.max_timestamp()) {
                return ControlFlow::Continue(());
            }
            match self.first_record_of(&batch, &wanted) {
                Ok(None) => return ControlFlow::Continue(()),
                Ok(record) => found = record,
                Err(error) => flaw = Some(ReadError::Damaged { offset: batch.base_offset, error }),
            }
            ControlFlow::Break(())
        })?;
        flaw.map_or(Ok(found), Err)
    }

    /// The first record of a batch whose timestamp `wanted` takes, and that the log start has left.
    fn first_record_of(
        &self,
        batch: &FetchedBatch,
        wanted: impl Fn(i64) -> bool,
    ) -> Result<Option<TimedOffset>, BatchError> {
        for record in batch.batch.records(DECOMPRESSED_BYTES_MAX)?.iter() {
            let record = record?;
            let offset = Offset(batch.base_offset.0 + i64::from(record.offset_delta));
            if offset >= self.log_start && wanted(record.timestamp) {
                let (timestamp, leader_epoch) = (record.timestamp, batch.leader_epoch);
                return Ok(Some(TimedOffset { offset, timestamp, leader_epoch }));
            }
        }
        Ok(None)
    }

    /// The greatest timestamp of the records that a run still holds.
    fn max_timestamp_in(&self, engine: &dyn Engine, from: Offset, to: Offset) -> Result<Option<i64>, ReadError> {
        let mut greatest = None;
        self.scan_run(engine, from, to, &mut |batch| {
            if batch.base_offset >= self.log_start {
                greatest = greatest.max(Some(batch.batch.max_timestamp()));
            } else if let Ok(records) = batch.batch.records(DECOMPRESSED_BYTES_MAX) {
                let left = (self.log_start.0 - batch.base_offset.0) as usize;
                let kept = records.iter().skip(left).filter_map(|record| Some(record.ok()?.timestamp));
                greatest = greatest.max(kept.max());
            }
            ControlFlow::Continue(())
        })?;
        Ok(greatest)
    }

    /// Visits the batches of a run that this view covers.
    fn scan_run(
        &self,
        engine: &dyn Engine,
        from: Offset,
        to: Offset,
        visit: &mut dyn FnMut(FetchedBatch) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let (from, to) = (from.max(self.log_start), to.min(self.high_watermark));
        if from < to { self.scan_batches(engine, from, to, &mut |_| true, visit) } else { Ok(()) }
    }
}
