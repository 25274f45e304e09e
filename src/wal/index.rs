//! What the log knows in memory: every group's promises, and where its entries lie.
//!
//! A group's entries are *runs*: consecutive entries of one term in one section. Append, start and repair all change
//! the index through `Index::apply`, so what a restart rebuilds is what was there before. An index between a group's
//! start and its last entry that no run covers is a *hole*: the log promised that entry and cannot produce it. There is
//! no other mark of a damaged entry, so everything that heals one (a later truncation, a snapshot, a start that moved
//! past it, a copy in another place) heals it by itself.

use super::layout::{SectionHeader, SectionKind};
use super::{Damage, GroupRecovery, Hole, Recovery};
use crate::types::{HardState, LogId, LogIndex, RaftGroupId, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Consecutive entries of one term in one section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first entry.
    pub first: LogIndex,
    /// The last entry.
    pub last: LogIndex,
    /// The term of all of them.
    pub term: Term,
    /// Where the section lies.
    pub place: Place,
}

/// The place of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The segment's number.
    pub segment: u64,
    /// The section's first byte in the segment.
    pub offset: u32,
    /// The section's length.
    pub length: u32,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupLog {
    /// The newest promise; its commit index is the highest that is durable.
    pub hard_state: HardState,
    /// The entry before the first one.
    pub start: LogId,
    /// The last entry, or `start`.
    pub last: LogId,
    /// Entries below this index are not needed for replay any more.
    pub released: LogIndex,
    /// A snapshot whose installation has begun, and its generation.
    pub installing: Option<(LogId, u64)>,
    /// Why it is not certain what the group promised; cleared by what settles the matter.
    pub doubt: Option<String>,
    /// Whether what is written from now on comes after a start that could not settle the doubt, or after the replica
    /// has found it: then it proves nothing about what was lost, and only a snapshot, or the end of the group, clears
    /// it.
    pub doubt_stands: bool,
    /// The latest flaw found in something that this group wrote; explains its holes.
    pub flaw: Option<String>,
    /// Ascending, without overlap.
    runs: VecDeque<Run>,
}

impl GroupLog {
    fn empty_after(start: LogId, hard_state: HardState) -> Self {
        Self { hard_state, start, last: start, released: start.index.next(), ..Self::default() }
    }

    /// The runs that touch `from ..= to`, ascending.
    pub(crate) fn runs_between(&self, from: LogIndex, to: LogIndex) -> impl Iterator<Item = &Run> {
        let begin = self.runs.partition_point(|run| run.last < from);
        self.runs.range(begin..).take_while(move |run| run.first <= to)
    }

