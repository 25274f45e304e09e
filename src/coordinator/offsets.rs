//! Stored offsets: what is kept of each, reading them, and the commands that change them.

use super::rows;
use crate::machine::MachineError;
use crate::storage::Engine;
use crate::types::{LogId, RaftGroupId};

/// An offset as a group stored it.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Committed {
    /// The next offset to be read.
    pub offset: i64,
    /// The leader epoch of the last record read, −1 if unknown.
    pub leader_epoch: i32,
    /// Whatever the client wanted to remember with it.
    pub metadata: String,
    /// When it was stored, by the replicated clock, in milliseconds since 1970.
    pub committed_at_ms: i64,
}

/// A stored offset with its topic and partition.
pub type Stored = (String, i32, Committed);

fn damaged(raft: RaftGroupId, reason: String) -> MachineError {
    MachineError::Damaged { group: raft, entry: LogId::default(), reason }
}

/// The offset that a group has stored for a partition. Longer names than the protocol has are in no row.
pub fn read(
    engine: &dyn Engine,
    raft: RaftGroupId,
    group: &str,
    topic: &str,
    partition: i32,
) -> Result<Option<Committed>, MachineError> {
    if [group, topic].iter().any(|name| name.len() > super::NAME_BYTES_MAX) {
        return Ok(None);
    }
    rows::read_offset(engine, raft, group, topic, partition)?.map_err(|reason| damaged(raft, reason))
}

/// Every offset that a group has stored, by topic and partition.
pub fn read_all(engine: &dyn Engine, raft: RaftGroupId, group: &str) -> Result<Vec<Stored>, MachineError> {
    if group.len() > super::NAME_BYTES_MAX {
        return Ok(Vec::new());
    }
    rows::read_offsets(engine, raft, group)?.map_err(|reason| damaged(raft, reason))
}
