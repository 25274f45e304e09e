//! The waist of the node: every group's Raft replica, driven by [`Input`]s and answering with [`Effect`]s.
//!
//! The core decides; its driver does. It has no clock (ticks are inputs), no disk, no network and no thread, and it
//! never waits: what takes time is an effect, whose completion comes back as an input, late and in any order across
//! kinds. Whoever replays the same inputs gets the same effects.
//!
//! One turn of the log is in flight at a time. What groups want written meanwhile queues up and becomes the next turn:
//! that is group commit, without a timer. Messages that promise something durable leave in turn order, after their
//! turn.
//!
//! * [`effect`]: the vocabulary of the waist.
//! * [`group`]: one group: its replica, the proposals and reads that wait on it.
//! * [`membership`]: how a group gets the members it is to have.
//! * [`options`]: the limits.
//! * [`repair`]: how a replica that lost something is made whole by its peers.
//! * [`replay`]: whose committed entries are read back from the log next.
//! * `report`: what can be seen of it from outside.
//! * [`snapshot`]: how a replica that fell behind the log gets the state instead.
//! * [`turn`]: what waits for the log, and what leaves once it is durable.

pub mod effect;
pub mod group;
pub mod membership;
pub mod options;
pub mod repair;
pub mod replay;
mod report;
pub mod snapshot;
pub mod turn;

use crate::raft::group_log::Wanted;
use crate::raft::{Broken, MessageKind, RaftMessage};
use crate::types::{
    CONTROLLER_GROUP, HardState, LogEntry, LogId, LogIndex, Membership, NodeId, RaftGroupId, ReplicaId,
};
use crate::wal::{GroupRecovery, GroupWrite, LogChange};
use effect::{Effect, Input, Proposal, ReadFailure, Refused, Reply, Room, Ticket};
use group::Group;
pub use options::{CoreOptions, PROPOSAL_OVERHEAD_BYTES};
use repair::{Cause, Repair, Serving, Steps};
use replay::Replays;
use std::collections::{BTreeMap, BTreeSet};
use turn::{Done, Payload, Then, TurnQueue};

/// The entry that every group is born with: index 1 of term 1, committed, with the first members. A replica that joins
/// later starts from nothing and gets a snapshot; replayed from index 1, a log would miss the first members.
pub const BIRTH: LogId = LogId::new(1, 1);

/// What a turn takes in the log at least: turns begin at blocks (`wal`).
const TURN_BYTES_MIN: usize = 4 << 10;

/// One group as it stands when the node starts: what the log remembers, and what the state machine has.
#[derive(Clone, Debug)]
pub struct GroupStart {
    /// The group.
    pub group: RaftGroupId,
    /// Who this node is in it.
    pub replica: ReplicaId,
    /// The log's side.
    pub recovery: GroupRecovery,
    /// The state machine's side: the newest entry whose effects it has.
    pub applied: LogId,
    /// The members as of `applied`.
    pub membership: Membership,
    /// Why the state machine can't be used, if it can't: a peer's is to take its place.
    pub state_damage: Option<String>,
    /// The log does not know the group, and may have forgotten it: then it may have promised anything.
    pub forgotten: bool,
}

