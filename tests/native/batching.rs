//! The producer's lanes: batches, order, memory, and exactly one copy of every record whatever happens.

use crate::client::{connect, record, stored};
use crate::fake_broker::{Fate, NODE};
use crate::server::{HANG, Server, TOPIC, until};
use ackord::broker::ErrorKind as BrokerError;
use ackord::client::{Delivery, ProducerOptions};
use ackord::types::NodeId;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

#[tokio::test]
async fn records_share_a_batch_until_it_is_full_or_its_time_is_over() {
    let server = Server::start().await;
    let client = connect(&server).await;
    let hour = Duration::from_secs(3600);
    let producer = client.producer(ProducerOptions { linger: hour, batch_bytes: 1000, ..Default::default() }).unwrap();
    let mut deliveries = Vec::new();
    for _ in 0..25 {
        // 100 bytes with overhead
        deliveries.push(producer.send(TOPIC, Some(0), record(vec![b'x'; 36])).await.unwrap());
    }
    until("two are full", || server.broker.stored(TOPIC, 0).len() == 2).await;
    assert_eq!(server.broker.stored(TOPIC, 0)[0].records, 10);
    producer.flush().await;
    assert_eq!(server.broker.stored(TOPIC, 0)[2].records, 5);
    for (index, delivery) in deliveries.into_iter().enumerate() {
        let commit = timeout(HANG, delivery).await.unwrap().unwrap();
        assert_eq!((commit.offset, commit.log_index), (index as i64, index as u64 / 10 + 1));
    }
    let soon = client.producer(ProducerOptions { linger: Duration::from_millis(20), ..Default::default() }).unwrap();
    let delivery = soon.send(TOPIC, Some(0), record("x")).await.unwrap();
    timeout(HANG, delivery).await.expect("lingering ends").unwrap();
    server.stop().await;
}

#[tokio::test]
async fn several_batches_are_in_flight_and_no_more_than_allowed() {
    let server = Server::start().await;
    let client = connect(&server).await;
    let options = ProducerOptions { linger: Duration::ZERO, batch_bytes: 1, in_flight: 3, ..Default::default() };
    let producer = client.producer(options).unwrap();
    let (gates, outcomes): (Vec<_>, Vec<_>) = (0..5).map(|_| oneshot::channel()).unzip();
    server.broker.state().outcomes.extend(outcomes);
    let mut deliveries = Vec::new();
    for index in 0..5 {
        deliveries.push(producer.send(TOPIC, Some(0), record(index.to_string())).await.unwrap());
    }
    until("three are in flight", || stored(&server).len() == 3).await;
    client.admin().offsets(TOPIC, 0).await.unwrap();
    assert_eq!(stored(&server).len(), 3);
    for gate in gates {
        gate.send(()).unwrap();
    }
    for delivery in deliveries {
        timeout(HANG, delivery).await.unwrap().unwrap();
    }
    assert_eq!(stored(&server), ["0", "1", "2", "3", "4"]);
    server.stop().await;
}

#[tokio::test]
async fn a_full_producer_waits_for_room() {
    let server = Server::start().await;
    let client = connect(&server).await;
    let options = ProducerOptions { linger: Duration::ZERO, batch_bytes: 1, buffer_bytes: 150, ..Default::default() };
    let producer = client.producer(options).unwrap();
    let (gate, outcome) = oneshot::channel();
    server.broker.state().outcomes.push_back(outcome);
    let first = producer.send(TOPIC, Some(0), record(vec![b'x'; 36])).await.unwrap();
    let second = producer.send(TOPIC, Some(0), record(vec![b'x'; 36]));
    tokio::pin!(second);
    assert!(timeout(Duration::from_millis(50), &mut second).await.is_err(), "there is room for one");
    gate.send(()).unwrap();
    first.await.unwrap();
    timeout(HANG, second).await.expect("there is room now").unwrap().await.unwrap();
    let long = producer.send(TOPIC, Some(0), record(vec![0; 151])).await.unwrap_err();
    assert!(long.is_definite() && !long.is_retriable(), "it would wait for ever");
    server.stop().await;
}

