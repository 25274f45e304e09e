//! How a replica that lost something is made whole by its peers, without ever voting or acknowledging past a hole
//! (Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage", FAST '18).
//!
//! A damaged replica is none of its group: it has no Raft state machine, says nothing and promises nothing, so that
//! whatever it has forgotten can't be broken. It comes back when its log holds, durably, all that it has promised, or
//! something at least as strong:
//!
//! * **Entries are lost, and it is known which.** A peer whose log holds an entry that came after them holds the lost
//!   ones, too (log matching). Peers that are damaged elsewhere can give them as well, so a group whose majority is
//!   damaged, each in another place, repairs itself before it has a leader.
//! * **The state machine is lost, or nobody has the entries.** A peer's state takes the place of both, if it is as of
//!   an entry behind everything that is lost: up to there everything is decided. What the log holds beyond it stays, so
//!   no leader is needed, and the group may have none without this replica. If its last entries are among the lost
//!   ones, a state as of the last one promised is needed; a leader whose log is shorter writes empty entries until it
//!   is not.
//! * **What was promised is not known:** terms, votes or entries may be missing. Every replica says its term; the
//!   leader lets a majority confirm that it leads, which can't include the one that asks, because that one is silent.
//!   Let the leader's log end at `last` when it was asked. Any majority that ever counted a promise of ours has a
//!   member in the one that confirmed. So whatever was committed with our help is in that log; whatever else we had
//!   acknowledged can't be committed any more, except by that leader, in that log, up to `last`; and no vote of ours in
//!   a term above all that were said is on its way to anybody. A state as of `last` or later, and never to vote in a
//!   term up to the highest one said, is therefore at least as much as was promised. It takes answers of all voters:
//!   one that stays away may be a candidate with our vote.
//!
//! If nobody can help, the replica stays as it is and says what it waits for. Nothing is given up: its bytes are kept.
//!
//! * [`message`]: what is said.
//! * `drive`: how it comes into the core.
//! * `serve`: what the others answer.
//! * `state`: how a peer's state takes the place of what is lost.

mod drive;
pub mod message;
mod serve;
mod state;

use super::GroupStart;
use super::effect::Effect;
use super::turn::Then;
use crate::raft::SnapshotMeta;
use crate::types::{LogEntry, LogId, LogIndex, Membership, RaftGroupId, ReplicaId, Term};
use crate::wal::{GroupRecovery, GroupWrite, Hole, LogChange};
use message::{ANCHORS_MAX, Lack, Lost, RepairBody, RepairMessage};
pub(super) use serve::Serving;
use std::collections::BTreeMap;

/// What is wrong with a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Entries of the log are lost, and it is known which.
    Entries,
    /// The state machine can't go on from where it is.
    State,
    /// It is not known what was promised.
    Promises,
}

/// How far a repair is.
#[derive(Debug)]
enum Stage {
    /// The driver looks at the log and the state machine.
    Examining,
    /// Peers are asked for the entries of the first hole.
    Entries,
    /// Peers are asked what may have been promised to them.
    Floor(Floor),
    /// Peers are asked for a state.
    State { floor: Floor, fetching: Option<(ReplicaId, SnapshotMeta)> },
    /// A state is being switched to; the log goes on from it, or begins anew behind it.
    Installing { floor: Floor, meta: SnapshotMeta, generation: u64, goes_on: bool },
    /// Something is on its way to the disk.
    Writing,
}

/// What a state must be as of, and what is promised with it.
#[derive(Clone, Debug, Default)]
struct Floor {
    /// The least index.
    at_least: LogIndex,
    /// What every replica has said of its term, if promises are not known.
    terms: BTreeMap<ReplicaId, Term>,
    /// The leader's term and members, if promises are not known and it has said where its log ends.
    led: Option<(Term, Membership)>,
}

/// What a peer has said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// It can't give entries.
    Lacks(Lack),
    /// Its state ends here.
    StateAt(LogIndex),
    /// Its state knows nothing of the replica that asks.
    StateOfOthers,
}

/// What a step wants done.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Effects.
    pub effects: Vec<Effect>,
    /// Writes, and what follows when each is durable.
    pub writes: Vec<(GroupWrite, Then)>,
}

