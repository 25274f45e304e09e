//! Who may talk to this node: nodes of its cluster, with the disk they are known to have (DESIGN.md §4.3).
//!
//! Both ends of a connection check each other. A disk that lost turns it once had would make promises again that it has
//! broken already; it is found out as long as one process remembers. What nobody remembers cannot be found out.

use super::{Own, PeerRegistry};
use crate::proto::{self, peer};
use crate::types::{ClusterId, Incarnation, NodeId};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Incarnations whose turns are remembered.
const INCARNATIONS_MAX: usize = 16_384;

/// A node that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its number.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
}

/// See the module.
pub struct Admission {
    /// Who this node is.
    own: Own,
    /// Who the others are.
    registry: Arc<dyn PeerRegistry>,
    /// The highest durable turn seen of each incarnation, for the life of the process.
    turns: Mutex<BTreeMap<Incarnation, u64>>,
}

impl Admission {
    /// Nobody was seen yet.
    #[must_use]
    pub fn new(own: Own, registry: Arc<dyn PeerRegistry>) -> Self {
        Self { own, registry, turns: Mutex::default() }
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.own.node
    }

    /// What to say to a node that is connected to.
    #[must_use]
    pub fn hello(&self, to: NodeId) -> peer::Hello {
        peer::Hello {
            protocol: proto::PROTOCOL,
            cluster_id: proto::id_bytes(self.own.cluster.0),
            from_node: self.own.node.0,
            to_node: to.0,
            incarnation: proto::id_bytes(self.own.incarnation.0),
            durable_turn: self.own.durable_turn.load(Ordering::Acquire),
        }
    }

    /// What to say to a node that is let in.
    #[must_use]
    pub fn welcome(&self) -> peer::Welcome {
        peer::Welcome {
            incarnation: proto::id_bytes(self.own.incarnation.0),
            durable_turn: self.own.durable_turn.load(Ordering::Acquire),
        }
    }

    /// Lets a node in that has connected, or says why not.
    pub fn admit(&self, hello: &peer::Hello) -> Result<Admitted, String> {
        let own = &self.own;
        if hello.protocol != proto::PROTOCOL {
            return Err(format!(
                "node {} speaks version {} of the protocol between nodes, not {}; run the same release on both",
                own.node,
                proto::PROTOCOL,
                hello.protocol
            ));
        }
        let cluster = ClusterId(proto::read_id(&hello.cluster_id).map_err(|error| error.to_string())?);
        if cluster != own.cluster {
            return Err(format!(
                "node {} belongs to cluster {}, not to {cluster}; check the addresses of the peers",
                own.node, own.cluster
            ));
        }
        if hello.to_node != own.node.0 {
            let wanted = hello.to_node;
            return Err(format!("this is node {}, not node {wanted}; check the addresses of the peers", own.node));
        }
        let node = NodeId(hello.from_node);
        let incarnation = Incarnation(proto::read_id(&hello.incarnation).map_err(|error| error.to_string())?);
        self.check(node, incarnation, hello.durable_turn, self.turn_seen(incarnation))?;
        Ok(Admitted { node, incarnation })
    }

    /// Whether a node that was let in is one of the cluster's, by now.
    #[must_use]
    pub fn knows(&self, peer: Admitted) -> bool {
        self.registry.incarnation_of(peer.node) == Some(peer.incarnation)
    }

    /// The highest turns seen of a node's present incarnation, to be asked before the Hello is sent: its Welcome was
    /// certainly said later, while a Hello of its own may have overtaken it.
    #[must_use]
    pub fn seen_before(&self, node: NodeId) -> u64 {
        self.registry.incarnation_of(node).map_or(0, |incarnation| self.turn_seen(incarnation))
    }

    /// Whether the node that was connected to is the one that was meant, or why not.
    pub fn check_welcome(&self, node: NodeId, welcome: &peer::Welcome, seen_before: u64) -> Result<(), String> {
        let incarnation = Incarnation(proto::read_id(&welcome.incarnation).map_err(|error| error.to_string())?);
        self.check(node, incarnation, welcome.durable_turn, seen_before)
    }

    fn turn_seen(&self, incarnation: Incarnation) -> u64 {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).get(&incarnation).copied().unwrap_or(0)
    }

    fn check(&self, node: NodeId, incarnation: Incarnation, turn: u64, seen: u64) -> Result<(), String> {
        if node == self.own.node || node.0 == 0 {
            return Err(format!("node {node} is no other node; every node has its own number, from 1"));
        }
        match self.registry.incarnation_of(node) {
            Some(known) if known == incarnation => {}
            Some(known) => {
                return Err(format!(
                    "node {node} is known as incarnation {known}, and this is {incarnation}: its disk is another one. \
                     Start it with its old disk, or replace the node"
                ));
            }
            None if self.registry.admits_unknown(node, incarnation) => {}
            None => {
                return Err(format!(
                    "node {node} is not known to node {}; a new node is added to the cluster first",
                    self.own.node
                ));
            }
        }
        if turn < seen {
            return Err(format!(
                "node {node} had turn {seen} of its log on disk and now says turn {turn}. Said once, two greetings \
                 have crossed, and the next attempt passes. Said again and again, its disk was rolled back and has \
                 forgotten promises: do not start it on this disk; replace the node"
            ));
        }
        self.remember(incarnation, turn)
    }

    fn remember(&self, incarnation: Incarnation, turn: u64) -> Result<(), String> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= INCARNATIONS_MAX && !turns.contains_key(&incarnation) {
            return Err(format!("node {} has met too many nodes; restart it", self.own.node));
        }
        let highest = turns.entry(incarnation).or_default();
        *highest = turn.max(*highest);
        Ok(())
    }
}
