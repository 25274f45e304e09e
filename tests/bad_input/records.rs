//! Requests that are requests, for what may not be: each is refused with the code that says why, for certain, and
//! leaves the log as it was.

use crate::process::{Process, TOPIC};
use ackord::client::ErrorKind;
use ackord::proto::native::{self, ErrorCode, produce_request::Payload, request, response, topic_reference::By};
use ackord::proto::{decode_response, encode_frame};
use ackord::record::writer::BatchWriter;
use bytes::Bytes;
use kafka_protocol::ResponseError as Code;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A batch that is as it should be.
pub fn sound() -> Vec<u8> {
    BatchWriter::new(1_000).record(Some(b"k"), Some(b"a value"), 1_000).finish().bytes().to_vec()
}

/// A batch with other bytes at a place, under a checksum that agrees with them.
fn forged(at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = sound();
    bytes[at..at + with.len()].copy_from_slice(with);
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// What is wrong, the batch, and the code that Kafka's clients and native ones get.
fn wrong_batches() -> Vec<(&'static str, Vec<u8>, Code, ErrorCode)> {
    let mut flipped = sound();
    *flipped.last_mut().expect("not empty") ^= 1;
    let short = sound()[..70].to_vec();
    let twice = sound().repeat(2);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let tomorrow = BatchWriter::new(now + 86_400_000).record(None, Some(b"v"), now + 86_400_000).finish();
    let large = BatchWriter::new(1_000).record(None, Some(&vec![7; 1_100_000]), 1_000).finish();
    let control = BatchWriter::new(1_000).record(None, Some(b"v"), 1_000).control().finish();
    let invalid = |what, bytes| (what, bytes, Code::InvalidRecord, ErrorCode::InvalidBatch);
    let corrupt = |what, bytes| (what, bytes, Code::CorruptMessage, ErrorCode::InvalidBatch);
    vec![
        corrupt("a flipped bit", flipped),
        corrupt("cut short", short),
        corrupt("shorter than a header", sound()[..30].to_vec()),
        corrupt("shorter than its magic", sound()[..5].to_vec()),
        ("an old format", forged(16, &[1]), Code::UnsupportedForMessageFormat, ErrorCode::InvalidBatch),
        ("an unknown codec", forged(21, &[0, 7]), Code::UnsupportedCompressionType, ErrorCode::InvalidBatch),
        invalid("nothing compressed", forged(21, &[0, 1])),
        invalid("a count that lies", forged(57, &[0, 0, 0, 2])),
        invalid("a count and an offset that lie", forged(23, &[0x7f, 0xff, 0xff, 0xfe])),
        invalid("no batch at all", Vec::new()),
        invalid("two batches", twice),
        invalid("a control batch", control.bytes().to_vec()),
        invalid("a part of a transaction", forged(21, &[0, 0x10])),
        ("from tomorrow", tomorrow.bytes().to_vec(), Code::InvalidTimestamp, ErrorCode::InvalidBatch),
        ("too large", large.bytes().to_vec(), Code::MessageTooLarge, ErrorCode::TooLarge),
    ]
}

/// Produces a batch as a native client does: the error.
pub async fn refused(process: &Process, topic: &str, batch: Vec<u8>) -> native::Error {
    let topic = Some(native::TopicReference { by: Some(By::Name(topic.to_owned())) });
    let produce = native::ProduceRequest {
        partition: Some(native::PartitionReference { topic, partition: 0 }),
        payload: Some(Payload::RecordBatch(batch.into())),
        idempotence: None,
    };
    let request = native::Request { id: 5, timeout_ms: 5_000, body: Some(request::Body::Produce(produce)) };
    let mut stream = process.connect(1).await;
    stream.write_all(&encode_frame(&request, usize::MAX).expect("a frame")).await.expect("the node reads");
    let mut frame = vec![0; stream.read_u32().await.expect("an answer") as usize];
    stream.read_exact(&mut frame).await.expect("an answer");
    match decode_response(Bytes::from(frame)).expect("an answer").body {
        Some(response::Body::Error(error)) => error,
        other => panic!("an error was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn what_may_not_be_written_is_refused_for_certain_and_leaves_no_trace() {
    let mut process = Process::start().await;
    process.write().await;
    for (what, batch, kafka, expected) in wrong_batches() {
        let (code, offset) = process.produce(TOPIC, Bytes::from(batch.clone())).await;
        assert_eq!((code, offset), (kafka.code(), -1), "{what}");
        let error = refused(&process, TOPIC, batch).await;
        let code = ErrorCode::try_from(error.code).expect("a known code");
        // What was damaged on its way may arrive whole the next time, as Kafka has it; nothing else gets better.
        assert_eq!(error.retriable, kafka == Code::CorruptMessage, "{what}: {error:?}");
        assert!(code == expected && error.definite, "{what}: {error:?}");
        assert!(!error.message.is_empty(), "{what}: people are told, too");
    }
    process.verify().await;
    process.stop().await;
}

#[tokio::test]
async fn an_unknown_topic_is_said_to_be_unknown_and_is_not_created() {
    let mut process = Process::start().await;
    let (code, offset) = process.produce("nobody-made-it", Bytes::from(sound())).await;
    assert_eq!((code, offset), (Code::UnknownTopicOrPartition.code(), -1));
    let error = refused(&process, "nobody-made-it", sound()).await;
    assert_eq!((error.code, error.definite), (ErrorCode::UnknownPartition.into(), true), "{error:?}");
    let admin = process.native().await.expect("it is served").admin();
    let error = admin.topic("nobody-made-it").await.expect_err("it is unknown");
    assert_eq!(error.kind(), ErrorKind::Server(ErrorCode::UnknownPartition));
    let topics = admin.topics().await.expect("it is served");
    let has = |name: &str| topics.iter().any(|topic| topic.name == name);
    assert!(has(TOPIC) && !has("nobody-made-it"), "{topics:?}");
    process.verify().await;
    process.stop().await;
}
