//! Metadata (key 3), versions 0 to 12: the cluster, its nodes, and who leads which partition.
//!
//! Answered from this node's own copy, at once. Null topics mean all of them, and in version 0 an empty list does too;
//! later an empty list means none. A leader is shown with its epoch as one pair, or not at all.

use super::Api;
use crate::broker::{Broker, Edge, ErrorKind, Partition, Topic, TopicAnswer, TopicQuery, TopicRef};
use crate::kafka::error_codes::{self, NONE};
use crate::kafka::guard::{INT8, Kind, Shape, UUID, always, between, since, until};
use crate::kafka::translate::{self, Operations};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{ApiKey, BrokerId, MetadataRequest, MetadataResponse};
use std::collections::BTreeSet;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::Metadata,
    (0, 12),
    Shape::of(&[
        always(Kind::NullableArray(&Kind::Struct(&TOPIC))), // topics
        since(4, INT8),                                     // allow auto topic creation
        between(8, 10, INT8),                               // include cluster authorized operations
        since(8, INT8),                                     // include topic authorized operations
    ]),
);
const TOPIC: Shape = Shape::of(&[since(10, UUID), since(10, Kind::NullableText), until(9, Kind::Text)]);

/// Describes the cluster and the topics asked about.
pub fn answer<B: Broker>(broker: &B, request: MetadataRequest, version: i16) -> MetadataResponse {
    let cluster = broker.cluster(Edge::Kafka);
    let of_cluster = Operations::Cluster.if_asked(request.include_cluster_authorized_operations);
    let of_topics = Operations::Topic.if_asked(request.include_topic_authorized_operations);
    let topics = broker.topics(&query(request.topics, request.allow_auto_topic_creation, version));
    let brokers = cluster.nodes.iter().map(|node| {
        MetadataResponseBroker::default()
            .with_node_id(translate::broker_id(node.id))
            .with_host(translate::text(&node.address.host))
            .with_port(i32::from(node.address.port))
            .with_rack(node.rack.as_deref().map(translate::text))
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(translate::text(&cluster.id)))
        .with_controller_id(translate::broker_id_or_unknown(cluster.controller))
        .with_topics(topics.into_iter().map(|topic| wire_topic(topic, of_topics)).collect())
        .with_cluster_authorized_operations(of_cluster)
}

/// Each topic once, however often it was named: an answer must not grow with repetitions.
fn query(topics: Option<Vec<MetadataRequestTopic>>, create_missing: bool, version: i16) -> TopicQuery {
    match topics {
        None => TopicQuery::All,
        Some(topics) if version == 0 && topics.is_empty() => TopicQuery::All,
        Some(topics) => {
            let mut seen = BTreeSet::new();
            let asked = topics.iter().map(|topic| translate::topic_ref(topic.name.as_ref(), topic.topic_id));
            TopicQuery::These { topics: asked.filter(|topic| seen.insert(topic.clone())).collect(), create_missing }
        }
    }
}

fn wire_topic(answer: TopicAnswer, operations: i32) -> MetadataResponseTopic {
    match answer.topic {
        Ok(topic) => known_topic(&topic).with_topic_authorized_operations(operations),
        Err(error) => {
            let wire = MetadataResponseTopic::default().with_error_code(error_codes::code(&error));
            match answer.asked {
                TopicRef::Name(name) => wire.with_name(Some(translate::wire_topic(&name))),
                TopicRef::Id(id) => wire.with_name(None).with_topic_id(id.0),
            }
        }
    }
}

fn known_topic(topic: &Topic) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_name(Some(translate::wire_topic(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.internal)
        .with_partitions(topic.partitions.iter().map(wire_partition).collect())
}

fn wire_partition(partition: &Partition) -> MetadataResponsePartition {
    let ids =
        |nodes: &[crate::types::NodeId]| -> Vec<BrokerId> { nodes.iter().copied().map(translate::broker_id).collect() };
    let error = partition.leader.map_or(error_codes::code_of(ErrorKind::LeaderNotAvailable).code(), |_| NONE);
    MetadataResponsePartition::default()
        .with_error_code(error)
        .with_partition_index(partition.index.0)
        .with_leader_id(translate::broker_id_or_unknown(partition.leader.map(|leader| leader.node)))
        .with_leader_epoch(partition.leader.map_or(translate::UNKNOWN, |leader| leader.epoch.0))
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.in_sync))
        .with_offline_replicas(ids(&partition.offline))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Option<Vec<MetadataRequestTopic>> {
        let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(translate::text(name).into()));
        Some(names.iter().map(topic).collect())
    }

    #[test]
    fn null_is_all_and_empty_is_none() {
        assert_eq!(query(None, false, 1), TopicQuery::All);
        assert_eq!(query(named(&[]), false, 0), TopicQuery::All);
        assert_eq!(query(named(&[]), false, 1), TopicQuery::These { topics: vec![], create_missing: false });
    }

    #[test]
    fn repetitions_are_asked_once() {
        let topics = vec![TopicRef::Name("b".into()), TopicRef::Name("a".into())];
        assert_eq!(query(named(&["b", "a", "b"]), true, 4), TopicQuery::These { topics, create_missing: true });
    }
}
