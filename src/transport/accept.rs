//! Connections that peers open: what they say is checked, translated and handed in.
//!
//! A connection is read only as fast as the node takes in what it says, which slows the peer down. Meanwhile a second
//! loop tells the peer that this node is alive, and brings outcomes of its proposals. A peer has one connection: a
//! newer one ends the older.

use super::admission::{Admission, Admitted};
use super::translate::repair::repair_from_wire;
use super::translate::{outcome_to_wire, raft_from_wire, snapshot_from_wire};
use super::wire::{self, End};
use super::{Announcement, Inbox, Leaders, Options, PeerStates, ProposalOutcome, Proposals, Surroundings};
use crate::proto::peer::frame::Body;
use crate::proto::{Malformed, PEER_FRAME_BYTES_MAX, peer};
use crate::types::{NodeId, RaftGroupId, ReplicaId, Term};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Proposals of one peer that are decided at the same time.
const PROPOSALS_MAX: usize = 256;
/// The longest a peer may have a proposal wait.
const PROPOSAL_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// What incoming connections need.
pub struct Reception {
    /// Who is let in.
    admission: Arc<Admission>,
    /// Told who has come.
    states: Arc<PeerStates>,
    /// Takes in what replicas say.
    inbox: Arc<dyn Inbox>,
    /// Decides proposals.
    proposals: Arc<dyn Proposals>,
    /// Hears who leads what.
    leaders: Arc<dyn Leaders>,
    /// Limits and timing.
    options: Options,
    /// How to end each peer's connection.
    present: Mutex<BTreeMap<NodeId, Arc<Notify>>>,
}

impl Reception {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(
        admission: Arc<Admission>,
        states: Arc<PeerStates>,
        surroundings: &Surroundings,
        options: Options,
    ) -> Self {
        Self {
            admission,
            states,
            inbox: Arc::clone(&surroundings.inbox),
            proposals: Arc::clone(&surroundings.proposals),
            leaders: Arc::clone(&surroundings.leaders),
            options,
            present: Mutex::default(),
        }
    }

    /// Serves a connection until it ends.
    pub async fn serve(&self, mut stream: TcpStream) {
        let greeting = timeout(self.options.greeting_max, self.greet(&mut stream));
        let peer = match greeting.await.unwrap_or(Err(End::Silent(self.options.greeting_max))) {
            Ok(peer) => peer,
            Err(problem) => return tracing::info!(%problem, "a connection was not let in"),
        };
        self.states.arrived(peer.node);
        let end = self.attend(peer, stream).await;
        tracing::info!(node = peer.node.0, %end, "a peer's connection ended");
    }

    async fn greet(&self, stream: &mut TcpStream) -> Result<Admitted, End> {
        stream.set_nodelay(true)?;
        let Body::Hello(hello) = wire::read(stream, wire::GREETING_BYTES_MAX, self.options.greeting_max).await? else {
            return Err(End::Hostile("no greeting".to_owned()));
        };
        match self.admission.admit(&hello) {
            Ok(peer) => {
                wire::write_short(stream, Body::Welcome(self.admission.welcome(peer))).await?;
                Ok(peer)
            }
            Err(reason) => {
                wire::write_short(stream, Body::Refused(peer::Refused { reason: reason.clone() })).await?;
                stream.shutdown().await?;
                Err(End::Unwanted(reason))
            }
        }
    }

    async fn attend(&self, peer: Admitted, stream: TcpStream) -> End {
        let node = peer.node;
        let newer = Arc::new(Notify::new());
        let older = self.present().insert(node, Arc::clone(&newer));
        if let Some(older) = older {
            older.notify_one();
        }
        let (reading, writing) = stream.into_split();
        let (outcomes, to_send) = mpsc::channel(PROPOSALS_MAX);
        let end = tokio::select! {
            end = self.listen(peer, reading, outcomes) => end,
            end = self.speak(writing, to_send) => end.into(),
            () = newer.notified() => End::Unwanted("the peer has opened another connection".to_owned()),
        };
        let mut present = self.present();
        if present.get(&node).is_some_and(|newest| Arc::ptr_eq(newest, &newer)) {
            present.remove(&node);
        }
        end
    }

