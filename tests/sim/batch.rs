//! The batches of simulated clients: records whose values are numbers that nobody else ever writes.

use ackord::record::RecordBatch;
use ackord::record::writer::BatchWriter;
use ackord::types::LogEntry;

/// What decoding a batch may take, in bytes: more than any client here writes.
const DECODED_BYTES_MAX: usize = 1 << 20;

/// A batch of `count` records with the values from `value` on, each behind a key of so many bytes; of an idempotent
/// producer (id, epoch, first sequence) or of nobody.
#[must_use]
pub fn batch_of(value: u64, count: u32, key_bytes: usize, producer: Option<(i64, i16, i32)>) -> RecordBatch {
    let mut writer = BatchWriter::new(0);
    if let Some((id, epoch, first_sequence)) = producer {
        writer = writer.producer(id, epoch, first_sequence);
    }
    let key = vec![0; key_bytes];
    for value in value..value + u64::from(count) {
        writer = writer.record(Some(&key), Some(&value.to_be_bytes()), 0);
    }
    writer.finish()
}

/// The values in a batch that `batch_of` made.
#[must_use]
pub fn values_of(batch: &RecordBatch) -> Vec<u64> {
    let records = batch.records(DECODED_BYTES_MAX).expect("a client's batch can be read");
    let value = |record: Result<ackord::record::reader::Record<'_>, _>| {
        let value = record.expect("its records can be read").value.expect("each has a value");
        u64::from_be_bytes(value.try_into().expect("which is a number"))
    };
    records.iter().map(value).collect()
}

/// The batch in an entry of a partition's log, if it holds one.
#[must_use]
pub fn batch_in(entry: &LogEntry) -> Option<RecordBatch> {
    if entry.data.is_empty() { None } else { RecordBatch::parse(entry.data.clone()).ok() }
}

#[test]
fn values_come_back() {
    let batch = batch_of(7, 3, 2, Some((5, 1, 9)));
    assert_eq!(values_of(&batch), [7, 8, 9]);
    let producer = batch.producer().expect("it has a producer");
    assert_eq!((producer.id, producer.epoch, producer.first_sequence, producer.last_sequence), (5, 1, 9, 11));
}