/// A group that takes part, or one that must not.
#[derive(Debug)]
enum Slot {
    /// Takes part.
    Live(Box<Group>),
    /// Keeps its promises by silence until it is repaired.
    Quarantined(Box<Repair>),
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    /// Limits.
    options: CoreOptions,
    /// Every group of this node.
    groups: BTreeMap<RaftGroupId, Slot>,
    /// Groups that may have something to do.
    touched: BTreeSet<RaftGroupId>,
    /// What waits for the log.
    queue: TurnQueue,
    /// Ticks since the start.
    now: u64,
    /// When the turn in flight was handed to the log.
    turn_started: u64,
    /// Payload handed to state machines since the last flush began, and a block for each turn of the log.
    unflushed_bytes: usize,
    /// Payload taken in since the tails in memory were last looked at.
    unbounded_bytes: usize,
    /// A flush is running.
    flushing: bool,
    /// Groups whose states were lost since that flush began: it says nothing of what takes their place.
    lost_while_flushing: BTreeSet<RaftGroupId>,
    /// A flush would give space back.
    flush_wanted: bool,
    /// When the last flush began.
    flush_started: u64,
    /// Payload handed to state machines and not applied yet, of all groups, in bytes.
    unapplied_bytes: usize,
    /// Whose committed entries are read back from the log.
    replays: Replays,
    /// Where there is no room for new entries.
    full: BTreeSet<Room>,
    /// What is being done to repair other nodes' replicas.
    serving: Serving,
    /// Which replica of a group is here, and every replica that the group has or is to have, as the controller said
    /// last.
    planned: BTreeMap<RaftGroupId, (ReplicaId, Membership)>,
    /// Repairs begun here.
    attempts: u64,
    /// Effects not taken yet, but for messages.
    effects: Vec<Effect>,
    /// Messages not taken yet, by node: one frame per peer and poll.
    outbox: BTreeMap<NodeId, Vec<(RaftGroupId, RaftMessage)>>,
}

impl Core {
    /// The core of a node with these groups.
    #[must_use]
    pub fn new(options: CoreOptions, groups: Vec<GroupStart>) -> Self {
        let mut core = Self {
            queue: TurnQueue::new(options.turn_bytes_max),
            options,
            groups: BTreeMap::new(),
            touched: BTreeSet::new(),
            now: 0,
            turn_started: 0,
            unflushed_bytes: 0,
            unbounded_bytes: 0,
            flushing: false,
            lost_while_flushing: BTreeSet::new(),
            flush_wanted: false,
            flush_started: 0,
            unapplied_bytes: 0,
            replays: Replays::default(),
            full: BTreeSet::new(),
            serving: Serving::default(),
            planned: BTreeMap::new(),
            attempts: 0,
            effects: Vec::new(),
            outbox: BTreeMap::new(),
        };
        let mut released = Vec::new();
        for start in groups {
            let (group, needed) = (start.group, start.applied.index.next());
            let has_state = start.state_damage.is_none() && start.applied.index >= start.recovery.start.index;
            let is_empty = start.recovery.last == start.recovery.start;
            core.add(start);
            if has_state && !is_empty {
                released.push((group, needed));
            }
        }
        if !released.is_empty() {
            // The log may have been told more of a state that was lost since.
            core.effects.push(Effect::Release(released));
        }
        core
    }

    fn add(&mut self, start: GroupStart) {
        let group = start.group;
        let slot = self.open(start, None, None);
        if let Slot::Quarantined(repair) = &slot {
            self.effects.push(Effect::Quarantined { group, reason: repair.reason().to_owned() });
        }
        self.groups.insert(group, slot);
        self.touched.insert(group);
    }

