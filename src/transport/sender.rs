//! The way out: what the rest of the node holds to talk to its peers, and to see which of them are there.

use super::queue::{Queue, QueueLimits};
use super::{Announcement, ProposalOutcome};
use crate::multiraft::apply::transfer::SnapshotMessage;
use crate::multiraft::core::repair::message::RepairMessage;
use crate::raft::RaftMessage;
use crate::types::{NodeId, RaftGroupId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How the connection to a peer stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerState {
    /// There is one.
    pub connected: bool,
    /// Why there was none the last time: a sentence.
    pub problem: Option<String>,
    /// What was lost before it left, since this node started.
    pub dropped: u64,
    /// Bytes that wait.
    pub queued_bytes: usize,
}

/// See the module. Cheap to clone, never blocks.
#[derive(Clone)]
pub struct PeerSender(Arc<Shared>);

struct Shared {
    /// Of each queue.
    limits: QueueLimits,
    /// What waits for each peer.
    queues: Mutex<BTreeMap<NodeId, Arc<Queue>>>,
    /// Messages for nodes that are no peers.
    unaddressed: AtomicU64,
    /// How the connections stand.
    states: Arc<PeerStates>,
}

/// Which peers are there.
#[derive(Default)]
pub struct PeerStates {
    /// Those connected to.
    alive: watch::Sender<BTreeSet<NodeId>>,
    /// The last problem of each, and how often it came in a row.
    problems: Mutex<BTreeMap<NodeId, (String, u32)>>,
    /// Woken when a peer has connected to this node.
    arrivals: Mutex<BTreeMap<NodeId, Arc<Notify>>>,
}

/// A connection to a peer, for as long as this is kept.
pub struct Connected<'a> {
    /// Where it is entered.
    states: &'a PeerStates,
    /// The peer.
    node: NodeId,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.states.alive.send_modify(|alive| {
            alive.remove(&self.node);
        });
    }
}

impl PeerStates {
    /// A connection begins.
    #[must_use]
    pub fn connected(&self, node: NodeId) -> Connected<'_> {
        self.alive.send_modify(|alive| {
            alive.insert(node);
        });
        Connected { states: self, node }
    }

    /// There is no connection; how often in a row for this reason.
    pub fn failed(&self, node: NodeId, problem: &str) -> u32 {
        let mut problems = self.problems();
        let (known, times) = problems.entry(node).or_default();
        if known != problem {
            *known = problem.to_owned();
            *times = 0;
        }
        *times = times.saturating_add(1);
        *times
    }

    /// To learn that a peer has connected to this node, even if that was before.
    #[must_use]
    pub fn arrival(&self, node: NodeId) -> Arc<Notify> {
        Arc::clone(self.arrivals().entry(node).or_default())
    }

    /// A node has connected to this one, and was let in: if it is a peer, it can be reached, too.
    pub fn arrived(&self, node: NodeId) {
        if let Some(arrival) = self.arrivals().get(&node) {
            arrival.notify_one();
        }
    }

    fn arrivals(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Notify>>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problems(&self) -> MutexGuard<'_, BTreeMap<NodeId, (String, u32)>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerSender {
    /// Knows no peer yet: what is sent before the transport starts is lost.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self(Arc::new(Shared {
            limits,
            queues: Mutex::default(),
            unaddressed: AtomicU64::new(0),
            states: Arc::default(),
        }))
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Queue>>> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, node: NodeId) -> Option<Arc<Queue>> {
        self.queues().get(&node).cloned()
    }

    /// Sends messages to a peer, in order; may lose them.
    pub fn send(&self, to: NodeId, messages: Vec<(RaftGroupId, RaftMessage)>) {
        match self.queue(to) {
            Some(queue) => queue.send(messages),
            None => self.lose(messages.len()),
        }
    }

    /// Says something about a repair to the node of its receiver; may lose it.
    pub fn send_repair(&self, message: RepairMessage) {
        match self.queue(message.to.node()) {
            Some(queue) => queue.send_repair(message),
            None => self.lose(1),
        }
    }

    /// Sends a piece of a state to the node of its receiver; may lose it.
    pub fn send_snapshot(&self, message: SnapshotMessage) {
        match self.queue(message.to.node()) {
            Some(queue) => queue.send_snapshot(message),
            None => self.lose(1),
        }
    }

    fn lose(&self, messages: usize) {
        self.0.unaddressed.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// Tells every peer who leads what. One that is not connected now is told everything when it is.
    pub fn announce(&self, announcements: &[Announcement]) {
        let queues: Vec<_> = self.queues().values().cloned().collect();
        for queue in queues {
            queue.announce(announcements);
        }
    }

    /// Brings a command for the controller to a node and waits for its outcome, at most `timeout`.
    pub fn propose_to(
        &self,
        node: NodeId,
        command: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = ProposalOutcome> + Send + use<> {
        let queue = self.queue(node);
        async move {
            let none = ProposalOutcome::NotProposed { leader: None };
            let Some(queue) = queue else { return none };
            let Some((id, outcome)) = queue.propose(command, timeout) else { return none };
            let _withdrawn = Withdraw { queue: &queue, id };
            match tokio::time::timeout(timeout, outcome).await {
                Ok(outcome) => outcome.unwrap_or(ProposalOutcome::Unknown),
                Err(_) => queue.give_up(id),
            }
        }
    }

    /// Whether there is a connection to a node now.
    #[must_use]
    pub fn alive(&self, node: NodeId) -> bool {
        self.0.states.alive.borrow().contains(&node)
    }

    /// The nodes that there is a connection to; this node is not among them.
    #[must_use]
    pub fn watch_alive(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.0.states.alive.subscribe()
    }

    /// How the connection to every peer stands.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<NodeId, PeerState> {
        let queues = self.queues().clone();
        let problems = self.0.states.problems();
        let state = |(node, queue): (NodeId, Arc<Queue>)| {
            let (dropped, queued_bytes) = queue.counts();
            let problem = problems.get(&node).map(|(problem, _)| problem.clone());
            (node, PeerState { connected: self.alive(node), problem, dropped, queued_bytes })
        };
        queues.into_iter().map(state).collect()
    }

    /// Messages for nodes that were no peers, since this node started.
    #[must_use]
    pub fn unaddressed(&self) -> u64 {
        self.0.unaddressed.load(Ordering::Relaxed)
    }

    /// Begins a queue for a peer.
    pub(super) fn know(&self, node: NodeId) -> Arc<Queue> {
        let limits = self.0.limits;
        Arc::clone(self.queues().entry(node).or_insert_with(|| Arc::new(Queue::new(limits))))
    }

    pub(super) fn states(&self) -> Arc<PeerStates> {
        Arc::clone(&self.0.states)
    }

    /// Drops what waits for a node that is no peer any more.
    pub(super) fn forget(&self, node: NodeId) {
        let queue = self.queues().remove(&node);
        if let Some(queue) = queue {
            queue.clear();
        }
        self.0.states.problems().remove(&node);
        self.0.states.arrivals().remove(&node);
    }

    /// The transport stops.
    pub(super) fn forget_all(&self) {
        let nodes: Vec<_> = self.queues().keys().copied().collect();
        for node in nodes {
            self.forget(node);
        }
    }
}

/// Takes a proposal back that nobody waits for any more, as far as it can be.
struct Withdraw<'a> {
    /// Where it was put in.
    queue: &'a Queue,
    /// The proposal.
    id: u64,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let _nobody_asks = self.queue.give_up(self.id);
    }
}
