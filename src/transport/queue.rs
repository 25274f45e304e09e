//! What waits for one peer: bounded in bytes and in items, never blocking whoever puts something in.
//!
//! What finds no room is dropped and counted: Raft repeats its messages, and a receiver of state or entries asks again.
//! Of announcements only the newest of each group waits. A proposal has an outcome whatever happens: as long as it
//! waits here it certainly did not happen, and once it was handed to the connection nobody knows until the peer
//! answers.

use super::translate::repair::repair_to_wire;
use super::translate::{raft_to_wire, snapshot_to_wire};
use super::{Announcement, ProposalOutcome};
use crate::multiraft::apply::transfer::{SnapshotBody, SnapshotMessage};
use crate::multiraft::core::repair::message::{RepairBody, RepairMessage};
use crate::proto::peer::frame::Body;
use crate::proto::{PEER_FRAME_BYTES_MAX, peer};
use crate::raft::RaftMessage;
use crate::types::{Membership, RaftGroupId};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// Messages that wait together leave together, until they have this many bytes; one larger message still goes.
const BATCH_BYTES: usize = 4 << 20;
/// Messages of a batch, and announcements of a frame. Within the frame's limits.
const BATCH_ITEMS_MAX: usize = 16_384;
/// What a message costs beyond its payload: more than its numbers take on the wire.
const ITEM_OVERHEAD_BYTES: usize = 256;
/// The same for an entry, a snapshot's batch, or a member of a group.
const ELEMENT_OVERHEAD_BYTES: usize = 96;
/// The largest item: with its overhead it fits into a frame.
const ITEM_BYTES_MAX: usize = PEER_FRAME_BYTES_MAX - (1 << 10);
/// Entries of a batch; they are few where they are large. Within the frame's limit.
const BATCH_ENTRIES_MAX: usize = 131_072;
/// Proposals to one peer whose outcome is awaited.
const PROPOSALS_MAX: usize = 256;

/// How much may wait for one peer.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Bytes, overhead included. One larger item still goes when nothing else waits.
    pub bytes_max: usize,
    /// Messages and proposals.
    pub items_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, items_max: 262_144 }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    /// How much may wait.
    limits: QueueLimits,
    /// What waits.
    state: Mutex<State>,
    /// Something was put in.
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In the order they leave.
    items: VecDeque<Item>,
    /// What `items` cost.
    bytes: usize,
    /// Items that found no room, or whose connection broke before they left.
    dropped: u64,
    /// The newest of each group.
    announcements: BTreeMap<RaftGroupId, Announcement>,
    /// Proposals without an outcome, by id.
    proposals: BTreeMap<u64, Asking>,
    /// The next proposal's id. Never starts again, so that a late outcome finds nobody.
    next_proposal: u64,
}

#[derive(Debug)]
enum Item {
    Raft(RaftGroupId, RaftMessage),
    Snapshot(SnapshotMessage),
    Repair(RepairMessage),
    Proposal { id: u64, command: Bytes, timeout: Duration },
}

/// Who waits for a proposal's outcome.
#[derive(Debug)]
struct Asking {
    /// The outcome goes here.
    reply: oneshot::Sender<ProposalOutcome>,
    /// It was handed to the connection: it may happen.
    sent: bool,
}

impl Item {
    fn cost(&self) -> usize {
        let (payload, elements) = match self {
            Self::Raft(_, message) => {
                let members = message.snapshot.as_ref().map_or(0, |meta| members(&meta.membership));
                (message.payload_bytes(), message.entries.len() + members)
            }
            Self::Snapshot(message) => (message.payload_bytes(), batches(message)),
            Self::Repair(message) => (message.payload_bytes(), elements(message)),
            Self::Proposal { command, .. } => (command.len(), 0),
        };
        payload + ITEM_OVERHEAD_BYTES + elements * ELEMENT_OVERHEAD_BYTES
    }
}

fn members(members: &Membership) -> usize {
    members.voters.len() + members.learners.len() + members.voters_outgoing.len() + members.learners_next.len()
}

fn batches(message: &SnapshotMessage) -> usize {
    if let SnapshotBody::Records(chunk) = &message.body { chunk.batches.len() } else { 0 }
}

fn elements(message: &RepairMessage) -> usize {
    match &message.body {
        RepairBody::WantEntries(lost) => lost.anchors.len(),
        RepairBody::Entries { entries, .. } => entries.len(),
        RepairBody::State(meta) => members(&meta.membership),
        RepairBody::Floor { membership, .. } => members(membership),
        _ => 0,
    }
}

impl State {
    fn put(&mut self, item: Item, limits: QueueLimits) -> bool {
        let cost = item.cost();
        let fits = self.items.is_empty() || self.bytes + cost <= limits.bytes_max;
        if cost > ITEM_BYTES_MAX || !fits || self.items.len() >= limits.items_max {
            self.dropped += 1;
            return false;
        }
        self.bytes += cost;
        self.items.push_back(item);
        true
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.cost();
        Some(item)
    }

