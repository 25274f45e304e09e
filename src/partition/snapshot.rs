//! Snapshots: a replica that lacks log entries which no longer exist gets the state instead.
//!
//! Records below a next offset never change, so a snapshot is not a copy made beforehand: it is a `SnapshotHead` (the
//! small tables as of one entry) and the records below the head's next offset, which the receiver asks for in bounded
//! chunks by offset. The sender keeps nothing in between and may be another replica for every chunk.
//!
//! A receiver whose own records are a prefix of the sender's, which the epochs prove (two logs that agree on the epoch
//! of an offset agree on everything up to it), keeps them and asks for the rest. Any other starts from the log start
//! under a new generation.
//!
//! Installing, and what a crash leaves after each step:
//! 1. `Partition::generation_for`, then the caller's durable log record "installing". A crash: the old state.
//! 2. `Partition::begin_install`, `Install::receive` until `wants` is `None`. Rows are written where nobody reads:
//!    beyond the next offset, or under a generation not yet in use. A crash: the old state; opening removes the rows.
//! 3. `Install::finish`: one batch switches everything. A crash: the old state or the new one.
//! 4. The caller flushes, then writes its log record "installed". A crash before it: `applied` tells that 3 happened.

use super::epochs::{EpochStart, Epochs};
use super::producers::{PRODUCERS_MAX, ProducerState, Producers};
use super::read::{PartitionView, ReadError};
use super::rows::{self, Position, Shape};
use super::times::Run;
use super::trim::{Freed, older_generations};
use super::{GENERATION_FAMILIES, Partition};
use crate::record::RecordBatch;
use crate::storage::{Engine, EngineError, Family, WriteBatch};
use crate::types::{LogId, Membership, Offset, RaftGroupId};
use bytes::Bytes;
use std::ops::ControlFlow;

/// The version under which heads are written.
const HEAD_VERSION: u8 = 1;

/// Everything but the records, as of one entry.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SnapshotHead {
    /// The newest entry whose effects are in it.
    pub at: LogId,
    /// The members as of that entry.
    pub membership: Membership,
    /// The first offset there is.
    pub log_start: Offset,
    /// The offset after the last record.
    pub next_offset: Offset,
    /// Which leader wrote which offsets.
    epochs: Epochs,
    /// The idempotent producers, by id. At most `PRODUCERS_MAX`.
    producers: Vec<(i64, ProducerState)>,
}

/// Some of the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The sender's log start now: it may have moved past what was asked for.
    pub log_start: Offset,
    /// Base offset and bytes of consecutive batches, from the one that holds the greater of the offset asked for and
    /// the log start.
    pub batches: Vec<(Offset, Bytes)>,
}

/// Why a snapshot can't be installed. Nothing that was readable has changed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The head or a chunk contradicts itself or what was asked for. The sender is damaged, or speaks another version.
    #[error("the snapshot is refused: {0}")]
    Refused(String),
    /// The state is already at or past the snapshot's entry.
    #[error("the state is at entry {applied}, the snapshot only at {at}")]
    Stale { applied: LogId, at: LogId },
    /// The database failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl SnapshotHead {
    /// The head as it is sent.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        rows::encode(HEAD_VERSION, self)
    }

    /// Reads what a peer sent.
    pub fn decode(bytes: &[u8]) -> Result<Self, InstallError> {
        let head: Self = rows::decode(HEAD_VERSION, bytes).map_err(InstallError::Refused)?;
        let epochs = head.epochs.rows();
        let within = |row: &EpochStart| row.start.0 >= 0 && row.epoch.0 >= 0 && row.start <= head.next_offset;
        let ids_ascend = head.producers.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let is_sound = |state: &ProducerState| (1..=5).contains(&state.batches.len());
        let sound = 0 <= head.log_start.0
            && head.log_start <= head.next_offset
            && epochs.iter().all(within)
            && head.epochs.is_ordered()
            && (head.next_offset.0 == 0 || epochs.first().is_some_and(|first| first.start <= head.log_start))
            && head.producers.len() <= PRODUCERS_MAX
            && head.producers.first().is_none_or(|(id, _)| *id >= 0)
            && ids_ascend
            && head.producers.iter().all(|(_, state)| is_sound(state));
        if sound { Ok(head) } else { Err(InstallError::Refused("its head contradicts itself".to_owned())) }
    }
}

impl PartitionView {
    /// A sender's answer: batches from `from` on, below `until` (the head's next offset), of about `bytes_max`.
    pub fn snapshot_chunk(
        &self,
        engine: &dyn Engine,
        from: Offset,
        until: Offset,
        bytes_max: usize,
    ) -> Result<SnapshotChunk, ReadError> {
        let until = Self { high_watermark: until.min(self.high_watermark), ..self.clone() };
        let batches = match from.max(self.log_start) {
            from if from >= until.high_watermark => Vec::new(),
            from => until.fetch(engine, from, bytes_max, true)?,
        };
        let batches = batches.into_iter().map(|batch| (batch.base_offset, batch.batch.into_bytes())).collect();
        Ok(SnapshotChunk { log_start: self.log_start, batches })
    }
}

