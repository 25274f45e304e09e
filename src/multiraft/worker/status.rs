//! How a node's groups stand, for operators, metrics and tests.

use crate::multiraft::core::Core;
use crate::raft::{FollowerProgress, Replica, Role};
use crate::types::{LogIndex, Membership, NodeId, RaftGroupId, ReplicaId, Term};

/// One group on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// The group.
    pub group: RaftGroupId,
    /// Why it is quarantined; the rest is then empty.
    pub quarantined: Option<String>,
    /// What its repair waits for, if it is quarantined.
    pub repair: Option<String>,
    /// The part this node plays.
    pub role: Option<Role>,
    /// The term.
    pub term: Term,
    /// Who leads it.
    pub leader: Option<ReplicaId>,
    /// The newest entry of its log.
    pub last: LogIndex,
    /// The newest committed entry.
    pub commit: LogIndex,
    /// The newest applied entry.
    pub applied: LogIndex,
    /// The members, as of the newest entry handed to the state machine.
    pub members: Membership,
    /// The followers, if this node leads.
    pub followers: Vec<FollowerProgress>,
}

impl GroupReport {
    /// Whether the replica on `node` is a learner.
    #[must_use]
    pub fn is_learner(&self, node: NodeId) -> bool {
        self.members.learners.iter().any(|learner| learner.node() == node)
    }
}

/// Every group of a node.
#[must_use]
pub fn report(core: &Core) -> Vec<GroupReport> {
    core.group_ids().map(|group| report_one(core, group)).collect()
}

fn report_one(core: &Core, group: RaftGroupId) -> GroupReport {
    let replica = core.replica(group);
    let index = |read: fn(&Replica) -> LogIndex| replica.map(read).unwrap_or_default();
    GroupReport {
        group,
        quarantined: core.quarantine_reason(group).map(str::to_owned),
        repair: core.repair_step(group),
        role: replica.map(Replica::role),
        term: replica.map(Replica::term).unwrap_or_default(),
        leader: replica.and_then(Replica::leader),
        last: index(|replica| replica.log().last().index),
        commit: index(Replica::commit),
        applied: core.applied(group).unwrap_or_default(),
        members: replica.map(|replica| replica.membership().clone()).unwrap_or_default(),
        followers: replica.map(Replica::followers).unwrap_or_default(),
    }
}