/// One replica that is being repaired.
#[derive(Debug)]
pub(super) struct Repair {
    /// The group.
    id: RaftGroupId,
    /// This replica.
    own: ReplicaId,
    /// Why it takes no part: a sentence for the operator.
    reason: String,
    /// What is wrong beyond what log and state machine show by themselves.
    known: Option<Cause>,
    /// The log, as it was found last; nothing if it does not know the group.
    recovery: Option<GroupRecovery>,
    /// The state machine's entry, if there is one.
    applied: Option<LogId>,
    /// The members as far as they are known here.
    membership: Membership,
    /// Every replica that the group has or is to have, as the controller said last. Those known here may all have been
    /// replaced.
    planned: Membership,
    /// Who leads, as peers said last: it may be none of them.
    leader: Option<ReplicaId>,
    /// Who has given something last, and is asked first.
    helper: Option<ReplicaId>,
    /// See the type.
    stage: Stage,
    /// What peers have said since the last progress.
    said: BTreeMap<ReplicaId, Said>,
    /// Questions asked since the last progress.
    asked: u64,
    /// Distinguishes answers to this attempt from others.
    nonce: u64,
    /// When to ask again, in ticks.
    due: u64,
    /// What was last shown to the operator.
    shown: String,
}

impl Repair {
    /// A replica that has to be looked at.
    pub fn new(id: RaftGroupId, own: ReplicaId, membership: Membership, reason: String, known: Option<Cause>) -> Self {
        Self {
            id,
            own,
            reason,
            known,
            recovery: None,
            applied: None,
            membership,
            planned: Membership::default(),
            leader: None,
            helper: None,
            stage: Stage::Examining,
            said: BTreeMap::new(),
            asked: 0,
            nonce: 0,
            due: 0,
            shown: String::new(),
        }
    }

    /// Why it takes no part.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// This replica.
    pub fn own(&self) -> ReplicaId {
        self.own
    }

    /// The term that it is known to have been in.
    fn term(&self) -> Term {
        self.recovery.as_ref().map_or(Term(0), |recovery| recovery.hard_state.term)
    }

    /// The controller says who may be asked, and who this is.
    pub fn learn_members(&mut self, own: ReplicaId, planned: Membership) {
        if self.own.is_unknown() {
            self.own = own;
        }
        if self.own == own && self.planned != planned {
            self.planned = planned;
            self.due = 0;
        }
    }

    /// Decides what to do from what the driver has found.
    pub fn plan(&mut self, start: GroupStart, cause: Cause, reason: String, nonce: u64) {
        self.reason = reason;
        self.applied = Some(start.applied).filter(|_| start.state_damage.is_none());
        // A state from before it, or anybody else, had joined knows only the replica itself.
        if start.membership.voters.iter().any(|voter| *voter != self.own) || self.membership.voters.is_empty() {
            self.membership = start.membership;
        }
        let forgotten = start.forgotten;
        self.recovery = Some(start.recovery).filter(|_| !forgotten);
        self.nonce = nonce;
        self.stage = match cause {
            Cause::Entries => Stage::Entries,
            Cause::State => self.behind_what_is_lost(),
            Cause::Promises => Stage::Floor(Floor::default()),
        };
        self.known = None;
        self.progress();
    }

    /// Whether some lost entries would be needless if the state were flushed.
    pub fn would_gain_by_flush(&self) -> bool {
        self.applied.is_some_and(|applied| self.needs_no_longer(applied.index))
    }

    /// Whether the first lost entries are needless once the state is durable up to `flushed`; while something else is
    /// on its way that is left to the next look.
    pub fn needs_no_longer(&self, flushed: LogIndex) -> bool {
        let waits = matches!(self.stage, Stage::Entries | Stage::State { fetching: None, .. });
        waits && self.holes().first().is_some_and(|hole| hole.last < flushed)
    }

    /// What is asked for is not what was asked for before.
    fn progress(&mut self) {
        self.said.clear();
        self.asked = 0;
        self.due = 0;
    }

    fn holes(&self) -> &[Hole] {
        let damage = self.recovery.as_ref().and_then(|recovery| recovery.damage.as_ref());
        damage.map_or(&[], |damage| &damage.holes)
    }

