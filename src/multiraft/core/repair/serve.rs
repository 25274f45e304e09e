//! What the others answer to a replica that is being repaired. Damaged ones answer, too, as far as what they have is
//! certain.

use super::super::effect::{Effect, ReadFailure};
use super::super::group::Group;
use super::super::{Core, Slot};
use super::Stage;
use super::message::{Lack, Lost, RepairBody, RepairMessage};
use crate::raft::group_log::Wanted;
use crate::raft::{Broken, Role, SnapshotMeta};
use crate::types::{LogEntry, LogId, LogIndex, RaftGroupId, ReplicaId, Term};
use std::collections::BTreeMap;

/// The most reads for others at a time; whoever is not answered asks again.
const READS_MAX: usize = 64;
/// The most empty entries that one question makes a leader write.
const EMPTY_ENTRIES_MAX: u64 = 64;

/// Entries that are being read for somebody.
#[derive(Debug)]
struct Reading {
    /// The group.
    group: RaftGroupId,
    /// What is read.
    wanted: Wanted,
    /// The replica here.
    own: ReplicaId,
    /// For whom.
    to: ReplicaId,
    /// What was asked.
    lost: Lost,
}

/// What is being done for others.
#[derive(Debug, Default)]
pub struct Serving {
    /// Reads from the log.
    reading: Vec<Reading>,
    /// Who waits for a state to be taken: our replica, theirs, and what it must be as of.
    building: BTreeMap<RaftGroupId, Vec<(ReplicaId, ReplicaId, LogIndex)>>,
}

impl Core {
    /// Takes in something about a repair: an answer to one of ours, or a question.
    pub(in super::super) fn hear_of_repair(&mut self, message: RepairMessage) {
        let RepairMessage { group, from, to, body } = message;
        match body {
            RepairBody::WantEntries(lost) => self.serve_entries(group, (to, from), lost),
            RepairBody::WantState { at_least, committed } => {
                self.serve_state(group, (to, from), at_least);
                self.with_group(group, |group, _| group.replica.learn_commit(committed));
            }
            RepairBody::WantFloor { nonce } => self.serve_floor(group, (to, from), nonce),
            body => self.hear_answer(group, (to, from), body),
        }
    }

    fn answer(&mut self, group: RaftGroupId, (from, to): (ReplicaId, ReplicaId), body: RepairBody) {
        self.effects.push(Effect::Repair(RepairMessage { group, from, to, body }));
    }

    fn serve_entries(&mut self, id: RaftGroupId, (own, to): (ReplicaId, ReplicaId), lost: Lost) {
        let Some(found) = self.find(id, own, &lost) else { return };
        let nonce = lost.nonce;
        match found {
            Err(lack) => self.answer(id, (own, to), RepairBody::NoEntries { nonce, lack }),
            Ok(Found::Here(entries)) => self.answer(id, (own, to), RepairBody::Entries { nonce, entries }),
            Ok(Found::OnDisk { high }) => {
                let wanted = Wanted { low: lost.first, high, max_bytes: self.options.replica.max_message_bytes };
                let serving = &mut self.serving.reading;
                let twice = serving.iter().any(|reading| reading.group == id && reading.to == to);
                if !twice && serving.len() < READS_MAX {
                    serving.push(Reading { group: id, wanted, own, to, lost });
                    self.effects.push(Effect::ReadEntries { group: id, wanted });
                }
            }
        }
    }

    /// Where the lost entries are here, if our log is not about to be something else: whoever asks, asks again.
    fn find(&self, id: RaftGroupId, own: ReplicaId, lost: &Lost) -> Option<Result<Found, Lack>> {
        let max_bytes = self.options.replica.max_message_bytes;
        match self.groups.get(&id) {
            Some(Slot::Live(group)) if group.replica.id() == own => Some(live_entries(group, lost, max_bytes)),
            Some(Slot::Quarantined(repair)) if repair.own() == own && repair.is_changing() => None,
            Some(Slot::Quarantined(repair)) if repair.own() == own => Some(repair.has_entries(lost)),
            _ => Some(Err(Lack::Different)),
        }
    }

