//! Metadata: the cluster and its topics as this node knows them, never waiting.

use super::{Inner, admin};
use crate::broker::cluster::{Address, Cluster, Edge, Node, Partition, Topic, TopicAnswer, TopicQuery, TopicRef};
use crate::broker::{ErrorKind, PartitionIndex, Result, TopicId, TopicName};
use crate::controller::flaw_of_topic_name;
use crate::controller::view::{self, ListenerKind, MetadataView};
use crate::storage::Engine;
use crate::types::NodeId;
use std::sync::Arc;

impl<E: Engine + Clone + 'static> Inner<E> {
    pub(super) fn cluster(&self, edge: Edge) -> Cluster {
        let metadata = self.views.metadata();
        let kind = match edge {
            Edge::Kafka => ListenerKind::Kafka,
            Edge::Native => ListenerKind::Native,
        };
        let node = |broker: &Arc<view::Broker>| {
            let listener = broker.listeners.iter().find(|listener| listener.kind == kind)?;
            let address = Address { host: listener.host.clone(), port: listener.port };
            Some(Node { id: broker.node, address, rack: broker.rack.clone() })
        };
        let live = self.live_nodes();
        let nodes = metadata.brokers().filter(|broker| live.contains(&broker.node)).filter_map(node).collect();
        let controller = self.controller_node();
        let controller = match edge {
            // librdkafka's admin client does not ask again when there is none, or a dead one, until its call times out.
            // Every node brings these requests to where they belong and waits for an election (Kafka's nodes, too).
            Edge::Kafka => controller.filter(|node| live.contains(node)).or(Some(self.node)),
            Edge::Native => controller,
        };
        Cluster { id: metadata.cluster().id.to_string(), controller, nodes }
    }

    fn describe(&self, topic: &view::Topic, live: &[NodeId]) -> Topic {
        let partition = |(index, partition): (usize, &view::Partition)| {
            let leader = self.leader(partition.group);
            let replicas: Vec<NodeId> = partition.replicas.iter().map(|replica| replica.node()).collect();
            // A replica that was lost with its disk is not in sync because its node is there again.
            let lost =
                |node: &NodeId| partition.replicas.iter().any(|one| one.node() == *node && partition.is_lost(*one));
            let (in_sync, offline) = replicas.iter().copied().partition(|node| live.contains(node) && !lost(node));
            Partition { index: PartitionIndex(index as i32), leader, replicas, in_sync, offline }
        };
        Topic {
            name: TopicName::from(topic.name.as_str()),
            id: wire_id(topic.id),
            internal: topic.is_internal(),
            partitions: topic.partitions.iter().enumerate().map(partition).collect(),
        }
    }

    fn find(&self, metadata: &MetadataView, asked: &TopicRef, live: &[NodeId]) -> Result<Topic> {
        let found = match asked {
            TopicRef::Name(name) => {
                if let Some(flaw) = flaw_of_topic_name(name.as_str()) {
                    return Err(crate::broker::Error::new(ErrorKind::InvalidTopic, flaw));
                }
                metadata.topic_named(name.as_str()).ok_or(ErrorKind::UnknownTopicOrPartition)
            }
            TopicRef::Id(id) => metadata.topic(own_id(*id)).ok_or(ErrorKind::UnknownTopicId),
        };
        Ok(self.describe(found?, live))
    }
}

/// The id as clients see it.
pub(super) fn wire_id(id: crate::types::TopicId) -> TopicId {
    TopicId(uuid::Uuid::from_u128(id.0))
}

/// The id as the controller knows it.
pub(super) fn own_id(id: TopicId) -> crate::types::TopicId {
    crate::types::TopicId(id.0.as_u128())
}

pub(super) fn answer<E: Engine + Clone + 'static>(inner: &Arc<Inner<E>>, query: &TopicQuery) -> Vec<TopicAnswer> {
    let metadata = inner.views.metadata();
    let live = inner.live_nodes();
    match query {
        TopicQuery::All => metadata
            .topics()
            .map(|topic| TopicAnswer {
                asked: TopicRef::Name(TopicName::from(topic.name.as_str())),
                topic: Ok(inner.describe(topic, &live)),
            })
            .collect(),
        TopicQuery::These { topics, create_missing } => {
            let answers: Vec<_> = topics
                .iter()
                .map(|asked| TopicAnswer { asked: asked.clone(), topic: inner.find(&metadata, asked, &live) })
                .collect();
            if *create_missing && inner.settings.auto_create_topics {
                admin::create_missing(inner, &answers);
            }
            answers
        }
    }
}
