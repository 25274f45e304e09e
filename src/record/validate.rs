//! What a client's batch must be before it may be proposed: Kafka's rules (ProduceRequest.validateRecords and
//! LogValidator), in Kafka's order, so that a client sees the error it expects.
//!
//! The records inside are looked at too, decompressed if need be, because Kafka does: offsets that do not count up,
//! lengths that lie or a missing key would otherwise be found by every consumer instead.

use super::reader::Record;
use super::{BatchError, Codec, NO_TIMESTAMP, RecordBatch, TimestampType};
use bytes::Bytes;

/// What the topic and the request ask of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The topic's `max.message.bytes`.
    pub batch_bytes_max: usize,
    /// The most its records may come to when decompressed, in bytes.
    pub decompressed_bytes_max: usize,
    /// Whose timestamps the topic keeps.
    pub timestamp_type: TimestampType,
    /// The leader's clock, in milliseconds.
    pub now_ms: i64,
    /// How far a record's time may lie before the leader's (`message.timestamp.before.max.ms`).
    pub timestamp_before_max_ms: i64,
    /// How far a record's time may lie after the leader's (`message.timestamp.after.max.ms`).
    pub timestamp_after_max_ms: i64,
    /// Whether every record needs a key: the topic is compacted.
    pub key_required: bool,
    /// Whether the request's version knows zstd (Produce 7 and later, KIP-110).
    pub zstd_allowed: bool,
}

/// Takes a client's bytes as a batch that may be added to a log: exactly one, of format 2, whole, and within `rules`.
/// Its timestamps are then as the topic keeps them.
pub fn validate(bytes: Bytes, rules: &Rules) -> Result<RecordBatch, BatchError> {
    let batch = parse_single(bytes)?;
    let codec = batch.codec()?;
    if codec == Codec::Zstd && !rules.zstd_allowed {
        return Err(BatchError::Codec(4));
    }
    if batch.written_base_offset() != 0 {
        return Err(BatchError::invalid("the base offset of a produced batch must be 0"));
    }
    if batch.bytes().len() > rules.batch_bytes_max {
        return Err(BatchError::TooLarge { bytes: batch.bytes().len(), limit: rules.batch_bytes_max });
    }
    batch.verify_checksum()?;
    validate_header(&batch)?;
    let max_timestamp = validate_records(&batch, rules)?;
    Ok(match rules.timestamp_type {
        TimestampType::LogAppendTime => batch.stamp_log_append_time(rules.now_ms),
        TimestampType::CreateTime if max_timestamp != batch.max_timestamp() => batch.with_max_timestamp(max_timestamp),
        TimestampType::CreateTime => batch,
    })
}

/// The first batch must also be the last.
fn parse_single(bytes: Bytes) -> Result<RecordBatch, BatchError> {
    if bytes.is_empty() {
        return Err(BatchError::invalid("a produce request needs a record batch for every partition"));
    }
    let length = bytes.get(8..12).and_then(|field| field.try_into().ok()).map(i32::from_be_bytes);
    if length.is_some_and(|length| length >= 0 && (length as usize) + 12 < bytes.len()) {
        return Err(BatchError::invalid("a produce request holds exactly one record batch for every partition"));
    }
    RecordBatch::parse(bytes)
}

fn validate_header(batch: &RecordBatch) -> Result<(), BatchError> {
    if batch.count() <= 0 || i64::from(batch.last_offset_delta()) + 1 != i64::from(batch.count()) {
        return Err(BatchError::invalid("the batch's count of records and range of offsets must agree and not be 0"));
    }
    if batch.is_control() {
        return Err(BatchError::invalid("clients are not allowed to write control records"));
    }
    if batch.is_transactional() {
        return Err(BatchError::invalid("there are no transactions yet"));
    }
    if batch.producer().is_some_and(|producer| producer.first_sequence < 0) {
        return Err(BatchError::invalid("a batch with a producer id needs a sequence number"));
    }
    if batch.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::Timestamp { record: 0, timestamp: batch.max_timestamp() });
    }
    Ok(())
}

/// Walks the records; returns the greatest timestamp they really have.
fn validate_records(batch: &RecordBatch, rules: &Rules) -> Result<i64, BatchError> {
    let records = batch.records(rules.decompressed_bytes_max)?;
    let (mut max_timestamp, mut expected) = (NO_TIMESTAMP, 0);
    for record in records.iter() {
        let record = record?;
        validate_record(&record, expected, rules)?;
        max_timestamp = max_timestamp.max(record.timestamp);
        expected += 1;
    }
    Ok(max_timestamp)
}

