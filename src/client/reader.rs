//! Reads one partition in order.
//!
//! Reading has no effect, so every retriable error is retried until the client's time is over. A reader never skips: if
//! what it wants is gone (retention), it says so.

use super::admin::reference;
use super::error::{Error, Result};
use super::routing::Router;
use crate::proto::native::{self, ReadFormat, get_request::By, request, response};
use crate::record::RecordBatch;
use crate::record::codec::DECOMPRESSED_BYTES_MAX;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Beginning,
    /// After the newest one, as confirmed by a majority.
    End,
    /// At this offset.
    Offset(i64),
    /// At the first record of this time or later, in milliseconds since 1970; after the newest one if there is none.
    Time(i64),
}

/// How a reader reads.
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    /// About how much one [`Reader::read`] returns at most, in bytes; one batch is returned whatever its size.
    /// Default: 1 MiB.
    pub bytes_max: u32,
    /// How long one [`Reader::read`] waits for new records. Default: 500 ms.
    pub wait: Duration,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self { bytes_max: 1 << 20, wait: Duration::from_millis(500) }
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its place in the partition.
    pub offset: i64,
    /// The term in which it was written.
    pub term: u64,
    /// Its time in milliseconds since 1970, -1 if it has none.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// See the module.
#[derive(Debug)]
pub struct Reader {
    /// Whom to ask.
    router: Arc<Router>,
    /// The topic.
    topic: String,
    /// The partition.
    partition: u32,
    /// How to read.
    options: ReaderOptions,
    /// The offset to be read next.
    next: i64,
    /// The end of what is committed, as last heard.
    high_watermark: i64,
}

impl Reader {
    pub(super) async fn open(
        router: Arc<Router>,
        topic: &str,
        partition: u32,
        start: Start,
        options: ReaderOptions,
    ) -> Result<Self> {
        let mut reader = Self { router, topic: topic.to_owned(), partition, options, next: 0, high_watermark: 0 };
        reader.next = match start {
            Start::Offset(offset) if offset < 0 => return Err(Error::usage("offsets begin at 0")),
            Start::Offset(offset) => offset,
            Start::Time(time) => reader.find(time).await?,
            Start::Beginning => reader.offsets().await?.log_start_offset,
            Start::End => reader.offsets().await?.high_watermark,
        };
        Ok(reader)
    }

    /// The offset of the record that is read next.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.next
    }

    /// The end of what is committed, as last heard: the offset of the next record to be written.
    #[must_use]
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// The next records; none if none came within [`ReaderOptions::wait`].
    ///
    /// Dropping the future loses nothing: the next call reads the same records.
    pub async fn read(&mut self) -> Result<Vec<Received>> {
        let body = request::Body::Read(native::ReadRequest {
            partition: reference(&self.topic, self.partition),
            offset: self.next,
            bytes_max: self.options.bytes_max,
            wait_ms: u32::try_from(self.options.wait.as_millis()).unwrap_or(u32::MAX),
            format: ReadFormat::RecordBatches.into(),
        });
        let response::Body::Read(answer) = self.router.ask_leader(&self.topic, self.partition, body).await? else {
            return Err(Error::protocol("another answer than records"));
        };
        let records = decode(answer.record_batches, self.next)?;
        if answer.next_offset < self.next {
            return Err(Error::protocol("the next offset goes back"));
        }
        self.next = answer.next_offset;
        self.high_watermark = answer.high_watermark;
        Ok(records)
    }

    async fn offsets(&mut self) -> Result<native::OffsetsResponse> {
        let partition = reference(&self.topic, self.partition);
        let body = request::Body::Offsets(native::OffsetsRequest { partition });
        match self.router.ask_leader(&self.topic, self.partition, body).await? {
            response::Body::Offsets(offsets) => {
                self.high_watermark = offsets.high_watermark;
                Ok(offsets)
            }
            _ => Err(Error::protocol("another answer than offsets")),
        }
    }

    async fn find(&mut self, time: i64) -> Result<i64> {
        let partition = reference(&self.topic, self.partition);
        let body = request::Body::Get(native::GetRequest { partition, by: Some(By::TimestampMs(time)) });
        match self.router.ask_leader(&self.topic, self.partition, body).await? {
            response::Body::Get(found) => {
                self.high_watermark = found.high_watermark;
                Ok(found.record.map_or(found.high_watermark, |record| record.offset))
            }
            _ => Err(Error::protocol("another answer than a record")),
        }
    }
}

/// The records of whole batches, those before `from` left out. Every batch is checked against its CRC-32C.
fn decode(mut bytes: Bytes, from: i64) -> Result<Vec<Received>> {
    const LENGTH_AT: usize = 8;
    const LENGTH_OVERHEAD: usize = 12;
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.get(LENGTH_AT..).and_then(|rest| rest.first_chunk::<4>().copied());
        let length = length.and_then(|length| usize::try_from(i32::from_be_bytes(length)).ok());
        let whole = length.map(|length| length + LENGTH_OVERHEAD).filter(|whole| *whole <= bytes.len());
        let whole = whole.ok_or_else(|| Error::protocol("a batch that is cut short"))?;
        let batch = RecordBatch::parse_verified(bytes.split_to(whole)).map_err(|error| broken(&error.to_string()))?;
        if !batch.is_control() {
            decode_batch(&batch, from, &mut records)?;
        }
    }
    Ok(records)
}

fn decode_batch(batch: &RecordBatch, from: i64, into: &mut Vec<Received>) -> Result<()> {
    let base = batch.written_base_offset();
    let term = batch.bytes().get(12..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_be_bytes);
    let records = batch.records(DECOMPRESSED_BYTES_MAX).map_err(|error| broken(&error.to_string()))?;
    for record in records.iter() {
        let record = record.map_err(|error| broken(&error.to_string()))?;
        let offset = base.saturating_add(i64::from(record.offset_delta));
        if offset < from {
            continue;
        }
        let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        into.push(Received {
            offset,
            term: u64::try_from(term).unwrap_or(0),
            timestamp_ms: record.timestamp,
            key: record.key.map(copy),
            value: record.value.map(copy),
            headers: record.headers().map(|(key, value)| (copy(key), value.map(copy))).collect(),
        });
    }
    Ok(())
}

fn broken(problem: &str) -> Error {
    Error::protocol(problem)
}
