//! Record batches (Kafka's RecordBatch, magic 2), as bytes that are never re-encoded.
//!
//! A batch is stored, replicated and served as the slice its producer sent. Base offset and leader epoch lie outside
//! the checksum, are unknown until the batch is applied, and are never written into the bytes: whoever sends a batch
//! to a consumer sends `wire_prefix` and then the bytes from `PREFIX_BYTES` on. The one re-write is of timestamps
//! (`with_timestamps`), before the batch is proposed.
//!
//! A `RecordBatch` has a whole header and a length that matches its bytes; nothing else is promised until
//! `verify_checksum` (what was written is what is read) or `validate::validate` (a client may add it to a log).

pub mod codec;
pub mod reader;
pub mod validate;
pub mod writer;

use crate::types::{LeaderEpoch, Offset};
use bytes::{Bytes, BytesMut};
use reader::Records;

/// The bytes before the records of a batch.
pub const HEADER_BYTES: usize = 61;

/// The bytes of a batch that the fetch encoder gives itself: base offset, length, leader epoch.
pub const PREFIX_BYTES: usize = 16;

/// The bytes that the batch's own length field does not count: base offset and the length field.
const LENGTH_OVERHEAD: usize = 12;

/// Where each field of the header begins.
mod field {
    pub const LENGTH: usize = 8;
    pub const MAGIC: usize = 16;
    pub const CHECKSUM: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const COUNT: usize = 57;
}

/// Bits of the attributes.
mod attribute {
    pub const CODEC: i16 = 0b111;
    pub const LOG_APPEND_TIME: i16 = 1 << 3;
    pub const TRANSACTIONAL: i16 = 1 << 4;
    pub const CONTROL: i16 = 1 << 5;
}

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

/// Why bytes are not a batch, or not one that may be added to a log. Definite: nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does, or its length field contradicts them.
    #[error("the record batch is cut short or its length field is wrong")]
    Length,
    /// A format older or newer than 2.
    #[error("record batch format {0} is not supported; only format 2 is")]
    Magic(i8),
    /// The bytes are not those the producer sent.
    #[error("the record batch does not match its CRC-32C")]
    Checksum,
    /// Larger than the topic allows.
    #[error("the record batch has {bytes} bytes; the limit is {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// The batch breaks a rule; `record` says which record does, if it is one.
    #[error("{reason}")]
    Invalid { record: Option<i32>, reason: &'static str },
    /// A record's timestamp is outside the topic's bounds.
    #[error("record {record} has a timestamp out of range: {timestamp} ms")]
    Timestamp { record: i32, timestamp: i64 },
    /// A codec that does not exist, or that this version of the request may not use.
    #[error("compression codec {0} can't be used here")]
    Codec(i16),
}

impl BatchError {
    /// The whole batch breaks a rule.
    const fn invalid(reason: &'static str) -> Self {
        Self::Invalid { record: None, reason }
    }
}

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, in xerial's framing or raw.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// RFC 8878 (KIP-110).
    Zstd,
}

/// Who gave the records of a batch their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer.
    CreateTime,
    /// The leader, when it took the batch in; every record then counts as of the batch's greatest timestamp (KIP-32).
    LogAppendTime,
}

/// The producer fields of an idempotent batch (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// The producer's number, at least 0.
    pub id: i64,
    /// Its incarnation.
    pub epoch: i16,
    /// The sequence number of the first record.
    pub first_sequence: i32,
    /// The sequence number of the last record; wraps from `i32::MAX` to 0.
    pub last_sequence: i32,
}

/// One record batch: a whole header, and a length field that agrees with the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    /// The batch from its first byte to its last.
    bytes: Bytes,
}

