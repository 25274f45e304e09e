//! Clients that mean harm, or have hung: limits in bytes, in requests and in time.

use crate::server::{Server, TOPIC, produce, produce_records, read, until};
use ackord::native::Limits;
use ackord::proto::native::{self, request};
use std::time::Duration;
use tokio::sync::oneshot;

#[tokio::test]
async fn hostile_frames_end_their_own_connection_only() {
    let server = Server::limited(Limits { request_bytes_max: 1 << 20, ..Limits::default() }).await;
    let mut other = server.connect().await;
    let many = vec![native::Record::default(); 100_001];
    let too_many = native::Request { id: 1, timeout_ms: 0, body: Some(produce_records(many)) };
    let too_many = ackord::proto::encode_frame(&too_many, usize::MAX).unwrap();
    let frames: [&[u8]; 4] = [
        &[0xff, 0xff, 0xff, 0xff],       // four gigabytes
        &[0, 0x10, 0, 1],                // one byte beyond the limit
        &[0, 0, 0, 3, 0xff, 0xff, 0xff], // no protobuf
        &too_many,
    ];
    for frame in frames {
        let mut hostile = server.connect().await;
        hostile.send(1, request::Body::ClusterStatus(native::ClusterStatusRequest {})).await;
        hostile.send_bytes(frame).await;
        assert_eq!(hostile.answer().await.expect("what was asked before is answered").0, 1);
        assert_eq!(hostile.answer().await, None, "then the end");
    }
    other.call(produce("x")).await;
    until("the memory is given back", || server.memory.available() == server.memory.total()).await;
    server.stop().await;
}

#[tokio::test]
async fn random_bytes_never_end_the_process() {
    let server = Server::limited(Limits { request_bytes_max: 4096, ..Limits::default() }).await;
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let mut client = server.connect().await;
        let length = rng.usize(..200);
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
        if let Some(prefix) = bytes.first_chunk_mut() {
            *prefix = u32::try_from(length - 4).unwrap().to_be_bytes();
        }
        client.send_bytes(&bytes).await;
    }
    let mut client = server.connect().await;
    client.call(produce("x")).await;
    server.stop().await;
}

#[tokio::test]
async fn half_a_request_holds_nobody_up_and_gives_its_memory_back() {
    let stall = Duration::from_millis(200);
    let server = Server::limited(Limits { stall, ..Limits::default() }).await;
    let mut slow = server.connect().await;
    slow.send_bytes(&[0, 0x10, 0, 0, 1, 2, 3]).await;
    until("it is reserved", || server.memory.available() < server.memory.total()).await;
    let mut other = server.connect().await;
    other.call(produce("x")).await;
    assert_eq!(slow.answer().await, None, "its time is over");
    until("the memory is given back", || server.memory.available() == server.memory.total()).await;
    server.stop().await;
}

#[tokio::test]
async fn unanswered_requests_of_a_connection_are_limited() {
    let server =
        Server::limited(Limits { in_flight_max: 2, grace: Duration::from_millis(100), ..Limits::default() }).await;
    let mut client = server.connect().await;
    let (commit_first, first) = oneshot::channel();
    let (_commit_second, second) = oneshot::channel();
    server.broker.state().outcomes.extend([first, second]);
    for (id, text) in (1..).zip(["a", "b", "c"]) {
        client.send(id, produce(text)).await;
    }
    let mut other = server.connect().await;
    until("two are begun", || server.broker.stored(TOPIC, 0).len() == 2).await;
    other.call(read(0, 0)).await;
    assert_eq!(server.broker.stored(TOPIC, 0).len(), 2, "the third is not read");
    commit_first.send(()).unwrap();
    assert_eq!(client.answer().await.unwrap().0, 1);
    assert_eq!(client.answer().await.unwrap().0, 3, "its place is free");
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    let server = Server::limited(Limits { idle: Duration::from_millis(100), ..Limits::default() }).await;
    let (mut waiting, mut idle) = (server.connect().await, server.connect().await);
    waiting.send(1, read(0, 10_000)).await;
    assert_eq!(idle.answer().await, None);
    let mut writer = server.connect().await;
    writer.call(produce("x")).await;
    assert_eq!(waiting.answer().await.expect("longer than idle connections live").0, 1);
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed() {
    let server = Server::limited(Limits { connections_max: 1, ..Limits::default() }).await;
    let mut first = server.connect().await;
    first.call(produce("x")).await;
    let mut second = server.connect().await;
    assert_eq!(second.answer().await, None);
    first.call(produce("y")).await;
    server.stop().await;
}