    fn present(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Arc<Notify>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn speak(&self, mut stream: OwnedWriteHalf, mut to_send: mpsc::Receiver<Body>) -> io::Error {
        loop {
            let body = match timeout(self.options.alive_every, to_send.recv()).await {
                Ok(Some(body)) => body,
                // The reading loop holds the channel as long as this one runs.
                Ok(None) => return io::ErrorKind::BrokenPipe.into(),
                Err(_) => Body::Alive(peer::Alive {}),
            };
            let Some(frame) = wire::encode(body) else { continue };
            if let Err(error) = stream.write_all(&frame).await {
                return error;
            }
        }
    }

    async fn listen(&self, peer: Admitted, mut stream: OwnedReadHalf, outcomes: mpsc::Sender<Body>) -> End {
        let mut deciding =
            Deciding { outcomes, places: Arc::new(Semaphore::new(PROPOSALS_MAX)), tasks: JoinSet::new() };
        loop {
            let heard = match wire::read(&mut stream, PEER_FRAME_BYTES_MAX, self.options.silence_max).await {
                Ok(Body::Proposal(proposal)) => self.decide(proposal, &mut deciding).await,
                Ok(body) => self.hear(peer, body).await,
                Err(end) => Err(end),
            };
            if let Err(end) = heard {
                return end;
            }
        }
    }

    /// Takes in everything but proposals. Who is not known speaks for no replica: a heartbeat of a high term would
    /// depose a leader, whoever sends it. What is dropped here is said again, and heard once the sender has registered.
    async fn hear(&self, from: Admitted, body: Body) -> Result<(), End> {
        let node = from.node;
        match body {
            Body::Alive(peer::Alive {}) => Ok(()),
            Body::Raft(_) | Body::Snapshot(_) | Body::Repair(_) | Body::Leaders(_) if !self.admission.knows(from) => {
                Ok(())
            }
            Body::Raft(batch) => {
                let mut messages = batch.messages.into_iter().map(raft_from_wire).collect::<Result<Vec<_>, _>>()?;
                for (_, message) in &messages {
                    self.check_ends(node, message.from, message.to)?;
                }
                messages.retain(|(group, message)| self.admission.hears(*group, message.from));
                self.inbox.deliver(messages).await.map_err(|_| End::Stopping)
            }
            Body::Snapshot(message) => {
                let message = snapshot_from_wire(message)?;
                self.check_ends(node, message.from, message.to)?;
                if !self.admission.hears(message.group, message.from) {
                    return Ok(());
                }
                self.inbox.deliver_snapshot(message).await.map_err(|_| End::Stopping)
            }
            Body::Repair(message) => {
                let message = repair_from_wire(message)?;
                self.check_ends(node, message.from, message.to)?;
                if !self.admission.hears(message.group, message.from) {
                    return Ok(());
                }
                self.inbox.deliver_repair(message).await.map_err(|_| End::Stopping)
            }
            Body::Leaders(announcements) => {
                let read = |news: peer::LeaderAnnouncement| Announcement {
                    group: RaftGroupId(news.group),
                    term: Term(news.term),
                    node: NodeId(news.node),
                };
                self.leaders.heard(announcements.leaders.into_iter().map(read).collect());
                Ok(())
            }
            Body::Proposal(_) | Body::Hello(_) | Body::Welcome(_) | Body::Refused(_) | Body::Outcome(_) => {
                Err(End::Hostile("not something that whoever connected says here".to_owned()))
            }
        }
    }

    /// A node speaks for its own replicas, to ours.
    fn check_ends(&self, node: NodeId, from: ReplicaId, to: ReplicaId) -> Result<(), Malformed> {
        if from.node() != node {
            return Err(Malformed("message: it is another node's"));
        }
        if to.node() != self.admission.node() {
            return Err(Malformed("message: it is for another node"));
        }
        Ok(())
    }

    async fn decide(&self, proposal: peer::ControllerProposal, deciding: &mut Deciding) -> Result<(), End> {
        while deciding.tasks.try_join_next().is_some() {}
        let peer::ControllerProposal { id, command, timeout_ms } = proposal;
        let outcomes = deciding.outcomes.clone();
        let Ok(place) = Arc::clone(&deciding.places).try_acquire_owned() else {
            let refusal = outcome_to_wire(id, ProposalOutcome::NotProposed { leader: None });
            // The other loop has ended, and this connection with it.
            return outcomes.send(Body::Outcome(refusal)).await.map_err(|_| End::Closed);
        };
        let limit = Duration::from_millis(timeout_ms.into()).min(PROPOSAL_TIMEOUT_MAX);
        let proposals = Arc::clone(&self.proposals);
        deciding.tasks.spawn(async move {
            let outcome = timeout(limit, proposals.propose(command, limit)).await.unwrap_or(ProposalOutcome::Unknown);
            let _closed = outcomes.send(Body::Outcome(outcome_to_wire(id, outcome))).await;
            drop(place);
        });
        Ok(())
    }
}

/// A connection's proposals. Their tasks end with it: nobody could be told.
struct Deciding {
    /// To the loop that writes.
    outcomes: mpsc::Sender<Body>,
    /// Room for more.
    places: Arc<Semaphore>,
    /// One each.
    tasks: JoinSet<()>,
}
