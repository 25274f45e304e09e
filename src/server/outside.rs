//! What the Raft worker and the transport see of the rest of the process.

use crate::broker::node::Neighbours;
use crate::broker::node::controller_client::{Forward, Forwarded, Proposed, propose_here};
use crate::broker::node::views::Views;
use crate::controller::command::Command;
use crate::controller::view::MetadataView;
use crate::metrics::Metrics;
use crate::multiraft::apply::transfer::SnapshotMessage;
use crate::multiraft::core::repair::message::RepairMessage;
use crate::multiraft::handle::Handle;
use crate::multiraft::worker::Outside;
use crate::raft::RaftMessage;
use crate::server::identity::Identity;
use crate::transport::{
    Announcement, BoxFuture, Leaders, PeerRegistry, PeerSender, ProposalOutcome, Proposals, Registered,
};
use crate::types::{Incarnation, LogIndex, NodeId, RaftGroupId, ReplicaId, Term};
use crate::wal::{RoomMade, TurnNumber};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::time::Instant;

/// Groups whose announced leaders are remembered; more than a cluster can have partitions.
const ANNOUNCED_MAX: usize = 1 << 20;

/// The worker's outside.
pub struct NodeOutside {
    /// This node.
    pub node: NodeId,
    /// To the other nodes.
    pub sender: PeerSender,
    /// Groups whose end is durable go here.
    pub removed: UnboundedSender<RaftGroupId>,
    /// Why the process must end goes here.
    pub fatal: UnboundedSender<String>,
    /// The newest durable turn, for peers to compare.
    pub durable_turn: Arc<AtomicU64>,
    /// What is measured.
    pub metrics: Metrics,
}

impl Outside for NodeOutside {
    fn send(&self, to: NodeId, messages: Vec<(RaftGroupId, RaftMessage)>) {
        self.sender.send(to, messages);
    }

    fn send_snapshot(&self, message: SnapshotMessage) {
        self.sender.send_snapshot(message);
    }

    fn send_repair(&self, message: RepairMessage) {
        self.sender.send_repair(message);
    }

    fn turn_done(&self, turn: TurnNumber, took: Duration, bytes: usize) {
        self.metrics.fsync_seconds.observe(took.as_secs_f64());
        self.metrics.turn_bytes.observe(bytes as f64);
        self.durable_turn.store(turn.0, Ordering::Release);
    }

    fn leads(&self, group: RaftGroupId, term: Term) {
        self.metrics.elections.inc();
        self.sender.announce(&[Announcement { group, term, node: self.node }]);
    }

    fn refilled(&self, entries: usize) {
        self.metrics.refilled_entries.inc_by(entries as u64);
    }

    fn room_made(&self, made: RoomMade) {
        self.metrics.reused_segments.inc_by(made.reused_segments);
        self.metrics.copied_forward_bytes.inc_by(made.copied_bytes);
    }

    fn repairing(&self, _group: RaftGroupId) {
        self.metrics.repair_steps.inc();
    }

    fn repaired(&self, _group: RaftGroupId) {
        self.metrics.repaired_replicas.inc();
    }

    fn removed(&self, group: RaftGroupId) {
        // Whoever deletes the rows has stopped; the next start deletes them.
        let _stopping = self.removed.send(group);
    }

    fn fatal(&self, reason: &str) {
        tracing::error!(reason, "this node cannot go on");
        let _stopping = self.fatal.send(reason.to_owned());
    }
}

/// The other nodes, as the controller's state and their announcements show them.
pub struct Cluster {
    /// This node.
    pub node: NodeId,
    /// Who this directory is, with the cluster's first voters.
    pub identity: Identity,
    /// The controller's state.
    pub views: Views,
    /// The Raft groups.
    pub handle: Handle,
    /// To the other nodes.
    pub sender: PeerSender,
    /// Leaders of groups as announced: the newest term wins.
    pub announced: Mutex<BTreeMap<RaftGroupId, (Term, NodeId)>>,
}

