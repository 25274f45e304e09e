//! What happens in a simulated cluster, as its invariants see it: the world tells, every invariant listens, and the
//! first one that was promised something else ends the run.

use ackord::machine::{Outcome, Refusal};
use ackord::multiraft::core::effect::{Leadership, Ticket};
use ackord::raft::RaftMessage;
use ackord::types::{LogEntry, LogId, LogIndex, Membership, NodeId, Offset, RaftGroupId, ReplicaId, Term, TopicId};
use ackord::wal::{GroupRecovery, GroupWrite, Turn};
use std::collections::{BTreeMap, BTreeSet};

/// Something that has happened. Within one node, observations come in the order in which things happened there.
#[derive(Clone, Debug)]
pub enum Observation<'a> {
    /// A process has started, and this is what its log remembers.
    Started { node: NodeId, groups: &'a BTreeMap<RaftGroupId, GroupRecovery> },
    /// A process has ended without warning.
    Crashed { node: NodeId },
    /// A node's disk was damaged, rolled back or replaced: what it had promised may be gone from it.
    Damaged { node: NodeId },
    /// A node has another disk now, for good: these replicas were on the old one, and whatever they held is no more.
    Replaced { node: NodeId, replicas: &'a BTreeMap<RaftGroupId, ReplicaId> },
    /// A process was not started: its data directory is refused, and it said why.
    RefusedStart { node: NodeId, reason: &'a str },
    /// A node begins to make this durable. After a crash all of it may be there, or none.
    Writing { node: NodeId, turn: &'a Turn },
    /// A node has made this durable: one group's part of a turn, in order.
    Persisted { node: NodeId, write: &'a GroupWrite },
    /// A node sends this to another one.
    Sent { node: NodeId, group: RaftGroupId, message: &'a RaftMessage },
    /// A leader has heard a follower's answer: what that one has, as far as it knows, and what it is sent next.
    Progress { node: NodeId, group: RaftGroupId, follower: ReplicaId, matched: LogIndex, next: LogIndex },
    /// A replica in `term` knows that all up to `commit` is committed, while its log ends at `last`, durable or not.
    Knows { node: NodeId, group: RaftGroupId, term: Term, commit: LogIndex, last: LogIndex },
    /// The members of a group as of an entry: when it is born, and whenever a replica has applied a change of them.
    Members { group: RaftGroupId, at: LogId, membership: &'a Membership },
    /// A replica has become its group's leader in a term.
    Led { node: NodeId, group: RaftGroupId, replica: ReplicaId, term: Term },
    /// A node has published who leads a group.
    Published { node: NodeId, group: RaftGroupId, leadership: Leadership },
    /// A replica, itself in `term`, knows that everything up to `commit` is committed.
    Committed { node: NodeId, group: RaftGroupId, term: Term, commit: LogId },
    /// A state machine as a process that starts finds it in the database.
    Opened { node: NodeId, group: RaftGroupId, applied: LogId },
    /// A replica's state machine is durable up to this entry.
    Flushed { node: NodeId, group: RaftGroupId, applied: LogIndex },
    /// A replica was handed this committed entry, and its state machine has applied it.
    Applied { node: NodeId, group: RaftGroupId, entry: &'a LogEntry, outcome: &'a Outcome },
    /// A replica begins to switch to a state. After a crash it may have it.
    Installing { node: NodeId, group: RaftGroupId },
    /// A replica's state is a snapshot's now.
    Restored { node: NodeId, group: RaftGroupId, at: LogId },
    /// The whole state of a replica's state machine, when it has applied exactly up to `at`. A snapshot may bring a log
    /// start that is ahead of its entry: what its sender has removed meanwhile is not sent any more.
    Digest { node: NodeId, group: RaftGroupId, at: LogId, log_start: Offset, digest: u64, membership: &'a Membership },
    /// A replica's bounds of readable records, whenever they change.
    Bounds { node: NodeId, group: RaftGroupId, log_start: Offset, high_watermark: Offset },
    /// A client has sent a batch to write: `count` records whose values are `value` and the numbers after it. Nobody
    /// else ever writes these; an idempotent producer sends the same batch again, under its sequence and a new ticket.
    Wrote { ticket: Ticket, group: RaftGroupId, node: NodeId, value: u64, count: u32, producer: Option<(i64, i32)> },
    /// A write was acknowledged by a node, which has applied it at `at`.
    Acked { ticket: Ticket, node: NodeId, group: RaftGroupId, at: LogId, outcome: &'a Outcome },
    /// A write was certainly not done.
    Refused { ticket: Ticket },
    /// A state machine refused the sequence of a batch whose producer has kept to all rules.
    WronglyRefused { ticket: Ticket, group: RaftGroupId, refusal: Refusal },
    /// Nobody will ever answer a write: its fate is open.
    Open { ticket: Ticket },
    /// A client has asked a node where a group's log ends (`linearizable`), or reads what that node shows anyway.
    ReadBegan { ticket: Ticket, node: NodeId, group: RaftGroupId, linearizable: bool },
    /// It was told: the log starts here and ends there, and these records (offset, value) were among it.
    ReadEnded {
        ticket: Ticket,
        node: NodeId,
        group: RaftGroupId,
        epoch: Term,
        log_start: Offset,
        end: Offset,
        records: &'a [(Offset, u64)],
    },
    /// A member of a consumer group asks to join.
    JoinBegan { ticket: Ticket, group: Consumers<'a> },
    /// It is in: its share comes with this generation or a later one.
    JoinEnded { ticket: Ticket, generation: i32 },
    /// A member was told the generation it is in.
    Generation { group: Consumers<'a>, generation: i32 },
    /// A member was told that these partitions are its own in a generation.
    Owned { group: Consumers<'a>, generation: i32, consumer: usize, partitions: &'a [i32] },
    /// A member's offset was acknowledged as stored. Offsets of one partition only grow.
    OffsetStored { group: Consumers<'a>, partition: i32, offset: i64 },
    /// Somebody asks for a group's stored offsets, as of now or later.
    OffsetsReadBegan { ticket: Ticket, group: Consumers<'a> },
    /// And is told these.
    OffsetsReadEnded { ticket: Ticket, offsets: &'a BTreeMap<i32, i64> },
    /// What a group has stored, in the end, at any replica of its coordinator.
    FinalOffsets { node: NodeId, group: Consumers<'a>, offsets: &'a BTreeMap<i32, i64> },
    /// A client wants the log to start here.
    TrimBegan { ticket: Ticket, group: RaftGroupId, offset: Offset },
    /// A replica takes no part any more.
    Quarantined { node: NodeId, group: RaftGroupId, reason: &'a str },
    /// A quarantined replica takes part again: its log holds everything from `start` to `last`.
    Repaired { node: NodeId, group: RaftGroupId, start: LogId, last: LogId },
    /// A node's memory and mailboxes, in bytes and items, as far as they are bounded.
    Load { node: NodeId, name: &'static str, used: usize, limit: usize },
    /// The faults have stopped for as long as recovery may take, and these nodes run and reach each other: whether a
    /// write that was tried again and again was acknowledged.
    Liveness { group: RaftGroupId, up: &'a BTreeSet<NodeId>, progress: bool },
    /// Somebody asks the controller for topics as of now or later.
    TopicsReadBegan { ticket: Ticket },
    /// And is told these, with the groups of each one's partitions.
    TopicsReadEnded { ticket: Ticket, topics: &'a BTreeMap<TopicId, Vec<RaftGroupId>> },
    /// Somebody was told that a topic is there, with at least so many partitions.
    TopicMade { topic: TopicId, partitions: usize },
    /// Somebody wants a topic to be deleted.
    TopicDeletionBegan { topic: TopicId },
    /// Somebody was told that a topic is gone.
    TopicDeleted { topic: TopicId },
    /// The faults have stopped, everything has drained: the final contents of every replica, by node.
    Final { group: RaftGroupId, records: &'a BTreeMap<NodeId, (Offset, Vec<u64>)> },
}

impl Observation<'_> {
    /// The node in which it has happened, if it was in one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Started { node, .. }
            | Self::Crashed { node }
            | Self::RefusedStart { node, .. }
            | Self::Writing { node, .. }
            | Self::Persisted { node, .. }
            | Self::Sent { node, .. }
            | Self::Progress { node, .. }
            | Self::Knows { node, .. }
            | Self::Led { node, .. }
            | Self::Published { node, .. }
            | Self::Committed { node, .. }
            | Self::Opened { node, .. }
            | Self::Flushed { node, .. }
            | Self::Applied { node, .. }
            | Self::Installing { node, .. }
            | Self::Restored { node, .. }
            | Self::Digest { node, .. }
            | Self::Bounds { node, .. }
            | Self::Quarantined { node, .. }
            | Self::Repaired { node, .. }
            | Self::Load { node, .. } => Some(*node),
            _ => None,
        }
    }
}

/// A consumer group: the Raft group that coordinates it, and its name.
pub type Consumers<'a> = (RaftGroupId, &'a str);

/// Something that must never happen. Each lies in a file of its own, named after it.
pub trait Invariant {
    /// Its name, as it stands in a report.
    fn name(&self) -> &'static str;

    /// Takes in what has happened; an error is the sentence for the report, and ends the run.
    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String>;
}
