//! What a client in any language sees: positions, order, reads, queries, errors.

use crate::fake_broker::Fate;
use crate::server::{HANG, Server, TOPIC, partition, produce, produce_records, read, until};
use ackord::broker::ErrorKind;
use ackord::proto::native::{
    self, ErrorCode, ReadFormat, get_request, produce_request::Payload, request, response, topic_reference::By,
};
use ackord::record::writer::BatchWriter;
use ackord::types::NodeId;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Unpacks the one answer that is expected.
macro_rules! answer {
    ($asked:expr, $kind:ident) => {
        match $asked {
            response::Body::$kind(answer) => answer,
            other => panic!("expected {}, not {other:?}", stringify!($kind)),
        }
    };
}

fn value(record: &native::Record) -> &str {
    std::str::from_utf8(record.value.as_deref().unwrap_or_default()).unwrap()
}

#[tokio::test]
async fn an_acknowledgement_carries_the_place_of_the_commit() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let hello = answer!(client.call(request::Body::Hello(native::HelloRequest::default())).await, Hello);
    assert_eq!((hello.protocol, hello.node, hello.cluster_id.as_str()), (1, 1, "fake-cluster"));
    assert_eq!(hello.frame_bytes_max, 100 << 20);
    let two = vec![native::Record::default(), native::Record::default()];
    let first = answer!(client.call(produce_records(two)).await, Produce);
    assert_eq!((first.base_offset, first.term, first.log_index, first.duplicate), (0, 3, 1, false));
    let second = answer!(client.call(produce("x")).await, Produce);
    assert_eq!((second.base_offset, second.log_index), (2, 2));
    server.stop().await;
}

#[tokio::test]
async fn answers_come_as_they_are_ready_and_writes_in_the_order_sent() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let (open_first, first) = oneshot::channel();
    server.broker.state().outcomes.push_back(first);
    for (id, text) in (1..).zip(["a", "b", "c"]) {
        client.send(id, produce(text)).await;
    }
    // The first is written and not yet committed; its answer holds up nobody else's.
    assert_eq!(client.answer().await.unwrap().0, 2);
    assert_eq!(client.answer().await.unwrap().0, 3);
    open_first.send(()).unwrap();
    assert_eq!(client.answer().await.unwrap().0, 1);
    let read = answer!(client.call(read(0, 0)).await, Read);
    assert_eq!(read.records.iter().map(value).collect::<Vec<_>>(), ["a", "b", "c"]);
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_begun_past_a_produce_that_is_not_admitted() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let (admit, admission) = oneshot::channel();
    server.broker.state().admissions.push_back(admission);
    client.send(1, produce("a")).await;
    client.send(2, produce("b")).await; // would be admitted at once
    let mut other = server.connect().await;
    other.call(request::Body::ClusterStatus(native::ClusterStatusRequest {})).await;
    assert!(server.broker.stored(TOPIC, 0).is_empty());
    admit.send(()).unwrap();
    client.answer().await.unwrap();
    client.answer().await.unwrap();
    let read = answer!(client.call(read(0, 0)).await, Read);
    assert_eq!(read.records.iter().map(value).collect::<Vec<_>>(), ["a", "b"]);
    server.stop().await;
}

#[tokio::test]
async fn records_are_read_as_they_were_written() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let header = native::Header { key: "h".to_owned(), value: Some("1".into()) };
    let record = native::Record {
        key: Some("k".into()),
        value: None,
        headers: vec![header.clone()],
        timestamp_ms: 1234,
        ..Default::default()
    };
    client.call(produce_records(vec![record, native::Record::default()])).await;
    client.call(produce("later")).await;
    let whole = answer!(client.call(read(0, 0)).await, Read);
    assert_eq!((whole.records.len(), whole.next_offset, whole.high_watermark), (3, 3, 3));
    let first = &whole.records[0];
    assert_eq!((first.key.as_deref(), first.value.as_deref()), (Some(&b"k"[..]), None));
    assert_eq!((first.timestamp_ms, first.term, &first.headers[..]), (1234, 3, &[header][..]));
    assert!(whole.records[1].timestamp_ms > 1_600_000_000_000, "the server's clock");
    // From within a batch, and in small portions.
    let rest = answer!(client.call(read(1, 0)).await, Read);
    assert_eq!(rest.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [1, 2]);
    let small = native::ReadRequest { partition: partition(0), bytes_max: 1, ..Default::default() };
    let small = answer!(client.call(request::Body::Read(small)).await, Read);
    assert_eq!((small.records.len(), small.next_offset), (1, 1), "at least one, and where to go on");
    server.stop().await;
}

