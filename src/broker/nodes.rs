//! The nodes of the cluster, for operators, and how far the replacement of lost ones is.

use crate::types::NodeId;

/// A registered node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its number.
    pub id: NodeId,
    /// Its failure domain, if operators named one.
    pub rack: Option<String>,
    /// Whether this node hears of it.
    pub alive: bool,
    /// Whether it votes on the cluster's metadata.
    pub controller_voter: bool,
    /// Replicas of partitions that it has, or is to have.
    pub replicas: u32,
    /// Partitions that it leads.
    pub leaders: u32,
}

/// A node whose replicas are being replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplacementReport {
    /// The lost node.
    pub old: NodeId,
    /// The one that takes its replicas.
    pub new: NodeId,
    /// How many groups had one.
    pub groups: u32,
    /// In how many it is done.
    pub done: u32,
}

/// All nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeList {
    /// The registered ones, by number.
    pub nodes: Vec<NodeReport>,
    /// Replacements that are not complete.
    pub replacements: Vec<ReplacementReport>,
}

/// A node to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplaceNode {
    /// The lost node.
    pub old: NodeId,
    /// The one that takes its replicas: the same if only its disk is another one.
    pub new: NodeId,
    /// Even if the lost one is alive.
    pub force: bool,
}
