//! The row that says which replica of a group this disk has. A group's members do not tell: its node may have had
//! others before, on disks that were lost, and the next ones on another disk, and a replica may have been removed.
//!
//! It is written with the group's first rows, before any other state, and stays until the group is destroyed.

use super::MachineError;
use super::codec::{self, CodecError};
use crate::storage::{Engine, Family, WriteBatch};
use crate::types::{LogId, RaftGroupId, ReplicaId};

/// The most bytes that a row takes in memory, far above what it needs.
const LIMIT: usize = 64;

/// Longer than the keys of the state machines in `Family::Meta`, which are a group and at most one byte.
fn key(group: RaftGroupId) -> Vec<u8> {
    [&group.0.to_be_bytes()[..], b"own"].concat()
}

/// Notes it.
pub fn put(batch: &mut WriteBatch, group: RaftGroupId, own: ReplicaId) {
    batch.put(Family::Meta, key(group), codec::encode(&own));
}

/// Forgets it.
pub fn delete(batch: &mut WriteBatch, group: RaftGroupId) {
    batch.delete(Family::Meta, key(group));
}

/// The replica that this disk has; nothing if it has none, or has lost its database, or has it from before there were
/// such rows.
pub fn get(engine: &dyn Engine, group: RaftGroupId) -> Result<Option<ReplicaId>, MachineError> {
    let row = engine.get(Family::Meta, &key(group))?;
    let damaged = |error: CodecError| MachineError::Damaged {
        group,
        entry: LogId::default(),
        reason: format!("which replica this is: {error}"),
    };
    row.map(|row| codec::decode::<ReplicaId, LIMIT>(&row).map_err(damaged)).transpose()
}