    /// Everybody who may be asked, ascending.
    fn peers(&self) -> Vec<ReplicaId> {
        let floor = match &self.stage {
            Stage::Floor(floor) | Stage::State { floor, .. } => floor.led.as_ref().map(|(_, members)| members),
            _ => None,
        };
        let mut peers: Vec<_> = [Some(&self.membership), Some(&self.planned), floor]
            .into_iter()
            .flatten()
            .flat_map(Membership::all)
            .chain(self.leader)
            .filter(|peer| *peer != self.own)
            .collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// Asks, if it is time to.
    pub fn tick(&mut self, now: u64, patience: u64, steps: &mut Steps) {
        if now < self.due {
            return;
        }
        self.due = now + patience;
        self.ask(steps);
        let shown = self.describe();
        if shown != self.shown {
            steps.effects.push(Effect::Repairing { group: self.id, step: shown.clone() });
            self.shown = shown;
        }
    }

    fn ask(&mut self, steps: &mut Steps) {
        let peers = self.peers();
        let turn = usize::try_from(self.asked).unwrap_or_default();
        let first = peers.iter().position(|peer| Some(*peer) == self.helper).unwrap_or_default();
        let next = peers.get((first + turn) % peers.len().max(1)).copied();
        self.asked += 1;
        let everybody_asked = turn >= 2 * peers.len() && !peers.is_empty();
        let has_holes = !self.holes().is_empty();
        match &mut self.stage {
            Stage::Examining | Stage::Installing { .. } | Stage::Writing => {}
            Stage::Entries => {
                if everybody_asked {
                    return self.want_state();
                }
                let Some(body) = self.want_entries() else { return };
                self.say(next, body, steps);
            }
            Stage::State { fetching: Some((from, meta)), .. } => {
                let (group, own, from, meta) = (self.id, self.own, *from, meta.clone());
                steps.effects.push(Effect::FetchSnapshot { group, own, from, meta });
            }
            Stage::State { floor, fetching: None } => {
                let at_least = floor.at_least;
                if let Some(at) = self.applied.filter(|applied| applied.index >= at_least && at_least.0 > 0) {
                    let meta = SnapshotMeta { at, membership: self.membership.clone() };
                    return self.install(meta, 0, steps);
                }
                if everybody_asked && has_holes && floor.led.is_none() {
                    self.stage = Stage::Entries; // somebody may have come back who has them
                    return self.progress();
                }
                self.say(next, RepairBody::WantState { at_least, committed: self.committed(at_least) }, steps);
            }
            Stage::Floor(_) => {
                // Those who have answered, too: who is missing may have been removed meanwhile.
                for peer in peers {
                    self.say(Some(peer), RepairBody::WantFloor { nonce: self.nonce }, steps);
                }
            }
        }
    }

    fn say(&self, to: Option<ReplicaId>, body: RepairBody, steps: &mut Steps) {
        let Some(to) = to else { return };
        let message = RepairMessage { group: self.id, from: self.own, to, body };
        steps.effects.push(Effect::Repair(message));
    }

    fn want_entries(&self) -> Option<RepairBody> {
        let hole = self.holes().first()?;
        let last = self.recovery.as_ref()?.last;
        let mut anchors: Vec<_> = self.holes().iter().map(|hole| hole.anchor).take(ANCHORS_MAX - 1).collect();
        anchors.push(last);
        anchors.dedup();
        let (nonce, first, last) = (self.nonce, hole.first, hole.last);
        Some(RepairBody::WantEntries(Lost { nonce, first, last, anchors }))
    }

    /// Whether it is not known what the log has promised. The log may not say so yet.
    fn is_in_doubt(&self) -> bool {
        match &self.stage {
            Stage::Floor(_) => return true,
            Stage::State { floor, .. } if floor.led.is_some() => return true,
            _ => {}
        }
        let damage = self.recovery.as_ref().and_then(|recovery| recovery.damage.as_ref());
        damage.is_some_and(|damage| damage.doubt)
    }

    /// Takes in what a peer says.
    pub fn hear(&mut self, from: ReplicaId, body: RepairBody, steps: &mut Steps) {
        match body {
            RepairBody::Entries { nonce, entries } if nonce == self.nonce => {
                self.helper = Some(from);
                self.refill(entries, steps);
            }
            RepairBody::NoEntries { nonce, lack } if nonce == self.nonce => self.no_entries(from, lack),
            RepairBody::State(meta) => self.offered(from, meta, steps),
            RepairBody::NoState { applied } => self.no_state(from, applied),
            RepairBody::Term { nonce, term } if nonce == self.nonce => self.hear_term(from, term),
            RepairBody::Floor { nonce, term, last, membership } if nonce == self.nonce => {
                self.hear_floor(from, term, last, membership);
            }
            RepairBody::Led { by } => self.leader = Some(by),
            _ => {}
        }
    }

    /// Entries that are the lost ones go to the log, where they belong. Whoever gave them has the anchor of the
    /// question; the hole and what is behind it are as they were when it was asked.
    fn refill(&mut self, entries: Vec<LogEntry>, steps: &mut Steps) {
        let (Stage::Entries, Some(hole), Some(recovery)) = (&self.stage, self.holes().first(), &self.recovery) else {
            return;
        };
        let before = recovery.term_of(hole.first.previous());
        let (Some(mut previous), Some(last)) = (before, entries.last()) else { return };
        for (index, entry) in (hole.first.0..).zip(&entries) {
            if entry.id.index.0 != index || entry.id.term < previous {
                return;
            }
            previous = entry.id.term;
        }
        let identical = last.id.index != hole.anchor.index || last.id.term == hole.anchor.term;
        if last.id.index > hole.last || previous > hole.anchor.term || !identical {
            return;
        }
        let write = GroupWrite { group: self.id, hard_state: recovery.hard_state, change: LogChange::Refill(entries) };
        self.stage = Stage::Writing;
        self.progress();
        steps.writes.push((write, Then::Examine));
    }

    fn no_entries(&mut self, from: ReplicaId, lack: Lack) {
        if !matches!(self.stage, Stage::Entries) {
            return;
        }
        self.said.insert(from, Said::Lacks(lack));
        self.due = 0; // the next one
        if self.peers().iter().all(|peer| self.said.contains_key(peer)) {
            self.want_state();
        }
    }

    fn hear_term(&mut self, from: ReplicaId, term: Term) {
        let Stage::Floor(floor) = &mut self.stage else { return };
        let known = floor.terms.entry(from).or_default();
        *known = (*known).max(term);
        self.leave_floor();
    }

    fn hear_floor(&mut self, from: ReplicaId, term: Term, last: LogIndex, members: Membership) {
        let Stage::Floor(floor) = &mut self.stage else { return };
        let known = floor.terms.entry(from).or_default();
        *known = (*known).max(term);
        floor.at_least = floor.at_least.max(last);
        // A later leader knows every change of members that an earlier one had confirmed.
        if floor.led.as_ref().is_none_or(|(known, _)| term >= *known) {
            floor.led = Some((term, members));
        }
        self.leave_floor();
    }

    /// Goes on when the floor is known, and every voter that the leader has has said its term. Others that are known
    /// here were removed by a change that is committed, and may be gone for good: nobody who has that change votes for
    /// one that has it not, and whoever knows that it is committed campaigns no more. (One that has it, and does not
    /// know that, may still stand with our vote; it would take grants that are under way for as long as the whole
    /// repair.) A learner waits for nobody: its votes have never counted, and one of the voters may be the one whose
    /// place it is to take.
    fn leave_floor(&mut self) {
        let Stage::Floor(floor) = &self.stage else { return };
        let Some((_, members)) = &floor.led else { return };
        let heard = |voter: &ReplicaId| *voter == self.own || floor.terms.contains_key(voter);
        let voters = || members.voters.iter().chain(&members.voters_outgoing);
        if !voters().any(|voter| *voter == self.own) || voters().all(heard) {
            self.stage = Stage::State { floor: floor.clone(), fetching: None };
            self.progress();
        }
    }

    /// One sentence for the operator: what it waits for.
    pub fn describe(&self) -> String {
        if self.peers().is_empty() {
            let nobody = match self.membership.is_joining() {
                true => "who else has it is lost here; the controller's group tells, once it is repaired",
                false => "there is no other replica to repair it from; nothing was changed",
            };
            return nobody.to_owned();
        }
        match &self.stage {
            Stage::Examining => "looking at what is left".to_owned(),
            Stage::Writing => "writing what was found".to_owned(),
            Stage::Entries => match self.holes().first() {
                Some(Hole { first, last, .. }) => {
                    format!("asking for entries {first} to {last}{}", self.describe_answers())
                }
                None => "asking for nothing".to_owned(),
            },
            Stage::Floor(floor) => {
                let missing = self.peers().into_iter().filter(|peer| !floor.terms.contains_key(peer));
                let missing: Vec<_> = missing.map(|peer| peer.node().to_string()).collect();
                let waits = match missing.is_empty() {
                    true => "a leader that a majority without it confirms".to_owned(),
                    false => format!("what node(s) {} say of their terms", missing.join(", ")),
                };
                format!("what it has promised is not known; waiting for {waits}")
            }
            Stage::State { fetching: Some((from, meta)), .. } => {
                format!("fetching the state as of entry {} from node {}", meta.at, from.node())
            }
            Stage::State { floor, fetching: None } => {
                let lost = match self.holes().first().filter(|_| floor.led.is_none()) {
                    Some(hole) => format!("nobody asked has given entries {} to {}; ", hole.first, hole.last),
                    None => String::new(),
                };
                let answers = self.describe_answers();
                format!("{lost}asking for a state as of entry {} or later{answers}", floor.at_least)
            }
            Stage::Installing { meta, .. } => format!("switching to the state as of entry {}", meta.at),
        }
    }

    fn describe_answers(&self) -> String {
        let one = |(peer, said): (&ReplicaId, &Said)| {
            let what = match said {
                Said::Lacks(Lack::Different) => "does not have what followed them".to_owned(),
                Said::Lacks(Lack::Released) => "has let go of them".to_owned(),
                Said::Lacks(Lack::Damaged) => "has lost them, too".to_owned(),
                Said::StateAt(index) => format!("has one as of entry {index}"),
                Said::StateOfOthers => "has one without this replica".to_owned(),
            };
            format!("; node {} {what}", peer.node())
        };
        self.said.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests;