fn validate_record(record: &Record<'_>, index: i32, rules: &Rules) -> Result<(), BatchError> {
    let invalid = |reason| Err(BatchError::Invalid { record: Some(index), reason });
    if record.offset_delta != index {
        return invalid("the offsets within a batch must count up by one");
    }
    if rules.key_required && record.key.is_none() {
        return invalid("a compacted topic can't take a record without a key");
    }
    if rules.timestamp_type == TimestampType::CreateTime && record.timestamp != NO_TIMESTAMP {
        let before = rules.now_ms.saturating_sub(record.timestamp);
        if before > rules.timestamp_before_max_ms || before.saturating_neg() > rules.timestamp_after_max_ms {
            return Err(BatchError::Timestamp { record: index, timestamp: record.timestamp });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::codec::DECOMPRESSED_BYTES_MAX;
    use super::super::writer::BatchWriter;
    use super::super::{HEADER_BYTES, attribute, field};
    use super::*;
    use proptest::prelude::*;

    fn rules() -> Rules {
        Rules {
            batch_bytes_max: 1_048_588,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            timestamp_type: TimestampType::CreateTime,
            now_ms: 10_000,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            key_required: false,
            zstd_allowed: true,
        }
    }

    fn writer() -> BatchWriter {
        BatchWriter::new(9_000).record(Some(b"k"), Some(b"v"), 9_000).record(None, Some(b"w"), 9_500)
    }

    /// The batch with other bytes at `at`, and a checksum that hides it.
    fn forged(batch: &RecordBatch, at: usize, value: &[u8]) -> Bytes {
        let mut bytes = batch.bytes().to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        let checksum = crc32c::crc32c(&bytes[field::ATTRIBUTES..]);
        bytes[field::CHECKSUM..][..4].copy_from_slice(&checksum.to_be_bytes());
        Bytes::from(bytes)
    }

    fn is_invalid(result: &Result<RecordBatch, BatchError>) -> bool {
        matches!(result, Err(BatchError::Invalid { .. }))
    }

    #[test]
    fn a_good_batch_stays_the_slice_it_was() {
        let bytes = writer().finish().into_bytes();
        let batch = validate(bytes.clone(), &rules()).unwrap();
        assert_eq!(batch.bytes().as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn the_rules_of_the_request_and_the_header() {
        let batch = writer().finish();
        let twice = Bytes::from([&batch.bytes()[..], &batch.bytes()[..]].concat());
        assert!(is_invalid(&validate(Bytes::new(), &rules())));
        assert!(is_invalid(&validate(twice, &rules())));
        assert_eq!(validate(forged(&batch, field::MAGIC, &[1]), &rules()), Err(BatchError::Magic(1)));
        assert!(is_invalid(&validate(forged(&batch, 0, &5i64.to_be_bytes()), &rules())));
        assert!(is_invalid(&validate(forged(&batch, field::COUNT, &3i32.to_be_bytes()), &rules())));
        assert!(is_invalid(&validate(forged(&batch, field::LAST_OFFSET_DELTA, &i32::MAX.to_be_bytes()), &rules())));
        assert!(is_invalid(&validate(BatchWriter::new(0).finish().into_bytes(), &rules())), "no records");
        assert!(is_invalid(&validate(writer().control().finish().into_bytes(), &rules())));
        let transactional = attribute::TRANSACTIONAL.to_be_bytes();
        assert!(is_invalid(&validate(forged(&batch, field::ATTRIBUTES, &transactional), &rules())));
        assert!(is_invalid(&validate(writer().producer(1, 0, -1).finish().into_bytes(), &rules())));
        let small = Rules { batch_bytes_max: batch.bytes().len() - 1, ..rules() };
        assert!(matches!(validate(batch.bytes().clone(), &small), Err(BatchError::TooLarge { .. })));
        let mut flipped = batch.bytes().to_vec();
        flipped[HEADER_BYTES + 3] ^= 1;
        assert_eq!(validate(Bytes::from(flipped), &rules()), Err(BatchError::Checksum));
        let zstd = forged(&batch, field::ATTRIBUTES, &4i16.to_be_bytes());
        assert_eq!(validate(zstd, &Rules { zstd_allowed: false, ..rules() }), Err(BatchError::Codec(4)));
        assert_eq!(
            validate(forged(&batch, field::ATTRIBUTES, &6i16.to_be_bytes()), &rules()),
            Err(BatchError::Codec(6))
        );
    }

    #[test]
    fn the_rules_of_each_record() {
        let batch = writer().finish();
        let keyed = Rules { key_required: true, ..rules() };
        assert!(matches!(validate(batch.bytes().clone(), &keyed), Err(BatchError::Invalid { record: Some(1), .. })));
        let strict = Rules { timestamp_before_max_ms: 999, ..rules() };
        assert_eq!(
            validate(batch.bytes().clone(), &strict),
            Err(BatchError::Timestamp { record: 0, timestamp: 9_000 })
        );
        let late = BatchWriter::new(0).record(None, None, 3_610_001).finish();
        assert!(matches!(validate(late.into_bytes(), &rules()), Err(BatchError::Timestamp { .. })));
        let none = BatchWriter::new(NO_TIMESTAMP).record(None, None, NO_TIMESTAMP).finish();
        assert!(validate(none.into_bytes(), &strict).is_ok(), "no timestamp is not an old one");
        // The second record's offset delta is the fourth byte of its record.
        let second = HEADER_BYTES + 9;
        assert_eq!(batch.bytes()[second + 4], 2, "the zigzag delta 1 lies where the test thinks");
        assert!(is_invalid(&validate(forged(&batch, second + 4, &[4]), &rules())));
    }

    #[test]
    fn timestamps_end_as_the_topic_keeps_them() {
        let batch = writer().finish();
        let lying = forged(&batch, field::MAX_TIMESTAMP, &77i64.to_be_bytes());
        assert_eq!(validate(lying, &rules()).unwrap().bytes(), batch.bytes(), "Kafka corrects a wrong maximum");
        let appended = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        let stamped = validate(batch.bytes().clone(), &appended).unwrap();
        assert_eq!((stamped.timestamp_type(), stamped.max_timestamp()), (TimestampType::LogAppendTime, 10_000));
        let foreign = forged(&batch, field::ATTRIBUTES, &attribute::LOG_APPEND_TIME.to_be_bytes());
        assert!(matches!(validate(foreign, &rules()), Err(BatchError::Timestamp { .. })));
    }

    /// The batch with its records compressed and the attributes that say so.
    fn compress(batch: &RecordBatch) -> Vec<Bytes> {
        let bodies = super::super::codec::tests::compressed(&batch.bytes()[HEADER_BYTES..]);
        let number =
            |codec| [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].iter().position(|c| *c == codec);
        let rebuild = |(codec, body): (Codec, Vec<u8>)| {
            let mut bytes = batch.bytes()[..HEADER_BYTES].to_vec();
            bytes.extend(body);
            let length = bytes.len() as i32 - 12;
            bytes[field::LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
            let unsealed = RecordBatch::parse(Bytes::from(bytes)).unwrap();
            forged(&unsealed, field::ATTRIBUTES, &(number(codec).unwrap() as i16).to_be_bytes())
        };
        bodies.into_iter().map(rebuild).collect()
    }

    #[test]
    fn compressed_batches_are_looked_into_and_stay_as_they_are() {
        let plain = writer().finish();
        let unkeyed = Rules { key_required: true, ..rules() };
        let bomb = Rules { decompressed_bytes_max: 3, ..rules() };
        for bytes in compress(&plain) {
            let batch = validate(bytes.clone(), &rules()).unwrap();
            assert_eq!(batch.bytes(), &bytes);
            let (inside, outside) = (batch.records(1_000).unwrap(), plain.records(0).unwrap());
            assert!(inside.iter().eq(outside.iter()));
            assert!(matches!(validate(bytes.clone(), &unkeyed), Err(BatchError::Invalid { record: Some(1), .. })));
            assert!(is_invalid(&validate(bytes, &bomb)));
        }
    }

    proptest! {
        /// Whatever a hostile client sends, with a checksum that fits, ends in an answer.
        #[test]
        fn hostile_bytes_never_panic(
            changes in prop::collection::vec((16usize..200, any::<u8>()), 0..12),
            tail in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut bytes = writer().finish().into_bytes().to_vec();
            bytes.extend(tail);
            let length = bytes.len() as i32 - 12;
            bytes[field::LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
            for (at, value) in changes {
                if at != field::MAGIC && at < bytes.len() {
                    bytes[at] = value;
                }
            }
            let checksum = crc32c::crc32c(&bytes[field::ATTRIBUTES..]);
            bytes[field::CHECKSUM..][..4].copy_from_slice(&checksum.to_be_bytes());
            let small = Rules { decompressed_bytes_max: 1 << 16, ..rules() };
            if let Ok(batch) = validate(Bytes::from(bytes), &small) {
                let records = batch.records(1 << 16).unwrap();
                prop_assert_eq!(records.iter().filter(Result::is_ok).count() as i32, batch.count());
            }
        }
    }
}
