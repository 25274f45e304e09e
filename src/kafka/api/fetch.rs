//! Fetch (key 1), versions 4 to 12: committed batches.
//!
//! The answer is written here by hand instead of by the crate, because it carries stored batches: only each batch's
//! first 16 bytes are written anew (base offset, length, leader epoch; they lie outside its checksum), the rest is sent
//! from where it lies. The records field is empty at times, but never null: null is an error to librdkafka.
//!
//! Fetch sessions (KIP-227) are declined by answering session 0, which tells clients to name every partition each time.

use super::Api;
use super::produce::is_zstd;
use crate::broker::{
    Broker, Error, ErrorKind, Fetch, FetchPartition, FetchedBatch, FetchedPartition, Isolation, PartitionIndex, Result,
};
use crate::kafka::error_codes::{self, NONE};
use crate::kafka::guard::{Hostile, INT8, INT32, INT64, Kind, Shape, always, since};
use crate::kafka::reply::{Chunks, ReplyWriter};
use crate::kafka::translate;
use crate::types::Offset;
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiKey, FetchRequest};

/// What is served.
pub static API: Api = Api::new(
    ApiKey::Fetch,
    (4, 12),
    Shape {
        fields: &[
            always(INT32),                                    // replica id
            always(INT32),                                    // max wait
            always(INT32),                                    // min bytes
            always(INT32),                                    // max bytes
            always(INT8),                                     // isolation level
            since(7, INT32),                                  // session id
            since(7, INT32),                                  // session epoch
            always(Kind::Array(&Kind::Struct(&TOPIC))),       // topics
            since(7, Kind::Array(&Kind::Struct(&FORGOTTEN))), // topics to be forgotten
            since(11, Kind::Text),                            // rack
        ],
        tagged: &[(0, Kind::NullableText)], // cluster id
    },
);
const TOPIC: Shape = Shape::of(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION)))]);
const PARTITION: Shape = Shape::of(&[
    always(INT32),    // partition
    since(9, INT32),  // current leader epoch
    always(INT64),    // fetch offset
    since(12, INT32), // last fetched epoch
    since(5, INT64),  // log start offset
    always(INT32),    // max bytes
]);
const FORGOTTEN: Shape = Shape::of(&[always(Kind::Text), always(Kind::Array(&INT32))]);

/// The most records one answer carries, whatever a client asks for (Kafka: `fetch.max.bytes`).
const ANSWER_BYTES_MAX: usize = 55 << 20;
/// The first version that is flexible, and that may name the current leader and a diverging epoch.
const FLEXIBLE_SINCE: i16 = 12;
/// The first version whose clients read zstd (KIP-110).
const ZSTD_SINCE: i16 = 10;
/// The first version whose clients know KAFKA_STORAGE_ERROR (KIP-112).
const STORAGE_ERROR_SINCE: i16 = 6;
/// The part of a batch that is written anew: base offset (8 bytes), length (4), leader epoch (4).
const STAMPED_BYTES: usize = 16;

/// Reads what was asked for, and writes the answer.
pub async fn answer<B: Broker>(
    broker: &B,
    request: FetchRequest,
    version: i16,
    correlation_id: i32,
) -> std::result::Result<Chunks, Hostile> {
    let isolation = translate::isolation(request.isolation_level);
    let answer = broker.fetch(fetch(&request, isolation)).await;
    let asked: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    assert_eq!(answer.partitions.len(), asked, "one answer per partition");

    let mut encoder = Encoder { writer: ReplyWriter::new(correlation_id, header_version(version)), version, isolation };
    let mut results = answer.partitions.into_iter();
    let fields = encoder.writer.fields();
    fields.put_i32(0); // throttle time
    if version >= 7 {
        fields.put_i16(NONE);
        fields.put_i32(0); // no session
    }
    encoder.length(request.topics.len());
    for topic in &request.topics {
        encoder.text(&topic.topic);
        encoder.length(topic.partitions.len());
        for (partition, result) in topic.partitions.iter().zip(results.by_ref()) {
            encoder.partition(partition.partition, result);
        }
        encoder.no_tags();
    }
    encoder.no_tags();
    let mut chunks = encoder.writer.finish()?;
    chunks.hold(answer.held);
    Ok(chunks)
}

const fn header_version(version: i16) -> i16 {
    if version >= FLEXIBLE_SINCE { 1 } else { 0 }
}

fn fetch(request: &FetchRequest, isolation: Isolation) -> Fetch {
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let name = translate::topic(&topic.topic);
        partitions.extend(topic.partitions.iter().map(|partition| FetchPartition {
            topic: name.clone(),
            partition: PartitionIndex(partition.partition),
            offset: Offset(partition.fetch_offset),
            current_epoch: translate::epoch(partition.current_leader_epoch),
            last_epoch: translate::epoch(partition.last_fetched_epoch),
            max_bytes: translate::bytes(partition.partition_max_bytes),
        }));
    }
    Fetch {
        max_wait: translate::millis(request.max_wait_ms),
        min_bytes: translate::bytes(request.min_bytes).min(ANSWER_BYTES_MAX),
        max_bytes: translate::bytes(request.max_bytes).min(ANSWER_BYTES_MAX),
        isolation,
        partitions,
    }
}

