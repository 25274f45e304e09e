//! Requests that name several things at once: each gets its own answer, repetitions and nonsense do not disturb others.

use crate::client::{Client, Server};
use ackord::kafka::Limits;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

fn name(name: &str) -> TopicName {
    StrBytes::from_string(name.into()).into()
}

/// Name and error code of each answer, in the order of the answers.
async fn create(client: &mut Client, topics: &[(&str, i32)]) -> Vec<(String, i16)> {
    let topics = topics.iter().map(|(topic, partitions)| {
        CreatableTopic::default().with_name(name(topic)).with_num_partitions(*partitions).with_replication_factor(1)
    });
    let request = CreateTopicsRequest::default().with_topics(topics.collect());
    let ResponseKind::CreateTopics(answer) = client.call(ApiKey::CreateTopics, 7, &request.into()).await else {
        panic!("an answer to a creation")
    };
    answer.topics.iter().map(|topic| (topic.name.to_string(), topic.error_code)).collect()
}

#[tokio::test]
async fn topics_are_created_each_on_its_own() {
    let server = Server::start(Limits::default()).await;
    let mut client = server.connect().await;
    let codes = create(&mut client, &[("twice", 1), ("bad", 0), ("good", 2), ("twice", 3), ("huge", 101)]).await;
    let expected = [("twice", 42), ("bad", 37), ("good", 0), ("huge", 37)];
    assert_eq!(codes, expected.map(|(topic, code)| (topic.to_owned(), code)));
    let topics: Vec<String> = server.broker.state().topics.keys().cloned().collect();
    assert_eq!(topics, ["good"]);
    assert_eq!(create(&mut client, &[("good", 1)]).await, [("good".to_owned(), 36)]);
    server.stop().await;
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id_and_once() {
    let server = Server::start(Limits::default()).await;
    for topic in ["a", "b", "c"] {
        server.broker.add_topic(topic, 1);
    }
    let id = server.broker.state().topics["b"].id.0;
    let mut client = server.connect().await;
    let named = |topic| DeleteTopicState::default().with_name(Some(name(topic)));
    let unnamed = || DeleteTopicState::default().with_name(None);
    let states = vec![named("a"), unnamed().with_topic_id(id), named("a"), unnamed(), named("c").with_topic_id(id)];
    let request = DeleteTopicsRequest::default().with_topics(states);
    let ResponseKind::DeleteTopics(answer) = client.call(ApiKey::DeleteTopics, 6, &request.into()).await else {
        panic!("an answer to a deletion")
    };
    let mut codes: Vec<_> = answer.responses.iter().map(|result| result.error_code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 0, 42, 42], "neither no name nor two");
    let left: Vec<String> = server.broker.state().topics.keys().cloned().collect();
    assert_eq!(left, ["c"]);
    server.stop().await;
}

#[tokio::test]
async fn topics_grow_and_never_shrink() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic("a", 2);
    let mut client = server.connect().await;
    let grow =
        |topic, count| CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(None);
    let topics = vec![grow("a", 5), grow("b", 5), grow("a", 9), grow("c", -1)];
    let request = CreatePartitionsRequest::default().with_topics(topics);
    let ResponseKind::CreatePartitions(answer) = client.call(ApiKey::CreatePartitions, 3, &request.into()).await else {
        panic!("an answer to a growth")
    };
    let codes: Vec<_> = answer.results.iter().map(|result| (result.name.as_str(), result.error_code)).collect();
    assert_eq!(codes, [("a", 0), ("b", 3), ("a", 42), ("c", 37)]);
    assert_eq!(server.broker.state().topics["a"].partitions.len(), 5);
    server.stop().await;
}

#[tokio::test]
async fn offsets_are_found_each_on_its_own() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic("a", 2);
    let mut client = server.connect().await;
    let target = |index, time| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(time);
    let partitions = vec![target(0, -1), target(1, -9), target(7, -1), target(1, -2), target(0, 5)];
    let topic = ListOffsetsTopic::default().with_name(name("a")).with_partitions(partitions);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let ResponseKind::ListOffsets(answer) = client.call(ApiKey::ListOffsets, 7, &request.into()).await else {
        panic!("an answer about offsets")
    };
    let found = answer.topics[0].partitions.iter().map(|found| (found.partition_index, found.error_code, found.offset));
    assert_eq!(found.collect::<Vec<_>>(), [(0, 0, 0), (1, 42, -1), (7, 3, -1), (1, 0, 0), (0, 0, -1)]);
    server.stop().await;
}
