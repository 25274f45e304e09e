//! Runs committed entries through the state machines of this node's groups.
//!
//! One applier owns all machines and runs on a thread of its own (or inside the simulator's loop): a stall of the
//! database must not delay heartbeats, votes or appends. It is deterministic; the same entries give the same outcomes
//! and the same writes.

use crate::machine::{MachineError, Outcome, StateMachine};
use crate::storage::{Engine, WriteBatch};
use crate::types::{LogEntry, LogId, LogIndex, Membership, RaftGroupId};
use std::collections::BTreeMap;

/// See the module.
pub struct Applier<E> {
    /// The database of every machine.
    engine: E,
    /// The machines.
    machines: BTreeMap<RaftGroupId, Box<dyn StateMachine>>,
    /// What each machine has applied since the last flush began.
    unflushed: BTreeMap<RaftGroupId, LogIndex>,
}

impl<E: Engine> Applier<E> {
    /// An applier over machines that were opened from `engine`.
    #[must_use]
    pub fn new(engine: E, machines: BTreeMap<RaftGroupId, Box<dyn StateMachine>>) -> Self {
        // A machine may be ahead of what any flush has announced: the next flush announces it.
        let unflushed = machines.iter().map(|(group, machine)| (*group, machine.applied().index)).collect();
        Self { engine, machines, unflushed }
    }

    /// The database.
    #[must_use]
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// A machine, to look at.
    #[must_use]
    pub fn machine(&self, group: RaftGroupId) -> Option<&dyn StateMachine> {
        self.machines.get(&group).map(Box::as_ref)
    }

    /// Takes in a machine that was just created, durably.
    pub fn add(&mut self, group: RaftGroupId, machine: Box<dyn StateMachine>) {
        self.unflushed.insert(group, machine.applied().index);
        self.machines.insert(group, machine);
    }

    /// Lets go of a deleted group's machine.
    pub fn remove(&mut self, group: RaftGroupId) -> Option<Box<dyn StateMachine>> {
        self.unflushed.remove(&group);
        self.machines.remove(&group)
    }

    /// Applies committed entries, which follow those applied before. The outcomes are visible to readers of the
    /// database, not durable.
    ///
    /// Entries a machine already has (its database flushed by itself before a crash) are skipped; a group whose machine
    /// is gone was deleted, and nobody waits for its outcomes.
    pub fn apply(
        &mut self,
        group: RaftGroupId,
        entries: &[LogEntry],
        memberships: &[(LogIndex, Membership)],
    ) -> Result<Vec<(LogId, Outcome)>, MachineError> {
        let Some(machine) = self.machines.get_mut(&group) else { return Ok(Vec::new()) };
        let applied = machine.applied().index;
        let skip = entries.iter().take_while(|entry| entry.id.index <= applied).count();
        let entries = &entries[skip..];
        let Some(last) = entries.last() else { return Ok(Vec::new()) };
        let mut batch = WriteBatch::default();
        let outcomes = machine.apply(entries, memberships, &mut batch)?;
        assert_eq!(outcomes.len(), entries.len(), "group {group}: one outcome per entry");
        self.engine.write(batch)?;
        self.unflushed.insert(group, last.id.index);
        Ok(entries.iter().map(|entry| entry.id).zip(outcomes).collect())
    }

    /// What a flush that begins now will make durable. The caller flushes the engine, on whichever thread.
    pub fn begin_flush(&mut self) -> Vec<(RaftGroupId, LogIndex)> {
        std::mem::take(&mut self.unflushed).into_iter().collect()
    }
}
