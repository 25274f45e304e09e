//! The vocabulary of the waist: what can happen to a node's groups, and what they want done.

use super::membership::WantedMembers;
use super::repair::message::RepairMessage;
use crate::machine::Outcome;
use crate::raft::group_log::Wanted;
use crate::raft::{RaftMessage, SnapshotMeta};
use crate::types::{LogEntry, LogId, LogIndex, Membership, NodeId, RaftGroupId, ReplicaId, Term};
use crate::wal::{GroupRecovery, Turn};
use bytes::Bytes;

/// The driver's own number for somebody who waits for an answer. Unique among those waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Whose proposals must not change places: none of a source and group is taken after an earlier one was refused, or its
/// fate left open, until whoever sends them knows of it (`Input::RefusalKnown`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(pub i64);

/// A command for a group's state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Who waits for its outcome.
    pub ticket: Ticket,
    /// Whose it is; without one its order does not matter.
    pub source: Option<Source>,
    /// The command's header.
    pub context: Bytes,
    /// The command's payload.
    pub data: Bytes,
}

impl Proposal {
    /// What it weighs in queues and limits.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.context.len() + self.data.len()
    }
}

/// Why nothing was written. Definite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This node has no working replica of the group.
    NoReplica,
    /// Another replica leads, or none does.
    NotLeader,
    /// A limit is reached; retry.
    Busy,
    /// The log's disk has no room for new entries; retry when it has.
    NoSpace,
    /// The entry was proposed and another leader's entry took its place.
    Overwritten,
    /// An earlier proposal of its source was refused, or its fate is open: that one comes first.
    OutOfTurn,
}

/// The answer to a proposal or a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Committed at `at`, applied, with this outcome.
    Applied { at: LogId, outcome: Outcome },
    /// A linearizable read may be served: this index is applied.
    ReadAt(LogIndex),
    /// Certainly not done.
    Refused(Refused),
    /// Leadership was lost and the fate of the entry is not known: it may be committed, now or later.
    Undecided,
}

/// Why entries could not be read back from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFailure {
    /// Their segments were freed, and the group's entries begin here now. Whoever needs older ones needs a snapshot.
    Released { first: LogIndex },
    /// These are damaged.
    Damaged { first: LogIndex, last: LogIndex, reason: String },
}

/// Where there may be no room for new entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// In the log: no spare segment is left.
    Log,
    /// On the disk: its free space is below the reserve.
    Disk,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A fixed time has passed.
    Tick,
    /// Messages from peers.
    Messages(Vec<(RaftGroupId, RaftMessage)>),
    /// Commands for one group, in the order in which they were sent. All of them are taken, or none; but for those
    /// whose source has to repeat an earlier one.
    Propose { group: RaftGroupId, proposals: Vec<Proposal> },
    /// Proposals of this source that come from now on were sent by somebody who knew that one was refused. Said once
    /// for every proposal with a source that was answered `Refused` or `Undecided`.
    RefusalKnown { group: RaftGroupId, source: Source },
    /// Somebody wants to read everything that is committed now.
    ReadIndex { group: RaftGroupId, ticket: Ticket },
    /// The turn in flight is durable.
    Appended,
    /// The state machine has applied these entries, which followed the ones before; `bytes` is their payload.
    Applied { group: RaftGroupId, outcomes: Vec<(LogId, Outcome)>, bytes: usize },
    /// The state machine can't go on; it takes no entries any more. `bytes`: the payload of those it did not take.
    ApplyFailed { group: RaftGroupId, reason: String, bytes: usize },
    /// A flush would let state machines give space back.
    FlushWanted,
    /// The flush is durable: these groups' states up to these entries.
    Flushed { applied: Vec<(RaftGroupId, LogIndex)> },
    /// What `Effect::ReadEntries` read.
    EntriesRead { group: RaftGroupId, wanted: Wanted, result: Result<Vec<LogEntry>, ReadFailure> },
    /// A state to hand to followers exists: the entry it was taken at, and the members as of it.
    SnapshotBuilt { group: RaftGroupId, meta: SnapshotMeta },
    /// A follower has fetched some of it.
    SnapshotPulled { group: RaftGroupId, by: ReplicaId },
    /// The data of the state at `at` is here, under this generation; `None`: it could not be had.
    SnapshotFetched { group: RaftGroupId, at: LogId, generation: Option<u64> },
    /// The state machine has switched to the state at `at`, durably.
    SnapshotInstalled { group: RaftGroupId, at: LogId },
    /// Something about the repair of a replica, here or there.
    Repair(RepairMessage),
    /// What `Effect::Examine` has found: the log's side, if it knows the group, and the state machine's entry and
    /// members, if it can be used.
    Examined { group: RaftGroupId, recovery: Option<GroupRecovery>, state: Option<(LogId, Membership)> },
    /// The controller says that this node hosts a replica of a group that the log, which has lost turns, may have
    /// forgotten: it is repaired, not born. Says who the others are, as `Replicas` does.
    Adopt { group: RaftGroupId, replica: ReplicaId, membership: Membership },
    /// The controller says which replicas a group that is here has now, or is to have: one that is repaired asks them.
    Replicas { group: RaftGroupId, replica: ReplicaId, membership: Membership },
    /// The controller wants this node to host a replica of a new group; its state machine exists, durably. The
    /// preferred leader does not wait for an election timeout. A replica that joins a group which exists knows no
    /// voters (`Membership::of_joining`) and waits for a snapshot.
    Create { group: RaftGroupId, replica: ReplicaId, membership: Membership, preferred: bool },
    /// The controller deleted the group.
    Remove { group: RaftGroupId },
    /// The members that the controller wants a group to have; said again until it has them. A leader takes one step.
    ChangeMembers { group: RaftGroupId, wanted: WantedMembers },
    /// Hand the leadership of a group to another voter.
    TransferLeader { group: RaftGroupId, to: ReplicaId },
    /// Whether there is room for new entries, as one of those who watch over it sees it. Promises always fit.
    Space { of: Room, writable: bool },
    /// The connection to a node is broken.
    Unreachable(NodeId),
}

