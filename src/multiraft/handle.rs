//! The way in: what the rest of the node holds to talk to its Raft groups.
//!
//! A [`Handle`] is cheap to clone. Proposals pass a mailbox that is bounded in bytes, from admission to answer: whoever
//! finds it full waits, which is the node's backpressure. Who leads what is published on a [`Board`], to look at
//! without asking the worker and to wait on. What one producer proposes stays in [`order`].

pub mod order;

use super::apply::machine::Machine;
use super::apply::transfer::SnapshotMessage;
use super::core::PROPOSAL_OVERHEAD_BYTES;
use super::core::effect::{Input, Leadership, Refused, Reply, Room, Source};
use super::core::membership::WantedMembers;
use super::core::repair::message::RepairMessage;
use crate::raft::RaftMessage;
use crate::types::{Membership, NodeId, RaftGroupId, ReplicaId, Term};
use crate::wal::GroupRecovery;
use bytes::Bytes;
use order::{Order, Sequence};
use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::worker::status::GroupReport;

/// What a peer's message costs beyond its payload.
const MESSAGE_OVERHEAD_BYTES: usize = 128;

/// The largest mailbox: what a semaphore of tokio can count in one acquisition.
pub const MAILBOX_BYTES_MAX: usize = u32::MAX as usize;

/// What reaches the worker.
pub(super) enum Event {
    /// A completion, or something the controller wants.
    Input(Input),
    /// Messages of a peer, and the room they take until they are stepped.
    Messages { messages: Vec<(RaftGroupId, RaftMessage)>, _room: OwnedSemaphorePermit },
    /// What a peer says of a state in transit, and the room it takes.
    Snapshot { message: SnapshotMessage, _room: OwnedSemaphorePermit },
    /// What a peer says of a repair, and the room it takes.
    Repair { message: RepairMessage, _room: OwnedSemaphorePermit },
    /// Readers found that a group's rows of this generation can't be read.
    StateDamaged { group: RaftGroupId, generation: u64, reason: String },
    /// What the log has of a group whose repair looks at it; the state machine is looked at next.
    Examined { group: RaftGroupId, recovery: Option<GroupRecovery> },
    /// The controller wants this node to take part in a new group, whose state machine is durable.
    Create { group: RaftGroupId, replica: ReplicaId, membership: Membership, machine: Machine, preferred: bool },
    /// A command, admitted to the mailbox.
    Propose { group: RaftGroupId, context: Bytes, data: Bytes, waiting: Waiting },
    /// Whoever numbers this source's proposals knows of one more refusal.
    RefusalKnown { group: RaftGroupId, source: Source },
    /// A linearizable read.
    Read { group: RaftGroupId, waiting: Waiting },
    /// The log knows every group that was ever here.
    Settled,
    /// Somebody wants to look.
    Report(oneshot::Sender<Vec<GroupReport>>),
    /// The process is stopping.
    Stop,
}

/// Who waits for an answer, and the room in the mailbox that the request takes until then.
pub(super) struct Waiting {
    /// The answer goes here.
    pub reply: oneshot::Sender<Reply>,
    /// Which batch of whom it is, in which group, if its order matters.
    pub sequence: Option<(RaftGroupId, Sequence)>,
    /// Given back when the answer has gone.
    pub _room: OwnedSemaphorePermit,
}

/// An answer that is on its way.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Reply>);

impl Pending {
    /// Waits for the answer. A node that stops leaves the outcome open.
    pub async fn wait(self) -> Reply {
        self.0.await.unwrap_or(Reply::Undecided)
    }
}

/// What a node publishes of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// Who leads it.
    pub leadership: Leadership,
    /// Why this node's replica must not take part, if so.
    pub quarantined: Option<Arc<str>>,
}

/// Every group's published status.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<RaftGroupId, watch::Sender<GroupStatus>>>>);

impl Board {
    /// Watches a group; one that this node does not know yet has the default status.
    #[must_use]
    pub fn watch(&self, group: RaftGroupId) -> watch::Receiver<GroupStatus> {
        self.with(group, |sender| sender.subscribe())
    }