    /// All runs, ascending.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// The term of the entry at `index`, as far as it is certain.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index == self.last.index {
            return Some(self.last.term);
        }
        self.runs_between(index, index).next().map(|run| run.term)
    }

    /// The identity of the entry at `index`, as far as it is certain.
    pub(crate) fn id_at(&self, index: LogIndex) -> Option<LogId> {
        self.term_at(index).map(|term| LogId { index, term })
    }

    /// Cuts off everything after `last`.
    fn cut_after(&mut self, last: LogId) {
        while self.runs.back().is_some_and(|run| run.first > last.index) {
            self.runs.pop_back();
        }
        if let Some(run) = self.runs.back_mut() {
            run.last = run.last.min(last.index);
        }
        self.last = last;
    }

    /// Forgets everything up to `start`.
    pub(crate) fn start_after(&mut self, start: LogId) {
        assert!(start.index >= self.start.index, "a log's start never moves back");
        while self.runs.front().is_some_and(|run| run.last <= start.index) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut() {
            run.first = run.first.max(start.index.next());
        }
        self.start = start;
        if self.last.index <= start.index {
            self.last = start;
        }
    }

    /// Makes `run` the place of its entries, whatever was known of them before.
    fn place(&mut self, run: Run) {
        let mut at = self.runs.partition_point(|old| old.last < run.first);
        if let Some(&old) = self.runs.get(at)
            && old.first < run.first
        {
            self.runs[at].last = run.first.previous();
            at += 1;
            if old.last > run.last {
                self.runs.insert(at, Run { first: run.last.next(), ..old });
            }
        }
        while self.runs.get(at).is_some_and(|old| old.last <= run.last) {
            self.runs.remove(at);
        }
        if let Some(old) = self.runs.get_mut(at) {
            old.first = old.first.max(run.last.next());
        }
        self.runs.insert(at, run);
    }

    /// The indexes that the log should hold and does not, as inclusive ranges.
    pub(crate) fn holes(&self) -> Vec<(LogIndex, LogIndex)> {
        let mut holes = Vec::new();
        let mut next = self.start.index.next();
        for run in &self.runs {
            if run.first > next {
                holes.push((next, run.first.previous()));
            }
            next = run.last.next();
        }
        if next <= self.last.index {
            holes.push((next, self.last.index));
        }
        holes
    }

    /// Why the group may not take part, if it may not.
    pub(crate) fn damage(&self) -> Option<Damage> {
        let holes: Vec<Hole> = self.holes().into_iter().map(|(first, last)| self.hole(first, last)).collect();
        if let Some(doubt) = &self.doubt {
            return Some(Damage { reason: doubt.clone(), doubt: true, holes });
        }
        let (first, last) = (holes.first()?.first, holes.last()?.last);
        let flaw = self.flaw.as_deref().unwrap_or("the segment that held them is missing or damaged");
        let reason = format!("entries are damaged in {} place(s) between {first} and {last}: {flaw}", holes.len());
        Some(Damage { reason, doubt: false, holes })
    }

    fn hole(&self, first: LogIndex, last: LogIndex) -> Hole {
        let next = self.runs_between(last.next(), last.next()).next();
        let anchor = next.map_or(self.last, |run| LogId { index: run.first, term: run.term });
        Hole { first, last, anchor }
    }

    /// Takes in that entries which should be readable are not.
    fn lose(&mut self, first: LogIndex, last: LogIndex, flaw: &str) {
        let lost = self.runs.iter().filter(|run| run.first <= last && run.last >= first);
        let kept = lost.flat_map(|run| {
            let before = (run.first < first).then(|| Run { last: first.previous(), ..*run });
            let after = (run.last > last).then(|| Run { first: last.next(), ..*run });
            before.into_iter().chain(after)
        });
        let kept: Vec<Run> = kept.collect();
        let at = self.runs.partition_point(|run| run.last < first);
        self.runs.retain(|run| run.first > last || run.last < first);
        for (position, run) in kept.into_iter().enumerate() {
            self.runs.insert(at + position, run);
        }
        self.flaw = Some(flaw.to_owned());
    }

    /// As the log's owner wants it.
    pub(crate) fn recovery(&self) -> GroupRecovery {
        let mut terms: Vec<LogId> = Vec::new();
        for run in &self.runs {
            if terms.last().is_none_or(|begin| begin.term != run.term) {
                terms.push(LogId { index: run.first, term: run.term });
            }
        }
        GroupRecovery {
            hard_state: self.hard_state,
            start: self.start,
            last: self.last,
            terms,
            installing: self.installing,
            damage: self.damage(),
        }
    }

    /// Takes in that the log ended with `id` when this was written. If ours holds the same entry, both agree up to it
    /// (log matching, Raft §5.3), and a doubt is settled if the rest is `certain`, too. If not, nothing between start
    /// and `id` can be trusted. While nothing is in doubt, an entry whose place is unknown was in a segment that is
    /// gone, and is moved later on: what is known of the others stands.
    fn reconcile(&mut self, id: LogId, certain: bool) {
        match self.term_at(id.index) {
            Some(term) if term == id.term => {
                if certain && !self.doubt_stands {
                    self.doubt = None;
                }
            }
            // Its segment may have been freed after it was copied forward, to a place that the replay has yet to reach.
            None if self.doubt.is_none() && id.index < self.last.index => {}
            _ => self.runs.clear(),
        }
        self.cut_after(if id.index > self.start.index { id } else { self.start });
    }

    /// What was promised is not certain, and nothing written later settles it.
    fn doubt_from_now_on(&mut self, reason: &str) {
        self.doubt.get_or_insert_with(|| reason.to_owned());
        self.doubt_stands = true;
    }

    fn apply_checkpoint(&mut self, section: &SectionHeader) {
        self.reconcile(section.last, !section.doubt);
        if section.doubt {
            self.doubt_from_now_on("an earlier start found turns missing that it may be in");
        }
        if section.base.index > self.start.index {
            self.start_after(section.base);
        }
        self.released = LogIndex(section.number).clamp(self.start.index.next(), self.last.index.next());
        self.installing = None;
    }

    /// Makes the section's undamaged records the places of their entries.
    fn place_records(
        &mut self,
        section: &SectionHeader,
        place: Place,
        records: impl IntoIterator<Item = Option<Term>>,
    ) {
        let mut open: Option<Run> = None;
        let mut index = section.first();
        for term in records {
            match (&mut open, term) {
                (Some(run), Some(term)) if run.term == term => run.last = index,
                (_, term) => {
                    let begun = term.map(|term| Run { first: index, last: index, term, place });
                    if let Some(run) = std::mem::replace(&mut open, begun) {
                        self.place(run);
                    }
                }
            }
            index = index.next();
        }
        if let Some(run) = open {
            self.place(run);
        }
        self.start_after(self.start);
    }
}

