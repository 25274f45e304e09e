//! What takes time on a node: jobs, each in the queue of the thread that does it in production, one after another.

use crate::node::Arrived;
use ackord::controller::view::GroupPlan;
use ackord::multiraft::apply::FlushPlan;
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::apply::transfer::SnapshotMessage;
use ackord::partition::trim::Freed;
use ackord::raft::SnapshotMeta;
use ackord::raft::group_log::Wanted;
use ackord::types::{LogEntry, LogId, LogIndex, Membership, RaftGroupId, ReplicaId};
use ackord::wal::{GroupRecovery, Location, SpareOrder, Turn};
use std::collections::{BTreeSet, VecDeque};

/// The threads of a node, but for the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thread {
    /// Owns the log's disk.
    Log,
    /// Reads old entries.
    Read,
    /// Prepares spare segments.
    Spare,
    /// Owns the state machines.
    Apply,
    /// Flushes the database.
    Flush,
    /// Gives space back.
    Reclaim,
    /// Makes and destroys state machines, as the controller wants it.
    Make,
}

impl Thread {
    /// How many there are.
    pub const COUNT: usize = 7;
}

/// One thing to do.
pub enum Job {
    /// Make a turn durable.
    Append(Turn),
    /// Prove the last turn durable.
    Seal,
    /// Log to be freed.
    Release(Vec<(RaftGroupId, LogIndex)>),
    /// Find old entries.
    Locate { group: RaftGroupId, wanted: Wanted },
    /// Read them.
    Read { group: RaftGroupId, wanted: Wanted, locations: Vec<Location> },
    /// Prepare a spare segment.
    Prepare(SpareOrder),
    /// Run entries through a state machine.
    Apply { group: RaftGroupId, entries: Vec<LogEntry>, memberships: Vec<(LogIndex, Membership)> },
    /// Begin a flush.
    BeginFlush,
    /// Take in the state machine of a new group.
    Add { group: RaftGroupId, machine: Machine },
    /// Begin a replica of the controller's group, empty.
    Join { replica: ReplicaId },
    /// The log knows all groups again.
    Settle,
    /// Let go of a group whose end is durable.
    Remove { group: RaftGroupId },
    /// Take a state for followers.
    Build { group: RaftGroupId },
    /// Ask for a state.
    Fetch { group: RaftGroupId, own: ReplicaId, from: ReplicaId, meta: SnapshotMeta },
    /// Switch to a state.
    Install { group: RaftGroupId, at: LogId },
    /// A reader has found that the rows of this generation can't be read.
    Condemn { group: RaftGroupId, generation: u64, reason: String },
    /// Something was said about a state in transit.
    Transferred(SnapshotMessage),
    /// Say what the log has of a group.
    Examine { group: RaftGroupId, lost: Option<(LogIndex, LogIndex, String)> },
    /// Say how its state machine stands beside that.
    ExamineState { group: RaftGroupId, recovery: Option<GroupRecovery> },
    /// Make the state machines durable.
    Flush(FlushPlan),
    /// Give space back.
    Reclaim(Vec<Freed>),
    /// Make the state machines of new groups; whether this node is the preferred leader.
    Make(Vec<(GroupPlan, bool)>),
    /// Delete the rows of deleted groups.
    Destroy(BTreeSet<RaftGroupId>),
}

/// What kind of job: where a crash can hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Append,
    Seal,
    Release,
    Read,
    Prepare,
    Apply,
    Build,
    Fetch,
    Install,
    Flush,
    Reclaim,
    Make,
    /// What is over at once and touches no disk.
    Small,
}

impl Kind {
    /// Those that crashes aim at.
    pub const ALL: [Self; 12] = [
        Self::Append,
        Self::Seal,
        Self::Release,
        Self::Read,
        Self::Prepare,
        Self::Apply,
        Self::Build,
        Self::Fetch,
        Self::Install,
        Self::Flush,
        Self::Reclaim,
        Self::Make,
    ];

    /// How many times as often as others it must be hit to be hit at all; `rare`: what comes very seldom.
    pub fn weight(self, rare: u64) -> u64 {
        match self {
            Self::Append | Self::Seal | Self::Read | Self::Apply | Self::Small => 1,
            Self::Release | Self::Prepare | Self::Flush | Self::Reclaim => rare.div_ceil(5),
            Self::Build | Self::Fetch | Self::Install | Self::Make => rare,
        }
    }
}

/// Where a crash hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// Nothing in particular was going on.
    Idle,
    /// While it started.
    Start,
    /// Instead of sending.
    Send,
    /// Instead of answering a client.
    Reply,
    /// Before a job began.
    Before(Kind),
    /// In the middle of it.
    During(Kind),
    /// After it was done, and before anybody heard.
    After(Kind),
}