    /// A group's status now.
    #[must_use]
    pub fn status(&self, group: RaftGroupId) -> GroupStatus {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.get(&group).map(|sender| sender.borrow().clone()).unwrap_or_default()
    }

    /// The groups that this node leads and answers clients for, with their terms.
    #[must_use]
    pub fn serving(&self) -> Vec<(RaftGroupId, Term)> {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = groups.iter().filter_map(|(group, sender)| {
            let leadership = sender.borrow().leadership;
            leadership.serving.then_some((*group, leadership.term))
        });
        serving.collect()
    }

    /// Changes a group's status and wakes who waits for it.
    pub(super) fn update(&self, group: RaftGroupId, change: impl FnOnce(&mut GroupStatus)) {
        self.with(group, |sender| sender.send_modify(change));
    }

    /// Forgets a deleted group.
    pub(super) fn remove(&self, group: RaftGroupId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
    }

    fn with<T>(&self, group: RaftGroupId, act: impl FnOnce(&watch::Sender<GroupStatus>) -> T) -> T {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(groups.entry(group).or_insert_with(|| watch::Sender::new(GroupStatus::default())))
    }
}

/// See the module.
#[derive(Clone)]
pub struct Handle {
    /// Into the worker.
    pub(super) events: Sender<Event>,
    /// Room for proposals, in bytes.
    pub(super) mailbox: Arc<Semaphore>,
    /// Room for peers' messages, in bytes.
    pub(super) peer_mailbox: Arc<Semaphore>,
    /// All of that room, of each of the two; at most `MAILBOX_BYTES_MAX`.
    pub(super) mailbox_bytes: usize,
    /// Keeps what producers propose in order.
    pub(super) order: Order,
    /// What is published.
    pub(super) board: Board,
}

impl Handle {
    /// Who leads what.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Proposes a command. Returns once it is admitted, in the order of the calls; waits while the mailbox is full.
    ///
    /// Dropping the returned future before it resolves proposes nothing. Dropping the `Pending` takes nothing back.
    pub async fn propose(&self, group: RaftGroupId, context: Bytes, data: Bytes) -> Result<Pending, Refused> {
        self.propose_in_order(group, None, context, data).await
    }

    /// The same for a batch that must not overtake an earlier one of its producer: see [`order`].
    pub async fn propose_in_order(
        &self,
        group: RaftGroupId,
        sequence: Option<Sequence>,
        context: Bytes,
        data: Bytes,
    ) -> Result<Pending, Refused> {
        let bytes = context.len() + data.len() + PROPOSAL_OVERHEAD_BYTES;
        let room = self.room(&self.mailbox, bytes).await?;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { reply, sequence: sequence.map(|sequence| (group, sequence)), _room: room };
        let send = || self.send(Event::Propose { group, context, data, waiting });
        match sequence {
            Some(sequence) => self.order.send(group, sequence, send)?,
            None => send()?,
        }
        Ok(Pending(answer))
    }

    /// What was refused of whom.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Asks for the index that a linearizable read must see, and waits until this node has applied it.
    pub async fn read_index(&self, group: RaftGroupId) -> Reply {
        let (reply, answer) = oneshot::channel();
        let sent = match self.room(&self.mailbox, PROPOSAL_OVERHEAD_BYTES).await {
            Ok(room) => self.send(Event::Read { group, waiting: Waiting { reply, sequence: None, _room: room } }),
            Err(refused) => Err(refused),
        };
        match sent {
            Ok(()) => Pending(answer).wait().await,
            Err(refused) => Reply::Refused(refused),
        }
    }