#[tokio::test]
async fn batches_are_stored_and_read_byte_for_byte() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.call(produce("before")).await;
    let batch = BatchWriter::new(5).record(None, Some(b"one"), 5).record(None, Some(b"two"), 6).finish().into_bytes();
    let payload = Some(Payload::RecordBatch(batch.clone()));
    let asked = native::ProduceRequest { partition: partition(0), payload, idempotence: None };
    client.call(request::Body::Produce(asked.clone())).await;
    let format = ReadFormat::RecordBatches.into();
    let read = native::ReadRequest { partition: partition(0), offset: 2, format, ..Default::default() };
    let found = answer!(client.call(request::Body::Read(read)).await, Read);
    assert_eq!(found.record_batches[..8], 1_i64.to_be_bytes(), "the base offset");
    assert_eq!(found.record_batches[12..16], 3_i32.to_be_bytes(), "the epoch");
    assert_eq!(found.record_batches[16..], batch[16..], "and the producer's bytes");
    assert_eq!(found.next_offset, 3);
    let idempotence = Some(native::Idempotence::default());
    let both = native::ProduceRequest { idempotence, ..asked };
    assert_eq!(client.refused(request::Body::Produce(both)).await.0, ErrorCode::InvalidRequest);
    server.stop().await;
}

#[tokio::test]
async fn a_read_waits_for_records() {
    let server = Server::start().await;
    let (mut reader, mut writer) = (server.connect().await, server.connect().await);
    reader.send(1, read(0, 15_000)).await;
    let early = timeout(Duration::from_millis(50), reader.stream.read_u8()).await;
    assert!(early.is_err(), "there is nothing yet");
    writer.call(produce("x")).await;
    let found = answer!(reader.answer().await.unwrap().1, Read);
    assert_eq!(value(&found.records[0]), "x");
    let none = answer!(reader.call(read(1, 1)).await, Read);
    assert!(none.records.is_empty() && none.next_offset == 1, "the wait is over");
    server.stop().await;
}

#[tokio::test]
async fn single_records_are_found_by_offset_and_time() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for time in [1000, 2000, 3000] {
        let record = native::Record { timestamp_ms: time, ..Default::default() };
        client.call(produce_records(vec![record])).await;
    }
    let get = |by| request::Body::Get(native::GetRequest { partition: partition(0), by: Some(by) });
    let cases = [
        (get_request::By::Offset(1), Some(1)),
        (get_request::By::Offset(3), None),
        (get_request::By::Offset(-1), None),
        (get_request::By::TimestampMs(1500), Some(1)),
        (get_request::By::TimestampMs(3001), None),
    ];
    for (by, expected) in cases {
        let found = answer!(client.call(get(by.clone())).await, Get);
        assert_eq!(found.record.map(|record| record.offset), expected, "{by:?}");
        assert_eq!(found.high_watermark, 3);
    }
    let unsupported = client.refused(get(get_request::By::Key("k".into()))).await;
    assert_eq!((unsupported.0, unsupported.1.definite), (ErrorCode::Unsupported, true));
    let asked = request::Body::Offsets(native::OffsetsRequest { partition: partition(0) });
    let offsets = answer!(client.call(asked).await, Offsets);
    assert_eq!((offsets.log_start_offset, offsets.high_watermark, offsets.term), (0, 3, 3));
    server.stop().await;
}

#[tokio::test]
async fn errors_say_whether_it_may_have_happened_and_where_to_go() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let lost = Fate { written: true, error: ErrorKind::LeadershipLost };
    let full = Fate { written: false, error: ErrorKind::Overloaded };
    server.broker.state().fates.extend([Some(lost), Some(full)]);
    let (code, error) = client.refused(produce("a")).await;
    assert_eq!((code, error.definite, error.retriable), (ErrorCode::LeadershipLost, false, true));
    let (code, error) = client.refused(produce("b")).await;
    assert_eq!((code, error.definite, error.retriable), (ErrorCode::Overloaded, true, true));
    assert_eq!(server.broker.stored(TOPIC, 0).len(), 1);
    let (code, error) = client.refused(read(5, 0)).await;
    assert_eq!((code, error.definite, error.retriable), (ErrorCode::OffsetOutOfRange, true, false));

    let other = Server::over(server.broker.other(NodeId(2)), Default::default()).await;
    server.broker.state().leader = Some(NodeId(2));
    for body in [produce("c"), read(0, 0)] {
        let (code, error) = client.refused(body).await;
        let leader = error.leader.expect("it is known");
        assert_eq!((code, leader.node, leader.term), (ErrorCode::NotLeader, 2, 3));
        assert_eq!((leader.host.as_str(), leader.port), ("127.0.0.1", u32::from(other.address.port())));
    }
    other.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn requests_without_sense_are_refused_and_the_connection_goes_on() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let early = native::Record { timestamp_ms: i64::MIN, ..Default::default() };
    let idempotent = |producer_id, producer_epoch, base_sequence| {
        let request::Body::Produce(mut asked) = produce("x") else { unreachable!() };
        asked.idempotence = Some(native::Idempotence { producer_id, producer_epoch, base_sequence });
        request::Body::Produce(asked)
    };
    let nowhere = native::ProduceRequest::default();
    let short_id = native::TopicReference { by: Some(By::Id(vec![1; 15].into())) };
    let topics = native::TopicsRequest { topics: vec![short_id] };
    for body in [
        produce_records(vec![]),
        produce_records(vec![early]),
        idempotent(-1, 0, 0),
        idempotent(1, 40_000, 0),
        idempotent(1, 0, -1),
        request::Body::Produce(nowhere),
        request::Body::Topics(topics),
        request::Body::Get(native::GetRequest { partition: partition(0), by: None }),
        request::Body::Read(native::ReadRequest::default()),
    ] {
        let (code, error) = client.refused(body.clone()).await;
        assert_eq!((code, error.definite, error.retriable), (ErrorCode::InvalidRequest, true, false), "{body:?}");
    }
    let late = native::Record { timestamp_ms: i64::MAX, ..Default::default() };
    answer!(client.call(produce_records(vec![late])).await, Produce);
    let transfer = request::Body::TransferLeader(native::TransferLeaderRequest::default());
    assert_eq!(client.refused(transfer).await.0, ErrorCode::Unsupported);
    // A body from the future: field 1000, empty.
    client.send_bytes(&[0, 0, 0, 5, 0x08, 9, 0xc2, 0x3e, 0]).await;
    let (id, body) = client.answer().await.expect("an answer");
    assert_eq!((id, answer!(body, Error).code), (9, i32::from(ErrorCode::Unsupported)));
    server.stop().await;
}