/// All groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// The living.
    pub groups: BTreeMap<RaftGroupId, GroupLog>,
    /// The dead, whose numbers are never used again.
    pub tombstones: BTreeSet<RaftGroupId>,
}

impl Index {
    /// Takes in a section in `place`. `records` yields each record's term, or nothing for one that is damaged; of a
    /// section whose record headers are damaged it yields nothing at all.
    pub(crate) fn apply(
        &mut self,
        section: &SectionHeader,
        place: Place,
        records: impl IntoIterator<Item = Option<Term>>,
    ) {
        let group = section.group;
        match section.kind {
            SectionKind::Tombstone => {
                self.groups.remove(&group);
                self.tombstones.insert(group);
                return;
            }
            SectionKind::Born | SectionKind::Installed => {
                self.groups.insert(group, GroupLog::empty_after(section.base, section.hard_state));
                return;
            }
            SectionKind::Checkpoint if !self.groups.contains_key(&group) => {
                let log = GroupLog { last: section.last, ..GroupLog::empty_after(section.base, section.hard_state) };
                self.groups.insert(group, log);
            }
            _ => {}
        }
        // A group that nothing has named before was named in what is lost. A moved section does not settle what it was.
        let log = self.groups.entry(group).or_insert_with(|| GroupLog {
            doubt: Some("the turns that named it first are missing".to_owned()),
            ..GroupLog::default()
        });
        let commit = log.hard_state.commit.max(section.hard_state.commit);
        log.hard_state = HardState { commit, ..section.hard_state };
        match section.kind {
            SectionKind::HardState => {
                log.reconcile(section.base, !section.doubt && section.installing == log.installing.is_some());
                if section.doubt {
                    log.doubt_from_now_on("the replica has found itself that it lost promises");
                }
            }
            SectionKind::Installing => {
                log.reconcile(section.base, !section.doubt);
                if section.doubt {
                    log.doubt_from_now_on("the replica was in doubt when it was to take a state");
                }
                log.installing = Some((section.last, section.number));
            }
            SectionKind::Append => {
                log.reconcile(section.base, section.installing == log.installing.is_some());
                // Nothing is appended while a snapshot is being installed: the installation was given up.
                log.installing = None;
                log.last = if section.last.index > log.start.index { section.last } else { log.start };
                log.place_records(section, place, records);
            }
            SectionKind::Moved => log.place_records(section, place, records),
            SectionKind::Checkpoint => log.apply_checkpoint(section),
            SectionKind::Tombstone | SectionKind::Born | SectionKind::Installed => unreachable!("handled above"),
        }
    }

    /// Sets the bound below which a group does not need its entries. Whether it is lower than before: a state was lost.
    pub(crate) fn release(&mut self, group: RaftGroupId, below: LogIndex) -> bool {
        let Some(log) = self.groups.get_mut(&group) else { return false };
        let before = std::mem::replace(&mut log.released, below.clamp(log.start.index.next(), log.last.index.next()));
        log.released < before
    }

    /// Records that entries which should be readable are not. Yields the segments that hold them.
    pub(crate) fn lose(&mut self, group: RaftGroupId, first: LogIndex, last: LogIndex, flaw: &str) -> BTreeSet<u64> {
        let Some(log) = self.groups.get_mut(&group) else { return BTreeSet::new() };
        let segments = log.runs_between(first, last).map(|run| run.place.segment).collect();
        log.lose(first, last, flaw);
        segments
    }

    /// Whether some group still needs an entry that lies in `segment`.
    pub(crate) fn needs(&self, segment: u64) -> bool {
        self.needed_in(segment).next().is_some()
    }

    /// The entries in `segment` that groups still need.
    pub(crate) fn needed_in(&self, segment: u64) -> impl Iterator<Item = (RaftGroupId, Run)> {
        self.groups.iter().flat_map(move |(&group, log)| {
            let released = log.released;
            let needed = log.runs().filter(move |run| run.place.segment == segment && run.last >= released);
            needed.map(move |run| (group, Run { first: run.first.max(released), ..*run }))
        })
    }