    /// Takes in one event. Effects are taken with `poll`, after any number of inputs.
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::Tick => self.tick(),
            Input::Messages(messages) => {
                for (group, message) in messages {
                    self.receive(group, message);
                }
            }
            Input::Propose { group, proposals } => self.propose(group, proposals),
            Input::RefusalKnown { group, source } => self.with_group(group, |group, _| {
                group.refusal_known(source);
                Ok(())
            }),
            Input::ReadIndex { group, ticket } => self.read_index(group, ticket),
            Input::Appended => {
                let done = self.queue.complete();
                self.finish(done);
            }
            Input::Applied { group, outcomes, bytes } => {
                let now = self.now;
                self.unapplied_bytes -= bytes;
                self.with_group(group, |group, effects| {
                    group.applied(outcomes, now, effects);
                    Ok(())
                });
            }
            Input::ApplyFailed { group, reason, bytes } => {
                self.unapplied_bytes -= bytes;
                self.state_failed(group, &reason);
                self.quarantine(group, reason, Some(Cause::State), None);
            }
            Input::FlushWanted => self.flush_wanted = true,
            Input::Flushed { applied } => {
                self.flushing = false;
                let release = |(group, index): &(RaftGroupId, LogIndex)| (*group, index.next());
                let lost = std::mem::take(&mut self.lost_while_flushing);
                let is_there = |(group, _): &&(RaftGroupId, LogIndex)| !lost.contains(group);
                let released = applied.iter().filter(is_there).map(release).collect();
                self.effects.push(Effect::Release(released));
                applied.into_iter().for_each(|(group, index)| self.look_behind_flush(group, index));
            }
            Input::EntriesRead { group, wanted, result } => self.entries_read(group, wanted, result),
            Input::SnapshotBuilt { group, meta } => {
                self.offer_built(group, &meta);
                self.with_group(group, |group, _| {
                    group.snapshot_built(meta);
                    Ok(())
                });
            }
            Input::SnapshotPulled { group, by } => self.snapshot_pulled(group, by),
            Input::SnapshotFetched { group, at, generation } => {
                self.with_group(group, |group, _| group.snapshot_fetched(at, generation));
                self.with_repair(group, |repair, steps| repair.fetched(at, generation, steps));
            }
            Input::SnapshotInstalled { group, at } => self.snapshot_installed(group, at),
            Input::Repair(message) => self.hear_of_repair(message),
            Input::Examined { group, recovery, state } => self.examined(group, recovery, state),
            Input::Adopt { group, replica, membership } => self.adopt(group, replica, membership),
            Input::Replicas { group, replica, membership } => self.learn_replicas(group, replica, membership),
            Input::Create { group, replica, membership, preferred } => {
                self.create(group, replica, membership, preferred);
            }
            Input::Remove { group } => self.remove(group),
            Input::ChangeMembers { group, wanted } => self.change_members(group, &wanted),
            Input::TransferLeader { group, to } => self.with_group(group, |group, _| group.replica.transfer_leader(to)),
            Input::Space { of, writable } => self.take_space(of, writable),
            Input::Unreachable(node) => self.unreachable(node),
        }
    }

    /// Takes everything that is to be done now.
    pub fn poll(&mut self) -> Vec<Effect> {
        while !self.touched.is_empty() {
            for id in std::mem::take(&mut self.touched) {
                self.drain(id);
            }
            let done = self.queue.take_without_write(self.options.omit_turn_order);
            self.finish(done);
        }
        self.begin_replays();
        self.start_turn();
        self.flush_if_due();
        let mut effects = std::mem::take(&mut self.effects);
        let outbox = std::mem::take(&mut self.outbox);
        let outbox = outbox.into_iter().filter(|(_, messages)| !messages.is_empty());
        effects.extend(outbox.map(|(to, messages)| Effect::Send { to, messages }));
        effects
    }

    /// Runs `act` on a live group; a broken replica is quarantined, an unknown or quarantined group ignored.
    fn with_group(&mut self, id: RaftGroupId, act: impl FnOnce(&mut Group, &mut Vec<Effect>) -> Result<(), Broken>) {
        let Some(Slot::Live(group)) = self.groups.get_mut(&id) else { return };
        let result = act(group, &mut self.effects);
        self.touched.insert(id);
        if let Err(Broken(reason)) = result {
            self.quarantine(id, reason, Some(Cause::Promises), None);
        }
    }

    fn snapshot_pulled(&mut self, id: RaftGroupId, by: ReplicaId) {
        let now = self.now;
        self.with_group(id, |group, _| {
            group.snapshot_progress(by, now);
            Ok(())
        });
    }

    fn is_replaying(&self, id: RaftGroupId, wanted: Wanted) -> bool {
        matches!(self.groups.get(&id), Some(Slot::Live(group)) if group.is_replaying(wanted))
    }

    fn entries_read(&mut self, id: RaftGroupId, wanted: Wanted, result: Result<Vec<LogEntry>, ReadFailure>) {
        self.pass_on_read(id, wanted, &result);
        match result {
            Ok(entries) => self.with_group(id, |group, _| group.entries_read(wanted, Some(entries))),
            Err(ReadFailure::Released { .. }) if self.is_replaying(id, wanted) => {
                // Its promises are whole; its state is from before what the log still has.
                let reason = format!("entry {} was freed before it was applied", wanted.low);
                self.quarantine(id, reason, Some(Cause::State), None);
            }
            Err(ReadFailure::Released { first }) => self.with_group(id, |group, _| {
                group.replica.log_mut().advance_start(first.previous());
                group.entries_read(wanted, None)
            }),
            Err(ReadFailure::Damaged { first, last, reason }) => {
                self.quarantine(id, reason, None, Some((first, last)));
            }
        }
    }

    /// At most one tick per group and call. While the log has been stuck for an election timeout nothing ticks: a
    /// leader that cannot write falls silent, so that another one leads.
    fn tick(&mut self) {
        self.now += 1;
        let election_ticks = u64::from(self.options.replica.election_ticks);
        let stuck = self.queue.in_flight() && self.now - self.turn_started > election_ticks;
        let (mut broken, mut steps) = (Vec::new(), Steps::default());
        for (id, slot) in &mut self.groups {
            let group = match slot {
                Slot::Live(group) => group,
                Slot::Quarantined(repair) => {
                    repair.tick(self.now, election_ticks, &mut steps);
                    continue;
                }
            };
            if group.expire(self.now, &mut self.effects) {
                self.touched.insert(*id);
            }
            group.fetch_again(self.now, &mut self.effects);
            if stuck || group.is_gated() {
                continue;
            }
            match group.tick(self.now) {
                Ok(true) => {
                    self.touched.insert(*id);
                }
                Ok(false) => {}
                Err(Broken(reason)) => broken.push((*id, reason)),
            }
        }
        for (id, reason) in broken {
            self.quarantine(id, reason, Some(Cause::Promises), None);
        }
        self.take_steps(steps);
    }

    /// Entries are dropped, not queued, beyond the limits: Raft sends them again.
    fn receive(&mut self, id: RaftGroupId, message: RaftMessage) {
        let Some(Slot::Live(group)) = self.groups.get(&id) else { return };
        if group.is_gated() {
            return;
        }
        if !message.entries.is_empty() {
            if group.is_fetching() || !self.full.is_empty() || self.is_behind() {
                return;
            }
            let brought = message.entries.iter().map(LogEntry::payload_bytes).sum();
            self.queue.hold(id, Payload { brought, ..Payload::default() });
        }
        let now = self.now;
        self.with_group(id, |group, effects| {
            if message.kind == MessageKind::Snapshot {
                return group.snapshot_offered(message, now, effects);
            }
            group.replica.step(message)
        });
    }

    fn propose(&mut self, id: RaftGroupId, proposals: Vec<Proposal>) {
        if !matches!(self.groups.get(&id), Some(Slot::Live(_))) {
            let refused = Reply::Refused(Refused::NoReplica);
            let replies = proposals.iter().map(|proposal| (proposal.ticket, refused.clone()));
            self.effects.extend(replies.map(|(ticket, reply)| Effect::Reply { ticket, reply }));
            return;
        }
        let bytes = proposals.iter().map(Proposal::payload_bytes).sum();
        let has_space = self.full.is_empty();
        let has_room = self.options.takes_proposals(self.queue.payload().proposed, bytes);
        let pending_max = self.options.pending_proposals_max();
        let mut taken = Payload::default();
        self.with_group(id, |group, effects| {
            let is_one_too_many = || group.pending_count() + proposals.len() > pending_max;
            let refused = match has_space {
                false => Some(Refused::NoSpace),
                true => (!has_room || is_one_too_many()).then_some(Refused::Busy),
            };
            match refused {
                Some(refused) => group.refuse(&proposals, refused, effects),
                None => taken.proposed = group.propose(proposals, effects)?,
            }
            Ok(())
        });
        self.queue.hold(id, taken);
    }

    fn read_index(&mut self, id: RaftGroupId, ticket: Ticket) {
        if !matches!(self.groups.get(&id), Some(Slot::Live(_))) {
            self.effects.push(Effect::Reply { ticket, reply: Reply::Refused(Refused::NoReplica) });
            return;
        }
        let deadline = self.now + u64::from(self.options.replica.election_ticks);
        self.with_group(id, |group, effects| group.read_index(ticket, deadline, effects));
    }

    /// These are durable, or had nothing to make durable and nothing to wait for.
    fn finish(&mut self, done: Vec<Done>) {
        for done in done {
            if let Some(number) = done.ready {
                self.with_group(done.group, |group, _| group.replica.persisted(number));
            }
            match done.then {
                Then::Nothing => {}
                Then::Install(at) => self.install(done.group, at),
                Then::Examine => self.examine_again(done.group),
                Then::Removed => self.effects.push(Effect::Removed { group: done.group }),
            }
            // A quarantined group promises nothing more, not even what it had already written.
            if matches!(self.groups.get(&done.group), Some(Slot::Live(_))) {
                self.post(done.group, done.send_after);
            }
        }
    }

    fn install(&mut self, id: RaftGroupId, at: LogId) {
        let group = match self.groups.get(&id) {
            Some(Slot::Live(group)) => group,
            Some(Slot::Quarantined(repair)) => return self.effects.extend(repair.switch(at)),
            None => return,
        };
        let Some(install) = group.installing().filter(|install| install.meta.at == at) else { return };
        let (meta, generation) = (install.meta.clone(), install.generation);
        self.effects.push(Effect::InstallSnapshot { group: id, meta, generation });
    }

    fn snapshot_installed(&mut self, id: RaftGroupId, at: LogId) {
        self.with_repair(id, |repair, steps| repair.switched(at, steps));
        let Some(Slot::Live(group)) = self.groups.get_mut(&id) else { return };
        let Some((write, install)) = group.snapshot_installed(at, &mut self.effects) else { return };
        self.queue.push_change(write, Then::Nothing);
        self.queue.push_ready(id, install.number, install.write, install.send_after);
        self.touched.insert(id);
    }

    /// The driver has made the state machine durable before it calls; a crash in between leaves a state machine that
    /// the next creation finds.
    fn create(&mut self, id: RaftGroupId, replica: ReplicaId, membership: Membership, preferred: bool) {
        if self.groups.contains_key(&id) {
            return;
        }
        // A replica that joins later starts before everything: not even the group's birth is known to it.
        let start = if membership.is_joining() { LogId::default() } else { BIRTH };
        let hard_state = HardState { term: start.term, vote: None, commit: start.index };
        self.queue.push_change(GroupWrite { group: id, hard_state, change: LogChange::Born { start } }, Then::Nothing);
        let recovery = GroupRecovery { hard_state, start, last: start, ..GroupRecovery::default() };
        let (applied, state_damage, forgotten) = (start, None, false);
        self.add(GroupStart { group: id, replica, recovery, applied, membership, state_damage, forgotten });
        if preferred {
            let until = self.now + u64::from(self.options.replica.election_ticks);
            self.with_group(id, |group, _| group.campaign_eagerly(until));
        }
    }

    fn remove(&mut self, id: RaftGroupId) {
        assert!(id != CONTROLLER_GROUP, "the controller's group never ends: the cluster could not be changed any more");
        self.planned.remove(&id);
        let Some(slot) = self.groups.remove(&id) else { return };
        self.forget(id);
        let mut hard_state = HardState::default();
        if let Slot::Live(mut group) = slot {
            group.abandon(&mut self.effects);
            hard_state = group.replica.hard_state();
        }
        self.queue.push_change(GroupWrite { group: id, hard_state, change: LogChange::Tombstone }, Then::Removed);
    }

    fn take_space(&mut self, of: Room, writable: bool) {
        if writable {
            self.full.remove(&of);
        } else {
            self.full.insert(of);
        }
    }

    fn unreachable(&mut self, node: NodeId) {
        let ids: Vec<_> = self.groups.keys().copied().collect();
        for id in ids {
            self.with_group(id, |group, _| {
                let members = group.replica.membership();
                let there: Vec<_> = members
                    .voters
                    .iter()
                    .chain(&members.learners)
                    .filter(|member| member.node() == node)
                    .copied()
                    .collect();
                there.into_iter().try_for_each(|member| group.replica.report_unreachable(member))
            });
        }
    }

    /// Takes everything out of one group: writes into the queue, messages into the outbox, entries to the applier.
    fn drain(&mut self, id: RaftGroupId) {
        let Some(Slot::Live(group)) = self.groups.get_mut(&id) else { return };
        let mut readies = Vec::new();
        let tail_bytes = self.options.tail_bytes_per_group;
        if let Err(Broken(reason)) = group.drain(self.now, tail_bytes, &mut readies, &mut self.effects) {
            return self.quarantine(id, reason, Some(Cause::Promises), None);
        }
        self.replays.note(id, group.replay());
        let (mut announcement, gives_out_all) = (group.announcement(), !group.is_gated());
        for ready in readies {
            self.post(id, ready.send_now);
            if let Some((_, write, at)) = announcement.take_if(|(number, ..)| *number == ready.number) {
                self.queue.push_change(write, Then::Install(at));
                continue;
            }
            let bytes: usize = ready.committed.iter().map(LogEntry::payload_bytes).sum();
            self.unflushed_bytes += bytes;
            self.unapplied_bytes += bytes;
            if !ready.committed.is_empty() {
                let (entries, memberships) = (ready.committed, ready.memberships);
                self.effects.push(Effect::Apply { group: id, entries, memberships });
            }
            self.queue.push_ready(id, ready.number, ready.write, ready.send_after);
        }
        if gives_out_all {
            self.queue.let_go(id);
        }
    }

    fn post(&mut self, group: RaftGroupId, messages: Vec<RaftMessage>) {
        for message in messages {
            self.outbox.entry(message.to.node()).or_default().push((group, message));
        }
    }

    fn start_turn(&mut self) {
        if let Some(turn) = self.queue.start() {
            self.turn_started = self.now;
            // Every turn takes a block of the log, however little is in it: log that is never flushed is never freed.
            self.unflushed_bytes += TURN_BYTES_MIN;
            self.unbounded_bytes += self.queue.flying_bytes();
            self.effects.push(Effect::Append(turn));
            if self.unbounded_bytes >= self.options.tail_bytes_max / 16 {
                self.unbounded_bytes = 0;
                self.bound_memory();
            }
        }
    }

    /// Over the node's budget, idle groups give back their whole tails; pinned entries stay.
    fn bound_memory(&mut self) {
        let live = |slot: &Slot| match slot {
            Slot::Live(group) => group.replica.log().tail_bytes(),
            Slot::Quarantined(_) => 0,
        };
        if self.groups.values().map(live).sum::<usize>() <= self.options.tail_bytes_max {
            return;
        }
        for slot in self.groups.values_mut() {
            let Slot::Live(group) = slot else { continue };
            let below = group.replica.evictable_below();
            group.replica.log_mut().evict(below, 0);
        }
    }

    fn flush_if_due(&mut self) {
        let wanted = self.flush_wanted && self.now - self.flush_started >= self.options.space_flush_ticks;
        if !self.flushing && (wanted || self.unflushed_bytes >= self.options.flush_after_bytes) {
            self.flushing = true;
            self.flush_wanted = false;
            self.flush_started = self.now;
            self.unflushed_bytes = 0;
            self.effects.push(Effect::Flush);
        }
    }
}

#[cfg(test)]
#[path = "core/tests.rs"]
mod tests;