#[tokio::test]
async fn topics_come_and_grow_and_go() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let create = || {
        let new = native::CreateTopicRequest { name: "new".to_owned(), partitions: 3, ..Default::default() };
        request::Body::CreateTopic(new)
    };
    let created = answer!(client.call(create()).await, CreateTopic);
    assert_eq!((created.partitions, created.id.len()), (3, 16));
    assert_eq!(client.refused(create()).await.0, ErrorCode::TopicExists);
    let grow = native::CreatePartitionsRequest { topic: "new".to_owned(), count: 5, ..Default::default() };
    answer!(client.call(request::Body::CreatePartitions(grow.clone())).await, CreatePartitions);
    assert_eq!(client.refused(request::Body::CreatePartitions(grow)).await.0, ErrorCode::Refused);
    let by_id = native::TopicReference { by: Some(By::Id(created.id.clone())) };
    let named = request::Body::Topics(native::TopicsRequest { topics: vec![by_id.clone()] });
    let found = answer!(client.call(named.clone()).await, Topics);
    assert_eq!((found.topics[0].name.as_str(), found.topics[0].partitions.len()), ("new", 5));
    assert_eq!(found.topics[0].partitions[4].leader.as_ref().unwrap().node, 1);
    let all = answer!(client.call(request::Body::Topics(native::TopicsRequest::default())).await, Topics);
    assert_eq!(all.topics.len(), 2);
    let delete = native::DeleteTopicRequest { topic: Some(by_id) };
    let deleted = answer!(client.call(request::Body::DeleteTopic(delete)).await, DeleteTopic);
    assert_eq!((deleted.name.as_str(), deleted.id), ("new", created.id));
    assert_eq!(client.refused(named).await.0, ErrorCode::UnknownTopic);
    server.stop().await;
}

#[tokio::test]
async fn the_cluster_and_its_replicas_are_shown() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.call(produce("x")).await;
    let cluster = request::Body::ClusterStatus(native::ClusterStatusRequest {});
    let cluster = answer!(client.call(cluster).await, ClusterStatus);
    assert_eq!((cluster.cluster_id.as_str(), cluster.controller), ("fake-cluster", 1));
    assert_eq!(cluster.nodes[0].native.as_ref().unwrap().port, u32::from(server.address.port()));
    let replicas = request::Body::Replicas(native::ReplicasRequest {});
    let replicas = answer!(client.call(replicas).await, Replicas).replicas;
    assert_eq!(replicas.len(), 2);
    let status = request::Body::PartitionStatus(native::PartitionStatusRequest { partition: partition(0) });
    let status = answer!(client.call(status).await, PartitionStatus);
    assert_eq!(status.leader.unwrap().node, 1);
    let own = status.replica.expect("this node holds it");
    assert_eq!((own.role(), own.commit_index, own.followers.len()), (native::Role::Leader, 1, 1));
    let missing = request::Body::PartitionStatus(native::PartitionStatusRequest { partition: partition(7) });
    assert_eq!(client.refused(missing).await.0, ErrorCode::UnknownPartition);
    server.stop().await;
}

#[tokio::test]
async fn stopping_answers_what_was_asked() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let (commit, outcome) = oneshot::channel();
    server.broker.state().outcomes.push_back(outcome);
    client.send(1, produce("x")).await;
    until("it is written", || !server.broker.stored(TOPIC, 0).is_empty()).await;
    server.say_stop();
    let early = timeout(Duration::from_millis(50), client.stream.read_u8()).await;
    assert!(early.is_err(), "neither an answer nor the end");
    commit.send(()).unwrap();
    assert_eq!(client.answer().await.expect("the answer").0, 1);
    assert_eq!(client.answer().await, None);
    timeout(HANG, server.stop()).await.expect("it stops");
}
