//! The waist between state machines and the database: ordered keys in families, atomic batches, an explicit flush.
//!
//! Production runs it on RocksDB without a write-ahead log; the simulator on maps in memory that forget on a crash what
//! was not flushed. Both may flush by themselves at any moment, so after a crash an engine opens at *some* batch at or
//! after the last explicit flush, never in the middle of one, and the Raft log replays the rest.

pub mod rocks;

use bytes::Bytes;
use std::ops::ControlFlow;

/// A family of keys (a RocksDB column family). Every key begins with the Raft group's number, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// (group, generation, last offset) → the record batch as the producer sent it.
    Records,
    /// (group, generation, first offset of a run of batches) → the run's greatest timestamp and the bytes before it.
    Times,
    /// (group, generation, producer id) → epoch and last batches of an idempotent producer.
    Producers,
    /// (group, …) → rows of consumer groups and their offsets.
    Groups,
    /// (group, …) → applied index, membership, generation, log start, leader epochs; which replica this disk has.
    Meta,
    /// (group, …) → rows of the cluster's metadata.
    Controller,
}

impl Family {
    /// All families, in a fixed order.
    pub const ALL: [Self; 6] =
        [Self::Records, Self::Times, Self::Producers, Self::Groups, Self::Meta, Self::Controller];
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put { family: Family, key: Vec<u8>, value: Bytes },
    /// Removes a key.
    Delete { family: Family, key: Vec<u8> },
    /// Removes every key in `from .. to`. Tombstones slow reads: few and large ones.
    DeleteRange { family: Family, from: Vec<u8>, to: Vec<u8> },
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// In order; a later change of the same key wins.
    pub changes: Vec<Change>,
}

impl WriteBatch {
    /// Adds a `Put`.
    pub fn put(&mut self, family: Family, key: Vec<u8>, value: impl Into<Bytes>) {
        self.changes.push(Change::Put { family, key, value: value.into() });
    }

    /// Adds a `Delete`.
    pub fn delete(&mut self, family: Family, key: Vec<u8>) {
        self.changes.push(Change::Delete { family, key });
    }

    /// Adds a `DeleteRange`.
    pub fn delete_range(&mut self, family: Family, from: Vec<u8>, to: Vec<u8>) {
        self.changes.push(Change::DeleteRange { family, from, to });
    }
}

/// Why the database could not do what was asked. Every one of them ends the group or the process that met it.
#[derive(Debug, thiserror::Error)]
#[error("state machine database: {reason}")]
pub struct EngineError {
    /// A sentence for the operator.
    pub reason: String,
    /// What was to be read is damaged or gone; other keys may be sound. Otherwise the database itself can't go on.
    pub damage: bool,
}

impl EngineError {
    /// The database can't go on.
    #[must_use]
    pub fn failed(reason: String) -> Self {
        Self { reason, damage: false }
    }

    /// What was to be read is damaged or gone.
    #[must_use]
    pub fn damaged(reason: String) -> Self {
        Self { reason, damage: true }
    }
}

/// What `Engine::scan` hands each key and value to; `Break` ends the scan.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered key-value database.
pub trait Engine: Send + Sync {
    /// The value of `key`.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Visits the keys in `from .. to`, ascending.
    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError>;

    /// The greatest key in `from ..= at`, with its value.
    fn last_at_or_before(
        &self,
        family: Family,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Vec<u8>, Bytes)>, EngineError>;

    /// Applies a batch. Readers see it at once; a crash may undo it, whole, until `flush` has returned.
    fn write(&self, batch: WriteBatch) -> Result<(), EngineError>;

    /// Makes every batch written so far durable, all families together. Others may write meanwhile: who wants to free
    /// the Raft log notes what is applied *before* calling, and that much is covered.
    fn flush(&self) -> Result<(), EngineError>;

    /// Why the database takes no more writes, if it takes none: only opening it again helps.
    fn failure(&self) -> Option<String> {
        None
    }

    /// What is damaged here keeps groups from being repaired: whoever opens the database next must set it aside, and
    /// have every state fetched from peers.
    fn condemn(&self, _reason: &str) {}

    /// Gives the space of `from .. to` back to the file system where whole files allow it. The keys must already be
    /// deleted, durably.
    fn reclaim(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), EngineError>;

    /// Gives back, too, what `reclaim` could not because it shares files with keys that stay, if there is so much of it
    /// that rewriting those pays. May take long; others may read and write meanwhile.
    fn merge_deleted(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

impl<E: Engine + ?Sized> Engine for std::sync::Arc<E> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        (**self).get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        (**self).scan(family, from, to, visit)
    }

    fn last_at_or_before(
        &self,
        family: Family,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Vec<u8>, Bytes)>, EngineError> {
        (**self).last_at_or_before(family, from, at)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        (**self).write(batch)
    }

    fn flush(&self) -> Result<(), EngineError> {
        (**self).flush()
    }

    fn failure(&self) -> Option<String> {
        (**self).failure()
    }

    fn condemn(&self, reason: &str) {
        (**self).condemn(reason);
    }

    fn reclaim(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), EngineError> {
        (**self).reclaim(family, from, to)
    }

    fn merge_deleted(&self) -> Result<(), EngineError> {
        (**self).merge_deleted()
    }
}
