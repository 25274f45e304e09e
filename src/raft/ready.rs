//! What a replica starts from, and what it wants done: the vocabulary of [`super::replica`].

use super::{RaftMessage, SnapshotMeta};
use crate::types::{HardState, LogEntry, LogId, LogIndex, Membership, RaftGroupId, ReplicaId};
use bytes::Bytes;

/// Limits and timing of a replica. Ticks are the caller's unit of time.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// A follower that hears nothing for this many ticks, plus up to as many again, campaigns.
    pub election_ticks: u32,
    /// A leader sends heartbeats this often, in ticks.
    pub heartbeat_ticks: u32,
    /// Entries of one append message, in bytes (at least one entry goes).
    pub max_message_bytes: u64,
    /// Append messages on the way to one follower.
    pub max_inflight_messages: usize,
    /// Payload a leader accepts beyond what is committed, in bytes; more is refused. At least one message's.
    pub max_uncommitted_bytes: u64,
    /// Committed payload handed over in one `Ready`, in bytes.
    pub max_committed_bytes: u64,
    /// Shifts this replica's election timeouts against those of others.
    pub seed: u64,
    /// What is left out, in the simulator's negative controls; nothing anywhere else.
    pub omit: Omissions,
}

/// Precautions that a negative control leaves out, to show that the simulator notices.
#[derive(Clone, Copy, Debug, Default)]
pub struct Omissions {
    /// `next_idx` is not restored after a delayed rejection (tikv/raft-rs#557).
    pub next_index: bool,
    /// Messages of a leader leave before its own term is durable.
    pub promise_first: bool,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            election_ticks: 10,
            heartbeat_ticks: 3,
            max_message_bytes: 1 << 20,
            max_inflight_messages: 256,
            max_uncommitted_bytes: 64 << 20,
            max_committed_bytes: 8 << 20,
            seed: 0,
            omit: Omissions::default(),
        }
    }
}

/// What a replica starts from: the log as recovered, and how far the state machine has got.
#[derive(Clone, Debug)]
pub struct ReplicaStart {
    /// The group.
    pub group: RaftGroupId,
    /// Who we are in it.
    pub replica: ReplicaId,
    /// The recovered promises.
    pub hard_state: HardState,
    /// The entry before the log's first.
    pub start: LogId,
    /// The log's last entry.
    pub last: LogId,
    /// Where each term begins.
    pub terms: Vec<LogId>,
    /// The newest entry whose effects the state machine has.
    pub applied: LogIndex,
    /// The members as of `applied`.
    pub membership: Membership,
}

/// Why a replica can't take part any more. Its promises are kept by silence: it neither votes nor acknowledges.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

/// The part a replica plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows `leader`, if it knows one. A learner follows, too.
    Follower,
    /// Asks for votes (or whether asking makes sense).
    Candidate,
    /// Leads.
    Leader,
}

/// Why a proposal was refused. Definite: nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead the group, or is handing its leadership over.
    #[error("not the leader")]
    NotLeader,
    /// The leader has as much uncommitted data as it accepts.
    #[error("too much uncommitted data")]
    Busy,
}

/// What must be made durable, in one turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// The complete hard state.
    pub hard_state: HardState,
    /// Entries; they cut off what the log held from the first one's index on.
    pub entries: Vec<LogEntry>,
}

/// Everything a replica wants done. The order of effects is this type's fields.
#[derive(Debug, Default)]
pub struct Ready {
    /// Its number; `persisted` is called with it once `write` is durable.
    pub number: u64,
    /// May leave at once.
    pub send_now: Vec<RaftMessage>,
    /// Must be durable before anything in `send_after` leaves.
    pub write: Option<Write>,
    /// A snapshot to install, before `write` and before anything else of this group.
    pub snapshot: Option<SnapshotMeta>,
    /// Leaves after `write`, and after the writes of every earlier `Ready`.
    pub send_after: Vec<RaftMessage>,
    /// Committed entries for the state machine, following those of the `Ready` before.
    pub committed: Vec<LogEntry>,
    /// The members that result from each `ConfChange` in `committed`.
    pub memberships: Vec<(LogIndex, Membership)>,
    /// Linearizable reads that may be served once the state machine has applied the index.
    pub reads: Vec<(Bytes, LogIndex)>,
}

/// How far a follower is, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerProgress {
    /// The follower.
    pub replica: ReplicaId,
    /// The newest entry it is known to have on disk.
    pub matched: LogIndex,
    /// It was heard of within the last two election timeouts.
    pub recently_active: bool,
    /// It waits for a snapshot.
    pub snapshot: bool,
}
