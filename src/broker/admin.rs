//! Creating, deleting, growing, describing and configuring topics.

use super::{Error, ErrorKind, PartitionIndex, Result, TopicId, TopicName};
use crate::types::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// How many partitions a new topic gets, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// So many; the cluster places them. Without a number the cluster's default counts.
    Count {
        /// The number of partitions, at least 1.
        partitions: Option<u32>,
        /// The number of replicas of each, at least 1.
        replication_factor: Option<u16>,
    },
    /// Exactly these replicas, the preferred leader first.
    Assigned(BTreeMap<PartitionIndex, Vec<NodeId>>),
}

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// Its partitions.
    pub partitions: Partitions,
    /// Settings that differ from the defaults; without a value the default is meant.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic that was created, or would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its identity; nil if it was only validated.
    pub id: TopicId,
    /// The number of its partitions.
    pub partitions: u32,
    /// The number of replicas of each.
    pub replication_factor: u16,
    /// All its settings.
    pub configs: Vec<ConfigEntry>,
}

/// A topic that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name.
    pub name: TopicName,
    /// Its identity.
    pub id: TopicId,
}

/// More partitions for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The topic.
    pub topic: TopicName,
    /// The number of partitions afterwards, those it has included.
    pub partitions: u32,
    /// The replicas of each new partition in order, the preferred leader first; the cluster places them without one.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// Something that has settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic.
    Topic(TopicName),
    /// A node, or what was set for all nodes at run time.
    Node(Option<NodeId>),
}

/// A change of one setting (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    /// Gives it a value.
    Set(String),
    /// Back to what it inherits.
    Delete,
    /// Adds to a list.
    Append(String),
    /// Takes from a list.
    Subtract(String),
}

/// Changes of one resource's settings, made together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChanges {
    /// Whose settings.
    pub resource: ConfigResource,
    /// Whether everything that is not named goes back to what it inherits (the older AlterConfigs).
    pub replace: bool,
    /// By setting; each is named once.
    pub operations: Vec<(String, ConfigOperation)>,
}

impl ConfigChanges {
    /// Changes that name each setting once; of two, nobody could tell which was meant to come last.
    pub fn new(resource: ConfigResource, replace: bool, operations: Vec<(String, ConfigOperation)>) -> Result<Self> {
        let mut seen = BTreeSet::new();
        if let Some((name, _)) = operations.iter().find(|(name, _)| !seen.insert(name)) {
            let what = format!("the request names setting {name} more than once");
            return Err(Error::new(ErrorKind::InvalidRequest, what));
        }
        Ok(Self { resource, replace, operations })
    }
}

/// Where a setting's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set on the node at run time.
    Node,
    /// Set for all nodes at run time.
    Cluster,
    /// Read from the node's file when it started.
    File,
    /// Nobody set it.
    Default,
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// Text.
    Text,
    /// A 32-bit integer.
    Int,
    /// A 64-bit integer.
    Long,
    /// A number with a fraction.
    Double,
    /// Words separated by commas.
    List,
    /// A secret, never shown.
    Password,
}

/// What comes of setting something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigEffect {
    /// What its name says.
    Honoured,
    /// It is kept and shown, and nothing depends on it.
    Accepted,
    /// Only the value it has is taken.
    Fixed,
}

/// One setting of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name, as Kafka calls it.
    pub name: String,
    /// Its value. A secret's is never sent, whatever stands here.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// What values it takes.
    pub kind: ConfigType,
    /// Whether it can be changed while the cluster runs.
    pub read_only: bool,
    /// Whether it is a secret.
    pub sensitive: bool,
    /// What comes of setting it.
    pub effect: ConfigEffect,
    /// What holds where it isn't set: the name of the node's setting that says so, as Kafka calls it, and the value.
    pub inherited: Option<(String, String)>,
    /// What it means. Not a copy: a request may ask for the settings of every topic.
    pub documentation: Option<&'static str>,
}
