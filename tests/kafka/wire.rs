//! One connection after the other: the order of answers, silence, limits, and clients that mean harm.

use crate::client::{HANG, Server, frame, until};
use crate::fake_broker::{FakeBroker, Stored};
use crate::guard::{mutate, served};
use crate::requests;
use crate::versions::{fetch, produce};
use ackord::broker::ErrorKind;
use ackord::kafka::Limits;
use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, MetadataRequest, RequestKind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

const TOPIC: &str = "orders";

async fn server_with_topic() -> Server {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic(TOPIC, 2);
    server
}

fn metadata() -> RequestKind {
    MetadataRequest::default().into()
}

/// Waits until the broker has stored so many batches in partition 0.
async fn stored(broker: &FakeBroker, batches: usize) {
    until("the batches arrive", || broker.stored(TOPIC, 0).len() >= batches).await;
}

#[tokio::test]
async fn a_newer_api_versions_request_is_answered_as_kafka_answers_it() {
    let server = server_with_topic().await;
    let mut client = server.connect().await;
    // Key 18, version 5, correlation id 7, a client id, then a body that nobody here knows.
    client.send(&[0, 18, 0, 5, 0, 0, 0, 7, 0, 1, b'j', 0, 0xde, 0xad]).await;
    let answer = client.answer().await.expect("an answer");
    assert_eq!(answer[..], [0, 0, 0, 7, 0, 0x23, 0, 0, 0, 1, 0, 0x12, 0, 0, 0, 4]);
    client.ask(ApiKey::ApiVersions, 0, 8, &ApiVersionsRequest::default().into()).await;
    assert_eq!(client.correlation_id().await, Some(8), "and the connection goes on");
    server.stop().await;
}

