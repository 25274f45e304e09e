//! One group: its replica, the proposals whose outcome somebody awaits, and the reads that wait for an index.
//!
//! An outcome is matched by place *and* term: after a change of leader another entry may stand where ours would have.

use super::effect::{Effect, Leadership, Proposal, Refused, Reply, Source, Ticket};
use super::repair::message::{RepairBody, RepairMessage};
use super::replay::Replay;
use super::snapshot::{Incoming, Install, Outgoing};
use crate::machine::Outcome;
use crate::raft::group_log::Wanted;
use crate::raft::{Broken, MessageKind, ProposeError, Ready, Replica, Role, SnapshotMeta};
use crate::types::{LogEntry, LogId, LogIndex, RaftGroupId, ReplicaId, Term};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A proposal on its way.
#[derive(Debug)]
struct Pending {
    /// The term it was proposed in.
    term: Term,
    /// Who waits.
    ticket: Ticket,
    /// Whose proposals may not overtake it.
    source: Option<Source>,
    /// When its fate is declared unknown; set when the leadership is lost.
    deadline: Option<u64>,
}

/// A linearizable read on its way.
#[derive(Debug)]
struct Read {
    /// Its context within raft-rs, unique for this replica's life.
    number: u64,
    /// Who waits.
    ticket: Ticket,
    /// The index it must see, once confirmed by a majority.
    index: Option<LogIndex>,
    /// When it is given up.
    deadline: u64,
}

/// A question of a replica that does not know what it has promised, until a majority confirms the answer.
#[derive(Debug)]
struct FloorRead {
    /// Its context within raft-rs.
    number: u64,
    /// Who asks.
    to: ReplicaId,
    /// Its own number for the question.
    nonce: u64,
    /// The term in which it was asked.
    term: Term,
    /// Where the log ended.
    last: LogIndex,
    /// When it is given up.
    deadline: u64,
    /// What was committed then, once a majority has confirmed that it leads.
    index: Option<LogIndex>,
}

/// See the module.
pub struct Group {
    /// Its number.
    pub(super) id: RaftGroupId,
    /// The Raft state machine.
    pub replica: Replica,
    /// The newest entry the group's state machine has applied, as reported.
    applied: LogId,
    /// Proposals by the place they were given.
    pending: BTreeMap<LogIndex, Pending>,
    /// Refusals, and fates left open, that a source's sender does not know of yet: until then none of its proposals is
    /// taken. Each was admitted, and is made known as soon as it is answered, so there are no more than that.
    unknown_refusals: BTreeMap<Source, u32>,
    /// When the first of them has waited too long, if any has a deadline.
    first_deadline: Option<u64>,
    /// Reads in order of arrival.
    reads: Vec<Read>,
    /// Questions of replicas that are being repaired: whether this one leads, and where its log ended.
    floors: Vec<FloorRead>,
    /// The next read's number.
    next_read: u64,
    /// What was last published.
    published: Leadership,
    /// A replay read is on its way.
    replaying: Option<Wanted>,
    /// A snapshot on its way to this replica.
    pub(super) incoming: Incoming,
    /// Where the state machine keeps the snapshot that was fetched last.
    pub(super) fetched_generation: u64,
    /// What was committed before that snapshot: as long as it is not durable, the log can't prove more.
    pub(super) commit_before_snapshot: LogIndex,
    /// Followers that were told to fetch a snapshot.
    pub(super) outgoing: Vec<Outgoing>,
    /// A state for followers is being taken.
    building: bool,
    /// The preferred leader of a new group campaigns at every tick until then: the others may not be born yet.
    eager_until: u64,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Group").field("id", &self.id).field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl Group {
    /// A group whose state machine has applied up to `applied`.
    #[must_use]
    pub fn new(id: RaftGroupId, replica: Replica, applied: LogIndex) -> Self {
        Self {
            id,
            replica,
            applied: LogId { index: applied, term: Term(0) },
            pending: BTreeMap::new(),
            unknown_refusals: BTreeMap::new(),
            first_deadline: None,
            reads: Vec::new(),
            floors: Vec::new(),
            next_read: 0,
            published: Leadership::default(),
            replaying: None,
            incoming: Incoming::None,
            fetched_generation: 0,
            commit_before_snapshot: LogIndex(0),
            outgoing: Vec::new(),
            building: false,
            eager_until: 0,
        }
    }