    /// Whether our log holds what was read, still: the read may have waited behind writes that took entries away, or an
    /// earlier one for the same range may have been answered only now.
    fn holds(&self, id: RaftGroupId, entries: &[LogEntry]) -> bool {
        let is_here = |entry: &LogEntry| {
            let term = match self.groups.get(&id) {
                Some(Slot::Live(group)) => group.replica.log().term_of(entry.id.index),
                Some(Slot::Quarantined(repair)) => repair.term_of(entry.id.index),
                None => None,
            };
            term == Some(entry.id.term)
        };
        !entries.is_empty() && entries.iter().all(is_here)
    }

    /// Passes on what was read for others.
    pub(in super::super) fn pass_on_read(
        &mut self,
        group: RaftGroupId,
        wanted: Wanted,
        result: &Result<Vec<LogEntry>, ReadFailure>,
    ) {
        let is_it = |reading: &mut Reading| reading.group == group && reading.wanted == wanted;
        let done: Vec<_> = self.serving.reading.extract_if(.., is_it).collect();
        for Reading { own, to, lost, .. } in done {
            let nonce = lost.nonce;
            let body = match (result, self.find(group, own, &lost)) {
                (Ok(entries), Some(Ok(_))) if self.holds(group, entries) => {
                    RepairBody::Entries { nonce, entries: entries.clone() }
                }
                (Ok(_), Some(Err(lack))) => RepairBody::NoEntries { nonce, lack },
                (Ok(_), _) => continue,
                (Err(ReadFailure::Released { .. }), _) => RepairBody::NoEntries { nonce, lack: Lack::Released },
                (Err(ReadFailure::Damaged { .. }), _) => RepairBody::NoEntries { nonce, lack: Lack::Damaged },
            };
            self.answer(group, (own, to), body);
        }
    }

    fn serve_state(&mut self, id: RaftGroupId, (own, to): (ReplicaId, ReplicaId), at_least: LogIndex) {
        let applied = match self.groups.get(&id) {
            Some(Slot::Live(group)) if group.replica.id() == own => group.applied_index(),
            Some(Slot::Quarantined(repair)) if repair.own() == own => repair.applied_index(),
            _ => LogIndex(0),
        };
        if applied >= at_least && applied.0 > 0 {
            let waiting = self.serving.building.entry(id).or_default();
            waiting.retain(|(_, other, _)| *other != to);
            waiting.push((own, to, at_least));
            let ask = match self.groups.get_mut(&id) {
                Some(Slot::Live(group)) => group.begin_build(),
                _ => true,
            };
            self.effects.extend(ask.then_some(Effect::BuildSnapshot { group: id }));
            return;
        }
        self.answer(id, (own, to), RepairBody::NoState { applied });
        self.name_leader(id, (own, to));
        self.with_group(id, |group, _| group.grow_to(at_least));
    }

    /// A state was taken: whoever waits for one hears of it.
    pub(in super::super) fn offer_built(&mut self, group: RaftGroupId, meta: &SnapshotMeta) {
        for (own, to, at_least) in self.serving.building.remove(&group).unwrap_or_default() {
            let body = match meta.at.index >= at_least {
                true => RepairBody::State(meta.clone()),
                false => RepairBody::NoState { applied: meta.at.index },
            };
            self.answer(group, (own, to), body);
        }
    }

