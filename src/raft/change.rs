//! A change of a group's members, as it is proposed and as it stands in the log.

use super::replica::catch;
use super::{Broken, Replica, Role};
use crate::types::{LogId, Membership, ReplicaId};
use protobuf::Message as _;
use raft_rs::eraftpb::{self, ConfChangeType};

/// One change: everything in it happens together.
///
/// A single addition or removal is simple. Several go through a joint configuration, in which majorities of both the
/// old and the new voters decide (Raft §6); the leader leaves it by itself. Without a change in it, it leaves a joint
/// configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// Replicas that are to receive the log without voting.
    pub learn: Vec<ReplicaId>,
    /// Replicas that are to vote.
    pub vote: Vec<ReplicaId>,
    /// Replicas that are to be gone.
    pub remove: Vec<ReplicaId>,
}

impl MemberChange {
    fn to_raft(&self) -> eraftpb::ConfChangeV2 {
        let kinds = [
            (&self.learn, ConfChangeType::AddLearnerNode),
            (&self.vote, ConfChangeType::AddNode),
            (&self.remove, ConfChangeType::RemoveNode),
        ];
        let single = |replica: &ReplicaId, kind| {
            let mut single = eraftpb::ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = replica.0;
            single
        };
        let all = kinds.into_iter().flat_map(|(replicas, kind)| replicas.iter().map(move |one| single(one, kind)));
        let mut change = eraftpb::ConfChangeV2::default();
        change.set_changes(all.collect::<Vec<_>>().into());
        change
    }
}

/// What raft-rs is told of the members: nothing by a replica that waits for its first snapshot, because a configuration
/// without voters is none.
pub(super) fn members_for_raft(members: &Membership) -> Membership {
    if members.voters.is_empty() { Membership::default() } else { members.clone() }
}

impl Replica {
    /// Whether a change of members may be on its way still: until it is applied, none is proposed. True for a moment
    /// after an election, too, because an earlier leader's change may be among the entries.
    #[must_use]
    pub fn has_pending_change(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Proposes a change of members, if this replica leads and no other change is on its way. Returns its place if it
    /// was taken; what it comes to shows in the members once it is committed, because raft-rs puts an empty entry in
    /// the place of a change that it refuses.
    pub fn propose_change(&mut self, change: &MemberChange) -> Result<Option<LogId>, Broken> {
        if self.role() != Role::Leader || self.node.raft.lead_transferee.is_some() || self.has_pending_change() {
            return Ok(None);
        }
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
        entry.data = change.to_raft().write_to_bytes().expect("a change of members is a valid message").into();
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.node.raft.id;
        message.set_entries(vec![entry].into());
        let node = &mut self.node;
        let pending = node.raft.pending_conf_index;
        // An error means that there is no room for it now: the caller comes again.
        let taken = catch(|| node.raft.step(message))?.is_ok();
        if !taken {
            // raft-rs has already noted that a change is to stand there, and would wait until something does.
            self.node.raft.pending_conf_index = pending;
        }
        Ok(taken.then(|| LogId::new(self.node.raft.raft_log.last_index(), self.node.raft.term)))
    }
}