/// Who the nodes are by their disks, as one node knows it: from its data directory and its copy of the metadata.
pub struct Disks {
    /// This node's, with the cluster's first voters.
    identity: Identity,
    /// The controller's state.
    metadata: watch::Receiver<Arc<MetadataView>>,
}

impl Disks {
    /// Follows a copy of the metadata.
    #[must_use]
    pub fn new(identity: Identity, metadata: watch::Receiver<Arc<MetadataView>>) -> Self {
        Self { identity, metadata }
    }
}

impl PeerRegistry for Disks {
    fn registered(&self, node: NodeId) -> Option<Registered> {
        let metadata = self.metadata.borrow();
        let broker = metadata.broker(node);
        let registered = broker.map(|broker| Registered { at: broker.registered, incarnation: broker.incarnation });
        let first = || {
            let voter = self.identity.voters.iter().find(|voter| voter.node == node)?;
            Some(Registered { at: LogIndex(0), incarnation: voter.incarnation })
        };
        let retired = &metadata.cluster().retired;
        registered.or_else(first).filter(|known| !retired.contains(&known.incarnation))
    }

    /// A node that is new must reach the controller to register. The cluster's id is no secret, so until it has
    /// registered its proposals are all that is heard.
    fn admits_unknown(&self, _node: NodeId, _incarnation: Incarnation) -> bool {
        true
    }

    fn was_replaced(&self, incarnation: Incarnation) -> bool {
        self.metadata.borrow().cluster().retired.contains(&incarnation)
    }

    fn is_lost(&self, group: RaftGroupId, replica: ReplicaId) -> bool {
        let metadata = self.metadata.borrow();
        // No disk was ever replaced: there is nothing to look for.
        !metadata.cluster().retired.is_empty() && metadata.is_lost(group, replica)
    }
}

impl Proposals for Cluster {
    fn propose(&self, command: Bytes, timeout: Duration) -> BoxFuture<'static, ProposalOutcome> {
        let handle = self.handle.clone();
        Box::pin(async move {
            // Bytes from the network: a committed entry that is no command would stop the controller for good.
            if let Err(problem) = Command::decode(&command) {
                tracing::warn!(%problem, "a node proposes what is no command of the controller");
                return ProposalOutcome::NotProposed { leader: None };
            }
            match propose_here(&handle, command, Instant::now() + timeout).await {
                Proposed::Answered(answer) => ProposalOutcome::Answered { answer, at: LogIndex(0) },
                Proposed::NotDone => ProposalOutcome::NotProposed { leader: None },
                Proposed::Unknown => ProposalOutcome::Unknown,
            }
        })
    }
}

impl Leaders for Cluster {
    fn current(&self) -> Vec<Announcement> {
        let serving = self.handle.board().serving();
        serving.into_iter().map(|(group, term)| Announcement { group, term, node: self.node }).collect()
    }

    fn heard(&self, announcements: Vec<Announcement>) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        for Announcement { group, term, node } in announcements {
            if announced.len() >= ANNOUNCED_MAX && !announced.contains_key(&group) {
                continue;
            }
            let known = announced.entry(group).or_insert((term, node));
            *known = (*known).max((term, node));
        }
    }
}

impl Neighbours for Cluster {
    fn is_alive(&self, node: NodeId) -> bool {
        self.sender.alive(node)
    }

    fn announced_leader(&self, group: RaftGroupId) -> Option<(Term, NodeId)> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).get(&group).copied()
    }
}

/// Brings commands to other nodes.
pub struct Messenger(pub PeerSender);

impl Forward for Messenger {
    fn reachable(&self) -> Vec<NodeId> {
        self.0.watch_alive().borrow().iter().copied().collect()
    }

    fn forward(&self, node: NodeId, command: Bytes, timeout: Duration) -> Forwarded {
        let outcome = self.0.propose_to(node, command, timeout);
        Box::pin(async move {
            match outcome.await {
                ProposalOutcome::Answered { answer, .. } => Proposed::Answered(answer),
                ProposalOutcome::NotProposed { .. } => Proposed::NotDone,
                ProposalOutcome::Unknown => Proposed::Unknown,
            }
        })
    }
}