#[tokio::test]
async fn keys_and_turns_choose_partitions() {
    let server = Server::start().await;
    let client = connect(&server).await;
    let options = ProducerOptions { linger: Duration::ZERO, batch_bytes: 200, ..Default::default() };
    let producer = client.producer(options).unwrap();
    for key in ["21", "foobar"] {
        let keyed = ackord::client::Record::new(Some(key), "v");
        let commit = producer.send(TOPIC, None, keyed).await.unwrap().await.unwrap();
        assert_eq!(commit.partition, ackord::client::partition_of_key(key.as_bytes(), 2));
    }
    let mut seen = [0, 0];
    for _ in 0..20 {
        let commit = producer.send(TOPIC, None, record(vec![0; 36])).await.unwrap().await.unwrap();
        seen[commit.partition as usize] += 1;
    }
    assert_eq!(seen, [10, 10]);
    let missing = producer.send("no such topic", None, record("x")).await.unwrap_err();
    assert!(missing.is_definite());
    server.stop().await;
}

#[tokio::test]
async fn records_fail_when_their_time_is_over_and_say_that_nothing_was_written() {
    let server = Server::start().await;
    let client = connect(&server).await;
    let options = ProducerOptions {
        linger: Duration::ZERO,
        batch_bytes: 1,
        delivery_timeout: Duration::from_millis(300),
        ..Default::default()
    };
    let producer = client.producer(options).unwrap();
    server.broker.state().refusal = Some(BrokerError::Overloaded.into());
    let mut deliveries = Vec::new();
    for _ in 0..20 {
        deliveries.push(producer.send(TOPIC, Some(0), record("x")).await.unwrap());
    }
    for delivery in deliveries {
        let error = timeout(HANG, delivery).await.expect("in time").unwrap_err();
        assert!(error.is_definite(), "{error:?}");
    }
    server.broker.state().refusal = None;
    producer.send(TOPIC, Some(0), record("y")).await.unwrap().await.unwrap();
    assert_eq!(stored(&server), ["y"]);
    server.stop().await;
}

/// Refusals, lost answers and moving leaders at random; every record is there once, in order, where its commit says.
#[tokio::test]
async fn whatever_happens_every_record_is_there_once_and_in_order() {
    const RECORDS: usize = 200;
    for seed in 0..3 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let first = Server::start().await;
        let second = Server::over(first.broker.other(NodeId(2)), Default::default()).await;
        let client = connect(&first).await;
        let options = ProducerOptions { linger: Duration::ZERO, batch_bytes: 150, ..Default::default() };
        let producer = client.producer(options).unwrap();
        let mut deliveries: Vec<Delivery> = Vec::new();
        for index in 0..RECORDS {
            if rng.u8(..) < 16 {
                let written = rng.bool();
                let kinds = [BrokerError::TimedOut, BrokerError::LeadershipLost, BrokerError::Overloaded];
                let error = rng.choice(kinds).unwrap();
                let fate = Fate { written: written && error != BrokerError::Overloaded, error };
                first.broker.state().fates.push_back(Some(fate));
            }
            if rng.u8(..) < 8 {
                first.broker.state().leader = Some(rng.choice([NODE, NodeId(2)]).unwrap());
            }
            deliveries.push(producer.send(TOPIC, Some(0), record(index.to_string())).await.unwrap());
            if rng.u8(..) < 64 {
                tokio::task::yield_now().await;
            }
        }
        let mut places = Vec::new();
        for delivery in deliveries {
            places.push(timeout(HANG, delivery).await.expect("an outcome").expect("everything here passes").offset);
        }
        let expected: Vec<_> = (0..RECORDS).map(|index| index.to_string()).collect();
        assert_eq!(stored(&first), expected, "seed {seed}");
        assert_eq!(places, (0..RECORDS as i64).collect::<Vec<_>>(), "seed {seed}");
        second.stop().await;
        first.stop().await;
    }
}
