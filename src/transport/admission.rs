//! Who may talk to this node: nodes of its cluster, with the disk they are known to have.
//!
//! Both ends of a connection check each other. A disk that lost turns it once had would make promises again that it has
//! broken already; it is found out as long as one process remembers. What nobody remembers cannot be found out.
//!
//! A disk can only be rolled back between two processes on it. So what is compared is the turn that a process *started*
//! with, and with what *other* processes on that disk have said: greetings of one process may arrive in any order. (A
//! machine that is put back together with its memory is still the same process to us.)
//!
//! A log that finds itself that its newest turns are lost is not such a disk: it counts how often that has happened,
//! and none of its replicas takes part before it is repaired. What a process said before the newest loss is not
//! compared, whoever remembers it: the peer may have been away while all was repaired. An older copy of a disk that was
//! in doubt already is let in for that reason, and repaired; the newer one must not be put back after that, for nobody
//! can tell that it comes from before the repair.
//!
//! # Claims
//!
//! Which disk a node has is in the metadata, and this node's copy may be old: what it lacks may come only through a
//! node that it does not show, or shows with another disk. So a node says which entry of the controller's log
//! registered it, as its own copy shows that, and of two disks of a node the one that was registered later counts. A
//! node whose copy is lost hears it from whoever lets it in: they may be few, and the others may wait for its word. A
//! disk that was wiped, or formatted by mistake, is shown by no copy, and has nothing to claim; one that was replaced
//! claims less than what took its place, and is refused whatever it claims by whoever knows that.
//!
//! A claim is worth as much as the rest of a greeting: it guards against mistakes. Nobody proves who it is at the
//! peers' port, which must be reached by the cluster's nodes only. A claim is forgotten once this node's own copy has
//! come as far.

use super::{Own, PeerRegistry, Registered};
use crate::proto::{self, peer};
use crate::types::{ClusterId, Incarnation, LogIndex, NodeId, RaftGroupId, ReplicaId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Incarnations whose turns are remembered.
const INCARNATIONS_MAX: usize = 16_384;
/// Nodes whose claims are remembered: more than are ever missing in one copy of the metadata.
const CLAIMS_MAX: usize = 1_024;

/// A node that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its number.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
}

/// A node that was connected to, and has let this one in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Who it is.
    pub peer: Admitted,
    /// It knows that this node has this disk: there is nothing to tell it.
    pub knows_us: bool,
}

/// See the module.
pub struct Admission {
    /// Who this node is.
    own: Own,
    /// Who the others are.
    registry: Arc<dyn PeerRegistry>,
    /// What was seen of each incarnation, for the life of this process.
    seen: Mutex<BTreeMap<Incarnation, Seen>>,
    /// Which entry of the controller's log registered this node, as others have said; 0: nobody has.
    heard: AtomicU64,
    /// What nodes have said of themselves that this node's copy of the metadata may not show yet.
    claims: watch::Sender<BTreeMap<NodeId, Claim>>,
}

/// How a node says that it is registered.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// With which disk, and since when.
    registered: Registered,
    /// Where it is reached.
    address: String,
}

/// What is remembered of an incarnation.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The process on it that was let in last.
    life: u128,
    /// The highest durable turn that this process has said.
    turn: u64,
    /// The highest that others have said before it, since the newest loss.
    turn_before: u64,
    /// The losses of turns that it has counted.
    losses: u32,
}

/// What a greeting says of the disk of whoever greets.
struct Said {
    /// The incarnation.
    incarnation: Incarnation,
    /// The life of its process.
    life: u128,
    /// The durable turn with which that began.
    first_turn: u64,
    /// The durable turn now.
    turn: u64,
    /// The losses of turns that its log has counted.
    losses: u32,
    /// Whether all that its replicas had promised is in doubt to itself.
    in_doubt: bool,
    /// How it is registered, if it is.
    claim: Option<Claim>,
}