    /// Whether the replica must not be ticked or given messages: committed entries are being read back, or a snapshot
    /// is being made durable.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        self.installing().is_some() || self.replica.is_restoring() || self.replica.replay_wanted().is_some()
    }

    /// Proposals that wait for their outcome.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// The newest entry that the state machine is known to have applied.
    #[must_use]
    pub fn applied_index(&self) -> LogIndex {
        self.applied.index
    }

    /// Proposes all of these or none; but for those whose source has to repeat an earlier one. Returns the payload that
    /// was taken, in bytes.
    pub fn propose(&mut self, proposals: Vec<Proposal>, effects: &mut Vec<Effect>) -> Result<usize, Broken> {
        let undecided = self.undecided_sources();
        let in_turn = |proposal: &Proposal| {
            proposal
                .source
                .is_none_or(|source| !self.unknown_refusals.contains_key(&source) && !undecided.contains(&source))
        };
        let (proposals, overtaking): (Vec<_>, Vec<_>) = proposals.into_iter().partition(in_turn);
        self.refuse(&overtaking, Refused::OutOfTurn, effects);
        if proposals.is_empty() {
            return Ok(0);
        }
        let bytes = proposals.iter().map(Proposal::payload_bytes).sum();
        let commands = proposals.iter().map(|proposal| (proposal.context.clone(), proposal.data.clone())).collect();
        match self.replica.propose(commands)? {
            Ok(first) => {
                for (index, Proposal { ticket, source, .. }) in (first.index.0..).zip(proposals) {
                    let pending = Pending { term: first.term, ticket, source, deadline: None };
                    // An older proposal at the same place lost it: its entry was cut off before this one was appended.
                    if let Some(lost) = self.pending.insert(LogIndex(index), pending) {
                        self.overwritten(&lost, effects);
                    }
                }
                Ok(bytes)
            }
            Err(error) => {
                self.refuse(&proposals, refused(error), effects);
                Ok(0)
            }
        }
    }

    /// Refuses proposals. Later ones of their sources are refused, too, until these refusals are known.
    pub fn refuse(&mut self, proposals: &[Proposal], why: Refused, effects: &mut Vec<Effect>) {
        for proposal in proposals {
            self.hold(proposal.source);
            effects.push(refusal(proposal.ticket, why));
        }
    }

    fn overwritten(&mut self, lost: &Pending, effects: &mut Vec<Effect>) {
        self.hold(lost.source);
        effects.push(refusal(lost.ticket, Refused::Overwritten));
    }

    fn leave_open(&mut self, pending: &Pending, effects: &mut Vec<Effect>) {
        self.hold(pending.source);
        effects.push(Effect::Reply { ticket: pending.ticket, reply: Reply::Undecided });
    }

    fn hold(&mut self, source: Option<Source>) {
        if let Some(source) = source {
            *self.unknown_refusals.entry(source).or_default() += 1;
        }
    }

    /// One refusal is known.
    pub fn refusal_known(&mut self, source: Source) {
        let Some(count) = self.unknown_refusals.get_mut(&source) else { return };
        *count -= 1;
        if *count == 0 {
            self.unknown_refusals.remove(&source);
        }
    }

    /// Who waits for proposals of an office that was lost: they may be refused yet.
    fn undecided_sources(&self) -> BTreeSet<Source> {
        match self.first_deadline {
            None => BTreeSet::new(),
            Some(_) => {
                let undecided = self.pending.values().filter(|pending| pending.deadline.is_some());
                undecided.filter_map(|pending| pending.source).collect()
            }
        }
    }

    /// Asks what a read that begins now must see.
    pub fn read_index(&mut self, ticket: Ticket, deadline: u64, effects: &mut Vec<Effect>) -> Result<(), Broken> {
        let number = self.next_read;
        let context = Bytes::copy_from_slice(&number.to_be_bytes());
        match self.replica.read_index(&context)? {
            Ok(()) => {
                self.next_read += 1;
                self.reads.push(Read { number, ticket, index: None, deadline });
            }
            Err(error) => effects.push(refusal(ticket, refused(error))),
        }
        Ok(())
    }

    /// Lets a majority confirm that this replica leads, for one that is being repaired and has no voice.
    pub(super) fn confirm_floor(&mut self, to: ReplicaId, nonce: u64, deadline: u64) -> Result<(), Broken> {
        let number = self.next_read;
        let (term, last) = (self.replica.term(), self.replica.log().last().index);
        self.floors.retain(|floor| floor.to != to && floor.deadline + self.replica.election_ticks() > deadline);
        if self.replica.read_index(&Bytes::copy_from_slice(&number.to_be_bytes()))?.is_ok() {
            self.next_read += 1;
            self.floors.push(FloorRead { number, to, nonce, term, last, deadline, index: None });
        }
        Ok(())
    }

    /// A majority has confirmed such a question, if `context` is its.
    fn confirm_repair(&mut self, context: &[u8], index: LogIndex) {
        let asked = self.floors.iter_mut().find(|floor| floor.number.to_be_bytes() == context);
        asked.into_iter().for_each(|floor| floor.index = Some(index));
    }

    /// Answers such questions, with members no older than any change that was committed when they were asked.
    fn serve_floors(&mut self, effects: &mut Vec<Effect>) {
        let (group, from, handed) = (self.id, self.replica.id(), self.replica.handed());
        let is_due = |floor: &mut FloorRead| floor.index.is_some_and(|index| index <= handed);
        let due: Vec<_> = self.floors.extract_if(.., is_due).collect();
        for FloorRead { to, nonce, term, last, .. } in due.into_iter().filter(|due| due.term == self.replica.term()) {
            let membership = self.replica.membership().clone();
            let body = RepairBody::Floor { nonce, term, last, membership };
            effects.push(Effect::Repair(RepairMessage { group, from, to, body }));
        }
    }

    /// Whether a state is to be taken now; one that is being taken serves all who ask.
    pub(super) fn begin_build(&mut self) -> bool {
        !std::mem::replace(&mut self.building, true)
    }

    /// The state machine has applied these entries.
    pub fn applied(&mut self, outcomes: Vec<(LogId, Outcome)>, now: u64, effects: &mut Vec<Effect>) {
        for (at, outcome) in outcomes {
            assert!(at.index > self.applied.index, "group {}: {at} applied after {}", self.id, self.applied);
            self.applied = at;
            if let Some(pending) = self.pending.remove(&at.index) {
                if pending.term == at.term {
                    effects.push(Effect::Reply { ticket: pending.ticket, reply: Reply::Applied { at, outcome } });
                } else {
                    self.overwritten(&pending, effects);
                }
            }
        }
        self.serve_reads(effects);
        self.publish(now, effects);
    }

    fn serve_reads(&mut self, effects: &mut Vec<Effect>) {
        let applied = self.applied.index;
        self.reads.retain(|read| match read.index {
            Some(index) if index <= applied => {
                effects.push(Effect::Reply { ticket: read.ticket, reply: Reply::ReadAt(index) });
                false
            }
            _ => true,
        });
    }

    /// Lets one tick pass. Says whether there may be something to take.
    pub fn tick(&mut self, now: u64) -> Result<bool, Broken> {
        let late = self.expire_snapshots(now)?;
        let eager = now < self.eager_until && self.replica.leader().is_none();
        if eager {
            self.replica.campaign()?;
        }
        Ok(self.replica.tick()? || late || eager)
    }

    /// Campaigns now, and at every tick until `until` as long as there is no leader.
    pub fn campaign_eagerly(&mut self, until: u64) -> Result<(), Broken> {
        self.eager_until = until;
        self.replica.campaign()
    }

    /// Gives up what has waited too long. Says whether anything was given up.
    pub fn expire(&mut self, now: u64, effects: &mut Vec<Effect>) -> bool {
        if self.pending.is_empty() && self.reads.is_empty() {
            return false;
        }
        let before = effects.len();
        if self.first_deadline.is_some_and(|deadline| now >= deadline) {
            self.expire_pending(now, effects);
        }
        self.reads.retain(|read| {
            let expired = now >= read.deadline;
            if expired {
                effects.push(refusal(read.ticket, Refused::NotLeader));
            }
            !expired
        });
        effects.len() > before
    }

    fn expire_pending(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let in_time = |(_, pending): &(LogIndex, Pending)| pending.deadline.is_none_or(|deadline| now < deadline);
        let (waiting, late): (_, BTreeMap<_, _>) = std::mem::take(&mut self.pending).into_iter().partition(in_time);
        self.pending = waiting;
        self.first_deadline = self.pending.values().filter_map(|pending| pending.deadline).min();
        late.into_values().for_each(|pending| self.leave_open(&pending, effects));
    }

    /// The group leaves this node: nobody is left waiting.
    pub fn abandon(&mut self, effects: &mut Vec<Effect>) {
        for pending in std::mem::take(&mut self.pending).into_values() {
            effects.push(Effect::Reply { ticket: pending.ticket, reply: Reply::Undecided });
        }
        for read in std::mem::take(&mut self.reads) {
            effects.push(refusal(read.ticket, Refused::NoReplica));
        }
        if self.published != Leadership::default() {
            effects.push(Effect::Publish { group: self.id, leadership: Leadership::default() });
        }
    }

    /// The state machine now is as of `at`: whoever waited for an entry before it can't be told its outcome.
    pub(super) fn restored(&mut self, at: LogId, effects: &mut Vec<Effect>) {
        self.applied = at;
        let later = self.pending.split_off(&at.index.next());
        for pending in std::mem::replace(&mut self.pending, later).into_values() {
            self.leave_open(&pending, effects);
        }
        self.serve_reads(effects);
    }

    /// A state for followers exists.
    pub(super) fn snapshot_built(&mut self, meta: SnapshotMeta) {
        self.building = false;
        self.replica.log_mut().offer_snapshot(meta);
    }

    /// Whether these are the entries that the state machine is to take in next.
    pub fn is_replaying(&self, wanted: Wanted) -> bool {
        self.replaying == Some(wanted)
    }

    /// What the log read for us; `None` when the segments were freed meanwhile, which ends a replay before.
    pub fn entries_read(&mut self, wanted: Wanted, entries: Option<Vec<LogEntry>>) -> Result<(), Broken> {
        if self.is_replaying(wanted) {
            self.replaying = None;
            self.replica.replay(entries.expect("a replay without its entries has ended"));
            return Ok(());
        }
        self.replica.fetched(wanted, entries)
    }

    /// Takes everything the replica wants done, up to entries that must be read back first, and keeps `tail_bytes` of
    /// recent payload in memory.
    pub fn drain(
        &mut self,
        now: u64,
        tail_bytes: usize,
        readies: &mut Vec<Ready>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Broken> {
        while self.installing().is_none() && self.replay() == Replay::Nothing {
            let Some(mut ready) = self.replica.take_ready()? else { break };
            if let Some(meta) = ready.snapshot.take() {
                self.accept_snapshot(meta, &mut ready);
            }
            for message in ready.send_now.iter().filter(|message| message.kind == MessageKind::Snapshot) {
                self.snapshot_progress(message.to, now);
            }
            for (context, index) in &ready.reads {
                self.confirm_read(context, *index);
                self.confirm_repair(context, *index);
            }
            readies.push(ready);
        }
        effects.extend(
            self.replica.take_fetches().into_iter().map(|wanted| Effect::ReadEntries { group: self.id, wanted }),
        );
        if self.replica.log_mut().take_snapshot_request().is_some() && self.begin_build() {
            effects.push(Effect::BuildSnapshot { group: self.id });
        }
        let below = self.replica.evictable_below();
        self.replica.log_mut().evict(below, tail_bytes);
        self.serve_reads(effects);
        self.serve_floors(effects);
        self.publish(now, effects);
        Ok(())
    }

    /// Holds back what the `Ready` wants written and said until the snapshot is durable.
    fn accept_snapshot(&mut self, meta: SnapshotMeta, ready: &mut Ready) {
        assert!(ready.committed.is_empty(), "nothing is committed beyond a snapshot that is not durable");
        self.incoming = Incoming::Installing(Box::new(Install {
            meta,
            generation: self.fetched_generation,
            number: ready.number,
            write: ready.write.take(),
            send_after: std::mem::take(&mut ready.send_after),
        }));
    }

    /// Whether committed entries must come from the disk before the replica goes on.
    pub(super) fn replay(&self) -> Replay {
        match self.replaying {
            Some(_) => Replay::Reading,
            None if self.installing().is_some() || self.replica.holds_replay() => Replay::Nothing,
            None if self.replica.replay_wanted().is_some() => Replay::Wanted,
            None => Replay::Nothing,
        }
    }

    /// Asks for the next piece of them.
    pub(super) fn begin_replay(&mut self) -> Option<Effect> {
        self.replaying = self.replica.replay_wanted();
        self.replaying.map(|wanted| Effect::ReadEntries { group: self.id, wanted })
    }

    fn confirm_read(&mut self, context: &[u8], index: LogIndex) {
        if let Some(read) = self.reads.iter_mut().find(|read| read.number.to_be_bytes() == context) {
            read.index = Some(index);
        }
    }

    /// Publishes who leads when that has changed, and starts the clock of proposals that lost their leader.
    fn publish(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let leads = self.replica.role() == Role::Leader;
        let term = self.replica.term();
        let serving = leads && self.applied.term == term;
        let leadership = Leadership { term, leader: self.replica.leader(), serving };
        if leadership == self.published {
            return;
        }
        self.published = leadership;
        effects.push(Effect::Publish { group: self.id, leadership });
        let deadline = now + self.replica.election_ticks();
        for pending in self.pending.values_mut().filter(|pending| !leads || pending.term != term) {
            pending.deadline.get_or_insert(deadline);
            self.first_deadline.get_or_insert(deadline);
        }
    }
}

fn refused(error: ProposeError) -> Refused {
    match error {
        ProposeError::NotLeader => Refused::NotLeader,
        ProposeError::Busy => Refused::Busy,
    }
}

fn refusal(ticket: Ticket, refused: Refused) -> Effect {
    Effect::Reply { ticket, reply: Reply::Refused(refused) }
}