impl RecordBatch {
    /// Takes bytes that are exactly one batch of format 2.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        // The format's number is at the same place in all of Kafka's formats; the oldest batches are shorter than
        // our header, so it is looked at first.
        let magic = *bytes.get(field::MAGIC).ok_or(BatchError::Length)? as i8;
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Length);
        }
        let batch = Self { bytes };
        let length = usize::try_from(batch.i32_at(field::LENGTH)).map_err(|_| BatchError::Length)?;
        if length != batch.bytes.len() - LENGTH_OVERHEAD {
            return Err(BatchError::Length);
        }
        Ok(batch)
    }

    /// Takes bytes that are exactly one batch and match its checksum.
    pub fn parse_verified(bytes: Bytes) -> Result<Self, BatchError> {
        let batch = Self::parse(bytes)?;
        batch.verify_checksum()?;
        Ok(batch)
    }

    /// Compares the bytes with the CRC-32C that the producer computed over everything after it.
    pub fn verify_checksum(&self) -> Result<(), BatchError> {
        let stored = self.i32_at(field::CHECKSUM) as u32;
        if crc32c::crc32c(&self.bytes[field::ATTRIBUTES..]) == stored { Ok(()) } else { Err(BatchError::Checksum) }
    }

    /// The batch's bytes, first 16 included, as the producer sent them.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The batch's bytes, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The base offset as the producer wrote it: 0 in a batch that may be added to a log.
    #[must_use]
    pub fn written_base_offset(&self) -> i64 {
        self.i64_at(0)
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        match self.attributes() & attribute::CODEC {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            unknown => Err(BatchError::Codec(unknown)),
        }
    }

    /// Who gave the records their time.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes() & attribute::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes() & attribute::TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction's marker rather than records of a producer.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes() & attribute::CONTROL != 0
    }

    /// The last record's offset less the batch's base offset. Negative in hostile bytes.
    #[must_use]
    pub fn last_offset_delta(&self) -> i32 {
        self.i32_at(field::LAST_OFFSET_DELTA)
    }

    /// The timestamp that the records' deltas are added to, in milliseconds.
    #[must_use]
    pub fn base_timestamp(&self) -> i64 {
        self.i64_at(field::BASE_TIMESTAMP)
    }

    /// The greatest timestamp of a record, in milliseconds.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        self.i64_at(field::MAX_TIMESTAMP)
    }

    /// The producer fields, if the batch has any.
    #[must_use]
    pub fn producer(&self) -> Option<Producer> {
        let id = self.i64_at(field::PRODUCER_ID);
        let first_sequence = self.i32_at(field::BASE_SEQUENCE);
        let epoch = self.i32_at(field::PRODUCER_EPOCH - 2) as i16;
        let last_sequence = sequence_after(first_sequence, self.last_offset_delta());
        (id >= 0).then_some(Producer { id, epoch, first_sequence, last_sequence })
    }

    /// How many records the header promises. Negative in hostile bytes.
    #[must_use]
    pub fn count(&self) -> i32 {
        self.i32_at(field::COUNT)
    }

    /// The records, decompressed if need be into at most `limit` bytes.
    pub fn records(&self, limit: usize) -> Result<Records, BatchError> {
        let body = self.bytes.slice(HEADER_BYTES..);
        let body = match self.codec()? {
            Codec::None => body,
            codec => Bytes::from(codec::decompress(codec, &body, limit)?),
        };
        Ok(Records::new(body, self))
    }

    /// The same batch with the leader's time, as topics with `message.timestamp.type=LogAppendTime` have it.
    #[must_use]
    pub fn stamp_log_append_time(&self, now_ms: i64) -> Self {
        self.with_timestamps(self.attributes() | attribute::LOG_APPEND_TIME, now_ms)
    }

    /// The same batch with the greatest timestamp that its records really have, as Kafka corrects it.
    #[must_use]
    fn with_max_timestamp(&self, max_timestamp: i64) -> Self {
        self.with_timestamps(self.attributes(), max_timestamp)
    }

    /// A copy with other attributes and greatest timestamp, and the checksum that follows from them.
    fn with_timestamps(&self, attributes: i16, max_timestamp: i64) -> Self {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        bytes[field::ATTRIBUTES..][..2].copy_from_slice(&attributes.to_be_bytes());
        bytes[field::MAX_TIMESTAMP..][..8].copy_from_slice(&max_timestamp.to_be_bytes());
        let checksum = crc32c::crc32c(&bytes[field::ATTRIBUTES..]);
        bytes[field::CHECKSUM..][..4].copy_from_slice(&checksum.to_be_bytes());
        Self { bytes: bytes.freeze() }
    }

    fn attributes(&self) -> i16 {
        self.i32_at(field::ATTRIBUTES - 2) as i16
    }

    fn i32_at(&self, at: usize) -> i32 {
        i32::from_be_bytes(self.bytes[at..at + 4].try_into().expect("the slice has 4 bytes"))
    }

    fn i64_at(&self, at: usize) -> i64 {
        i64::from_be_bytes(self.bytes[at..at + 8].try_into().expect("the slice has 8 bytes"))
    }
}

/// The sequence number `steps` after `sequence`; after `i32::MAX` comes 0 (KIP-98).
#[must_use]
pub fn sequence_after(sequence: i32, steps: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(steps);
    if sum > i64::from(i32::MAX) { (sum - i64::from(i32::MAX) - 1) as i32 } else { sum as i32 }
}

/// The first bytes of a batch of `batch_bytes` in a fetch response: base offset, length, leader epoch. The batch's own
/// bytes follow from `PREFIX_BYTES` on.
#[must_use]
pub fn wire_prefix(base_offset: Offset, batch_bytes: usize, epoch: LeaderEpoch) -> [u8; PREFIX_BYTES] {
    let length = i32::try_from(batch_bytes - LENGTH_OVERHEAD).expect("a batch's length was read from an i32");
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..8].copy_from_slice(&base_offset.0.to_be_bytes());
    prefix[8..12].copy_from_slice(&length.to_be_bytes());
    prefix[12..].copy_from_slice(&epoch.0.to_be_bytes());
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use writer::BatchWriter;

    #[test]
    fn the_prefix_and_the_rest_are_a_batch_with_offset_and_epoch() {
        let batch = BatchWriter::new(1_000).record(Some(b"k"), Some(b"v"), 1_000).finish();
        let prefix = wire_prefix(Offset(77), batch.bytes().len(), LeaderEpoch(5));
        let served = Bytes::from([&prefix[..], &batch.bytes()[PREFIX_BYTES..]].concat());
        let served = RecordBatch::parse_verified(served).unwrap();
        assert_eq!(served.written_base_offset(), 77);
        assert_eq!(i32::from_be_bytes(served.bytes()[12..16].try_into().unwrap()), 5);
    }

    #[test]
    fn sequences_wrap_after_the_greatest() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 2, 5), 2);
        assert_eq!(sequence_after(7, 0), 7);
    }

    #[test]
    fn log_append_time_changes_only_time_and_checksum() {
        let batch = BatchWriter::new(1_000).record(None, Some(b"value"), 1_000).finish();
        let stamped = batch.stamp_log_append_time(9_999);
        stamped.verify_checksum().unwrap();
        assert_eq!(stamped.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(stamped.max_timestamp(), 9_999);
        assert_eq!(stamped.records(0).unwrap().iter().next().unwrap().unwrap().timestamp, 9_999);
        let changed: Vec<usize> =
            (0..batch.bytes().len()).filter(|&at| batch.bytes()[at] != stamped.bytes()[at]).collect();
        assert!(changed.iter().all(|&at| (17..23).contains(&at) || (35..43).contains(&at)), "{changed:?}");
    }
}
