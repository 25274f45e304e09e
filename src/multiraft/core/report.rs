//! What can be seen of a node's groups from outside.

use super::turn::Payload;
use super::{Core, Slot};
use crate::raft::Replica;
use crate::types::{LogIndex, RaftGroupId};

impl Core {
    /// A live group's replica, to look at.
    #[must_use]
    pub fn replica(&self, id: RaftGroupId) -> Option<&Replica> {
        match self.groups.get(&id)? {
            Slot::Live(group) => Some(&group.replica),
            Slot::Quarantined(_) => None,
        }
    }

    /// The newest entry a live group's state machine is known to have applied.
    #[must_use]
    pub fn applied(&self, id: RaftGroupId) -> Option<LogIndex> {
        match self.groups.get(&id)? {
            Slot::Live(group) => Some(group.applied_index()),
            Slot::Quarantined(_) => None,
        }
    }

    /// Why a group is quarantined, if it is.
    #[must_use]
    pub fn quarantine_reason(&self, id: RaftGroupId) -> Option<&str> {
        match self.groups.get(&id)? {
            Slot::Live(_) => None,
            Slot::Quarantined(repair) => Some(repair.reason()),
        }
    }

    /// Proposals of a live group whose outcome is awaited.
    #[must_use]
    pub fn pending_count(&self, id: RaftGroupId) -> usize {
        match self.groups.get(&id) {
            Some(Slot::Live(group)) => group.pending_count(),
            _ => 0,
        }
    }

    /// Payload that was taken in and is not durable yet.
    #[must_use]
    pub fn queued(&self) -> Payload {
        self.queue.payload()
    }

    /// Payload handed to state machines and not applied yet, in bytes.
    #[must_use]
    pub fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes
    }

    /// Every group of this node.
    pub fn group_ids(&self) -> impl Iterator<Item = RaftGroupId> + '_ {
        self.groups.keys().copied()
    }

    /// What a replica that is being repaired waits for.
    #[must_use]
    pub fn repair_step(&self, id: RaftGroupId) -> Option<String> {
        match self.groups.get(&id)? {
            Slot::Live(_) => None,
            Slot::Quarantined(repair) => Some(repair.describe()),
        }
    }
}
