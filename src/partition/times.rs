//! The index for searches by time: one row of `Times` for every run of about 4 MiB of batches.
//!
//! A row holds the greatest timestamp of its run and is written once, when the run is full; until then the run is part
//! of the partition's position and of every view. A search walks the rows from the log start to the first run whose
//! greatest timestamp is high enough, then the batches of that run, then the records of a batch: right for timestamps
//! in any order and after any trimming, and few rows even for a terabyte. Kafka keeps the same per segment. A run may
//! promise more than is left of it (the log start has moved on, or a batch's header lies), never less.

use crate::types::Offset;

/// A run ends with the batch that reaches this size.
const RUN_BYTES: u64 = 4 << 20;

/// Consecutive batches that share a row, or will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Run {
    /// The base offset of the first batch; the row's key.
    pub first: Offset,
    /// The batches' total size in bytes; 0 before the first.
    pub bytes: u64,
    /// The greatest timestamp of any batch, in milliseconds; the row's value.
    pub max_timestamp: i64,
}

impl Run {
    /// Whether there is a batch in it.
    pub fn is_begun(&self) -> bool {
        self.bytes > 0
    }

    /// The run after adding a batch: this one, or a new one if this one is full.
    #[must_use]
    pub fn with(self, base_offset: Offset, bytes: usize, max_timestamp: i64) -> Self {
        let bytes = bytes as u64;
        if !self.is_begun() || self.bytes >= RUN_BYTES {
            return Self { first: base_offset, bytes, max_timestamp };
        }
        let max_timestamp = self.max_timestamp.max(max_timestamp);
        Self { first: self.first, bytes: self.bytes + bytes, max_timestamp }
    }
}
