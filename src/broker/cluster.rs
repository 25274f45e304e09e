//! The cluster, its nodes and its topics, as a client sees them.

use super::{PartitionIndex, PartitionLeader, Result, TopicId, TopicName};
use crate::types::NodeId;

/// Which listener a client came through: nodes have an address for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The Kafka protocol.
    Kafka,
    /// Ackord's own protocol.
    Native,
}

/// Where a listener is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A host name or an IP literal. `localhost` is a trap: some clients resolve it to `::1` only.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// A living node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Where the asking client's edge is reached on it.
    pub address: Address,
    /// Its failure domain, if operators named one.
    pub rack: Option<String>,
}

/// The cluster as one node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's identity, given when it was formatted. Never empty.
    pub id: String,
    /// The node that leads the controller group, if known. For Kafka clients: a living node that takes requests to it.
    pub controller: Option<NodeId>,
    /// Nodes whose heartbeats arrive. A dead node is not named.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// The living node of this number.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// A topic by what a client knows of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// By name.
    Name(TopicName),
    /// By id (KIP-516).
    Id(TopicId),
}

/// Which topics a client asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicQuery {
    /// All of them.
    All,
    /// These, each at most once.
    These {
        /// The topics.
        topics: Vec<TopicRef>,
        /// Whether a missing one may be created, if the node's settings allow that too.
        create_missing: bool,
    },
}

/// One topic's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicAnswer {
    /// What was asked for; by name if all topics were.
    pub asked: TopicRef,
    /// The topic, or why there is none.
    pub topic: Result<Topic>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Its identity.
    pub id: TopicId,
    /// Whether it belongs to the cluster itself.
    pub internal: bool,
    /// Its partitions, by index from 0.
    pub partitions: Vec<Partition>,
}

/// A partition and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub index: PartitionIndex,
    /// Leader and epoch as one pair, if a living node leads.
    pub leader: Option<PartitionLeader>,
    /// Every replica; the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// The leader, and the voters within the lag bound.
    pub in_sync: Vec<NodeId>,
    /// Replicas on dead nodes.
    pub offline: Vec<NodeId>,
}
