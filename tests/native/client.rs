//! The Rust client: finding leaders, and never saying more about a write than is known.

use crate::fake_broker::Fate;
use crate::server::{HANG, Server, TOPIC, until};
use ackord::broker::ErrorKind as BrokerError;
use ackord::client::{
    Client, ClientOptions, Commit, ConfigChanges, ErrorKind, NewTopic, Producer, ProducerOptions, ReaderOptions,
    Record, Start,
};
use ackord::proto::native::ErrorCode;
use ackord::record::RecordBatch;
use ackord::types::NodeId;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;

pub async fn connect(server: &Server) -> Client {
    let options = ClientOptions { timeout: Duration::from_secs(5), ..ClientOptions::default() };
    Client::connect(&[server.address.to_string()], options).await.expect("the listener answers")
}

pub fn record(value: impl Into<Bytes>) -> Record {
    Record::new(None::<Bytes>, value)
}

fn alone() -> ProducerOptions {
    ProducerOptions { linger: Duration::ZERO, batch_bytes: 1, ..ProducerOptions::default() }
}

/// Every value that is stored in partition 0, in order.
pub fn stored(server: &Server) -> Vec<String> {
    let batches = server.broker.stored(TOPIC, 0);
    let mut values = Vec::new();
    for batch in batches {
        let batch = RecordBatch::parse_verified(batch.bytes).unwrap();
        for record in batch.records(0).unwrap().iter() {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

async fn write(producer: &Producer, value: &'static str) -> ackord::client::Result<Commit> {
    let delivery = producer.send(TOPIC, Some(0), record(value)).await?;
    timeout(HANG, delivery).await.expect("an outcome in time")
}

#[tokio::test]
async fn what_is_written_is_read_from_any_place() {
    let server = Server::start().await;
    let client = connect(&server).await;
    let producer = client.producer(alone()).unwrap();
    for (index, value) in (0..).zip(["a", "b", "c"]) {
        let timed = Record { timestamp_ms: Some(1000 * (index + 1)), key: Some("k".into()), ..record(value) };
        let commit = producer.send(TOPIC, Some(0), timed).await.unwrap().await.unwrap();
        let log_index = u64::try_from(index).unwrap() + 1;
        assert_eq!(commit, Commit { partition: 0, offset: index, term: 3, log_index, duplicate: false });
    }
    let places =
        [(Start::Beginning, 0), (Start::Offset(2), 2), (Start::Time(1500), 1), (Start::Time(9999), 3), (Start::End, 3)];
    for (start, expected) in places {
        let options = ReaderOptions { wait: Duration::from_millis(1), ..ReaderOptions::default() };
        let mut reader = client.reader(TOPIC, 0, start, options).await.unwrap();
        assert_eq!((reader.position(), reader.high_watermark().max(3)), (expected, 3), "{start:?}");
        let read = reader.read().await.unwrap();
        assert_eq!(read.len() as i64, 3 - expected, "{start:?}");
        assert!(read.iter().all(|record| record.term == 3 && record.key == Some("k".into())));
        assert_eq!(reader.position(), 3);
    }
    let beyond = client.reader(TOPIC, 0, Start::Offset(4), ReaderOptions::default()).await.unwrap().read().await;
    assert_eq!(beyond.unwrap_err().code(), Some(ErrorCode::OffsetOutOfRange));
    server.stop().await;
}

#[tokio::test]
async fn a_reader_follows() {
    let server = Server::start().await;
    let client = connect(&server).await;
    let mut reader = client.reader(TOPIC, 0, Start::End, ReaderOptions::default()).await.unwrap();
    let producer = client.producer(alone()).unwrap();
    let reading = tokio::spawn(async move {
        loop {
            let read = reader.read().await.unwrap();
            if !read.is_empty() {
                return read;
            }
        }
    });
    write(&producer, "x").await.unwrap();
    let read = timeout(HANG, reading).await.expect("it arrives").unwrap();
    assert_eq!(read[0].value, Some("x".into()));
    server.stop().await;
}

#[tokio::test]
async fn leaders_are_found_and_followed() {
    let first = Server::start().await;
    let second = Server::over(first.broker.other(NodeId(2)), Default::default()).await;
    let client = connect(&first).await;
    let producer = client.producer(alone()).unwrap();
    let mut reader = client.reader(TOPIC, 0, Start::Beginning, ReaderOptions::default()).await.unwrap();
    for (leader, value) in [(1, "a"), (2, "b"), (1, "c"), (2, "d")] {
        first.broker.state().leader = Some(NodeId(leader));
        write(&producer, value).await.unwrap();
        assert_eq!(reader.read().await.unwrap()[0].value, Some(value.into()));
        assert_eq!(client.admin().offsets(TOPIC, 0).await.unwrap().high_watermark, reader.position());
    }
    assert_eq!(stored(&first), ["a", "b", "c", "d"]);
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_made_known_by_an_idempotent_producer() {
    let server = Server::start().await;
    let client = connect(&server).await;
    let producer = client.producer(alone()).unwrap();
    for (written, value) in [(true, "a"), (false, "b")] {
        for error in [BrokerError::TimedOut, BrokerError::LeadershipLost] {
            server.broker.state().fates.extend([Some(Fate { written, error }), Some(Fate { written, error })]);
            let before = stored(&server).len();
            let commit = write(&producer, value).await.unwrap();
            assert_eq!((commit.offset, commit.duplicate), (before as i64, written), "{error:?}");
            assert_eq!(stored(&server).len(), before + 1, "once");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn without_idempotence_an_unknown_outcome_is_told_and_nothing_is_sent_again() {
    let server = Server::start().await;
    let client = connect(&server).await;
    let producer = client.producer(ProducerOptions { idempotent: false, ..alone() }).unwrap();
    for written in [true, false] {
        let before = stored(&server).len();
        server.broker.state().fates.push_back(Some(Fate { written, error: BrokerError::TimedOut }));
        let error = write(&producer, "x").await.unwrap_err();
        assert_eq!((error.is_definite(), error.code()), (false, Some(ErrorCode::TimedOut)));
        assert_eq!(stored(&server).len(), before + usize::from(written));
        assert!(server.broker.state().fates.is_empty());
    }
    // What certainly did not happen is tried again all the same.
    server.broker.state().fates.push_back(Some(Fate { written: false, error: BrokerError::Overloaded }));
    write(&producer, "y").await.unwrap();
    assert_eq!(stored(&server), ["x", "y"]);
    server.stop().await;
}

#[tokio::test]
async fn a_lost_connection_is_an_unknown_outcome() {
    let first = Server::start().await;
    let second = Server::over(first.broker.other(NodeId(2)), Default::default()).await;
    let client = connect(&first).await;
    let producers = [true, false].map(|idempotent| client.producer(ProducerOptions { idempotent, ..alone() }).unwrap());
    let mut gates = Vec::new();
    let mut deliveries = Vec::new();
    for (index, producer) in producers.iter().enumerate() {
        let (gate, outcome) = tokio::sync::oneshot::channel();
        gates.push(gate);
        first.broker.state().outcomes.push_back(outcome);
        deliveries.push(producer.send(TOPIC, Some(0), record(index.to_string())).await.unwrap());
        until("it is written", || stored(&first).len() == index + 1).await;
    }
    first.broker.state().leader = Some(NodeId(2));
    first.die().await;
    let [safe, unsafe_one] = deliveries.try_into().unwrap();
    let commit = timeout(HANG, safe).await.unwrap().unwrap();
    assert_eq!((commit.offset, commit.duplicate), (0, true), "found out at the next leader");
    let error = timeout(HANG, unsafe_one).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.is_definite()), (ErrorKind::ConnectionLost, false));
    assert_eq!(stored(&second), ["0", "1"]);
    second.stop().await;
}

#[tokio::test]
async fn what_may_have_been_written_stays_so_when_it_is_refused_later() {
    let server = Server::start().await;
    let client = connect(&server).await;
    let producer = client.producer(alone()).unwrap();
    let lost = Fate { written: false, error: BrokerError::TimedOut };
    let too_large = Fate { written: false, error: BrokerError::RecordTooLarge };
    server.broker.state().fates.extend([Some(lost), Some(too_large.clone())]);
    let error = write(&producer, "x").await.unwrap_err();
    assert_eq!((error.code(), error.is_definite()), (Some(ErrorCode::TooLarge), false));
    server.broker.state().fates.push_back(Some(too_large));
    assert!(write(&producer, "x").await.unwrap_err().is_definite(), "the only try");
    write(&producer, "y").await.unwrap();
    assert_eq!(stored(&server), ["y"], "under a new producer id");
    server.stop().await;
}

#[tokio::test]
async fn administration_is_repeated_only_while_nothing_happened() {
    let server = Server::start().await;
    let admin = connect(&server).await.admin();
    let new = NewTopic { name: "new".to_owned(), partitions: Some(3), ..NewTopic::default() };
    assert_eq!(admin.create_topic(&new).await.unwrap(), (3, 1));
    let again = admin.create_topic(&new).await.unwrap_err();
    assert_eq!((again.code(), again.is_definite()), (Some(ErrorCode::TopicExists), true));
    admin.grow_topic("new", 4).await.unwrap();
    assert_eq!(admin.topic("new").await.unwrap().partitions.len(), 4);
    assert_eq!(admin.topics().await.unwrap().len(), 2);
    let cluster = admin.cluster().await.unwrap();
    assert_eq!(admin.replicas(&cluster.nodes[0]).await.unwrap().len(), 6);
    admin.delete_topic("new").await.unwrap();
    let gone = timeout(HANG, admin.topic("new")).await.expect("not for ever").unwrap_err();
    assert!(gone.is_definite() && matches!(gone.code(), Some(ErrorCode::UnknownPartition)), "{gone:?}");
    server.stop().await;
}

#[tokio::test]
async fn settings_are_changed_together_or_not_at_all() {
    let server = Server::start().await;
    let admin = connect(&server).await.admin();
    let set = |settings: &[&str]| ConfigChanges {
        set: settings.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect(),
        delete: vec!["b".to_owned()],
    };
    let cases = [
        (TOPIC, &["a", "no.such.config"][..], ErrorCode::Refused),
        (TOPIC, &["a", "b"], ErrorCode::InvalidRequest),
        ("absent", &["a"], ErrorCode::UnknownPartition),
    ];
    for (topic, settings, expected) in cases {
        let refused =
            timeout(HANG, admin.alter_topic(topic, &set(settings), false)).await.expect("in time").unwrap_err();
        assert_eq!((refused.code(), refused.is_definite()), (Some(expected), true), "{settings:?}: {refused}");
    }
    let names = async || admin.topic_configs(TOPIC).await.unwrap().into_iter().map(|config| config.name);
    assert_eq!(names().await.collect::<Vec<_>>(), ["max.message.bytes"]);
    admin.alter_topic(TOPIC, &set(&["a", "c"]), false).await.unwrap();
    assert_eq!(names().await.collect::<Vec<_>>(), ["max.message.bytes", "a", "c"]);
    server.stop().await;
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    let options = ClientOptions { timeout: Duration::from_millis(300), ..ClientOptions::default() };
    let error = timeout(HANG, Client::connect(&["127.0.0.1:1"], options)).await.expect("in time").unwrap_err();
    assert_eq!((error.kind(), error.is_definite()), (ErrorKind::Unreachable, true));
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
