//! A partition: the replicated state machine that gives record batches their offsets and keeps them.
//!
//! * A batch's base offset is the next offset when its entry is applied: offsets have no gaps, and nothing translates
//!   between Raft's indexes and offsets. Entries of Raft's own, duplicates and refused batches take none.
//! * Everything an apply changes is in one batch of the database, with the applied entry. After a crash the state is
//!   that of some earlier entry and the Raft log replays the rest; applying is a function of state and entries alone.
//! * Only committed entries are applied, so the next offset is the high watermark, and no record below it ever changes.
//! * Small state (members, epochs, producers) is held in memory and written beside the records that change it.
//!
//! Reads need no access to this state: they go through a published `PartitionView`. Whatever contradicts itself is
//! fatal for the replica, never repaired by guessing; after an error the value is not used again.

pub mod command;
pub mod epochs;
pub mod producers;
pub mod read;
pub mod retention;
mod rows;
pub mod snapshot;
mod times;
pub mod trim;

use crate::machine::{MachineError, Outcome, StateMachine};
use crate::record::RecordBatch;
use crate::storage::{Engine, Family, WriteBatch};
use crate::types::{EntryKind, LeaderEpoch, LogEntry, LogId, LogIndex, Membership, Offset, RaftGroupId};
use command::Command;
use producers::{Producers, Verdict};
use read::PartitionView;
use rows::{Position, ROW_VERSION, Shape, StoredPosition};
use std::ops::ControlFlow;
use times::{RUN_BYTES, RunRow};
use trim::Freed;

/// The families a partition has rows in, and whose keys begin with group and generation.
const GENERATION_FAMILIES: [Family; 3] = [Family::Records, Family::Times, Family::Producers];

/// One partition's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The Raft group.
    group: RaftGroupId,
    /// What changes with every apply.
    position: Position,
    /// Members and epochs.
    shape: Shape,
    /// Idempotent producers.
    producers: Producers,
}

impl Partition {
    /// A new, empty partition whose log continues after `start`; its rows are added to `batch`.
    #[must_use]
    pub fn create(group: RaftGroupId, start: LogId, membership: Membership, batch: &mut WriteBatch) -> Self {
        let position = Position { applied: start, generation: 1, ..Position::default() };
        let shape = Shape { membership, ..Shape::default() };
        let partition = Self { group, position, shape, producers: Producers::default() };
        partition.put_position(batch);
        partition.put_shape(batch);
        partition
    }

    /// A partition without a state, for one as of entry `at` to be installed into. It lies under a generation that no
    /// row of the group has: what is damaged there is never read, nor mixed with what arrives.
    #[must_use]
    pub fn blank(engine: &dyn Engine, group: RaftGroupId, at: LogId) -> Self {
        let generation = snapshot::free_generation(engine, group, at);
        let position = Position { generation, ..Position::default() };
        Self { group, position, shape: Shape::default(), producers: Producers::default() }
    }

    /// The partition as the database has it, if it does. Removes what an unfinished installation of a snapshot left.
    pub fn open(engine: &dyn Engine, group: RaftGroupId) -> Result<Option<Self>, MachineError> {
        let Some(position) = engine.get(Family::Meta, &rows::position_key(group))? else {
            return Ok(None);
        };
        let damaged = |entry, reason| MachineError::Damaged { group, entry, reason };
        let stored = StoredPosition::decode(&position).map_err(|reason| damaged(LogId::default(), reason))?;
        let (position, is_counted) = match stored {
            StoredPosition::Counted(position) => (position, true),
            StoredPosition::Uncounted(position) => (position, false),
        };
        let damaged = |reason| damaged(position.applied, reason);
        let shape = engine.get(Family::Meta, &rows::shape_key(group))?;
        let shape = shape.ok_or_else(|| damaged("the members and epochs are missing".to_owned()))?;
        let shape = rows::decode(ROW_VERSION, &shape).map_err(damaged)?;
        let producers = load_producers(engine, group, position.generation)?.map_err(damaged)?;
        let mut partition = Self { group, position, shape, producers };
        snapshot::remove_leftovers(engine, &partition)?;
        if !is_counted {
            partition.count_runs(engine)?;
        }
        partition.check_end(engine)?;
        Ok(Some(partition))
    }

