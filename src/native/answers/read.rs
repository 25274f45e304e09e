//! Ordered reads, as records or as the batches they lie in.

use super::{Failure, partition};
use crate::broker::{Broker, Fetch, FetchPartition, FetchedBatch, FetchedPartition, Isolation, Reservation};
use crate::native::errors;
use crate::proto::native::{self, ReadFormat, response};
use crate::record::codec::DECOMPRESSED_BYTES_MAX;
use crate::record::{PREFIX_BYTES, RecordBatch, wire_prefix};
use crate::types::Offset;
use bytes::Bytes;
use std::time::Duration;

/// What a request that names no size gets.
const BYTES_DEFAULT: usize = 1 << 20;
/// The largest answer, but for one batch that is larger.
const BYTES_MAX: usize = 32 << 20;
/// The longest wait for records.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The most records in an answer; a reader's own limits are not far above.
const RECORDS_MAX: usize = 100_000;

/// Reads from an offset on.
pub(super) async fn read<B: Broker>(
    broker: &B,
    asked: native::ReadRequest,
) -> Result<(response::Body, Option<Reservation>), Failure> {
    let (topic, index) = partition(broker, asked.partition)?;
    let bytes_max = match asked.bytes_max {
        0 => BYTES_DEFAULT,
        bytes => (bytes as usize).min(BYTES_MAX),
    };
    let format = ReadFormat::try_from(asked.format).map_err(|_| errors::unsupported("unknown format"))?;
    let from = Offset(asked.offset);
    let fetch = Fetch {
        max_wait: Duration::from_millis(asked.wait_ms.into()).min(WAIT_MAX),
        min_bytes: 1,
        max_bytes: bytes_max,
        isolation: Isolation::ReadUncommitted,
        partitions: vec![FetchPartition {
            topic,
            partition: index,
            offset: from,
            current_epoch: None,
            last_epoch: None,
            max_bytes: bytes_max,
        }],
    };
    let mut answer = broker.fetch(fetch).await;
    let Some(found) = answer.partitions.pop() else {
        return Err(errors::internal("the broker did not answer for the partition").into());
    };
    let body = response::Body::Read(match format {
        ReadFormat::Records => as_records(&found?, from, bytes_max)?,
        ReadFormat::RecordBatches => as_batches(&found?, from)?,
    });
    Ok((body, answer.held))
}

/// An answer without records.
fn empty(found: &FetchedPartition, from: Offset) -> native::ReadResponse {
    native::ReadResponse {
        high_watermark: found.high_watermark.0,
        log_start_offset: found.log_start.0,
        next_offset: from.0,
        ..Default::default()
    }
}

/// Whole batches, with the offsets and epochs that their stored bytes do not have.
fn as_batches(found: &FetchedPartition, from: Offset) -> Result<native::ReadResponse, Failure> {
    let mut answer = empty(found, from);
    let mut bytes = Vec::with_capacity(found.batches.iter().map(|batch| batch.bytes.len()).sum());
    for stored in &found.batches {
        let batch = parse(stored)?;
        bytes.extend_from_slice(&wire_prefix(stored.base_offset, stored.bytes.len(), stored.leader_epoch));
        bytes.extend_from_slice(&stored.bytes[PREFIX_BYTES..]);
        answer.next_offset = stored.base_offset.0 + i64::from(batch.last_offset_delta()) + 1;
    }
    answer.record_batches = Bytes::from(bytes);
    Ok(answer)
}

/// Records from `from` on. An answer may end within a batch: a batch of small records is large once they are messages.
fn as_records(found: &FetchedPartition, from: Offset, bytes_max: usize) -> Result<native::ReadResponse, Failure> {
    let mut answer = empty(found, from);
    let mut bytes = 0;
    for stored in &found.batches {
        let batch = parse(stored)?;
        if !batch.is_control() {
            let records = batch.records(DECOMPRESSED_BYTES_MAX).map_err(|error| damaged(stored, &error.to_string()))?;
            for record in records.iter() {
                let record = record.map_err(|error| damaged(stored, &error.to_string()))?;
                let offset = stored.base_offset.0 + i64::from(record.offset_delta);
                if offset < from.0 {
                    continue;
                }
                let record = message(&record, offset, stored.leader_epoch.0);
                bytes += prost::Message::encoded_len(&record);
                if !answer.records.is_empty() && (bytes > bytes_max || answer.records.len() >= RECORDS_MAX) {
                    return Ok(answer);
                }
                answer.records.push(record);
                answer.next_offset = offset + 1;
            }
        }
        answer.next_offset = stored.base_offset.0 + i64::from(batch.last_offset_delta()) + 1;
    }
    Ok(answer)
}

/// One record as a message.
fn message(record: &crate::record::reader::Record<'_>, offset: i64, epoch: i32) -> native::Record {
    let header = |(key, value): (&[u8], Option<&[u8]>)| native::Header {
        key: String::from_utf8_lossy(key).into_owned(),
        value: value.map(Bytes::copy_from_slice),
    };
    native::Record {
        key: record.key.map(Bytes::copy_from_slice),
        value: record.value.map(Bytes::copy_from_slice),
        headers: record.headers().map(header).collect(),
        timestamp_ms: record.timestamp,
        offset,
        term: u64::try_from(epoch).unwrap_or(0),
    }
}

fn parse(stored: &FetchedBatch) -> Result<RecordBatch, Failure> {
    RecordBatch::parse(stored.bytes.clone()).map_err(|error| damaged(stored, &error.to_string()))
}

fn damaged(stored: &FetchedBatch, problem: &str) -> Failure {
    let message = format!("the batch at offset {} cannot be read: {problem}", stored.base_offset);
    errors::internal(&message).into()
}

/// The first record at or after `from`.
pub(super) fn first_record(found: &FetchedPartition, from: Offset) -> Result<Option<native::Record>, Failure> {
    Ok(as_records(found, from, 0)?.records.into_iter().next())
}