    async fn room(&self, mailbox: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Refused> {
        // Something larger than the whole mailbox still passes, alone.
        let permits = bytes.min(self.mailbox_bytes) as u32;
        Arc::clone(mailbox).acquire_many_owned(permits).await.map_err(|_| Refused::NoReplica)
    }

    /// Takes part in a new group. Its state machine exists, durably. The preferred leader campaigns at once.
    pub fn create(
        &self,
        group: RaftGroupId,
        replica: ReplicaId,
        machine: Machine,
        preferred: bool,
    ) -> Result<(), Refused> {
        let membership = machine.membership().clone();
        self.send(Event::Create { group, replica, membership, machine, preferred })
    }

    /// The controller says that a replica of a group is here which the log may have forgotten, and who the members are.
    /// One that takes part is left alone.
    pub fn adopt(&self, group: RaftGroupId, replica: ReplicaId, membership: Membership) -> Result<(), Refused> {
        self.send(Event::Input(Input::Adopt { group, replica, membership }))
    }

    /// The controller says which replicas a group that is here has now, or is to have.
    pub fn tell_replicas(&self, group: RaftGroupId, replica: ReplicaId, membership: Membership) -> Result<(), Refused> {
        self.send(Event::Input(Input::Replicas { group, replica, membership }))
    }

    /// Every group that the log may have forgotten is here, or is none of this node's any more: see `Log::settle`.
    pub fn settled(&self) -> Result<(), Refused> {
        self.send(Event::Settled)
    }

    /// What readers found of a group's rows: those of this generation are damaged. The replica is repaired.
    pub fn state_damaged(&self, group: RaftGroupId, generation: u64, reason: String) {
        // A worker that is gone needs no state.
        let _gone = self.send(Event::StateDamaged { group, generation, reason });
    }

    /// Ends this node's replica of a deleted group.
    pub fn remove(&self, group: RaftGroupId) -> Result<(), Refused> {
        self.board.remove(group);
        self.send(Event::Input(Input::Remove { group }))
    }

    /// Has a group that this node leads take one step towards these members.
    pub fn change_members(&self, group: RaftGroupId, wanted: WantedMembers) -> Result<(), Refused> {
        self.send(Event::Input(Input::ChangeMembers { group, wanted }))
    }

    /// Hands a group's leadership to another voter.
    pub fn transfer_leader(&self, group: RaftGroupId, to: ReplicaId) -> Result<(), Refused> {
        self.send(Event::Input(Input::TransferLeader { group, to }))
    }

    /// Hands in what a peer sent; waits while the worker is behind, which slows the peer's connection down.
    pub async fn deliver(&self, messages: Vec<(RaftGroupId, RaftMessage)>) -> Result<(), Refused> {
        let payload: usize = messages.iter().map(|(_, message)| message.payload_bytes()).sum();
        let bytes = payload + messages.len() * MESSAGE_OVERHEAD_BYTES;
        let room = self.room(&self.peer_mailbox, bytes).await?;
        self.send(Event::Messages { messages, _room: room })
    }

    /// Hands in what a peer said of a state in transit.
    pub async fn deliver_snapshot(&self, message: SnapshotMessage) -> Result<(), Refused> {
        let bytes = MESSAGE_OVERHEAD_BYTES + message.payload_bytes();
        let room = self.room(&self.peer_mailbox, bytes).await?;
        self.send(Event::Snapshot { message, _room: room })
    }

    /// Hands in what a peer says of a repair; waits while too much of peers waits already.
    pub async fn deliver_repair(&self, message: RepairMessage) -> Result<(), Refused> {
        let bytes = MESSAGE_OVERHEAD_BYTES + message.payload_bytes();
        let room = self.room(&self.peer_mailbox, bytes).await?;
        self.send(Event::Repair { message, _room: room })
    }

    /// Whether the disk has room for new entries.
    pub fn disk_writable(&self, writable: bool) -> Result<(), Refused> {
        self.send(Event::Input(Input::Space { of: Room::Disk, writable }))
    }

    /// The connection to a node is broken.
    pub fn unreachable(&self, node: NodeId) -> Result<(), Refused> {
        self.send(Event::Input(Input::Unreachable(node)))
    }

    /// How every group of this node stands.
    pub async fn report(&self) -> Vec<GroupReport> {
        let (reply, answer) = oneshot::channel();
        match self.send(Event::Report(reply)) {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Stops the worker and its threads, after the turn in flight.
    pub fn stop(&self) {
        // A worker that is gone has stopped.
        let _gone = self.events.send(Event::Stop);
    }

    fn send(&self, event: Event) -> Result<(), Refused> {
        self.events.send(event).map_err(|_| Refused::NoReplica)
    }
}
