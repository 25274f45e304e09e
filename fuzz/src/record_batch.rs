//! A record batch from a producer: parsed, validated, decompressed within its limit, and walked.
//!
//! A fuzzer does not guess a CRC-32C, so every input is also tried with the length and checksum that it should have.

use ackord::record::validate::{Rules, validate};
use ackord::record::{BatchError, Codec, HEADER_BYTES, RecordBatch, TimestampType};
use bytes::Bytes;

/// What records may come to when they are decompressed.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;
/// The leader's clock, in milliseconds.
const NOW_MS: i64 = 1_000_000;

/// See the module.
pub fn run(data: &[u8]) {
    try_one(Bytes::copy_from_slice(data));
    if data.len() >= HEADER_BYTES {
        try_one(repaired(data));
    }
}

/// The same bytes with a length and a checksum that agree with them.
pub fn repaired(data: &[u8]) -> Bytes {
    let mut bytes = data.to_vec();
    let length = u32::try_from(bytes.len() - 12).expect("a fuzzer's input is short");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    Bytes::from(bytes)
}

fn try_one(bytes: Bytes) {
    for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
        for strict in [false, true] {
            let rules = Rules {
                batch_bytes_max: 1 << 20,
                decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
                timestamp_type,
                now_ms: NOW_MS,
                timestamp_before_max_ms: if strict { 1_000 } else { i64::MAX },
                timestamp_after_max_ms: if strict { 1_000 } else { i64::MAX },
                key_required: strict,
                zstd_allowed: !strict,
            };
            if let Ok(batch) = validate(bytes.clone(), &rules) {
                check_accepted(&batch, timestamp_type);
            }
        }
    }
    // What lies in a log may be damaged: it is read without having been validated.
    if let Ok(batch) = RecordBatch::parse(bytes)
        && let Ok(found) = walk(&batch)
    {
        assert!(found <= i64::from(batch.count().max(0)), "never more records than promised");
    }
}

/// What may be added to a log is whole, and every consumer can read it.
fn check_accepted(batch: &RecordBatch, timestamp_type: TimestampType) {
    let stored = RecordBatch::parse_verified(batch.bytes().clone()).expect("what is accepted is what is stored");
    assert_eq!(walk(&stored).expect("what is accepted can be read"), i64::from(stored.count()));
    assert_eq!(i64::from(stored.last_offset_delta()) + 1, i64::from(stored.count()), "no gap between offsets");
    assert_eq!((stored.timestamp_type(), stored.written_base_offset()), (timestamp_type, 0));
    if timestamp_type == TimestampType::LogAppendTime {
        assert_eq!(stored.max_timestamp(), NOW_MS, "the leader's time");
    }
}

/// How many records there are.
fn walk(batch: &RecordBatch) -> Result<i64, BatchError> {
    let records = batch.records(DECOMPRESSED_BYTES_MAX)?;
    let bound = if batch.codec()? == Codec::None { batch.bytes().len() } else { DECOMPRESSED_BYTES_MAX };
    assert!(records.body().len() <= bound, "{} decompressed bytes", records.body().len());
    let mut found = 0;
    for record in records.iter() {
        let record = record?;
        let parts = [record.key, record.value].into_iter().flatten().map(<[u8]>::len).sum::<usize>();
        let headers = record.headers().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum::<usize>();
        assert!(parts + headers <= records.body().len(), "a record's parts lie in the batch");
        found += 1;
    }
    Ok(found)
}
