//! Walks the records inside a batch, without a copy.
//!
//! Every length is checked against what is left before it is used. An error ends the walk: what follows a broken
//! length means nothing.

use super::{BatchError, RecordBatch, TimestampType};
use bytes::Bytes;

/// The records of one batch, decompressed.
#[derive(Clone, Debug)]
pub struct Records {
    /// The records, one after another.
    body: Bytes,
    /// How many the header promises.
    count: i32,
    /// What the records' timestamp deltas are added to.
    base_timestamp: i64,
    /// The time of every record, where the leader gave it.
    log_append_time: Option<i64>,
}

/// One record. `'a` is the decompressed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// Its time in milliseconds; −1 for none.
    pub timestamp: i64,
    /// Its key, if any.
    pub key: Option<&'a [u8]>,
    /// Its value, if any; a record with a key and no value is a tombstone.
    pub value: Option<&'a [u8]>,
    /// How many headers follow.
    header_count: usize,
    /// The headers as they lie in the batch, their lengths already checked.
    headers: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record's headers, in order; the same key may come again.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut cursor = Cursor { rest: self.headers };
        (0..self.header_count).map_while(move |_| Some((cursor.field().ok()??, cursor.field().ok()?)))
    }
}

impl Records {
    pub(super) fn new(body: Bytes, batch: &RecordBatch) -> Self {
        let log_append_time = (batch.timestamp_type() == TimestampType::LogAppendTime).then_some(batch.max_timestamp());
        Self { body, count: batch.count(), base_timestamp: batch.base_timestamp(), log_append_time }
    }

    /// The decompressed bytes that records borrow from: `Bytes::slice_ref` makes a record's part outlive the walk.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Walks the records, as many as the header promises, and fails if bytes are left after the last.
    pub fn iter(&self) -> impl Iterator<Item = Result<Record<'_>, BatchError>> {
        let mut cursor = Cursor { rest: &self.body };
        let mut left = self.count;
        std::iter::from_fn(move || {
            if left <= 0 {
                let trailing = !std::mem::take(&mut cursor.rest).is_empty();
                return trailing.then_some(Err(BatchError::invalid("bytes are left after the batch's last record")));
            }
            left -= 1;
            let record = self.next_record(&mut cursor);
            if record.is_err() {
                (left, cursor.rest) = (0, &[]);
            }
            Some(record)
        })
    }

    fn next_record<'a>(&self, cursor: &mut Cursor<'a>) -> Result<Record<'a>, BatchError> {
        let length = usize::try_from(cursor.varint()?).map_err(|_| BROKEN)?;
        let mut record = Cursor { rest: cursor.take(length)? };
        record.take(1)?; // Attributes of a record: none is defined.
        let timestamp = self.base_timestamp.checked_add(record.varlong()?).ok_or(BROKEN)?;
        let offset_delta = record.varint()?;
        let (key, value) = (record.field()?, record.field()?);
        let header_count = usize::try_from(record.varint()?).map_err(|_| BROKEN)?;
        let headers = record.rest;
        for _ in 0..header_count {
            record.field()?.ok_or(BROKEN)?;
            record.field()?;
        }
        if !record.rest.is_empty() {
            return Err(BROKEN);
        }
        let timestamp = self.log_append_time.unwrap_or(timestamp);
        Ok(Record { offset_delta, timestamp, key, value, header_count, headers })
    }
}

const BROKEN: BatchError = BatchError::invalid("a record's lengths contradict each other");

/// What is still to be read.
struct Cursor<'a> {
    /// The unread bytes.
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BatchError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(BROKEN)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A length and that many bytes; −1 stands for none.
    fn field(&mut self) -> Result<Option<&'a [u8]>, BatchError> {
        match self.varint()? {
            -1 => Ok(None),
            length => Ok(Some(self.take(usize::try_from(length).map_err(|_| BROKEN)?)?)),
        }
    }

    fn varint(&mut self) -> Result<i32, BatchError> {
        i32::try_from(self.varlong()?).map_err(|_| BROKEN)
    }

    /// A zigzag number of at most 10 bytes, 7 bits each, least significant first.
    fn varlong(&mut self) -> Result<i64, BatchError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(BROKEN)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(BROKEN)
    }
}

#[cfg(test)]
mod tests {
    use crate::record::RecordBatch;
    use crate::record::writer::BatchWriter;
    use bytes::Bytes;

    fn sample() -> RecordBatch {
        BatchWriter::new(5_000)
            .record(Some(b"key"), Some(b"value"), 5_000)
            .record_with_headers(None, None, 4_000, &[(b"a", Some(b"1")), (b"a", None)])
            .record(Some(b""), Some(&[7; 300]), 6_000)
            .finish()
    }

    #[test]
    fn what_was_written_is_read() {
        let records = sample().records(0).unwrap();
        let read: Vec<_> = records.iter().map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|r| r.offset_delta).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(read.iter().map(|r| r.timestamp).collect::<Vec<_>>(), [5_000, 4_000, 6_000]);
        assert_eq!((read[0].key, read[0].value), (Some(&b"key"[..]), Some(&b"value"[..])));
        assert_eq!((read[1].key, read[1].value), (None, None));
        assert_eq!(read[1].headers().collect::<Vec<_>>(), [(&b"a"[..], Some(&b"1"[..])), (b"a", None)]);
        assert_eq!((read[2].key, read[2].value.map(<[u8]>::len)), (Some(&b""[..]), Some(300)));
    }

    #[test]
    fn a_batch_cut_anywhere_or_with_any_bit_flipped_is_refused() {
        let whole = sample().into_bytes();
        for end in 0..whole.len() {
            assert!(RecordBatch::parse_verified(whole.slice(..end)).is_err(), "cut at {end}");
        }
        // Base offset and leader epoch are outside the checksum; length and format are checked by themselves.
        for bit in (8 * 8..12 * 8).chain(16 * 8..whole.len() * 8) {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordBatch::parse_verified(Bytes::from(flipped)).is_err(), "bit {bit} flipped");
        }
    }
}
