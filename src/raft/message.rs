//! What replicas of a group say to each other, in our own types, and the translation to and from raft-rs.
//!
//! Peers' frames are built from these types, so no foreign parser ever reads bytes from the network.

use crate::types::{EntryKind, LogEntry, LogId, LogIndex, Membership, ReplicaId, Term};
use bytes::Bytes;
use raft_rs::eraftpb;

/// The kinds of messages that cross the network. Proposals and read requests are never forwarded, so they have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    /// Entries from the leader (Raft §5.3).
    #[default]
    Append,
    /// What became of them.
    AppendResponse,
    /// A candidate asks for a vote (Raft §5.2).
    RequestVote,
    /// The answer.
    RequestVoteResponse,
    /// Asks whether an election could be won, without raising the term (Raft thesis §9.6).
    RequestPreVote,
    /// The answer.
    RequestPreVoteResponse,
    /// The leader is alive; also carries the context of a pending linearizable read.
    Heartbeat,
    /// The answer.
    HeartbeatResponse,
    /// The follower is so far behind that it needs the state at a later index.
    Snapshot,
    /// The leader asks this replica to campaign at once (leadership transfer).
    TimeoutNow,
}

impl MessageKind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 10] = [
        Self::Append,
        Self::AppendResponse,
        Self::RequestVote,
        Self::RequestVoteResponse,
        Self::RequestPreVote,
        Self::RequestPreVoteResponse,
        Self::Heartbeat,
        Self::HeartbeatResponse,
        Self::Snapshot,
        Self::TimeoutNow,
    ];

    /// Whether this belongs to an election.
    #[must_use]
    pub const fn is_vote(self) -> bool {
        matches!(
            self,
            Self::RequestVote | Self::RequestVoteResponse | Self::RequestPreVote | Self::RequestPreVoteResponse
        )
    }

    const fn to_raft(self) -> eraftpb::MessageType {
        use eraftpb::MessageType as T;
        match self {
            Self::Append => T::MsgAppend,
            Self::AppendResponse => T::MsgAppendResponse,
            Self::RequestVote => T::MsgRequestVote,
            Self::RequestVoteResponse => T::MsgRequestVoteResponse,
            Self::RequestPreVote => T::MsgRequestPreVote,
            Self::RequestPreVoteResponse => T::MsgRequestPreVoteResponse,
            Self::Heartbeat => T::MsgHeartbeat,
            Self::HeartbeatResponse => T::MsgHeartbeatResponse,
            Self::Snapshot => T::MsgSnapshot,
            Self::TimeoutNow => T::MsgTimeoutNow,
        }
    }

    fn from_raft(kind: eraftpb::MessageType) -> Option<Self> {
        Self::ALL.into_iter().find(|own| own.to_raft() == kind)
    }
}

/// What a snapshot message says of the state that the receiver is to fetch. The state itself travels apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The entry whose effects are the newest in it.
    pub at: LogId,
    /// The members as of that entry.
    pub membership: Membership,
}

/// One message between two replicas of a group. Fields a kind does not use are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftMessage {
    /// What it says.
    pub kind: MessageKind,
    /// Who says it.
    pub from: ReplicaId,
    /// Whom it is for; anybody else drops it.
    pub to: ReplicaId,
    /// The sender's term.
    pub term: Term,
    /// The term of the entry at `index`.
    pub log_term: Term,
    /// The entry before the first of `entries`, or what the kind makes of it.
    pub index: LogIndex,
    /// Entries to append.
    pub entries: Vec<LogEntry>,
    /// The sender's commit index.
    pub commit: LogIndex,
    /// The term of the entry at `commit` (helps a rejected candidate catch up).
    pub commit_term: Term,
    /// The answer is no.
    pub reject: bool,
    /// Where a rejecting follower suggests to continue.
    pub reject_hint: LogIndex,
    /// The follower asks for a snapshot at or above this index.
    pub request_snapshot: LogIndex,
    /// The sender's election priority.
    pub priority: i64,
    /// The context of a linearizable read.
    pub context: Bytes,
    /// For `MessageKind::Snapshot`.
    pub snapshot: Option<SnapshotMeta>,
}

