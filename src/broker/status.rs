//! How this node's replicas stand, for operators and for those who check histories.

use super::{PartitionIndex, TopicName};
use crate::types::{LogIndex, NodeId, Offset, RaftGroupId, Term};

/// The part a replica plays in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It proposes, and answers clients.
    Leader,
    /// It follows, or knows of no leader.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It receives the log and does not vote.
    Learner,
}

/// One replica on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Its Raft group.
    pub group: RaftGroupId,
    /// The partition it holds; none for the cluster's metadata.
    pub partition: Option<(TopicName, PartitionIndex)>,
    /// Why it neither votes nor acknowledges; role and indices are then unknown.
    pub quarantine: Option<String>,
    /// What its repair waits for, if it is quarantined.
    pub repair: Option<String>,
    /// The part it plays, if it plays one.
    pub role: Option<Role>,
    /// The newest term it knows.
    pub term: Term,
    /// Who leads the group, as far as it knows.
    pub leader: Option<NodeId>,
    /// The newest entry of its log.
    pub last: LogIndex,
    /// The newest entry it knows to be committed.
    pub commit: LogIndex,
    /// The newest entry whose effect can be read.
    pub applied: LogIndex,
    /// The first offset of the partition, as it knows it.
    pub log_start: Offset,
    /// The others, if it leads.
    pub followers: Vec<FollowerReport>,
}

/// How far a leader knows another replica of its group to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerReport {
    /// The node it is on.
    pub node: NodeId,
    /// The newest entry it is known to have on disk.
    pub matched: LogIndex,
    /// How many entries of the leader's log it lacks.
    pub lag: u64,
    /// It was heard of within the last election timeout.
    pub reachable: bool,
    /// It is behind what the leader's log still holds, and waits for a snapshot.
    pub needs_snapshot: bool,
}