#[tokio::test]
async fn answers_leave_in_the_order_of_the_questions() {
    let server = server_with_topic().await;
    let mut client = server.connect().await;
    let (open_first, first) = oneshot::channel();
    let (open_second, second) = oneshot::channel();
    server.broker.state().outcomes.extend([first, second]);
    client.ask(ApiKey::Produce, 9, 1, &produce(9, 0, -1).into()).await;
    client.ask(ApiKey::Produce, 9, 2, &produce(9, 0, -1).into()).await;
    client.ask(ApiKey::Metadata, 4, 3, &metadata()).await;
    stored(&server.broker, 2).await; // both are admitted while neither is committed
    open_second.send(()).expect("awaited");
    let early = timeout(Duration::from_millis(50), client.stream.read_u8()).await;
    assert!(early.is_err(), "the second and the third wait for the first");
    open_first.send(()).expect("awaited");
    for expected in 1..=3 {
        assert_eq!(client.correlation_id().await, Some(expected));
    }
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_read_past_a_produce_that_is_not_admitted() {
    let server = server_with_topic().await;
    let mut client = server.connect().await;
    let (admit, admission) = oneshot::channel();
    server.broker.state().admissions.push_back(admission);
    client.ask(ApiKey::Produce, 9, 1, &produce(9, 0, -1).into()).await;
    client.ask(ApiKey::Produce, 9, 2, &produce(9, 0, -1).into()).await;
    // The second would be admitted at once, if it were read: only the first has a gate.
    let mut other = server.connect().await;
    other.ask(ApiKey::Metadata, 4, 9, &metadata()).await;
    assert_eq!(other.correlation_id().await, Some(9), "other connections do not wait");
    assert!(server.broker.stored(TOPIC, 0).is_empty());
    admit.send(()).expect("awaited");
    assert_eq!(client.correlation_id().await, Some(1));
    assert_eq!(client.correlation_id().await, Some(2));
    server.stop().await;
}

#[tokio::test]
async fn acks_0_is_silence_and_a_failure_the_end() {
    let server = server_with_topic().await;
    let mut client = server.connect().await;
    client.ask(ApiKey::Produce, 7, 1, &produce(7, 0, 0).into()).await;
    client.ask(ApiKey::Metadata, 4, 2, &metadata()).await;
    assert_eq!(client.correlation_id().await, Some(2), "no answer to the produce");
    assert_eq!(server.broker.stored(TOPIC, 0).len(), 1);
    client.ask(ApiKey::Metadata, 4, 3, &metadata()).await;
    client.ask(ApiKey::Produce, 7, 4, &produce(7, 99, 0).into()).await;
    assert_eq!(client.correlation_id().await, Some(3), "what was asked before is answered");
    assert_eq!(client.answer().await, None);
    server.stop().await;
}

#[tokio::test]
async fn odd_produces_are_told_what_is_wrong() {
    let server = server_with_topic().await;
    let mut client = server.connect().await;
    let mut null = produce(9, 0, -1);
    null.topic_data[0].partition_data[0].records = None;
    let mut transactional = produce(9, 0, -1);
    transactional.transactional_id = Some(kafka_protocol::protocol::StrBytes::from_static_str("tx").into());
    for (request, expected) in [(produce(9, 0, 2), 21), (null, 87), (transactional, 53), (produce(9, 7, 1), 3)] {
        let answer = client.call(ApiKey::Produce, 9, &request.into()).await;
        let kafka_protocol::messages::ResponseKind::Produce(answer) = answer else { panic!("an answer to a produce") };
        assert_eq!(answer.responses[0].partition_responses[0].error_code, expected);
    }
    assert!(server.broker.stored(TOPIC, 0).is_empty());
    server.stop().await;
}

#[tokio::test]
async fn failed_outcomes_reach_the_client_as_definite_or_indefinite() {
    let server = server_with_topic().await;
    let mut client = server.connect().await;
    for (kind, code) in [(ErrorKind::TimedOut, 7), (ErrorKind::LeadershipLost, 20), (ErrorKind::NotLeader, 6)] {
        server.broker.state().failure = Some(kind.into());
        let answer = client.call(ApiKey::Produce, 3, &produce(3, 0, -1).into()).await;
        let kafka_protocol::messages::ResponseKind::Produce(answer) = answer else { panic!("an answer to a produce") };
        assert_eq!(answer.responses[0].partition_responses[0].error_code, code);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_fetch_waits_for_records() {
    let server = server_with_topic().await;
    let (mut reader, mut writer) = (server.connect().await, server.connect().await);
    let mut request = fetch(0, 1);
    request.max_wait_ms = 60_000;
    reader.ask(ApiKey::Fetch, 12, 1, &request.into()).await;
    let early = timeout(Duration::from_millis(50), reader.stream.read_u8()).await;
    assert!(early.is_err(), "nothing to read yet");
    writer.call(ApiKey::Produce, 9, &produce(9, 0, -1).into()).await;
    assert_eq!(reader.correlation_id().await, Some(1));
    server.stop().await;
}

#[tokio::test]
async fn fetched_batches_are_counted_until_they_are_sent_and_no_longer() {
    let server = Server::start(Limits { stall: Duration::from_millis(300), ..Limits::default() }).await;
    server.broker.add_topic(TOPIC, 1);
    let memory = server.broker.fetch_memory.clone();
    let large = Stored { base: 0, records: 1, bytes: Bytes::from(vec![0; 32 << 20]) };
    server.broker.state().topics.get_mut(TOPIC).expect("just added").partitions[0].batches.push(large);
    let mut reader = server.connect().await;
    reader.ask(ApiKey::Fetch, 12, 1, &fetch(0, 0).into()).await;
    let answer = reader.answer().await.expect("an answer");
    assert!(answer.len() > 32 << 20, "the first batch comes whatever its size");
    until("given back once sent", || memory.available() == memory.total()).await;

    reader.ask(ApiKey::Fetch, 12, 2, &fetch(0, 0).into()).await;
    until("the second answer is made", || memory.available() < memory.total()).await;
    assert_eq!(memory.available(), memory.total() - (32 << 20), "held while the reader does not read");
    until("given back with the reader's connection", || memory.available() == memory.total()).await;
    server.stop().await;
}

/// Every frame of the list is the end of its own connection, and of nothing else.
#[tokio::test]
async fn hostile_frames_end_their_own_connection_only() {
    let server = server_with_topic().await;
    let mut bystander = server.connect().await;
    let metadata_v4 = [0, 3, 0, 4, 0, 0, 0, 1, 0, 0];
    let metadata_v9 = [0, 3, 0, 9, 0, 0, 0, 1, 0, 0, 0];
    let prefixed = |frame: &[u8]| [&u32::try_from(frame.len()).expect("small").to_be_bytes()[..], frame].concat();
    let hostile: Vec<Vec<u8>> = vec![
        prefixed(&[&metadata_v4[..], &[0x7f, 0xff, 0xff, 0xff, 1]].concat()),
        prefixed(&[&metadata_v9[..], &[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0, 0, 0]].concat()),
        prefixed(&[0, 3, 0, 9, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        prefixed(&[3, 0xe7, 0, 0, 0, 0, 0, 1, 0, 0]),
        prefixed(&[0, 0, 0, 2, 0, 0, 0, 1, 0, 0]),
        prefixed(&[0, 3]),
        prefixed(&[]),
        vec![0x7f, 0xff, 0xff, 0xff],
        vec![0xff, 0xff, 0xff, 0xff],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 0, 0x75, 1, 0, 0], // a TLS client hello
    ];
    for (number, bytes) in hostile.iter().enumerate() {
        let mut client = server.connect().await;
        client.ask(ApiKey::Metadata, 4, 5, &metadata()).await;
        client.stream.write_all(bytes).await.expect("accepted");
        assert_eq!(client.correlation_id().await, Some(5), "{number}: what was asked before is answered");
        assert_eq!(client.answer().await, None, "{number}: then it is over");
        bystander.ask(ApiKey::Metadata, 4, number as i32, &metadata()).await;
        assert_eq!(bystander.correlation_id().await, Some(number as i32), "others go on");
    }
    assert_eq!(server.memory.available(), server.memory.total(), "nothing stays reserved");
    server.stop().await;
}

/// What passes the guard by chance reaches the APIs and the broker: nobody there may panic over it.
#[tokio::test]
async fn mutated_requests_over_a_socket_upset_nobody() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
    let server = server_with_topic().await;
    let mut bystander = server.connect().await;
    let mut rng = fastrand::Rng::with_seed(9);
    for (key, version) in served() {
        for round in 0..20 {
            let mut bytes = frame(key, version, round, &requests::random(&mut rng, key, version));
            mutate(&mut rng, &mut bytes);
            let mut client = server.connect().await;
            client.send(&bytes).await;
            // Answered, closed, or waiting for records for days: all are fine, and leaving is, too.
            let _ = timeout(Duration::from_millis(20), client.stream.read_u8()).await;
        }
        bystander.ask(ApiKey::Metadata, 4, 1, &metadata()).await;
        assert_eq!(bystander.correlation_id().await, Some(1));
    }
    until("nothing stays reserved", || server.memory.available() == server.memory.total()).await;
    server.stop().await;
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn half_a_request_holds_nobody_up_and_gives_its_memory_back() {
    let limits = Limits { stall: Duration::from_millis(200), request_bytes_max: 1 << 20, ..Limits::default() };
    let server = Server::start(limits).await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.stream.write_all(&[0, 16, 0, 0, 0]).await.expect("accepted"); // 1 MiB, of which one byte comes
        slow.push(client);
    }
    until("all memory is reserved", || server.memory.available() == 0).await;
    let mut client = server.connect().await;
    client.ask(ApiKey::Metadata, 4, 1, &metadata()).await;
    assert_eq!(client.correlation_id().await, Some(1), "once the slow ones have been closed");
    for client in &mut slow {
        assert_eq!(client.answer().await, None);
    }
    server.stop().await;
}

#[tokio::test]
async fn unanswered_requests_of_a_connection_are_limited() {
    let server = Server::start(Limits { in_flight_max: 2, ..Limits::default() }).await;
    server.broker.add_topic(TOPIC, 1);
    let (open, gates): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
    server.broker.state().outcomes.extend(gates);
    let mut client = server.connect().await;
    for id in 0..3 {
        client.ask(ApiKey::Produce, 9, id, &produce(9, 0, -1).into()).await;
    }
    stored(&server.broker, 2).await;
    let mut other = server.connect().await;
    other.ask(ApiKey::Metadata, 4, 9, &metadata()).await;
    assert_eq!(other.correlation_id().await, Some(9));
    assert_eq!(server.broker.stored(TOPIC, 0).len(), 2, "the third is not read");
    for (id, gate) in (0..).zip(open) {
        gate.send(()).expect("awaited");
        assert_eq!(client.correlation_id().await, Some(id));
    }
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed() {
    let server = Server::start(Limits { connections_max: 1, ..Limits::default() }).await;
    let mut first = server.connect().await;
    first.ask(ApiKey::Metadata, 4, 1, &metadata()).await;
    assert_eq!(first.correlation_id().await, Some(1));
    let mut second = server.connect().await;
    assert_eq!(second.answer().await, None);
    drop(first);
    let again = async {
        loop {
            let mut client = server.connect().await;
            // A closed socket may refuse the write; then it is tried again.
            let frame = frame(ApiKey::Metadata, 4, 2, &metadata());
            let length = u32::try_from(frame.len()).expect("small").to_be_bytes();
            let _ = client.stream.write_all(&[&length[..], &frame].concat()).await;
            if client.correlation_id().await == Some(2) {
                return;
            }
        }
    };
    timeout(HANG, again).await.expect("a place becomes free");
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    let server = Server::start(Limits { idle: Duration::from_millis(100), ..Limits::default() }).await;
    server.broker.add_topic(TOPIC, 1);
    let (mut idle, mut waiting) = (server.connect().await, server.connect().await);
    let mut request = fetch(0, 1);
    request.max_wait_ms = 600;
    waiting.ask(ApiKey::Fetch, 12, 1, &request.into()).await;
    assert_eq!(idle.answer().await, None);
    assert_eq!(waiting.correlation_id().await, Some(1));
    server.stop().await;
}

#[tokio::test]
async fn stopping_answers_what_was_asked() {
    let server = server_with_topic().await;
    let mut client = server.connect().await;
    let (open, outcome) = oneshot::channel();
    server.broker.state().outcomes.push_back(outcome);
    client.ask(ApiKey::Produce, 9, 1, &produce(9, 0, -1).into()).await;
    stored(&server.broker, 1).await;
    server.say_stop();
    open.send(()).expect("awaited");
    let mut answer = client.answer().await.expect("an answer");
    assert_eq!(answer.get_i32(), 1);
    assert_eq!(client.answer().await, None);
    server.stop().await;
}