impl RaftMessage {
    /// The payload bytes this message pins in memory.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.entries.iter().map(LogEntry::payload_bytes).sum::<usize>() + self.context.len()
    }

    pub(super) fn into_raft(self) -> eraftpb::Message {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(self.kind.to_raft());
        message.from = self.from.0;
        message.to = self.to.0;
        message.term = self.term.0;
        message.log_term = self.log_term.0;
        message.index = self.index.0;
        message.set_entries(self.entries.iter().map(entry_to_raft).collect::<Vec<_>>().into());
        message.commit = self.commit.0;
        message.commit_term = self.commit_term.0;
        message.reject = self.reject;
        message.reject_hint = self.reject_hint.0;
        message.request_snapshot = self.request_snapshot.0;
        message.priority = self.priority;
        message.context = self.context;
        if let Some(meta) = &self.snapshot {
            message.set_snapshot(snapshot_to_raft(meta));
        }
        message
    }

    /// `None` for kinds that never leave the node (raft-rs's local messages, forwarded proposals and reads).
    pub(super) fn from_raft(mut message: eraftpb::Message) -> Option<Self> {
        let kind = MessageKind::from_raft(message.get_msg_type())?;
        let entries = message.take_entries().into_iter().map(entry_from_raft).collect();
        let snapshot = (kind == MessageKind::Snapshot).then(|| snapshot_from_raft(message.get_snapshot()));
        Some(Self {
            kind,
            from: ReplicaId(message.from),
            to: ReplicaId(message.to),
            term: Term(message.term),
            log_term: Term(message.log_term),
            index: LogIndex(message.index),
            entries,
            commit: LogIndex(message.commit),
            commit_term: Term(message.commit_term),
            reject: message.reject,
            reject_hint: LogIndex(message.reject_hint),
            request_snapshot: LogIndex(message.request_snapshot),
            priority: message.priority,
            context: message.context,
            snapshot,
        })
    }
}

pub(super) fn entry_to_raft(entry: &LogEntry) -> eraftpb::Entry {
    let mut own = eraftpb::Entry::default();
    own.set_entry_type(match entry.kind {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::ConfChange => eraftpb::EntryType::EntryConfChangeV2,
    });
    own.index = entry.id.index.0;
    own.term = entry.id.term.0;
    own.data = entry.data.clone();
    own.context = entry.context.clone();
    own
}

pub(super) fn entry_from_raft(entry: eraftpb::Entry) -> LogEntry {
    LogEntry {
        id: LogId::new(entry.index, entry.term),
        kind: match entry.get_entry_type() {
            eraftpb::EntryType::EntryNormal => EntryKind::Normal,
            eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => EntryKind::ConfChange,
        },
        context: entry.context,
        data: entry.data,
    }
}

pub(super) fn membership_to_raft(membership: &Membership) -> eraftpb::ConfState {
    let numbers = |replicas: &[ReplicaId]| replicas.iter().map(|replica| replica.0).collect::<Vec<_>>();
    let mut state = eraftpb::ConfState::default();
    state.set_voters(numbers(&membership.voters));
    state.set_learners(numbers(&membership.learners));
    state.set_voters_outgoing(numbers(&membership.voters_outgoing));
    state.set_learners_next(numbers(&membership.learners_next));
    state.auto_leave = membership.auto_leave;
    state
}

/// Sorted: raft-rs's own order depends on the history of its maps, and equal configurations must be equal bytes.
pub(super) fn membership_from_raft(state: &eraftpb::ConfState) -> Membership {
    let sorted = |numbers: &[u64]| {
        let mut replicas: Vec<_> = numbers.iter().map(|number| ReplicaId(*number)).collect();
        replicas.sort_unstable();
        replicas
    };
    Membership {
        voters: sorted(state.get_voters()),
        learners: sorted(state.get_learners()),
        voters_outgoing: sorted(state.get_voters_outgoing()),
        learners_next: sorted(state.get_learners_next()),
        auto_leave: state.auto_leave,
    }
}

pub(super) fn snapshot_to_raft(meta: &SnapshotMeta) -> eraftpb::Snapshot {
    let mut snapshot = eraftpb::Snapshot::default();
    let raft_meta = snapshot.mut_metadata();
    raft_meta.index = meta.at.index.0;
    raft_meta.term = meta.at.term.0;
    raft_meta.set_conf_state(membership_to_raft(&meta.membership));
    snapshot
}

pub(super) fn snapshot_from_raft(snapshot: &eraftpb::Snapshot) -> SnapshotMeta {
    let meta = snapshot.get_metadata();
    SnapshotMeta { at: LogId::new(meta.index, meta.term), membership: membership_from_raft(meta.get_conf_state()) }
}