impl Partition {
    /// A sender's small tables, as of the newest entry applied. The caller has written that entry's batch.
    #[must_use]
    pub fn snapshot_head(&self) -> SnapshotHead {
        SnapshotHead {
            at: self.position.applied,
            membership: self.shape.membership.clone(),
            log_start: self.position.log_start,
            next_offset: self.position.next_offset,
            epochs: self.shape.epochs.clone(),
            producers: self.producers.rows().map(|(id, state)| (id, state.clone())).collect(),
        }
    }

    /// Under which generation a snapshot will be installed: this one if the state proves to be a prefix of the
    /// snapshot's, the next one otherwise.
    #[must_use]
    pub fn generation_for(&self, head: &SnapshotHead) -> u64 {
        let Position { generation, next_offset: next, log_start, .. } = self.position;
        let last = Offset(next.0 - 1);
        let agrees = next == head.log_start || next == log_start || self.shape.epochs.of(last) == head.epochs.of(last);
        if head.log_start <= next && next <= head.next_offset && agrees { generation } else { generation + 1 }
    }

    /// Begins an installation, once the caller's record of it is durable. The partition applies nothing until it ends;
    /// to give up, `open` the partition again.
    pub fn begin_install(&self, engine: &dyn Engine, head: SnapshotHead) -> Result<Install, InstallError> {
        if head.at.index <= self.position.applied.index {
            return Err(InstallError::Stale { applied: self.position.applied, at: head.at });
        }
        remove_leftovers(engine, self)?;
        Ok(self.begin(head))
    }

    /// The same into a blank partition: what the group has here is not read, and not deleted before the end.
    #[must_use]
    pub fn begin_install_into_blank(&self, head: SnapshotHead) -> Install {
        self.begin(head)
    }

    fn begin(&self, head: SnapshotHead) -> Install {
        let generation = self.generation_for(&head);
        let extends = generation == self.position.generation;
        let expected = if extends { self.position.next_offset } else { head.log_start };
        let log_start = if extends { self.position.log_start.max(head.log_start) } else { head.log_start };
        let run = if extends { self.position.run } else { Run::default() };
        let view = PartitionView { generation, ..self.view() };
        Install { view, head, progress: Progress { log_start, expected, run } }
    }
}

/// A snapshot on its way into the state.
#[derive(Debug)]
pub struct Install {
    /// Where the rows go.
    view: PartitionView,
    /// The small tables, written at the end.
    head: SnapshotHead,
    /// What is here.
    progress: Progress,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// The greatest log start that the head or a chunk has named.
    log_start: Offset,
    /// The offset after the last record that is here.
    expected: Offset,
    /// The run of batches that the last one belongs to.
    run: Run,
}

impl Progress {
    /// The first offset that is missing.
    fn wanted(&self) -> Offset {
        self.expected.max(self.log_start)
    }
}

