//! What nodes say to each other, over TCP.
//!
//! A node talks to a peer on the connection it opened itself, and hears it on the one the peer opened. Invariants:
//!
//! * [`PeerSender`] never blocks and never waits; what does not fit into a peer's bounded queue is lost, as anything on
//!   a network may be. What arrives of one connection arrives in order.
//! * A connection is read only as fast as the node takes in what it says.
//! * Nobody is listened to before both ends have checked each other: `admission`.
//! * A proposal's outcome is definite unless it was handed to a connection that gave no answer.
//! * A silent peer is a dead one: whoever has nothing to say says that.
//!
//! Nothing of correctness lies here. Raft repeats what is lost and drops what is not meant for it.

mod accept;
pub mod admission;
mod peer;
mod queue;
mod sender;
pub mod translate;
pub mod wire;

pub use queue::QueueLimits;
pub use sender::{PeerSender, PeerState};

use crate::multiraft::apply::transfer::SnapshotMessage;
use crate::multiraft::core::effect::Refused;
use crate::multiraft::core::repair::message::RepairMessage;
use crate::multiraft::handle::Handle;
use crate::raft::RaftMessage;
use crate::types::{ClusterId, Incarnation, LogIndex, NodeId, RaftGroupId, ReplicaId, Term};
use accept::Reception;
use admission::Admission;
use bytes::Bytes;
use peer::Peer;
use sender::PeerStates;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinError, JoinHandle, JoinSet};

/// A future behind a pointer, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Limits and timing.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whoever has sent nothing for this long says that it is alive.
    pub alive_every: Duration,
    /// A connection that was silent for this long is dead. Several times `alive_every`.
    pub silence_max: Duration,
    /// The longest that connecting and greeting may take.
    pub greeting_max: Duration,
    /// The pause after the first failure to connect.
    pub backoff_min: Duration,
    /// The longest pause between two attempts.
    pub backoff_max: Duration,
    /// Connections that others may have opened to this node.
    pub connections_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            alive_every: Duration::from_millis(300),
            silence_max: Duration::from_secs(2),
            greeting_max: Duration::from_secs(2),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            connections_max: 256,
        }
    }
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// This life of its storage.
    pub incarnation: Incarnation,
    /// The newest turn of its log that is durable. Written by whoever writes the log, never ahead of the disk.
    pub durable_turn: Arc<AtomicU64>,
    /// This life of its process: drawn when it started.
    pub life: u128,
    /// The newest turn that was durable then.
    pub first_turn: u64,
    /// How many starts have found that its log had lost its newest turns; see `wal::Recovery::losses`.
    pub losses: u8,
    /// All that its replicas had promised is in doubt to itself, so that none of them takes part.
    pub in_doubt: bool,
    /// Where its peers reach it, as `host:port`.
    pub address: String,
}

/// The disk that a node was registered with last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The entry of the controller's log that did it; 0: it is one of the first voters, and has not registered.
    pub at: LogIndex,
    /// The disk.
    pub incarnation: Incarnation,
}

/// Who leads a group: soft state, of which the higher term holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The group.
    pub group: RaftGroupId,
    /// Since which term.
    pub term: Term,
    /// The leader.
    pub node: NodeId,
}

/// What became of a command for the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposalOutcome {
    /// It was decided: the controller's answer, and the entry that gave it.
    Answered { answer: Bytes, at: LogIndex },
    /// It certainly did not happen. Who leads the controller, as far as the node that was asked knows.
    NotProposed { leader: Option<NodeId> },
    /// It may have happened, or happen yet.
    Unknown,
}

/// Takes in what peers' replicas say. Waiting in it slows the peer down.
pub trait Inbox: Send + Sync + 'static {
    /// Messages, in order.
    fn deliver(&self, messages: Vec<(RaftGroupId, RaftMessage)>) -> BoxFuture<'_, Result<(), Refused>>;

    /// Something about a state in transit.
    fn deliver_snapshot(&self, message: SnapshotMessage) -> BoxFuture<'_, Result<(), Refused>>;

    /// Something about a repair.
    fn deliver_repair(&self, message: RepairMessage) -> BoxFuture<'_, Result<(), Refused>>;

    /// The connection to a node broke; messages may be lost.
    fn unreachable(&self, node: NodeId);
}

impl Inbox for Handle {
    fn deliver(&self, messages: Vec<(RaftGroupId, RaftMessage)>) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(Self::deliver(self, messages))
    }

    fn deliver_snapshot(&self, message: SnapshotMessage) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(Self::deliver_snapshot(self, message))
    }

    fn deliver_repair(&self, message: RepairMessage) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(Self::deliver_repair(self, message))
    }

    fn unreachable(&self, node: NodeId) {
        // A worker that is gone does not care.
        let _gone = Self::unreachable(self, node);
    }
}

/// Who the other nodes are.
pub trait PeerRegistry: Send + Sync + 'static {
    /// The disk that the node has, as far as this node's copy of the metadata shows it; `None`: it shows none.
    fn registered(&self, node: NodeId) -> Option<Registered>;

    /// Whether a node that is not known may propose to this one, for instance because it must register first. Until it
    /// is known, nothing else that it says is heard.
    fn admits_unknown(&self, _node: NodeId, _incarnation: Incarnation) -> bool {
        false
    }

    /// Whether this disk was replaced by another one: it is never let in again.
    fn was_replaced(&self, _incarnation: Incarnation) -> bool {
        false
    }

    /// Whether a replica was lost with its disk: what is said in its name is not heard, though its node is another's.
    fn is_lost(&self, _group: RaftGroupId, _replica: ReplicaId) -> bool {
        false
    }
}