/// Writes the fields of one version.
struct Encoder {
    /// Where to.
    writer: ReplyWriter,
    /// The version.
    version: i16,
    /// Whether the reader asked for committed transactions only.
    isolation: Isolation,
}

impl Encoder {
    fn partition(&mut self, index: i32, result: Result<FetchedPartition>) {
        match result.and_then(|found| self.readable(found)) {
            Ok(found) => self.found(index, &found),
            Err(error) => self.failed(index, &error),
        }
    }

    /// zstd would be garbage to a client that does not know it; Kafka answers the same error.
    fn readable(&self, found: FetchedPartition) -> Result<FetchedPartition> {
        if self.version < ZSTD_SINCE && found.batches.iter().any(|batch| is_zstd(&batch.bytes)) {
            return Err(ErrorKind::UnsupportedCompression.into());
        }
        Ok(found)
    }

    fn found(&mut self, index: i32, found: &FetchedPartition) {
        self.head(index, NONE, [found.high_watermark, found.last_stable, found.log_start]);
        self.length(found.batches.iter().map(|batch| batch.bytes.len()).sum());
        for batch in &found.batches {
            self.batch(batch);
        }
        self.tags(|fields| {
            let Some(diverging) = found.diverging else { return 0 };
            fields.put_slice(&[0, 13]); // tag 0: epoch, end offset, no tags inside
            fields.put_i32(diverging.epoch.0);
            fields.put_i64(diverging.end.0);
            fields.put_u8(0);
            1
        });
    }

    fn failed(&mut self, index: i32, error: &Error) {
        let unknown = Offset(i64::from(translate::UNKNOWN));
        let code = error_codes::code_since(error, self.version, STORAGE_ERROR_SINCE);
        self.head(index, code, [unknown, unknown, error.log_start.unwrap_or(unknown)]);
        self.length(0);
        self.tags(|fields| {
            let Some(leader) = error.leader else { return 0 };
            fields.put_slice(&[1, 9]); // tag 1: leader id, leader epoch, no tags inside (KIP-951)
            fields.put_i32(translate::broker_id(leader.node).0);
            fields.put_i32(leader.epoch.0);
            fields.put_u8(0);
            1
        });
    }

    /// Everything of a partition before its records.
    fn head(&mut self, index: i32, code: i16, [high_watermark, last_stable, log_start]: [Offset; 3]) {
        let version = self.version;
        let fields = self.writer.fields();
        fields.put_i32(index);
        fields.put_i16(code);
        fields.put_i64(high_watermark.0);
        fields.put_i64(last_stable.0);
        if version >= 5 {
            fields.put_i64(log_start.0);
        }
        // Aborted transactions: none, and null to those who did not ask.
        match (self.isolation, version >= FLEXIBLE_SINCE) {
            (Isolation::ReadCommitted, _) => self.length(0),
            (Isolation::ReadUncommitted, true) => fields.put_u8(0),
            (Isolation::ReadUncommitted, false) => fields.put_i32(-1),
        }
        if version >= 11 {
            self.writer.fields().put_i32(translate::UNKNOWN); // no preferred read replica
        }
    }

    fn batch(&mut self, batch: &FetchedBatch) {
        assert!(batch.bytes.len() > STAMPED_BYTES, "a stored batch has a header");
        let fields = self.writer.fields();
        fields.put_i64(batch.base_offset.0);
        fields.put_slice(&batch.bytes[8..12]);
        fields.put_i32(batch.leader_epoch.0);
        self.writer.slice(batch.bytes.slice(STAMPED_BYTES..));
    }

    /// An array's or a byte field's length.
    fn length(&mut self, length: usize) {
        let length = u32::try_from(length).expect("answers are bounded");
        let flexible = self.version >= FLEXIBLE_SINCE;
        let fields = self.writer.fields();
        if flexible { put_varint(fields, length + 1) } else { fields.put_u32(length) }
    }

    fn text(&mut self, text: &str) {
        let flexible = self.version >= FLEXIBLE_SINCE;
        let fields = self.writer.fields();
        match flexible {
            true => put_varint(fields, u32::try_from(text.len() + 1).expect("names are shorter than their frame")),
            false => fields.put_i16(i16::try_from(text.len()).expect("the name came with such a length")),
        }
        fields.put_slice(text.as_bytes());
    }

    fn no_tags(&mut self) {
        self.tags(|_| 0);
    }

    /// Tagged fields, where the version has them: `write` writes them and says how many.
    fn tags(&mut self, write: impl FnOnce(&mut BytesMut) -> u8) {
        if self.version < FLEXIBLE_SINCE {
            return;
        }
        let fields = self.writer.fields();
        let count_at = fields.len();
        fields.put_u8(0);
        let count = write(fields);
        fields[count_at] = count;
    }
}

fn put_varint(fields: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        fields.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    fields.put_u8(value as u8);
}