    /// Removes every trace of a group that was deleted, or whose state is damaged. The space comes back when the
    /// batch has been written and flushed and `Freed::reclaim` called.
    pub fn destroy(group: RaftGroupId, batch: &mut WriteBatch) -> Freed {
        batch.delete(Family::Meta, rows::position_key(group));
        batch.delete(Family::Meta, rows::shape_key(group));
        let end = RaftGroupId(group.0 + 1);
        Freed::delete(GENERATION_FAMILIES, &rows::group_key(group), &rows::group_key(end), batch)
    }

    /// What readers need to know; publish it when the batch of an apply has been written.
    #[must_use]
    pub fn view(&self) -> PartitionView {
        PartitionView {
            group: self.group,
            generation: self.position.generation,
            log_start: self.position.log_start,
            high_watermark: self.position.next_offset,
            epochs: self.shape.epochs.clone(),
            run: self.position.run,
        }
    }

    /// The first offset there is.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.position.log_start
    }

    /// The generation under which the state lies.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.position.generation
    }

    /// The last record must be there: losing the newest would otherwise show only to consumers.
    fn check_end(&self, engine: &dyn Engine) -> Result<(), MachineError> {
        let Position { applied: entry, log_start, next_offset, .. } = self.position;
        let last = Offset(next_offset.0 - 1);
        if log_start < next_offset && engine.get(Family::Records, &self.view().key(last))?.is_none() {
            let reason = format!("the record at offset {last} is missing");
            return Err(MachineError::Damaged { group: self.group, entry, reason });
        }
        Ok(())
    }

    /// Gives the rows of full runs that version 1 wrote their place in the total: such a run was about as large as runs
    /// are. Once in the life of a database; a crash before the next flush does it again.
    fn count_runs(&mut self, engine: &dyn Engine) -> Result<(), MachineError> {
        let view = self.view();
        let (mut batch, mut bytes_before, mut flaw) = (WriteBatch::default(), 0, None);
        engine.scan(Family::Times, &view.key(Offset(0)), &view.key(view.rows_end()), &mut |key, value| {
            match rows::decode_uncounted_run(value) {
                Ok(max_timestamp) => {
                    batch.put(Family::Times, key.to_vec(), RunRow { max_timestamp, bytes_before }.encode());
                    bytes_before += RUN_BYTES;
                    ControlFlow::Continue(())
                }
                Err(reason) => {
                    flaw = Some(reason);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(reason) = flaw {
            return Err(MachineError::Damaged { group: self.group, entry: self.position.applied, reason });
        }
        self.position.run.bytes_before = bytes_before;
        self.put_position(&mut batch);
        engine.write(batch)?;
        Ok(())
    }

    fn put_position(&self, batch: &mut WriteBatch) {
        batch.put(Family::Meta, rows::position_key(self.group), self.position.encode());
    }

    fn put_shape(&self, batch: &mut WriteBatch) {
        batch.put(Family::Meta, rows::shape_key(self.group), rows::encode(ROW_VERSION, &self.shape));
    }

    fn put_producers(&mut self, batch: &mut WriteBatch) {
        let (group, generation) = (self.group, self.position.generation);
        for (id, state) in self.producers.take_changes() {
            let key = rows::key(group, generation, id);
            match state {
                Some(state) => batch.put(Family::Producers, key, rows::encode(ROW_VERSION, state)),
                None => batch.delete(Family::Producers, key),
            }
        }
    }

    /// Applies one entry; `members` is what a change of members results in.
    fn apply_entry(
        &mut self,
        entry: &LogEntry,
        members: Option<&Membership>,
        batch: &mut WriteBatch,
    ) -> Result<Outcome, String> {
        if entry.id.index != self.position.applied.index.next() || entry.id.term < self.position.applied.term {
            return Err(format!("it can't follow entry {}", self.position.applied));
        }
        // The first entry of a term begins the leader's epoch, even if it holds no record (KIP-101).
        let epoch = i32::try_from(entry.id.term.0).map_err(|_| "its term exceeds Kafka's epochs".to_owned())?;
        if self.shape.epochs.newest().is_none_or(|newest| newest.0 < epoch) {
            self.shape.epochs.begin(LeaderEpoch(epoch), self.position.next_offset);
        }
        let outcome = match entry.kind {
            EntryKind::ConfChange => {
                self.shape.membership = members.ok_or("the members that result from it are not known")?.clone();
                Outcome::None
            }
            EntryKind::Normal if entry.context.is_empty() && entry.data.is_empty() => Outcome::None,
            EntryKind::Normal => match Command::decode(&entry.context)? {
                Command::Produce { proposed_at_ms } => self.apply_produce(entry, proposed_at_ms, batch)?,
                Command::SetLogStart { offset } => {
                    self.apply_log_start(offset);
                    Outcome::None
                }
            },
        };
        self.position.applied = entry.id;
        Ok(outcome)
    }

    fn apply_produce(&mut self, entry: &LogEntry, now_ms: i64, batch: &mut WriteBatch) -> Result<Outcome, String> {
        let records = RecordBatch::parse_verified(entry.data.clone()).map_err(|error| error.to_string())?;
        let base_offset = self.position.next_offset;
        let count = i64::from(records.last_offset_delta()) + 1;
        let next_offset = base_offset.0.checked_add(count).filter(|_| count > 0);
        let next_offset = next_offset.ok_or("the batch's range of offsets is empty or beyond all numbers")?;
        let producer = records.producer();
        self.producers.expire(now_ms);
        match producer.map_or(Verdict::Append, |producer| self.producers.judge(&producer, now_ms)) {
            Verdict::Append => {}
            Verdict::Duplicate(base_offset) => return Ok(Outcome::Appended { base_offset, duplicate: true }),
            Verdict::Refuse(refusal) => return Ok(Outcome::Refused(refusal)),
        }
        if let Some(producer) = producer {
            self.producers.remember(&producer, base_offset, now_ms);
        }
        let run = self.position.run.with(base_offset, records.bytes().len(), records.max_timestamp());
        if run.first != self.position.run.first && self.position.run.is_begun() {
            self.view().put_run(&self.position.run, batch);
        }
        self.position.run = run;
        self.position.next_offset = Offset(next_offset);
        let key = rows::key(self.group, self.position.generation, next_offset - 1);
        batch.put(Family::Records, key, records.into_bytes());
        Ok(Outcome::Appended { base_offset, duplicate: false })
    }

    fn apply_log_start(&mut self, offset: Offset) {
        let log_start = offset.min(self.position.next_offset);
        if log_start > self.position.log_start {
            self.position.log_start = log_start;
            self.shape.epochs.trim(log_start);
        }
    }
}

impl StateMachine for Partition {
    fn applied(&self) -> LogId {
        self.position.applied
    }

    fn membership(&self) -> &Membership {
        &self.shape.membership
    }

    fn apply(
        &mut self,
        entries: &[LogEntry],
        memberships: &[(LogIndex, Membership)],
        batch: &mut WriteBatch,
    ) -> Result<Vec<Outcome>, MachineError> {
        let before = self.shape.clone();
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            let members = memberships.iter().find(|(index, _)| *index == entry.id.index).map(|(_, members)| members);
            let outcome = self.apply_entry(entry, members, batch);
            let group = self.group;
            outcomes.push(outcome.map_err(|reason| MachineError::Damaged { group, entry: entry.id, reason })?);
        }
        if self.shape != before {
            self.put_shape(batch);
        }
        self.put_producers(batch);
        self.put_position(batch);
        Ok(outcomes)
    }
}

/// All producers of a generation. The inner error is a sentence about damage.
fn load_producers(
    engine: &dyn Engine,
    group: RaftGroupId,
    generation: u64,
) -> Result<Result<Producers, String>, MachineError> {
    let (from, to) = (rows::generation_key(group, generation), rows::generation_key(group, generation + 1));
    let (mut found, mut flaw) = (Vec::new(), None);
    engine.scan(Family::Producers, &from, &to, &mut |key, value| {
        match (rows::number(key), rows::decode(ROW_VERSION, value)) {
            (Some(id), Ok(state)) => found.push((id, state)),
            (None, _) => flaw = Some("a producer's key is malformed".to_owned()),
            (_, Err(reason)) => flaw = Some(reason),
        }
        if flaw.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(flaw.map_or_else(|| Ok(Producers::from_rows(found)), Err))
}
