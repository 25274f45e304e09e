//! Builds uncompressed batches: for the native protocol, the command line and tests.

use super::{HEADER_BYTES, NO_TIMESTAMP, RecordBatch, attribute, field};
use bytes::Bytes;

/// A header's key and value.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// A batch in the making. Offsets start at 0, as in every batch a producer sends.
#[derive(Clone, Debug)]
pub struct BatchWriter {
    /// The header, filled in by `finish`, and the records so far.
    bytes: Vec<u8>,
    /// The records so far.
    count: i32,
    /// What timestamps are written relative to, in milliseconds.
    base_timestamp: i64,
    /// The greatest timestamp so far.
    max_timestamp: i64,
    /// Producer id, epoch and first sequence; −1 each for a batch that is not idempotent.
    producer: (i64, i16, i32),
    /// Attribute bits.
    attributes: i16,
}

impl BatchWriter {
    /// An empty batch whose timestamps are written relative to `base_timestamp` in milliseconds.
    #[must_use]
    pub fn new(base_timestamp: i64) -> Self {
        let bytes = vec![0; HEADER_BYTES];
        let max_timestamp = NO_TIMESTAMP;
        Self { bytes, count: 0, base_timestamp, max_timestamp, producer: (-1, -1, -1), attributes: 0 }
    }

    /// Makes the batch an idempotent producer's.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, first_sequence: i32) -> Self {
        self.producer = (id, epoch, first_sequence);
        self
    }

    /// Makes the batch a transaction's marker.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.attributes |= attribute::CONTROL | attribute::TRANSACTIONAL;
        self
    }

    /// Adds a record.
    #[must_use]
    pub fn record(self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) -> Self {
        self.record_with_headers(key, value, timestamp, &[])
    }

    /// Adds a record with headers.
    #[must_use]
    pub fn record_with_headers(
        mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: i64,
        headers: &[Header<'_>],
    ) -> Self {
        let mut record = vec![0];
        put_varlong(&mut record, timestamp - self.base_timestamp);
        put_varlong(&mut record, i64::from(self.count));
        put_field(&mut record, key);
        put_field(&mut record, value);
        put_varlong(&mut record, headers.len() as i64);
        for &(key, value) in headers {
            put_field(&mut record, Some(key));
            put_field(&mut record, value);
        }
        put_varlong(&mut self.bytes, record.len() as i64);
        self.bytes.extend(record);
        self.count += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self
    }

    /// The whole batch.
    #[must_use]
    pub fn finish(mut self) -> RecordBatch {
        let length = i32::try_from(self.bytes.len() - 12).expect("a batch of ours is far below 2 GiB");
        let mut set = |at: usize, value: &[u8]| self.bytes[at..at + value.len()].copy_from_slice(value);
        set(field::LENGTH, &length.to_be_bytes());
        set(12, &(-1i32).to_be_bytes());
        set(field::MAGIC, &[2]);
        set(field::ATTRIBUTES, &self.attributes.to_be_bytes());
        set(field::LAST_OFFSET_DELTA, &(self.count - 1).to_be_bytes());
        set(field::BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        set(field::MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        set(field::PRODUCER_ID, &self.producer.0.to_be_bytes());
        set(field::PRODUCER_EPOCH, &self.producer.1.to_be_bytes());
        set(field::BASE_SEQUENCE, &self.producer.2.to_be_bytes());
        set(field::COUNT, &self.count.to_be_bytes());
        let checksum = crc32c::crc32c(&self.bytes[field::ATTRIBUTES..]);
        self.bytes[field::CHECKSUM..][..4].copy_from_slice(&checksum.to_be_bytes());
        RecordBatch::parse(Bytes::from(self.bytes)).expect("a batch just written has a whole header")
    }
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    put_varlong(out, field.map_or(-1, |bytes| bytes.len() as i64));
    out.extend(field.unwrap_or_default());
}

fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
