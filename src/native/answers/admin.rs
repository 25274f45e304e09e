//! Topics: finding, creating, growing and deleting them.

use super::{Failure, Outcome, find_topic, partition, topic_ref};
use crate::broker::{
    self, Broker, Cluster, ConfigResource, ConfigSource, DeleteRecords, Edge, Growth, NewTopic, PartitionIndex,
    Partitions, TopicName, TopicQuery,
};
use crate::native::errors;
use crate::proto::{id_bytes, native, native::response};
use crate::types::{NodeId, Offset};
use bytes::Bytes;
use std::time::Duration;

/// The named topics with their settings, or all of them without.
pub(super) async fn topics<B: Broker>(broker: &B, asked: native::TopicsRequest) -> Outcome {
    let cluster = broker.cluster(Edge::Native);
    if asked.topics.is_empty() {
        let all = broker.topics(&TopicQuery::All).into_iter().filter_map(|answer| answer.topic.ok());
        let topics = all.map(|topic| describe(&cluster, &topic, Vec::new())).collect();
        return Ok(response::Body::Topics(native::TopicsResponse { topics }));
    }
    let mut topics = Vec::with_capacity(asked.topics.len());
    for named in asked.topics {
        let topic = find_topic(broker, topic_ref(Some(named))?)?;
        let resource = ConfigResource::Topic(topic.name.clone());
        let entries = broker.describe_configs(vec![resource]).await.pop().unwrap_or_else(|| Ok(Vec::new()))?;
        let set = entries.into_iter().filter(|entry| entry.source == ConfigSource::Topic && !entry.sensitive);
        let configs = set.map(|entry| native::Config { name: entry.name, value: entry.value.unwrap_or_default() });
        topics.push(describe(&cluster, &topic, configs.collect()));
    }
    Ok(response::Body::Topics(native::TopicsResponse { topics }))
}

fn describe(cluster: &Cluster, topic: &broker::Topic, configs: Vec<native::Config>) -> native::Topic {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let partition = |partition: &broker::Partition| native::Partition {
        partition: partition.index.0.unsigned_abs(),
        leader: partition.leader.map(|leader| errors::leader(cluster, leader)),
        replicas: numbers(&partition.replicas),
        in_sync: numbers(&partition.in_sync),
    };
    native::Topic {
        name: topic.name.as_str().to_owned(),
        id: topic_id(topic.id),
        partitions: topic.partitions.iter().map(partition).collect(),
        configs,
    }
}

fn topic_id(id: broker::TopicId) -> Bytes {
    id_bytes(id.0.as_u128())
}

/// Creates a topic, or only says whether it could be.
pub(super) async fn create<B: Broker>(broker: &B, asked: native::CreateTopicRequest, time: Duration) -> Outcome {
    let partitions = if asked.assignment.is_empty() {
        let factor = u16::try_from(asked.replication_factor)
            .map_err(|_| errors::invalid("the replication factor is at most 65535"))?;
        Partitions::Count {
            partitions: Some(asked.partitions).filter(|count| *count > 0),
            replication_factor: Some(factor).filter(|factor| *factor > 0),
        }
    } else {
        Partitions::Assigned((0..).map(PartitionIndex).zip(nodes(asked.assignment)).collect())
    };
    let configs = asked.configs.into_iter().map(|config| (config.name, Some(config.value))).collect();
    let topic = NewTopic { name: TopicName::from(asked.name.as_str()), partitions, configs };
    let created = only(broker.create_topics(vec![topic], asked.validate_only, time).await)?;
    Ok(response::Body::CreateTopic(native::CreateTopicResponse {
        id: topic_id(created.id),
        partitions: created.partitions,
        replication_factor: created.replication_factor.into(),
    }))
}

/// Deletes a topic and its records.
pub(super) async fn delete<B: Broker>(broker: &B, asked: native::DeleteTopicRequest, time: Duration) -> Outcome {
    let topic = topic_ref(asked.topic)?;
    let deleted = only(broker.delete_topics(vec![topic], time).await)?;
    let name = deleted.name.as_str().to_owned();
    Ok(response::Body::DeleteTopic(native::DeleteTopicResponse { name, id: topic_id(deleted.id) }))
}

/// Adds partitions to a topic, or only says whether it could.
pub(super) async fn grow<B: Broker>(broker: &B, asked: native::CreatePartitionsRequest, time: Duration) -> Outcome {
    let growth = Growth {
        topic: TopicName::from(asked.topic.as_str()),
        partitions: asked.count,
        assignments: (!asked.assignment.is_empty()).then(|| nodes(asked.assignment).collect()),
    };
    only(broker.grow_topics(vec![growth], asked.validate_only, time).await)?;
    Ok(response::Body::CreatePartitions(native::CreatePartitionsResponse {}))
}

/// Removes the records of a partition below an offset.
pub(super) async fn delete_records<B: Broker>(
    broker: &B,
    asked: native::DeleteRecordsRequest,
    time: Duration,
) -> Outcome {
    let (topic, index) = partition(broker, asked.partition)?;
    let target = DeleteRecords { topic, partition: index, before: Some(Offset(asked.before_offset)) };
    let start = only(broker.delete_records(vec![target], time).await)?;
    Ok(response::Body::DeleteRecords(native::DeleteRecordsResponse { log_start_offset: start.0 }))
}

fn nodes(assignment: Vec<native::ReplicaAssignment>) -> impl Iterator<Item = Vec<NodeId>> {
    assignment.into_iter().map(|replicas| replicas.nodes.into_iter().map(NodeId).collect())
}

/// The answer to the only question.
pub(super) fn only<T>(mut answers: Vec<broker::Result<T>>) -> Result<T, Failure> {
    match answers.pop() {
        Some(answer) => Ok(answer?),
        None => Err(errors::internal("the broker did not answer").into()),
    }
}