impl Install {
    /// Under which generation the state will lie.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.view.generation
    }

    /// The offset to ask for next, below the head's next offset; `None` when every record is here.
    #[must_use]
    pub fn wants(&self) -> Option<Offset> {
        Some(self.progress.wanted()).filter(|wanted| *wanted < self.head.next_offset)
    }

    /// The snapshot's head.
    #[must_use]
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// Writes a chunk, or refuses it whole and is as it was before. A chunk that brings nothing new is refused, so that
    /// a transfer can't turn in circles.
    pub fn receive(&mut self, engine: &dyn Engine, chunk: &SnapshotChunk) -> Result<(), InstallError> {
        let mut next = Progress {
            // The sender's log start is committed state, too: what it has removed since the head was made isn't coming.
            log_start: self.progress.log_start.max(chunk.log_start.min(self.head.next_offset)),
            ..self.progress
        };
        let mut batch = WriteBatch::default();
        for (base_offset, bytes) in &chunk.batches {
            next = self.receive_batch(next, *base_offset, bytes, &mut batch)?;
        }
        if next.wanted() == self.progress.wanted() {
            return Err(InstallError::Refused("a chunk holds nothing of what was asked for".to_owned()));
        }
        engine.write(batch)?;
        self.progress = next;
        Ok(())
    }

    /// Adds a batch's rows to `out`; returns how far the transfer is with it.
    fn receive_batch(
        &self,
        progress: Progress,
        base_offset: Offset,
        bytes: &Bytes,
        out: &mut WriteBatch,
    ) -> Result<Progress, InstallError> {
        let refused = |reason: &str| InstallError::Refused(format!("the batch at offset {base_offset}: {reason}"));
        let batch = RecordBatch::parse_verified(bytes.clone()).map_err(|error| refused(&error.to_string()))?;
        let last = Offset(base_offset.0.saturating_add(i64::from(batch.last_offset_delta())));
        if base_offset.0 < 0 || last < base_offset || last >= self.head.next_offset {
            return Err(refused("its offsets are impossible"));
        }
        // Either the next batch, or the one around a log start that lies beyond everything received.
        let Progress { log_start, expected, run } = progress;
        let holds_start = expected <= log_start && base_offset <= log_start && log_start <= last;
        if base_offset != expected && !holds_start {
            return Err(refused(&format!("it is not the one after offset {expected}")));
        }
        let grown = run.with(base_offset, bytes.len(), batch.max_timestamp());
        if grown.first != run.first && run.is_begun() {
            self.view.put_run(&run, out);
        }
        out.put(Family::Records, self.view.key(last), batch.into_bytes());
        Ok(Progress { log_start, expected: Offset(last.0 + 1), run: grown })
    }

    /// Switches to the new state, in one batch that is written here. Flush, record "installed" in the log, and then
    /// `Freed::reclaim` gives the old state's space back.
    ///
    /// # Panics
    /// If records are missing: ask `wants` first.
    pub fn finish(self, engine: &dyn Engine) -> Result<(Partition, Freed), InstallError> {
        assert_eq!(self.wants(), None, "a snapshot is finished when all its records are here");
        let Self { view: PartitionView { group, generation, .. }, head, progress } = self;
        let Progress { log_start, run, .. } = progress;
        let mut epochs = head.epochs;
        epochs.trim(log_start);
        let position = Position { applied: head.at, generation, log_start, next_offset: head.next_offset, run };
        let shape = Shape { membership: head.membership, epochs };
        let producers = Producers::from_rows(head.producers);
        let partition = Partition { group, position, shape, producers };
        let mut batch = WriteBatch::default();
        let freed = older_generations(&partition.view(), &mut batch);
        let (from, to) = (rows::generation_key(group, generation), rows::generation_key(group, generation + 1));
        batch.delete_range(Family::Producers, from, to);
        for (id, state) in partition.producers.rows() {
            batch.put(Family::Producers, rows::key(group, generation, id), rows::encode(rows::ROW_VERSION, state));
        }
        partition.put_shape(&mut batch);
        partition.put_position(&mut batch);
        engine.write(batch)?;
        Ok((partition, freed))
    }
}

/// Removes what an installation wrote that never finished: rows beyond the next offset, and other generations.
pub(super) fn remove_leftovers(engine: &dyn Engine, partition: &Partition) -> Result<(), EngineError> {
    let view = partition.view();
    let group = view.group;
    let end = rows::generation_key(group, view.generation + 1);
    let mut batch = WriteBatch::default();
    for (family, end_of_rows) in [(Family::Records, view.high_watermark), (Family::Times, view.rows_end())] {
        let beyond = view.key(end_of_rows);
        if has_rows(engine, family, &beyond, &end)? {
            batch.delete_range(family, beyond, end.clone());
        }
    }
    let (first, last) = (rows::generation_key(group, 0), rows::generation_key(group, u64::MAX));
    let own = rows::generation_key(group, view.generation);
    for family in GENERATION_FAMILIES {
        for (from, to) in [(&first, &own), (&end, &last)] {
            if has_rows(engine, family, from, to)? {
                batch.delete_range(family, from.clone(), to.clone());
            }
        }
    }
    if !batch.changes.is_empty() {
        engine.write(batch)?;
    }
    Ok(())
}

/// A generation beyond that of every row the group has. Rows that can't be read have one, too: a generation is used for
/// one state only, and each state is of a later entry than the one before, so none exceeds its entry's index by more
/// than one, and the one before it not at all.
pub(super) fn free_generation(engine: &dyn Engine, group: RaftGroupId, at: LogId) -> u64 {
    let (from, to) = (rows::group_key(group), rows::generation_key(group, u64::MAX));
    let newest = GENERATION_FAMILIES.map(|family| engine.last_at_or_before(family, &from, &to));
    let mut free = 1;
    for row in newest {
        free = free.max(match row {
            Ok(Some((key, _))) => rows::generation(&key).map_or(0, |generation| generation.saturating_add(1)),
            Ok(None) => 0,
            Err(_unreadable) => at.index.0.saturating_add(2),
        });
    }
    free
}

fn has_rows(engine: &dyn Engine, family: Family, from: &[u8], to: &[u8]) -> Result<bool, EngineError> {
    let mut found = false;
    engine.scan(family, from, to, &mut |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}