impl Job {
    /// Who does it.
    pub fn thread(&self) -> Thread {
        match self {
            Self::Append(_)
            | Self::Seal
            | Self::Settle
            | Self::Release(_)
            | Self::Locate { .. }
            | Self::Examine { .. } => Thread::Log,
            Self::Read { .. } => Thread::Read,
            Self::Prepare(_) => Thread::Spare,
            Self::Flush(_) => Thread::Flush,
            Self::Reclaim(_) => Thread::Reclaim,
            Self::Make(_) | Self::Join { .. } | Self::Destroy(_) => Thread::Make,
            _ => Thread::Apply,
        }
    }

    /// What kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Append(_) => Kind::Append,
            Self::Seal => Kind::Seal,
            Self::Release(_) => Kind::Release,
            Self::Read { .. } => Kind::Read,
            Self::Prepare(_) => Kind::Prepare,
            Self::Apply { .. } => Kind::Apply,
            Self::Build { .. } => Kind::Build,
            Self::Fetch { .. } => Kind::Fetch,
            Self::Install { .. } => Kind::Install,
            Self::Flush(_) => Kind::Flush,
            Self::Reclaim(_) => Kind::Reclaim,
            Self::Make(_) | Self::Join { .. } | Self::Destroy(_) => Kind::Make,
            _ => Kind::Small,
        }
    }

    /// One line for the trace.
    pub fn describe(&self) -> String {
        match self {
            Self::Append(turn) => {
                let groups: Vec<_> = turn.writes.iter().map(|write| write.group.0).collect();
                format!("append of groups {groups:?}")
            }
            Self::Seal => "seal".to_owned(),
            Self::Settle => "settle".to_owned(),
            Self::Release(bounds) => format!("release {bounds:?}"),
            Self::Locate { group, wanted } => format!("locate {}..{} of group {group}", wanted.low, wanted.high),
            Self::Read { group, wanted, .. } => format!("read {}..{} of group {group}", wanted.low, wanted.high),
            Self::Prepare(order) => format!("prepare {order:?}"),
            Self::Apply { group, entries, .. } => {
                let first = entries.first().map(|entry| entry.id).unwrap_or_default();
                format!("apply {} entries of group {group} from {first}", entries.len())
            }
            Self::BeginFlush => "begin a flush".to_owned(),
            Self::Add { group, .. } => format!("add group {group}"),
            Self::Remove { group } => format!("remove group {group}"),
            Self::Build { group } => format!("build a snapshot of group {group}"),
            Self::Fetch { group, meta, from, .. } => {
                format!("fetch the snapshot of group {group} at {} from {from}", meta.at)
            }
            Self::Install { group, at } => format!("install the snapshot of group {group} at {at}"),
            Self::Condemn { group, reason, .. } => format!("condemn the state of group {group}: {reason}"),
            Self::Examine { group, lost } => format!("examine group {group}: {lost:?}"),
            Self::ExamineState { group, .. } => format!("examine the state of group {group}"),
            Self::Transferred(message) => format!("group {}: {}", message.group, describe_transfer(message)),
            Self::Flush(plan) => format!("flush {:?}", plan.applied),
            Self::Reclaim(freed) => format!("reclaim {}", freed.len()),
            Self::Make(plans) => {
                format!("make groups {:?}", plans.iter().map(|(plan, _)| plan.group.0).collect::<Vec<_>>())
            }
            Self::Join { replica } => format!("begin {replica} of the controller's group"),
            Self::Destroy(groups) => format!("destroy groups {groups:?}"),
        }
    }
}

/// A message about a state in transit, without its bytes.
pub fn describe_transfer(message: &SnapshotMessage) -> String {
    use ackord::multiraft::apply::transfer::SnapshotBody as Body;
    let what = match &message.body {
        Body::WantHead { from_byte } => format!("want the head from {from_byte}"),
        Body::WantRecords { from, until } => format!("want the records {from}..{until}"),
        Body::Head { from_byte, total_bytes, .. } => format!("the head from {from_byte} of {total_bytes}"),
        Body::Records(chunk) => format!("{} batches, start {}", chunk.batches.len(), chunk.log_start),
        Body::Gone => "gone".to_owned(),
    };
    format!("{} to {}, state {}: {what}", message.from, message.to, message.at)
}

/// A thread's work.
#[derive(Default)]
pub struct Queue {
    /// In order; the first is being done if `busy`.
    pub jobs: VecDeque<Job>,
    /// Whether one is being done.
    pub busy: bool,
}

/// What a job leads to.
#[derive(Default)]
pub struct Outcome {
    /// For the worker.
    pub arrived: Vec<Arrived>,
    /// For other threads, or the same.
    pub jobs: Vec<Job>,
    /// For other nodes.
    pub send: Option<SnapshotMessage>,
    /// The controller's state may have changed.
    pub metadata: bool,
}

/// How a job ended.
pub enum Ended {
    /// It is done.
    Done,
    /// There is no room: again later.
    Full(Job),
    /// The process must end.
    Fatal(String),
}

impl<E: std::fmt::Display> From<Result<(), E>> for Ended {
    fn from(result: Result<(), E>) -> Self {
        result.map_or_else(|error| Self::Fatal(error.to_string()), |()| Self::Done)
    }
}