    /// Forgets all entries in `segment`, which nobody needs: each group's start moves past them.
    pub(crate) fn forget(&mut self, segment: u64) {
        for log in self.groups.values_mut() {
            if let Some(run) = log.runs.iter().rfind(|run| run.place.segment == segment).copied() {
                assert!(run.last < log.released, "only released entries are forgotten");
                log.start_after(LogId { index: run.last, term: run.term });
            }
        }
    }

    /// Lets go of damaged entries that no group needs any more: a flushed state machine covers them, and as soon as
    /// their segment is freed they would be gone in any case. The entry that follows becomes the log's start, because
    /// the term of the damaged one may be unknown. Yields the groups.
    pub(crate) fn skip_released_holes(&mut self) -> Vec<RaftGroupId> {
        let groups: Vec<RaftGroupId> = self.groups.keys().copied().collect();
        groups.into_iter().filter(|group| self.skip_released_holes_of(*group)).collect()
    }

    /// The same for one group; whether its log begins later now.
    pub(crate) fn skip_released_holes_of(&mut self, group: RaftGroupId) -> bool {
        let Some(log) = self.groups.get_mut(&group) else { return false };
        let follows = |&(_, last): &(LogIndex, LogIndex)| {
            let next = log.runs_between(last.next(), last.next()).next()?;
            (next.first < log.released).then_some(LogId { index: next.first, term: next.term })
        };
        let start = log.holes().iter().rev().find_map(follows);
        start.inspect(|start| log.start_after(*start)).is_some()
    }

    /// Whether nothing that any group has promised is known for sure.
    pub(crate) fn is_all_in_doubt(&self) -> bool {
        self.groups.values().all(|log| log.doubt.is_some())
    }

    /// Marks the doubts that remain after a start: nothing written from now on can settle them.
    pub(crate) fn let_doubts_stand(&mut self) {
        for log in self.groups.values_mut() {
            log.doubt_stands = log.doubt.is_some();
        }
    }

    /// A negative control of the simulator: what follows the first flaw was never written, and nothing is lost.
    pub(crate) fn cut_damage(&mut self) {
        for log in self.groups.values_mut() {
            log.doubt = None;
            if let Some(&(first, _)) = log.holes().first() {
                let last = log.id_at(first.previous()).unwrap_or(log.start);
                log.cut_after(last);
            }
            log.hard_state.commit = log.hard_state.commit.min(log.last.index);
        }
    }

    /// Records that turns of unknown content are missing: any group may have promised something in them.
    pub(crate) fn doubt_all(&mut self, reason: &str) {
        for log in self.groups.values_mut() {
            log.doubt.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// A checkpoint names these groups: whoever wrote it had lost the others, and what they had promised since they
    /// were named may be lost still, though that can be read again.
    pub(crate) fn doubt_others(&mut self, named: &BTreeSet<RaftGroupId>) {
        for (_, log) in self.groups.iter_mut().filter(|(group, _)| !named.contains(group)) {
            log.doubt.get_or_insert_with(|| "an earlier start did not find it".to_owned());
            log.doubt_stands = true;
        }
    }

    /// Everything, as the log's owner wants it after a start.
    pub(crate) fn recovery(&self) -> Recovery {
        Recovery {
            groups: self.groups.iter().map(|(&group, log)| (group, log.recovery())).collect(),
            tombstones: self.tombstones.iter().copied().collect(),
            ..Recovery::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The turns that named the group first are lost, and so is the checkpoint that told of its doubt.
    #[test]
    fn what_a_replica_writes_in_doubt_settles_nothing() {
        for (kind, doubt) in
            [(SectionKind::HardState, true), (SectionKind::Installing, true), (SectionKind::HardState, false)]
        {
            let group = RaftGroupId(4);
            let section = SectionHeader {
                kind,
                doubt,
                installing: false,
                group,
                turn: crate::wal::TurnNumber(9),
                identity: 1,
                hard_state: HardState { term: Term(5), vote: None, commit: LogIndex(0) },
                base: LogId::default(),
                last: LogId::new(20, 5),
                number: 2,
                records: 0,
                records_crc: 0,
                offset: 0,
                length: 0,
            };
            let mut index = Index::default();
            index.apply(&section, Place { segment: 1, offset: 0, length: 0 }, []);
            assert_eq!(index.groups[&group].doubt.is_some(), doubt, "{kind:?}");
        }
    }
}