    /// The messages at the front that go together.
    fn pop_batch(&mut self) -> Vec<(RaftGroupId, RaftMessage)> {
        let (mut messages, mut bytes, mut entries) = (Vec::new(), 0, 0);
        while let Some(Item::Raft(_, next)) = self.items.front() {
            let cost = self.items.front().map_or(0, Item::cost);
            let full = bytes + cost > BATCH_BYTES || entries + next.entries.len() > BATCH_ENTRIES_MAX;
            if messages.len() == BATCH_ITEMS_MAX || (full && !messages.is_empty()) {
                break;
            }
            let Some(Item::Raft(group, message)) = self.pop() else { unreachable!("it was looked at") };
            bytes += cost;
            entries += message.entries.len();
            messages.push((group, message));
        }
        messages
    }
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self { limits, state: Mutex::default(), filled: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts messages in, as far as there is room. Once one found none, those behind it are dropped, too: what arrives
    /// is in order and, until the gap, complete.
    pub fn send(&self, messages: Vec<(RaftGroupId, RaftMessage)>) {
        let mut state = self.state();
        let mut messages = messages.into_iter();
        for (group, message) in messages.by_ref() {
            if !state.put(Item::Raft(group, message), self.limits) {
                break;
            }
        }
        state.dropped += messages.len() as u64;
        drop(state);
        self.filled.notify_one();
    }

    /// Puts something about a state in transit in, if there is room.
    pub fn send_snapshot(&self, message: SnapshotMessage) {
        self.state().put(Item::Snapshot(message), self.limits);
        self.filled.notify_one();
    }

    /// Puts something about a repair in, if there is room.
    pub fn send_repair(&self, message: RepairMessage) {
        self.state().put(Item::Repair(message), self.limits);
        self.filled.notify_one();
    }

    /// Replaces what waits of these groups by what is newer.
    pub fn announce(&self, announcements: &[Announcement]) {
        let mut state = self.state();
        for news in announcements {
            let known = state.announcements.entry(news.group).or_insert(*news);
            if news.term >= known.term {
                *known = *news;
            }
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Puts a proposal in; its id, and where its outcome will be. `None`: there is no room.
    pub fn propose(&self, command: Bytes, timeout: Duration) -> Option<(u64, oneshot::Receiver<ProposalOutcome>)> {
        let mut state = self.state();
        let id = state.next_proposal;
        if state.proposals.len() >= PROPOSALS_MAX || !state.put(Item::Proposal { id, command, timeout }, self.limits) {
            return None;
        }
        state.next_proposal += 1;
        let (reply, outcome) = oneshot::channel();
        state.proposals.insert(id, Asking { reply, sent: false });
        drop(state);
        self.filled.notify_one();
        Some((id, outcome))
    }

    /// Waits no longer for a proposal: what is known of it now.
    pub fn give_up(&self, id: u64) -> ProposalOutcome {
        let mut state = self.state();
        match state.proposals.remove(&id) {
            Some(asking) if !asking.sent => {
                state.withdraw(id);
                ProposalOutcome::NotProposed { leader: None }
            }
            _ => ProposalOutcome::Unknown,
        }
    }

    /// The peer says what became of a proposal.
    pub fn decided(&self, id: u64, outcome: ProposalOutcome) {
        if let Some(asking) = self.state().proposals.remove(&id) {
            // Whoever asked may have gone.
            let _gone = asking.reply.send(outcome);
        }
    }

    /// Forgets everything: what waits would be stale when the peer is back, and would take up memory until then.
    pub fn clear(&self) {
        let mut state = self.state();
        state.dropped += state.items.len() as u64;
        state.items.clear();
        state.bytes = 0;
        state.announcements.clear();
        for asking in std::mem::take(&mut state.proposals).into_values() {
            let unsent = ProposalOutcome::NotProposed { leader: None };
            let _gone = asking.reply.send(if asking.sent { ProposalOutcome::Unknown } else { unsent });
        }
    }

    /// Waits until there may be something to take.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The next frame; `None` when nothing waits.
    pub fn take(&self) -> Option<Body> {
        let mut state = self.state();
        if !state.announcements.is_empty() {
            return Some(state.take_announcements());
        }
        if matches!(state.items.front()?, Item::Raft(..)) {
            let batch = state.pop_batch();
            drop(state);
            let messages = batch.into_iter().map(|(group, message)| raft_to_wire(group, message)).collect();
            return Some(Body::Raft(peer::RaftBatch { messages }));
        }
        match state.pop()? {
            Item::Raft(..) => unreachable!("messages leave in batches"),
            Item::Snapshot(message) => Some(Body::Snapshot(snapshot_to_wire(message))),
            Item::Repair(message) => Some(Body::Repair(repair_to_wire(message))),
            Item::Proposal { id, command, timeout } => {
                let asking = state.proposals.get_mut(&id).expect("a proposal that is given up is withdrawn");
                asking.sent = true;
                let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
                Some(Body::Proposal(peer::ControllerProposal { id, command, timeout_ms }))
            }
        }
    }

    /// Items dropped since the start, and bytes that wait now.
    #[must_use]
    pub fn counts(&self) -> (u64, usize) {
        let state = self.state();
        (state.dropped, state.bytes)
    }
}

impl State {
    fn withdraw(&mut self, proposal: u64) {
        let place = self.items.iter().position(|item| matches!(item, Item::Proposal { id, .. } if *id == proposal));
        if let Some(item) = place.and_then(|place| self.items.remove(place)) {
            self.bytes -= item.cost();
        }
    }

    fn take_announcements(&mut self) -> Body {
        let mut leaders = Vec::new();
        while leaders.len() < BATCH_ITEMS_MAX
            && let Some((_, news)) = self.announcements.pop_first()
        {
            let (group, term) = (news.group.0, news.term.0);
            leaders.push(peer::LeaderAnnouncement { group, term, node: news.node.0 });
        }
        Body::Leaders(peer::LeaderAnnouncements { leaders })
    }
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