    /// Everybody says its term; a leader, besides, where its log ends, once a majority has confirmed that it leads.
    fn serve_floor(&mut self, id: RaftGroupId, (own, to): (ReplicaId, ReplicaId), nonce: u64) {
        let deadline = self.now + u64::from(self.options.replica.election_ticks);
        let mut term = Term(0);
        match self.groups.get_mut(&id) {
            Some(Slot::Live(group)) if group.replica.id() == own => {
                term = group.replica.term();
                self.with_group(id, |group, _| group.confirm_floor(to, nonce, deadline));
            }
            // It campaigns no more: a candidacy ends with its process, or with its quarantine.
            Some(Slot::Quarantined(repair)) if repair.own() == own => term = repair.term(),
            // Not here: it has promised nothing, or was lost with the node's last disk. Then it never speaks again, and
            // those whose votes have made it a leader know the term.
            _ => {}
        }
        self.answer(id, (own, to), RepairBody::Term { nonce, term });
        self.name_leader(id, (own, to));
    }

    /// Whoever has been away may not know the leader: its members may all have been replaced meanwhile. Said by the
    /// replica that is here, though another one was asked: nobody listens to those that were lost.
    fn name_leader(&mut self, id: RaftGroupId, (asked, to): (ReplicaId, ReplicaId)) {
        let Some(Slot::Live(group)) = self.groups.get(&id) else { return };
        let own = group.replica.id();
        if let Some(by) = group.replica.leader().filter(|leader| *leader != asked) {
            self.answer(id, (own, to), RepairBody::Led { by });
        }
    }
}

/// Where entries are.
pub(super) enum Found {
    /// In memory.
    Here(Vec<LogEntry>),
    /// On the disk, up to here.
    OnDisk { high: LogIndex },
}

fn live_entries(group: &Group, lost: &Lost, max_bytes: u64) -> Result<Found, Lack> {
    let (log, &Lost { first, last, ref anchors, .. }) = (group.replica.log(), lost);
    if !anchors.iter().any(|anchor| anchor.index >= last && log.term_of(anchor.index) == Some(anchor.term)) {
        let released = anchors.iter().all(|anchor| anchor.index < log.start().index);
        return Err(if released { Lack::Released } else { Lack::Different });
    }
    if first <= log.start().index {
        return Err(Lack::Released);
    }
    if log.in_tail(first) {
        return Ok(Found::Here(log.from_tail(first, last, max_bytes)));
    }
    Ok(Found::OnDisk { high: last.next().min(log.tail_first()) })
}

impl super::Repair {
    /// Whether something is on its way to its log that takes entries away, or may have arrived there.
    fn is_changing(&self) -> bool {
        matches!(self.stage, Stage::Installing { .. } | Stage::Writing | Stage::Examining)
    }

    /// Whether these entries are here: what is in doubt is given to nobody.
    fn has_entries(&self, lost: &Lost) -> Result<Found, Lack> {
        let &Lost { first, last, ref anchors, .. } = lost;
        let recovery = self.recovery.as_ref().ok_or(Lack::Damaged)?;
        if self.is_in_doubt() || self.holes().iter().any(|hole| hole.first <= last && first <= hole.last) {
            return Err(Lack::Damaged);
        }
        if first <= recovery.start.index {
            return Err(Lack::Released);
        }
        let matches = |anchor: &LogId| anchor.index >= last && recovery.term_of(anchor.index) == Some(anchor.term);
        if last > recovery.last.index || !anchors.iter().any(matches) {
            return Err(Lack::Different);
        }
        Ok(Found::OnDisk { high: last.next() })
    }

    fn term_of(&self, index: LogIndex) -> Option<Term> {
        self.recovery.as_ref()?.term_of(index)
    }

    fn applied_index(&self) -> LogIndex {
        self.applied.map_or(LogIndex(0), |applied| applied.index)
    }
}

impl Group {
    /// A leader whose log is shorter than what somebody has promised writes empty entries: only what is committed
    /// settles what stands there.
    fn grow_to(&mut self, index: LogIndex) -> Result<(), Broken> {
        let last = self.replica.log().last().index;
        if self.replica.role() != Role::Leader || last >= index {
            return Ok(());
        }
        let count = (index.0 - last.0).min(EMPTY_ENTRIES_MAX);
        // Refused: whoever needs them asks again.
        let _refused = self.replica.propose((0..count).map(|_| Default::default()).collect())?;
        Ok(())
    }
}