/// Decides commands for the controller that other nodes bring.
pub trait Proposals: Send + Sync + 'static {
    /// Proposes a command, if this node leads the controller. Dropping the future takes nothing back.
    fn propose(&self, command: Bytes, timeout: Duration) -> BoxFuture<'static, ProposalOutcome>;
}

/// Who leads what, as nodes tell each other.
pub trait Leaders: Send + Sync + 'static {
    /// Everything this node leads now, for a peer that has just been connected to.
    fn current(&self) -> Vec<Announcement>;

    /// A peer announces. Must not block.
    fn heard(&self, announcements: Vec<Announcement>);
}

/// What the transport needs from the rest of the process.
#[derive(Clone)]
pub struct Surroundings {
    /// The node's groups: a `Handle`.
    pub inbox: Arc<dyn Inbox>,
    /// Who the other nodes are.
    pub registry: Arc<dyn PeerRegistry>,
    /// The controller.
    pub proposals: Arc<dyn Proposals>,
    /// Who leads what.
    pub leaders: Arc<dyn Leaders>,
}

/// A running transport.
pub struct Transport {
    /// The way out.
    sender: PeerSender,
    /// Says that it is time to stop.
    stop: watch::Sender<bool>,
    /// Owns every other task.
    supervisor: JoinHandle<()>,
}

impl Transport {
    /// Listens, and connects to every node of `peers` (but this one) for as long as it is in there, and to those that
    /// have said themselves where they are (`admission`); an address is `host:port`. `sender` was made before, because
    /// the groups that `surroundings` leads to send from their start.
    ///
    /// Must be called within a runtime.
    #[must_use]
    pub fn start(
        options: Options,
        own: Own,
        listener: TcpListener,
        peers: watch::Receiver<BTreeMap<NodeId, String>>,
        sender: PeerSender,
        surroundings: Surroundings,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        let admission = Arc::new(Admission::new(own, Arc::clone(&surroundings.registry)));
        let supervisor = Supervisor {
            options,
            peers,
            reception: Arc::new(Reception::new(Arc::clone(&admission), sender.states(), &surroundings, options)),
            sender: sender.clone(),
            admission,
            surroundings,
            outgoing: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        Self { sender, stop, supervisor: tokio::spawn(supervisor.run(listener, stopping)) }
    }

    /// The way out.
    #[must_use]
    pub fn sender(&self) -> &PeerSender {
        &self.sender
    }

    /// Closes every connection, and returns when all are closed.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // A supervisor that panicked has said so already, and its tasks have ended with it.
        let _panicked = self.supervisor.await;
    }
}

/// Owns the tasks of all connections.
struct Supervisor {
    /// Limits and timing.
    options: Options,
    /// Where all nodes are.
    peers: watch::Receiver<BTreeMap<NodeId, String>>,
    /// The way out.
    sender: PeerSender,
    /// What incoming connections share.
    reception: Arc<Reception>,
    /// Who may be talked to.
    admission: Arc<Admission>,
    /// The rest of the process.
    surroundings: Surroundings,
    /// How to end the connection to each peer.
    outgoing: BTreeMap<NodeId, AbortHandle>,
    /// One for each connection.
    tasks: JoinSet<()>,
}

impl Supervisor {
    async fn run(mut self, listener: TcpListener, mut stopping: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(self.options.connections_max));
        let mut claims = self.admission.watch_claims();
        self.follow_peers();
        loop {
            tokio::select! {
                // A transport that was dropped stops, too.
                _ = stopping.changed() => break,
                Ok(()) = self.peers.changed() => self.follow_peers(),
                Ok(()) = claims.changed() => self.follow_peers(),
                Some(ended) = self.tasks.join_next() => self.replace(ended),
                accepted = listener.accept() => match (accepted, Arc::clone(&places).try_acquire_owned()) {
                    (Ok((stream, _)), Ok(place)) => {
                        let reception = Arc::clone(&self.reception);
                        self.tasks.spawn(async move {
                            reception.serve(stream).await;
                            drop(place);
                        });
                    }
                    (Ok((_, address)), Err(_)) => tracing::warn!(%address, "too many connections of peers"),
                    // Out of descriptors, most likely: others have to end first.
                    (Err(error), _) => {
                        tracing::warn!(%error, "accepting a peer's connection");
                        tokio::time::sleep(self.options.backoff_min).await;
                    }
                },
            }
        }
        self.tasks.shutdown().await;
        self.sender.forget_all();
    }

    /// A connection's task ended. That of a peer never does by itself: one that panicked is begun again.
    fn replace(&mut self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            tracing::error!("the task of a connection panicked");
            self.outgoing.retain(|_, task| !task.is_finished());
            self.follow_peers();
        }
    }

    /// One task for every peer, none for anybody else.
    fn follow_peers(&mut self) {
        let mut wanted: BTreeSet<_> = self.peers.borrow_and_update().keys().copied().collect();
        wanted.extend(self.admission.claimants());
        self.outgoing.retain(|node, task| {
            let stays = wanted.contains(node);
            if !stays {
                task.abort();
                self.sender.forget(*node);
            }
            stays
        });
        for node in wanted.into_iter().filter(|node| *node != self.admission.node()) {
            if !self.outgoing.contains_key(&node) {
                let task = self.tasks.spawn(self.peer(node).run());
                self.outgoing.insert(node, task);
            }
        }
    }

    fn peer(&self, node: NodeId) -> Peer {
        Peer {
            node,
            addresses: self.peers.clone(),
            queue: self.sender.know(node),
            states: self.sender.states(),
            admission: Arc::clone(&self.admission),
            inbox: Arc::clone(&self.surroundings.inbox),
            leaders: Arc::clone(&self.surroundings.leaders),
            options: self.options,
        }
    }
}
