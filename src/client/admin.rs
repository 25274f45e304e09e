//! Topics and status.
//!
//! What changes something is repeated only while it certainly had no effect. An indefinite error of `create_topic` is
//! therefore reported: look whether the topic is there.

use super::error::{Error, Result};
use super::routing::{Repeat, Router};
use crate::proto::native::{self, request, response, topic_reference::By};
use std::sync::Arc;

/// A topic to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; the cluster's default without a number.
    pub partitions: Option<u32>,
    /// How many replicas of each; the cluster's default without a number.
    pub replication_factor: Option<u16>,
    /// Settings that differ from the defaults.
    pub configs: Vec<(String, String)>,
}

/// Changes of a topic's settings, made together or not at all. Each setting is named once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigChanges {
    /// Settings and the values they get.
    pub set: Vec<(String, String)>,
    /// Settings that get their defaults back.
    pub delete: Vec<String>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Whom to ask.
    pub(super) router: Arc<Router>,
}

/// Takes the one kind of answer that fits the question.
macro_rules! expect_answer {
    ($asked:expr, $kind:ident) => {
        match $asked {
            response::Body::$kind(answer) => Ok(answer),
            _ => Err(Error::protocol(concat!("another answer than ", stringify!($kind)))),
        }
    };
}

fn configs(settings: &[(String, String)]) -> Vec<native::Config> {
    let config = |(name, value): &(String, String)| native::Config { name: name.clone(), value: value.clone() };
    settings.iter().map(config).collect()
}

fn by_name(name: &str) -> native::TopicReference {
    native::TopicReference { by: Some(By::Name(name.to_owned())) }
}

impl Admin {
    pub(super) fn new(router: Arc<Router>) -> Self {
        Self { router }
    }

    /// The cluster, its controller and its living nodes, as the node that answers knows them.
    pub async fn cluster(&self) -> Result<native::ClusterStatusResponse> {
        self.router.refresh_nodes().await
    }

    /// Every topic, without settings.
    pub async fn topics(&self) -> Result<Vec<native::Topic>> {
        let body = request::Body::Topics(native::TopicsRequest::default());
        Ok(expect_answer!(self.router.ask_any(body, Repeat::Harmless).await?, Topics)?.topics)
    }

    /// One topic, with the settings that differ from the defaults.
    pub async fn topic(&self, name: &str) -> Result<native::Topic> {
        self.router.find_topic(name).await
    }

    /// Creates a topic; returns how many partitions and replicas it has. Every partition then has a leader.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<(u32, u32)> {
        let body = request::Body::CreateTopic(native::CreateTopicRequest {
            name: topic.name.clone(),
            partitions: topic.partitions.unwrap_or(0),
            replication_factor: topic.replication_factor.unwrap_or(0).into(),
            assignment: Vec::new(),
            configs: configs(&topic.configs),
            validate_only: false,
        });
        let created = expect_answer!(self.router.ask_any(body, Repeat::Never).await?, CreateTopic)?;
        Ok((created.partitions, created.replication_factor))
    }

    /// Deletes a topic and its records.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let body = request::Body::DeleteTopic(native::DeleteTopicRequest { topic: Some(by_name(name)) });
        expect_answer!(self.router.ask_any(body, Repeat::Never).await?, DeleteTopic).map(drop)
    }

    /// Adds partitions, so that there are `count`. Keys may belong to other partitions afterwards.
    pub async fn grow_topic(&self, name: &str, count: u32) -> Result<()> {
        let growth = native::CreatePartitionsRequest { topic: name.to_owned(), count, ..Default::default() };
        let body = request::Body::CreatePartitions(growth);
        expect_answer!(self.router.ask_any(body, Repeat::Never).await?, CreatePartitions).map(drop)
    }

    /// Every setting of a topic, those that were not set included.
    pub async fn topic_configs(&self, name: &str) -> Result<Vec<native::TopicConfig>> {
        let body = native::DescribeTopicConfigsRequest { topic: name.to_owned() };
        let body = request::Body::DescribeTopicConfigs(body);
        Ok(expect_answer!(self.router.ask_any(body, Repeat::Harmless).await?, DescribeTopicConfigs)?.configs)
    }

    /// Changes settings of a topic, or, with `dry_run`, only finds out whether that would be refused. Every node acts
    /// on them once it has heard of them, which takes a moment.
    pub async fn alter_topic(&self, name: &str, changes: &ConfigChanges, dry_run: bool) -> Result<()> {
        let body = request::Body::AlterTopicConfigs(native::AlterTopicConfigsRequest {
            topic: name.to_owned(),
            set: configs(&changes.set),
            reset: changes.delete.clone(),
            validate_only: dry_run,
        });
        let repeat = if dry_run { Repeat::Harmless } else { Repeat::Never };
        expect_answer!(self.router.ask_any(body, repeat).await?, AlterTopicConfigs).map(drop)
    }

    /// Where a partition begins and ends, as confirmed by a majority: the end is at or after every record that was
    /// acknowledged before the call.
    pub async fn offsets(&self, topic: &str, partition: u32) -> Result<native::OffsetsResponse> {
        let body = request::Body::Offsets(native::OffsetsRequest { partition: reference(topic, partition) });
        expect_answer!(self.router.ask_leader(topic, partition, body).await?, Offsets)
    }

    /// Deletes the records below an offset, on every replica; returns the offset of the first that is left. Nothing
    /// happens where they are gone already, so it is repeated until the time is over.
    pub async fn delete_records(&self, topic: &str, partition: u32, before_offset: i64) -> Result<i64> {
        let partition_reference = reference(topic, partition);
        let body = native::DeleteRecordsRequest { partition: partition_reference, before_offset };
        let body = request::Body::DeleteRecords(body);
        Ok(expect_answer!(self.router.ask_leader(topic, partition, body).await?, DeleteRecords)?.log_start_offset)
    }

    /// The cluster's nodes, dead ones included, and the replacements that are not complete, as the node that answers
    /// knows them.
    pub async fn nodes(&self) -> Result<native::ListNodesResponse> {
        let body = request::Body::ListNodes(native::ListNodesRequest {});
        expect_answer!(self.router.ask_any(body, Repeat::Harmless).await?, ListNodes)
    }

    /// Has node `new` take all replicas of node `old`, which is lost, or `old` itself with another disk; with `force`
    /// even if `old` is alive. Returns how many groups that concerns; `nodes` shows how far it is.
    pub async fn replace_node(&self, old: u32, new: u32, force: bool) -> Result<u32> {
        let asked = native::ReplaceNodeRequest { old_node: old, new_node: new, force };
        let body = request::Body::ReplaceNode(asked);
        Ok(expect_answer!(self.router.ask_any(body, Repeat::Never).await?, ReplaceNode)?.groups)
    }

    /// Every replica on a node, as that node sees it.
    pub async fn replicas(&self, node: &native::Node) -> Result<Vec<native::Replica>> {
        let address = node.native.as_ref().ok_or_else(|| Error::usage("the node has no native listener"))?;
        let body = request::Body::Replicas(native::ReplicasRequest {});
        Ok(expect_answer!(self.router.ask_node(address, body).await?, Replicas)?.replicas)
    }
}

/// A partition as requests name it.
pub(super) fn reference(topic: &str, partition: u32) -> Option<native::PartitionReference> {
    Some(native::PartitionReference { topic: Some(by_name(topic)), partition })
}
