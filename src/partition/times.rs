//! The index over runs of batches: one row of `Times` for every run of about 4 MiB, or of an hour.
//!
//! A row holds the greatest timestamp of its run and how many bytes of batches lie before it. It is written once, when
//! the run is full; until then the run is part of the partition's position and of every view. Kafka keeps the same per
//! segment. Two things are found by it:
//!
//! * an offset by time: a search walks the rows from the log start to the first run whose greatest timestamp is high
//!   enough, then the batches of that run, then the records of a batch. Right for timestamps in any order and after any
//!   trimming, and few rows even for a terabyte. A run may promise more than is left of it (the log start has moved on,
//!   or a batch's header lies), never less;
//! * what retention removes: whole runs from the front. The bytes before each are a running total, so that the size of
//!   what remains is a subtraction, however long the log.

use super::rows;
use crate::types::Offset;

/// A run ends with the batch that reaches this size, in bytes.
pub const RUN_BYTES: u64 = 4 << 20;

/// A run ends, too, before a batch that is so much younger than its first, in milliseconds: the newest record of a run
/// keeps the others, and a partition that takes one record a day would never come to the end of 4 MiB.
const RUN_SPAN_MS: i64 = 60 * 60 * 1000;

/// The version under which rows are written.
const ROW_VERSION: u8 = 2;

/// Consecutive batches that share a row, or will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Run {
    /// The base offset of the first batch; the row's key.
    pub first: Offset,
    /// The batches' total size in bytes; 0 before the first.
    pub bytes: u64,
    /// The greatest timestamp of any batch, in milliseconds.
    pub max_timestamp: i64,
    /// The greatest timestamp of the first batch, in milliseconds.
    pub first_timestamp: i64,
    /// The size of all batches of this generation before the run, those removed meanwhile included, in bytes.
    pub bytes_before: u64,
}

/// What a row says of a full run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct RunRow {
    /// The greatest timestamp of any batch, in milliseconds.
    pub max_timestamp: i64,
    /// See `Run::bytes_before`.
    pub bytes_before: u64,
}

impl Run {
    /// Whether there is a batch in it.
    pub fn is_begun(&self) -> bool {
        self.bytes > 0
    }

    /// The size of all batches of this generation up to the end of the run, in bytes.
    pub fn bytes_to_end(&self) -> u64 {
        self.bytes_before + self.bytes
    }

    /// The run after adding a batch: this one, or a new one if this one is full.
    #[must_use]
    pub fn with(self, base_offset: Offset, bytes: usize, max_timestamp: i64) -> Self {
        let bytes = bytes as u64;
        let too_young = max_timestamp.saturating_sub(self.first_timestamp) > RUN_SPAN_MS;
        if !self.is_begun() || self.bytes >= RUN_BYTES || too_young {
            let (first, first_timestamp, bytes_before) = (base_offset, max_timestamp, self.bytes_to_end());
            return Self { first, bytes, max_timestamp, first_timestamp, bytes_before };
        }
        let max_timestamp = self.max_timestamp.max(max_timestamp);
        Self { bytes: self.bytes + bytes, max_timestamp, ..self }
    }

    /// What its row will say.
    pub fn row(&self) -> RunRow {
        RunRow { max_timestamp: self.max_timestamp, bytes_before: self.bytes_before }
    }
}

impl RunRow {
    /// The row as it is stored.
    pub fn encode(&self) -> bytes::Bytes {
        rows::encode(ROW_VERSION, self)
    }

    /// Reads a row. The error is a sentence for the operator.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        rows::decode(ROW_VERSION, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_by_size_and_by_time_and_the_total_goes_on() {
        let run = Run::default().with(Offset(0), 3 << 20, 1_000).with(Offset(5), 2 << 20, 500);
        assert_eq!((run.first, run.bytes, run.max_timestamp), (Offset(0), 5 << 20, 1_000));
        let next = run.with(Offset(9), 10, 1_001);
        assert_eq!((next.first, next.bytes_before, next.bytes_to_end()), (Offset(9), 5 << 20, (5 << 20) + 10));
        let same = next.with(Offset(10), 10, 1_001 + RUN_SPAN_MS);
        assert_eq!(same.first, Offset(9), "just within the hour");
        let younger = same.with(Offset(11), 10, 1_002 + RUN_SPAN_MS);
        assert_eq!((younger.first, younger.bytes_before), (Offset(11), (5 << 20) + 20));
        assert_eq!(younger.with(Offset(12), 10, i64::MIN).first, Offset(11), "one that is older ends no run");
    }
}