impl Said {
    /// The sentence for a greeting that can't be read.
    fn read(
        incarnation: &[u8],
        life: &[u8],
        (first_turn, turn): (u64, u64),
        (losses, in_doubt): (u32, bool),
        registration: Option<&peer::Registration>,
    ) -> Result<Self, String> {
        let id = |bytes: &[u8]| proto::read_id(bytes).map_err(|error| error.to_string());
        if turn < first_turn {
            return Err(format!("turn {turn} is said to be durable, and {first_turn} at the start of the process"));
        }
        let (incarnation, life) = (Incarnation(id(incarnation)?), id(life)?);
        let claim = registration.filter(|said| said.index > 0).map(|said| Claim {
            registered: Registered { at: LogIndex(said.index), incarnation },
            address: said.address.clone(),
        });
        Ok(Self { incarnation, life, first_turn, turn, losses, in_doubt, claim })
    }
}

impl Admission {
    /// Nobody was seen yet.
    #[must_use]
    pub fn new(own: Own, registry: Arc<dyn PeerRegistry>) -> Self {
        Self { own, registry, seen: Mutex::default(), heard: AtomicU64::new(0), claims: watch::Sender::default() }
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
            life: proto::id_bytes(self.own.life),
            first_turn: self.own.first_turn,
            losses: self.own.losses.into(),
            in_doubt: self.own.in_doubt,
            registration: self.own_claim(),
        }
    }

    /// What to say to a node that is let in.
    #[must_use]
    pub fn welcome(&self, to: Admitted) -> peer::Welcome {
        let yours = self.known(to.node).filter(|known| known.incarnation == to.incarnation);
        peer::Welcome {
            incarnation: proto::id_bytes(self.own.incarnation.0),
            durable_turn: self.own.durable_turn.load(Ordering::Acquire),
            life: proto::id_bytes(self.own.life),
            first_turn: self.own.first_turn,
            losses: self.own.losses.into(),
            in_doubt: self.own.in_doubt,
            registration: self.own_claim(),
            yours: yours.map(|yours| yours.at.0),
        }
    }

    /// How this node is registered, as its own copy of the metadata shows it, or as others have said.
    #[must_use]
    pub fn own_registration(&self) -> Option<Registered> {
        let incarnation = self.own.incarnation;
        let shown = self.registry.registered(self.own.node).filter(|shown| shown.incarnation == incarnation);
        let heard = LogIndex(self.heard.load(Ordering::Acquire));
        let at = shown.map_or(heard, |shown| shown.at.max(heard));
        (at > LogIndex(0)).then_some(Registered { at, incarnation })
    }

    fn own_claim(&self) -> Option<peer::Registration> {
        let Registered { at, .. } = self.own_registration()?;
        Some(peer::Registration { index: at.0, address: self.own.address.clone() })
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
        let peer::Hello { incarnation, life, first_turn, durable_turn, losses, in_doubt, registration, .. } = hello;
        let said =
            Said::read(incarnation, life, (*first_turn, *durable_turn), (*losses, *in_doubt), registration.as_ref())?;
        self.check(node, &said)?;
        Ok(Admitted { node, incarnation: said.incarnation })
    }

    /// Whether a node that was let in is one of the cluster's, by now.
    #[must_use]
    pub fn knows(&self, peer: Admitted) -> bool {
        self.known(peer.node).is_some_and(|known| known.incarnation == peer.incarnation)
    }

    /// Whether the node has another disk by now.
    #[must_use]
    pub fn knows_another(&self, peer: Admitted) -> bool {
        self.known(peer.node).is_some_and(|known| known.incarnation != peer.incarnation)
    }

    /// Whether what is said in a replica's name is heard. A directory that was wrongly formatted as a first voter's
    /// speaks for the replica that was lost.
    #[must_use]
    pub fn hears(&self, group: RaftGroupId, replica: ReplicaId) -> bool {
        !self.registry.is_lost(group, replica)
    }

    /// Whether the node that was connected to is the one that was meant, or why not.
    pub fn check_welcome(&self, node: NodeId, welcome: &peer::Welcome) -> Result<Met, String> {
        let peer::Welcome { incarnation, life, first_turn, durable_turn, losses, in_doubt, registration, yours } =
            welcome;
        let said =
            Said::read(incarnation, life, (*first_turn, *durable_turn), (*losses, *in_doubt), registration.as_ref())?;
        self.check(node, &said)?;
        self.heard.fetch_max(yours.unwrap_or_default(), Ordering::AcqRel);
        Ok(Met { peer: Admitted { node, incarnation: said.incarnation }, knows_us: yours.is_some() })
    }

    /// Told when a node has claimed something.
    pub(super) fn watch_claims(&self) -> watch::Receiver<BTreeMap<NodeId, Claim>> {
        self.claims.subscribe()
    }

    /// Nodes that have said where they are, and this node's copy of the metadata is older.
    #[must_use]
    pub fn claimants(&self) -> Vec<NodeId> {
        let nodes: Vec<_> = self.claims.borrow().keys().copied().collect();
        nodes.into_iter().filter(|node| self.claimed_address(*node).is_some()).collect()
    }

    /// Where one of them is.
    #[must_use]
    pub fn claimed_address(&self, node: NodeId) -> Option<String> {
        self.claim(node).map(|claim| claim.address).filter(|address| !address.is_empty())
    }

    /// The disk that a node has, by all that this node was told.
    fn known(&self, node: NodeId) -> Option<Registered> {
        self.claim(node).map(|claim| claim.registered).or_else(|| self.registry.registered(node))
    }

    /// What a node claims, unless this node's own copy of the metadata has come as far.
    fn claim(&self, node: NodeId) -> Option<Claim> {
        let claim = self.claims.borrow().get(&node).cloned()?;
        let shown = self.registry.registered(node);
        let outdated = shown.is_some_and(|shown| shown.at >= claim.registered.at);
        if outdated || self.registry.was_replaced(claim.registered.incarnation) {
            // Nobody is told: whoever looked to the claim for an address finds it in the metadata at the same time.
            self.claims.send_if_modified(|claims| {
                claims.remove(&node);
                false
            });
            return None;
        }
        Some(claim)
    }

    /// Remembers a claim, if it is the newest.
    fn believe(&self, node: NodeId, claim: &Claim) {
        self.claims.send_if_modified(|claims| {
            let newer = match claims.get(&node) {
                Some(known) => known.registered.at < claim.registered.at,
                None => claims.len() < CLAIMS_MAX,
            };
            if newer {
                claims.insert(node, claim.clone());
            }
            newer
        });
    }

    fn check(&self, node: NodeId, said: &Said) -> Result<(), String> {
        let incarnation = said.incarnation;
        if node == self.own.node || node.0 == 0 {
            return Err(format!("node {node} is no other node; every node has its own number, from 1"));
        }
        if self.registry.was_replaced(incarnation) {
            return Err(format!(
                "the disk that node {node} comes with was replaced: its replicas are elsewhere, or on a newer disk. Do \
                 not start it again; format an empty directory for a new node"
            ));
        }
        let known = self.known(node);
        let newer = |claim: &&Claim| known.is_none_or(|known| known.at < claim.registered.at);
        let claim = said.claim.as_ref().filter(newer);
        match known {
            _ if claim.is_some() => {}
            Some(known) if known.incarnation == incarnation => {}
            Some(Registered { incarnation: known, .. }) => {
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
        self.check_turns(node, said)?;
        claim.into_iter().for_each(|claim| self.believe(node, claim));
        Ok(())
    }

    fn check_turns(&self, node: NodeId, said: &Said) -> Result<(), String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= INCARNATIONS_MAX && !seen.contains_key(&said.incarnation) {
            return Err(format!("node {} has met too many nodes; restart it", self.own.node));
        }
        let known = seen.entry(said.incarnation).or_default();
        if known.life == said.life {
            known.turn = known.turn.max(said.turn);
            return Ok(());
        }
        // It has lost turns and knows it: what it had promised is, or was, in doubt to itself, too.
        let knows_its_loss = said.in_doubt || said.losses > known.losses;
        let turn_before = if knows_its_loss { 0 } else { known.turn.max(known.turn_before) };
        if !knows_its_loss && (said.first_turn < turn_before || said.losses < known.losses) {
            return Err(format!(
                "node {node} had turn {turn_before} of its log on disk and has started with turn {}: its disk was \
                 rolled back and has forgotten promises. Do not start it on this disk; replace the node",
                said.first_turn
            ));
        }
        *known = Seen { life: said.life, turn: said.turn, turn_before, losses: said.losses };
        Ok(())
    }
}

#[cfg(test)]
#[path = "admission/tests.rs"]
mod tests;
