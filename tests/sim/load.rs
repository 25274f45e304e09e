//! How much a node uses of what is bounded, told whenever it is more than its process has ever used.
//!
//! The limits are those that `CoreOptions` promises, and what it says of how they may be exceeded.

use crate::node::Process;
use crate::observe::Observation;
use crate::swarm::Shape;
use crate::watch::Watch;
use crate::world::World;
use ackord::raft::{MessageKind, RaftMessage, Replica, Role};
use ackord::types::{LogEntry, NodeId, RaftGroupId};

impl World {
    /// What changes with every round.
    pub fn tell_load(&mut self, position: usize) {
        let (node, core) = (self.nodes[position].id, &self.shape.core);
        let process = self.nodes[position].process.as_mut().expect("it runs");
        let (queued, unapplied) = (process.core.queued(), process.core.unapplied_bytes());
        let admitted = process.admitted_bytes;
        // Something that is larger than the mailbox passes alone.
        let alone = if process.waiting.len() == 1 { admitted } else { 0 };
        let all = core.admitted_bytes_max;
        process.used(&mut self.watch, (node, "admitted bytes"), admitted, all.max(alone));
        process.used(&mut self.watch, (node, "proposals that wait for the log"), queued.proposed, all.max(alone));
        let (entry, piece) = (largest_batch(&self.shape), core.replica.max_committed_bytes as usize);
        let message = entry.max(core.replica.max_message_bytes as usize);
        let limit = core.queued_bytes_max + message;
        process.used(&mut self.watch, (node, "peers' entries that wait for the log"), queued.brought, limit);
        // Each piece that was asked for may be one entry that is larger.
        let pieces = process.core.group_ids().count().min(core.unapplied_bytes_max / piece + 1);
        let replays = piece + pieces * entry.saturating_sub(piece);
        // What each of the others has admitted may be here, and be committed at once; so may what still waits for the
        // log, of which whoever was away is told with the entries that they are committed.
        let led = ((self.shape.nodes as usize - 1) * all).max(limit);
        let waiting = core.unapplied_bytes_max + all + all.max(replays) + process.uncommitted().max(led);
        process.used(&mut self.watch, (node, "bytes that wait for state machines"), unapplied, waiting);
        process.pinned_max = all.max(alone) + limit + waiting;
    }

    /// What takes longer to find out.
    pub fn tell_tick_load(&mut self, position: usize) {
        let (node, core) = (self.nodes[position].id, &self.shape.core);
        let Some(process) = self.nodes[position].process.as_mut() else { return };
        let all = core.admitted_bytes_max;
        let pending = process.core.group_ids().map(|group| process.core.pending_count(group)).max().unwrap_or_default();
        let tails = process.core.group_ids().filter_map(|group| process.core.replica(group)).map(|replica| {
            let log = replica.log();
            // What is not durable yet, or not handed over, stays.
            if log.tail_first() < replica.evictable_below() { log.tail_bytes() } else { 0 }
        });
        let tail = tails.max().unwrap_or_default();
        // They are looked at when so much was written since the last time, and what was pinned then stayed.
        let turn = core.turn_bytes_max + largest_batch(&self.shape).max(core.replica.max_message_bytes as usize);
        let together_max = core.tail_bytes_max.max(process.pinned_max) + core.tail_bytes_max / 16 + turn;
        let replicas = || process.core.group_ids().filter_map(|group| process.core.replica(group));
        let whole: usize = replicas().map(|replica| replica.log().tail_bytes()).sum();
        // What is pinned takes long to find out, and mostly all of it is little enough.
        let together = if whole <= together_max { whole } else { replicas().map(evictable).sum() };
        process.used(&mut self.watch, (node, "bytes of all tails together"), together, together_max);
        process.used(&mut self.watch, (node, "proposals of a group"), pending, (all / 256).max(1));
        process.used(&mut self.watch, (node, "bytes of a group's tail"), tail, core.tail_bytes_per_group);
    }

    /// What a worker's round begins with: which followers are heard of.
    pub fn note_arrived(process: &mut Process, messages: &[(RaftGroupId, RaftMessage)]) {
        for (group, message) in messages {
            if message.kind == MessageKind::AppendResponse {
                process.answered.push((*group, message.from));
            }
        }
    }

    /// Where leaders stand with followers that have answered.
    pub fn tell_progress(&mut self, position: usize) {
        let node = self.nodes[position].id;
        let process = self.nodes[position].process.as_mut().expect("it runs");
        for (group, follower) in std::mem::take(&mut process.answered) {
            let replica = process.core.replica(group);
            if let Some((matched, next)) = replica.and_then(|replica| replica.progress_of(follower)) {
                self.watch.tell(&Observation::Progress { node, group, follower, matched, next });
            }
        }
    }
}

/// What a replica's tail holds beyond what is not durable yet, or not handed over.
fn evictable(replica: &Replica) -> usize {
    let (log, below) = (replica.log(), replica.evictable_below());
    if log.tail_first() >= below || below > log.last().index.next() {
        return 0;
    }
    let pinned = log.pinned(below, log.last().index.next());
    log.tail_bytes() - pinned.iter().map(LogEntry::payload_bytes).sum::<usize>()
}

/// More than one batch takes.
fn largest_batch(shape: &Shape) -> usize {
    4 * shape.load.record_bytes.1 as usize + (16 << 10)
}

impl Process {
    /// The most that was ever taken from peers, and not committed.
    fn uncommitted(&mut self) -> usize {
        let followers = self.core.group_ids().filter_map(|group| self.core.replica(group));
        let followers = followers.filter(|replica| replica.role() != Role::Leader);
        let now = followers.map(|replica| {
            let (log, first) = (replica.log(), replica.handed().next());
            let entries = if log.in_tail(first) { log.pinned(first, log.last().index.next()) } else { Vec::new() };
            entries.iter().map(LogEntry::payload_bytes).sum::<usize>()
        });
        self.uncommitted_max = self.uncommitted_max.max(now.sum());
        self.uncommitted_max
    }

    fn used(&mut self, watch: &mut Watch, (node, name): (NodeId, &'static str), used: usize, limit: usize) {
        let peak = self.peaks.entry(name).or_default();
        if used > *peak {
            *peak = used;
            watch.tell(&Observation::Load { node, name, used, limit });
        }
    }
}
