//! How a peer's state takes the place of what is lost: which one does, what it leaves of the log, and what is promised
//! with it.

use super::super::effect::Effect;
use super::super::turn::Then;
use super::{Floor, Repair, Said, Stage, Steps};
use crate::raft::SnapshotMeta;
use crate::types::{HardState, LogId, LogIndex, ReplicaId};
use crate::wal::{GroupRecovery, GroupWrite, LogChange};

impl Repair {
    /// Nobody has the entries: a state takes their place.
    pub(super) fn want_state(&mut self) {
        self.stage = self.behind_what_is_lost();
        self.progress();
    }

    /// A state is wanted that holds all that is lost, where promises are known.
    pub(super) fn behind_what_is_lost(&self) -> Stage {
        let behind = |recovery: &GroupRecovery| {
            let whole = self.holes().last().map_or(recovery.start.index, |hole| hole.last.next());
            whole.min(recovery.last.index)
        };
        let at_least = self.recovery.as_ref().map_or(LogIndex(0), behind);
        Stage::State { floor: Floor { at_least, ..Floor::default() }, fetching: None }
    }

    /// `wanted`, or what comes before it, as far as that is known here to be committed and it is certain which entry it
    /// is. A later one is no help to those whose logs end between.
    pub(super) fn committed(&self, wanted: LogIndex) -> LogId {
        let Some(recovery) = self.recovery.as_ref().filter(|_| !self.is_in_doubt()) else { return LogId::default() };
        let index = recovery.hard_state.commit.min(wanted);
        let known = recovery.term_of(index).map(|term| LogId { index, term });
        known.filter(|known| known.index > recovery.start.index).unwrap_or(recovery.start)
    }

    /// Whether the log goes on from a state as of `at`: it holds that entry, and lacks none behind it. If it holds
    /// another one there, that one and all behind it can't be committed any more, and the log begins anew.
    fn goes_on_from(&self, at: LogId) -> bool {
        let Some(recovery) = &self.recovery else { return false };
        let lacks_none = self.holes().last().is_none_or(|hole| hole.last < at.index);
        lacks_none && !self.is_in_doubt() && recovery.term_of(at.index) == Some(at.term)
    }

    pub(super) fn offered(&mut self, from: ReplicaId, meta: SnapshotMeta, steps: &mut Steps) {
        let Stage::State { floor, fetching } = &mut self.stage else { return };
        if fetching.is_some() || meta.at.index < floor.at_least {
            return;
        }
        if !meta.membership.contains(self.own) {
            // From before it joined, or after it was removed. Who starts with such a state would take itself for
            // another replica of its node, one that was lost.
            self.said.insert(from, Said::StateOfOthers);
            return;
        }
        *fetching = Some((from, meta));
        self.progress();
        self.ask(steps);
    }

    pub(super) fn no_state(&mut self, from: ReplicaId, applied: LogIndex) {
        if matches!(self.stage, Stage::State { fetching: None, .. }) {
            self.said.insert(from, Said::StateAt(applied));
        }
    }

    /// The data of the state at `at` is here, or could not be had.
    pub fn fetched(&mut self, at: LogId, generation: Option<u64>, steps: &mut Steps) {
        let Stage::State { fetching, .. } = &mut self.stage else { return };
        let Some((_, meta)) = fetching.take_if(|(_, meta)| meta.at == at) else { return };
        match generation {
            Some(generation) => self.install(meta, generation, steps),
            None => self.due = 0,
        }
    }

    /// Announces the switch in the log, which must know of it before; a log that has forgotten the group learns of it
    /// when it is done. One that goes on as it is says durably what it is needed for, which is everything if there was
    /// no state: the next start goes by that.
    pub(super) fn install(&mut self, meta: SnapshotMeta, generation: u64, steps: &mut Steps) {
        let Stage::State { floor, .. } = &self.stage else { return };
        let floor = floor.clone();
        let hard_state = self.promise(&floor);
        let goes_on = self.goes_on_from(meta.at);
        let change = match goes_on {
            true => LogChange::None,
            false => LogChange::Installing { at: meta.at, generation },
        };
        let at = meta.at;
        self.stage = Stage::Installing { floor, meta, generation, goes_on };
        if self.recovery.is_none() {
            return steps.effects.extend(self.switch(at));
        }
        if goes_on && self.applied.is_none() {
            steps.effects.push(Effect::Release(vec![(self.id, LogIndex(0))]));
        }
        steps.writes.push((GroupWrite { group: self.id, hard_state, change }, Then::Install(at)));
    }

    /// What is promised from now on: what was, or if that is not known, never to vote in a term of before. A vote that
    /// is known was the only one of its term.
    fn promise(&self, floor: &Floor) -> HardState {
        let was = self.recovery.as_ref().map(|recovery| recovery.hard_state).unwrap_or_default();
        if floor.led.is_none() {
            return was;
        }
        let term = floor.terms.values().copied().max().unwrap_or_default().max(was.term);
        let vote = was.vote.filter(|_| term == was.term).or(Some(self.own));
        HardState { term, vote, commit: was.commit }
    }

    /// What announces the state at `at` is durable: the switch.
    pub fn switch(&self, at: LogId) -> Option<Effect> {
        let Stage::Installing { meta, generation, .. } = &self.stage else { return None };
        (meta.at == at).then(|| Effect::InstallSnapshot { group: self.id, meta: meta.clone(), generation: *generation })
    }

    /// The state machine has switched to the state at `at`, durably.
    pub fn switched(&mut self, at: LogId, steps: &mut Steps) {
        let Stage::Installing { floor, meta, generation, goes_on } = &self.stage else { return };
        if meta.at != at {
            return;
        }
        if *goes_on {
            // The entries up to there are needed no more, whether they are lost or not.
            steps.effects.push(Effect::Release(vec![(self.id, meta.at.index.next())]));
            steps.effects.push(Effect::Examine { group: self.id, lost: None });
            self.stage = Stage::Examining;
            return;
        }
        let mut hard_state = self.promise(floor);
        if hard_state.term < meta.at.term {
            hard_state = HardState { term: meta.at.term, vote: None, ..hard_state };
        }
        hard_state.commit = hard_state.commit.max(meta.at.index);
        let change = LogChange::Installed { at: meta.at, generation: *generation };
        steps.writes.push((GroupWrite { group: self.id, hard_state, change }, Then::Examine));
        self.stage = Stage::Writing;
    }

    /// The state machine is damaged, or could not switch: another state has to be found.
    pub fn state_failed(&mut self, reason: &str) {
        self.applied = None;
        if let Stage::Installing { floor, .. } = &self.stage {
            self.stage = Stage::State { floor: floor.clone(), fetching: None };
            self.said.clear();
            reason.clone_into(&mut self.shown);
        }
    }
}