/// Who leads a group, as this node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: Term,
    /// The term's leader, if known.
    pub leader: Option<ReplicaId>,
    /// This node leads, and has applied an entry of its own term: it may answer clients.
    pub serving: bool,
}

/// Something to be done. The driver may do effects of different kinds in any order and at its own pace, but: appends
/// one at a time; applies of one group in order; sends to one node in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send these, in order. They may be lost.
    Send { to: NodeId, messages: Vec<(RaftGroupId, RaftMessage)> },
    /// Make this turn durable, then say `Input::Appended`.
    Append(Turn),
    /// Apply these to the group's state machine, then say `Input::Applied`.
    Apply { group: RaftGroupId, entries: Vec<LogEntry>, memberships: Vec<(LogIndex, Membership)> },
    /// Read these back from the log, then say `Input::EntriesRead`.
    ReadEntries { group: RaftGroupId, wanted: Wanted },
    /// Take a state that followers can fetch, then say `Input::SnapshotBuilt`.
    BuildSnapshot { group: RaftGroupId },
    /// Fetch a state from a peer, beside the present one, then say `Input::SnapshotFetched`. Asked
    /// again while nothing has come of it; what is here already is not fetched twice.
    FetchSnapshot { group: RaftGroupId, own: ReplicaId, from: ReplicaId, meta: SnapshotMeta },
    /// Switch to the fetched state and flush, then say `Input::SnapshotInstalled`.
    InstallSnapshot { group: RaftGroupId, meta: SnapshotMeta, generation: u64 },
    /// The group's end is durable: its state can be deleted.
    Removed { group: RaftGroupId },
    /// Make all state machines durable, then say `Input::Flushed`.
    Flush,
    /// Entries below these are not needed for a restart any more, and all from there on are.
    Release(Vec<(RaftGroupId, LogIndex)>),
    /// Answer somebody.
    Reply { ticket: Ticket, reply: Reply },
    /// Who leads has changed.
    Publish { group: RaftGroupId, leadership: Leadership },
    /// The group no longer takes part here. Tell the operator.
    Quarantined { group: RaftGroupId, reason: String },
    /// Say this to another replica, for a repair. It may be lost.
    Repair(RepairMessage),
    /// Look at the log, after everything it was asked before, and then at the state machine, after everything that was
    /// asked before, and say `Input::Examined`. `lost`: entries that were found unreadable, which the log does not
    /// know.
    Examine { group: RaftGroupId, lost: Option<(LogIndex, LogIndex, String)> },
    /// A quarantined group goes about its repair. Tell the operator what it waits for.
    Repairing { group: RaftGroupId, step: String },
    /// A quarantined group takes part again; its log ends at `last`. Tell the operator.
    Repaired { group: RaftGroupId, last: LogId },
}
