//! The waist between Raft groups and what they replicate: entries in, outcomes out, one write per apply.
//!
//! A rejected command is a value that every replica computes alike. Anything else that goes wrong while applying
//! (a database error, a command of an unknown version) is fatal for the group: going on would let replicas differ.

pub mod codec;
pub mod own;

use crate::storage::{EngineError, WriteBatch};
use crate::types::{LogEntry, LogId, LogIndex, Membership, Offset, RaftGroupId};
use bytes::Bytes;

/// What applying one entry came to. Equal on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An entry of Raft's own (a new leader's first, a change of members), or a command that can't be refused and has
    /// no answer beyond the new state.
    None,
    /// Records are in the log from `base_offset` on. A retried batch answers with its original offset.
    Appended { base_offset: Offset, duplicate: bool },
    /// The state machine refused the command; nothing changed.
    Refused(Refusal),
    /// The answer of a metadata command, encoded by the state machine that gave it.
    Answer(Bytes),
}

/// Why a state machine refused a command. Definite: the write certainly did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Refusal {
    /// The batch's first sequence number does not follow the producer's last (KIP-98).
    OutOfOrderSequence,
    /// The producer's epoch is older than one already seen: it has been fenced (KIP-98).
    InvalidProducerEpoch,
    /// The batch repeats an old sequence number whose offset is no longer remembered (KIP-98).
    DuplicateSequence,
}

/// Why a group can't go on applying. Its replica is quarantined, the others carry on.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The database failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A committed command can't be understood, or stored state contradicts itself.
    #[error("group {group}, entry {entry}: {reason}")]
    Damaged { group: RaftGroupId, entry: LogId, reason: String },
}

impl MachineError {
    /// Whether the group's state or entries are damaged; otherwise the database can't go on.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Engine(error) => error.damage,
        }
    }
}

/// A replicated state machine of one group.
pub trait StateMachine: Send {
    /// The highest entry whose effects are in the state.
    fn applied(&self) -> LogId;

    /// The members as of `applied`.
    fn membership(&self) -> &Membership;

    /// Applies committed entries, consecutive from `applied + 1`, into `batch`, with the new applied position in the
    /// same batch. `memberships` holds the members that result from each `ConfChange` entry. One outcome per entry.
    ///
    /// The caller writes `batch` before it calls again or publishes an outcome.
    fn apply(
        &mut self,
        entries: &[LogEntry],
        memberships: &[(LogIndex, Membership)],
        batch: &mut WriteBatch,
    ) -> Result<Vec<Outcome>, MachineError>;
}
