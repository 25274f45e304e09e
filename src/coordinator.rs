//! The coordinator: the state machine of a Raft group that looks after consumer groups and their offsets.
//!
//! A cluster has a fixed number of them, as partitions of the internal topic [`TOPIC`]; a consumer group belongs to the
//! one that [`partition_of`] names. Everything that must survive a node goes through Raft: members, generations,
//! assignments, offsets. Heartbeats do not: who has not been heard of is the leader's own business ([`sessions`]), and
//! what follows from it is proposed like anything else, so no replica's clock decides.
//!
//! Groups and offsets are held in memory and in rows of `Family::Groups`; the two change together, so after a crash at
//! any batch the state is that of some applied entry, and the Raft log replays the rest.
//!
//! * [`command`]: what can be asked, and the answers.
//! * [`group`]: a consumer group's state.
//! * [`offsets`]: stored offsets, and reading them.
//! * [`sessions`]: whose time has run out, as the leader sees it.

mod assign;
pub mod command;
mod commit;
mod expire;
pub mod group;
mod join;
mod leave;
pub mod offsets;
mod rebalance;
mod rows;
pub mod sessions;
mod state;
mod subscription;

pub use join::{MEMBERS_MAX, PENDING_MAX, PROTOCOLS_MAX};

use crate::machine::codec;
use crate::machine::{MachineError, Outcome, StateMachine};
use crate::storage::{Engine, WriteBatch};
use crate::types::{EntryKind, LogEntry, LogId, LogIndex, Membership, RaftGroupId};
use bytes::Bytes;
use command::{Action, Answer, Command};
use group::Group;
use rows::Applied;
use state::{Editor, Offsets, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use crate::types::COORDINATOR_TOPIC as TOPIC;

/// The longest name of anything in the state, in bytes: the longest string of the Kafka protocol.
pub const NAME_BYTES_MAX: usize = i16::MAX as usize;

/// What one coordinator's groups and offsets may weigh, in bytes. What would make it more is refused.
pub const STATE_BYTES_MAX: usize = 128 << 20;

/// The longest snapshot, in bytes: everything in it is weighed with more than it takes there.
pub const SNAPSHOT_BYTES_MAX: usize = STATE_BYTES_MAX + (64 << 10);

/// How far one look for old offsets (`Action::ExpireOffsets`) may move the coordinator's time, in milliseconds: two
/// hours.
///
/// Only these looks move it, because dropping offsets is what can't be taken back: a leader whose clock is wrong for a
/// moment, by however much, drops nothing that would not have gone within this time anyway. After the cluster has been
/// down for long the time catches up with the clocks over several looks; they must come more often than it allows.
pub const LOOK_STEP_MS_MAX: i64 = 2 * 60 * 60 * 1000;

/// The state machine of a Raft group that coordinates consumer groups.
#[derive(Clone, Debug)]
pub struct Coordinator {
    /// The Raft group.
    raft: RaftGroupId,
    /// Which entries are in the state.
    applied: Applied,
    /// Groups and offsets.
    state: State,
    /// Groups that the last apply or installation changed.
    changed: BTreeSet<String>,
}

/// The whole state as of one position.
#[derive(bincode::Encode, bincode::Decode)]
struct Snapshot {
    /// As of which entry.
    applied: Applied,
    /// The groups with their members.
    groups: Vec<Arc<Group>>,
    /// The offsets, by group.
    offsets: BTreeMap<String, Offsets>,
}

impl Coordinator {
    /// A new group's machine, born at `born` with these members; its rows go to `batch`.
    #[must_use]
    pub fn create(group: RaftGroupId, born: LogId, membership: Membership, batch: &mut WriteBatch) -> Self {
        let applied = Applied { position: born, membership, time_ms: 0 };
        rows::put_applied(batch, group, &applied);
        Self { raft: group, applied, state: State::default(), changed: BTreeSet::new() }
    }

    /// A machine without a state, for one to be installed into.
    #[must_use]
    pub fn blank(group: RaftGroupId) -> Self {
        let applied = Applied { position: LogId::default(), membership: Membership::default(), time_ms: 0 };
        Self { raft: group, applied, state: State::default(), changed: BTreeSet::new() }
    }

    /// The machine as the database has it, if it does.
    pub fn open(engine: &dyn Engine, group: RaftGroupId) -> Result<Option<Self>, MachineError> {
        let damaged = |entry, reason| MachineError::Damaged { group, entry, reason };
        let Some(applied) = rows::load_applied(engine, group)? else { return Ok(None) };
        let applied = applied.map_err(|reason| damaged(LogId::default(), reason))?;
        let state = rows::load(engine, group)?.map_err(|reason| damaged(applied.position, reason))?;
        let changed = state.groups().keys().cloned().collect();
        Ok(Some(Self { raft: group, applied, state, changed }))
    }

    /// Every group, by name; values are cheap to clone.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<String, Arc<Group>> {
        self.state.groups()
    }

    /// Names of the groups that the last apply changed, made or removed; all, after opening or an installation. A
    /// stored offset does not change its group.
    #[must_use]
    pub fn changed(&self) -> &BTreeSet<String> {
        &self.changed
    }

    /// The whole state as of `applied`, for a replica that lacks the entries; at most [`SNAPSHOT_BYTES_MAX`] long.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        let groups = self.groups().values().cloned().collect();
        let offsets = self.state.all_offsets().clone();
        let bytes = codec::encode(&Snapshot { applied: self.applied.clone(), groups, offsets });
        assert!(bytes.len() <= SNAPSHOT_BYTES_MAX, "everything in the state is weighed");
        bytes.into()
    }

    /// Replaces the state by a snapshot's. `batch` replaces the rows; the caller writes it, whole, and flushes it
    /// before the group goes on. The error is a sentence; nothing has changed then.
    pub fn install(&mut self, bytes: &[u8], batch: &mut WriteBatch) -> Result<(), String> {
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(format!("snapshot: {} bytes are too many", bytes.len()));
        }
        let snapshot: Snapshot =
            codec::decode::<_, { 4 * SNAPSHOT_BYTES_MAX }>(bytes).map_err(|error| format!("snapshot: {error}"))?;
        let (theirs, ours) = (snapshot.applied.position, self.applied.position);
        if theirs.index < ours.index {
            return Err(format!("snapshot: it ends at entry {theirs}, before {ours}"));
        }
        let mut state = State::default();
        for group in snapshot.groups {
            state.load_group(Arc::unwrap_or_clone(group))?;
        }
        for (group, topics) in snapshot.offsets {
            for (topic, partitions) in topics {
                for (partition, committed) in partitions {
                    state.load_offset(&group, &topic, partition, committed)?;
                }
            }
        }
        state.settle()?;
        rows::replace_all(batch, self.raft, &state);
        rows::put_applied(batch, self.raft, &snapshot.applied);
        self.changed = self.groups().keys().chain(state.groups().keys()).cloned().collect();
        (self.state, self.applied) = (state, snapshot.applied);
        Ok(())
    }

    /// Removes every trace of a group that was deleted, or whose state is damaged.
    pub fn destroy(group: RaftGroupId, batch: &mut WriteBatch) {
        rows::delete_all(batch, group);
    }

    fn execute(&mut self, action: Action, now_ms: i64, batch: &mut WriteBatch) -> Answer {
        let raft = self.raft;
        let editor = &mut Editor { state: &mut self.state, batch, raft, now_ms };
        match action {
            Action::Join(join) => Answer::Joined(join::join(editor, join)),
            Action::Assign(assign) => Answer::Done(assign::assign(editor, assign)),
            Action::Leave { group, members } => Answer::Left(leave::leave(editor, &group, &members)),
            Action::Expire { group, members } => {
                leave::expire(editor, &group, &members);
                Answer::Done(Ok(()))
            }
            Action::FinishJoin { group, round } => {
                editor.change(&group, |group, now_ms| group.finish_join(round, now_ms));
                Answer::Done(Ok(()))
            }
            Action::Commit(commit) => Answer::Committed(commit::commit(editor, commit)),
            Action::DeleteOffsets { group, partitions } => {
                Answer::OffsetsDeleted(commit::delete_offsets(editor, &group, &partitions))
            }
            Action::DeleteGroups { groups } => Answer::GroupsDeleted(commit::delete_groups(editor, &groups)),
            Action::ExpireOffsets { retention_ms } => {
                editor.now_ms = self.applied.time_ms;
                expire::expire_offsets(editor, retention_ms);
                Answer::Done(Ok(()))
            }
            Action::ForgetTopics { topics } => {
                expire::forget_topics(editor, &topics);
                Answer::Done(Ok(()))
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
        if entry.id.index != self.applied.position.index.next() {
            return Err(format!("it does not follow entry {}", self.applied.position));
        }
        let outcome = match entry.kind {
            EntryKind::ConfChange => {
                self.applied.membership = members.ok_or("the members that result from it are not known")?.clone();
                Outcome::None
            }
            EntryKind::Normal if entry.data.is_empty() => Outcome::None,
            EntryKind::Normal => {
                let command = Command::decode(&entry.data).map_err(|error| error.to_string())?;
                let now_ms = self.applied.now_ms(&command);
                Outcome::Answer(self.execute(command.action, now_ms, batch).encode())
            }
        };
        self.applied.position = entry.id;
        Ok(outcome)
    }
}

impl StateMachine for Coordinator {
    fn applied(&self) -> LogId {
        self.applied.position
    }

    fn membership(&self) -> &Membership {
        &self.applied.membership
    }

    fn apply(
        &mut self,
        entries: &[LogEntry],
        memberships: &[(LogIndex, Membership)],
        batch: &mut WriteBatch,
    ) -> Result<Vec<Outcome>, MachineError> {
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            let members = memberships.iter().find(|(index, _)| *index == entry.id.index).map(|(_, members)| members);
            let outcome = self.apply_entry(entry, members, batch);
            let group = self.raft;
            outcomes.push(outcome.map_err(|reason| MachineError::Damaged { group, entry: entry.id, reason })?);
        }
        self.changed = self.state.write_groups(self.raft, batch);
        rows::put_applied(batch, self.raft, &self.applied);
        Ok(outcomes)
    }
}

/// The partition of [`TOPIC`], of `partitions`, that a group belongs to: Java's `hashCode` of the name, as in Kafka, so
/// that tools that compute it find the same.
#[must_use]
pub fn partition_of(group: &str, partitions: u32) -> u32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's Utils.abs: the sign bit off, not the absolute value.
    (hash & i32::MAX).cast_unsigned() % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_where_kafka_puts_them() {
        // "polygenelubricants".hashCode() is i32::MIN, the value whose absolute value does not exist.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        // "hello".hashCode() is 99162322.
        assert_eq!(partition_of("hello", 50), 22);
        assert_eq!(partition_of("", 50), 0);
    }
}
