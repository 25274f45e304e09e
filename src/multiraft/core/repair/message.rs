//! What replicas say to each other so that a damaged one is repaired. It goes beside Raft: a damaged replica is none of
//! its group until it is whole again.

use crate::raft::SnapshotMeta;
use crate::types::{LogEntry, LogId, LogIndex, Membership, RaftGroupId, ReplicaId, Term};

/// The most anchors of one question.
pub const ANCHORS_MAX: usize = 4;

/// Something said about a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairMessage {
    /// The group.
    pub group: RaftGroupId,
    /// Who says it.
    pub from: ReplicaId,
    /// To whom.
    pub to: ReplicaId,
    /// What is said.
    pub body: RepairBody,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairBody {
    /// I have lost these entries.
    WantEntries(Lost),
    /// These are they, or the first of them; at least one.
    Entries { nonce: u64, entries: Vec<LogEntry> },
    /// I can't give them.
    NoEntries { nonce: u64, lack: Lack },
    /// I need the state as of this entry or a later one. `committed` is this entry, or one before it, if I know it to
    /// be committed: nobody else may know that of it.
    WantState { at_least: LogIndex, committed: LogId },
    /// This one is to be had here.
    State(SnapshotMeta),
    /// My state is older.
    NoState { applied: LogIndex },
    /// I do not know what I have promised. Which is your term, and if you lead, where does your log end?
    WantFloor { nonce: u64 },
    /// My term: I am, and was, no candidate of a later one.
    Term { nonce: u64, term: Term },
    /// A majority that does not count you has confirmed, after you asked, that I lead in this term. Whatever you have
    /// promised is settled at `last`, where my log ended when you asked.
    Floor { nonce: u64, term: Term, last: LogIndex, membership: Membership },
    /// I can't help, or not alone, and this one leads. It may have become a member while you were away.
    Led { by: ReplicaId },
}

/// Entries that somebody has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Distinguishes what is asked since the last look at the log from what was asked before: in the same place there
    /// may have been other entries.
    pub nonce: u64,
    /// The first.
    pub first: LogIndex,
    /// The last.
    pub last: LogIndex,
    /// They came before each of these, which the one that asks knows that it had.
    pub anchors: Vec<LogId>,
}

/// Why a replica can't give entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Its log does not hold what came after them: it has others in their place, or none.
    Different,
    /// It has let go of them: their effects are in its state.
    Released,
    /// It has lost them, too.
    Damaged,
}

impl RepairMessage {
    /// The payload bytes this message pins in memory.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match &self.body {
            RepairBody::Entries { entries, .. } => entries.iter().map(LogEntry::payload_bytes).sum(),
            _ => 0,
        }
    }
}
