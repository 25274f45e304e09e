//! A log, a disk that forgets, and a simple model of what the log has acknowledged.
//!
//! The model is compared after every start: what was acknowledged is there, what was not is there whole or not at all.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const GROUPS: u64 = 5;

/// What a group must look like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelGroup {
    pub hard_state: HardState,
    pub start: LogId,
    /// The term and payload length of each entry after `start`.
    pub entries: BTreeMap<u64, (u64, usize)>,
    pub installing: Option<(LogId, u64)>,
    /// Not durable by itself: entries below may be gone.
    pub released: u64,
}

impl ModelGroup {
    fn last(&self) -> LogId {
        self.entries.last_key_value().map_or(self.start, |(&index, &(term, _))| LogId::new(index, term))
    }
}

/// What the log must look like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub groups: BTreeMap<u64, ModelGroup>,
    pub tombstones: BTreeSet<u64>,
}

pub struct World<P: Place> {
    pub disk: P,
    pub random: Random,
    pub log: Option<Log<P>>,
    pub model: Model,
    /// What the log may look like instead, if a turn's outcome is unknown.
    pub perhaps: Option<Model>,
    /// How the log uses its disk.
    pub options: Options,
    /// Whether the header of a segment was damaged, which harms no group.
    pub is_scarred: bool,
}

impl<P: Place> World<P> {
    pub fn new(seed: u64, options: Options) -> Self {
        let mut world = Self::over(P::new(), seed, options, Model::default());
        world.reopen(0);
        world
    }

    /// A log on `disk` that is not open yet and looks like `model`.
    pub fn over(disk: P, seed: u64, options: Options, model: Model) -> Self {
        Self { disk, random: Random::new(seed), log: None, model, perhaps: None, options, is_scarred: false }
    }

    /// Ends the process, perhaps with the machine, and starts it again until a start succeeds; up to `crashes` starts
    /// are cut short somewhere.
    pub fn reopen(&mut self, crashes: u64) {
        self.log = None;
        for left in (0..=crashes).rev() {
            if self.random.one_in(3) {
                self.disk.kill();
            } else {
                self.disk.crash(&mut self.random);
            }
            if left > 0 {
                self.disk.stop_after(1 + self.random.below(30));
            }
            match try_open(&self.disk, self.options.clone(), self.random.next_u64()) {
                Ok((log, recovery)) => {
                    self.verify(&log, &recovery);
                    self.log = Some(log);
                    return;
                }
                Err(LogError::Disk { .. } | LogError::Full) if left > 0 => {}
                Err(error) => panic!("the log does not open: {error}"),
            }
        }
    }

    pub fn verify<D: Disk>(&mut self, log: &Log<D>, recovery: &Recovery) {
        assert!(!recovery.incomplete, "{:?}", recovery.findings);
        for finding in &recovery.findings {
            let is_scar = self.is_scarred && finding.contains("the header of segment");
            assert!(finding.contains("is torn") || is_scar, "{finding}");
        }
        if let Some(perhaps) = self.perhaps.take()
            && matches(log, recovery, &perhaps).is_ok()
        {
            self.model = perhaps;
        }
        if let Err(difference) = matches(log, recovery, &self.model) {
            panic!("{difference}\nmodel {:#?}\nlog {recovery:#?}", self.model);
        }
    }

    /// Appends a turn; false if the disk failed.
    pub fn append(&mut self, turn: &Turn, next: Model) -> bool {
        let log = self.log.as_mut().expect("open");
        match log.append(turn) {
            Ok(_) => {
                self.model = next;
                true
            }
            Err(LogError::Full | LogError::TooLarge { .. }) => true,
            Err(LogError::Disk { .. }) => {
                assert!(matches!(log.append(turn), Err(LogError::Failed)), "a failed log accepts nothing");
                assert!(matches!(log.seal(), Err(LogError::Failed)), "a failed log accepts nothing");
                self.perhaps = Some(next);
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Does something; false if the disk failed.
    pub fn step(&mut self) -> bool {
        match self.random.below(12) {
            0 => self.log.as_mut().expect("open").seal().is_ok(),
            1 | 2 => {
                for (&group, known) in &mut self.model.groups {
                    // One group lags behind, and holds old segments back.
                    let keep = if group == 0 { 200 } else { self.random.below(20) };
                    let below = (known.hard_state.commit.0 + 1).saturating_sub(keep);
                    known.released = known.released.max(below);
                    self.log.as_mut().expect("open").release(RaftGroupId(group), LogIndex(below));
                }
                true
            }
            3 => {
                let log = self.log.as_mut().expect("open");
                let Some(order) = log.order_spare() else { return true };
                let made = ackord::wal::prepare_spare(&self.disk, order);
                made.map(|spare| log.add_spare(spare)).is_ok()
            }
            _ => {
                let mut next = self.model.clone();
                let writes = (0..1 + self.random.below(4)).map(|_| random_write(&mut self.random, &mut next)).collect();
                self.append(&Turn { writes }, next)
            }
        }
    }
}

fn random_write(random: &mut Random, model: &mut Model) -> GroupWrite {
    let number = random.below(GROUPS) + if random.one_in(4) { 5 * random.below(4) } else { 0 };
    if model.tombstones.contains(&number) {
        return born_anew(random, model);
    }
    let Some(known) = model.groups.get_mut(&number) else {
        let start = LogId::new(1, 1);
        let group = ModelGroup { hard_state: state(1, 1), start, released: 2, ..ModelGroup::default() };
        model.groups.insert(number, group);
        return born(number);
    };
    let last = known.last();
    let write = |known: &mut ModelGroup, change| GroupWrite {
        group: RaftGroupId(number),
        hard_state: known.hard_state,
        change,
    };
    match random.below(40) {
        0 if number >= GROUPS => {
            let write = write(known, LogChange::Tombstone);
            model.groups.remove(&number);
            model.tombstones.insert(number);
            write
        }
        1 => {
            let at = LogId { index: LogIndex(last.index.0 + 1 + random.below(9)), term: known.hard_state.term };
            known.installing = Some((at, random.below(100)));
            write(known, LogChange::Installing { at, generation: known.installing.map_or(0, |mark| mark.1) })
        }
        2 if known.installing.is_some_and(|(at, _)| at.index > last.index) => {
            let (at, generation) = known.installing.take().expect("just seen");
            let hard_state = HardState { commit: known.hard_state.commit.max(at.index), ..known.hard_state };
            *known = ModelGroup { hard_state, start: at, released: at.index.0 + 1, ..ModelGroup::default() };
            write(known, LogChange::Installed { at, generation })
        }
        3..=8 => {
            known.hard_state.term.0 += random.below(2);
            known.hard_state.vote = random.one_in(2).then(|| ReplicaId(random.below(9)));
            known.hard_state.commit.0 += random.below(last.index.0.saturating_sub(known.hard_state.commit.0) + 1);
            write(known, LogChange::None)
        }
        _ => {
            let bottom = known.hard_state.commit.0.max(known.start.index.0).min(last.index.0) + 1;
            let first =
                if random.one_in(8) { bottom + random.below(last.index.0 + 2 - bottom) } else { last.index.0 + 1 };
            if first <= last.index.0 {
                known.hard_state.term.0 += 1;
            }
            known.entries.split_off(&first);
            known.installing = None; // nothing is appended while a snapshot is being installed
            let mut entries = Vec::new();
            for index in first..first + 1 + random.below(4) {
                let bytes = [0, 10, 500, 5_000, 30_000][random.below(5) as usize];
                known.entries.insert(index, (known.hard_state.term.0, bytes));
                entries.push(entry(number, index, known.hard_state.term.0, bytes));
            }
            known.hard_state.commit.0 += random.below(first - known.hard_state.commit.0.min(first - 1));
            write(known, LogChange::Append(entries))
        }
    }
}

/// A tombstoned number never comes back: writes to another group instead.
fn born_anew(random: &mut Random, model: &mut Model) -> GroupWrite {
    let number = (100..).find(|n| !model.groups.contains_key(n) && !model.tombstones.contains(n)).expect("one");
    if model.groups.len() as u64 > 12 || random.one_in(2) {
        let number = *model.groups.keys().next().expect("some group lives");
        let known = &model.groups[&number];
        return GroupWrite { group: RaftGroupId(number), hard_state: known.hard_state, change: LogChange::None };
    }
    let group = ModelGroup { hard_state: state(1, 1), start: LogId::new(1, 1), released: 2, ..ModelGroup::default() };
    model.groups.insert(number, group);
    born(number)
}

/// Whether the log is what the model says, but for released entries, which may be gone.
pub fn matches<D: Disk>(log: &Log<D>, recovery: &Recovery, model: &Model) -> Result<(), String> {
    let same = |what: &str, same: bool| if same { Ok(()) } else { Err(what.to_owned()) };
    same("groups", recovery.groups.keys().map(|group| group.0).eq(model.groups.keys().copied()))?;
    same("tombstones", recovery.tombstones.iter().map(|group| group.0).eq(model.tombstones.iter().copied()))?;
    model.groups.iter().try_for_each(|(&group, expected)| group_matches(log, recovery, group, expected))
}

/// Whether one group is what the model says.
pub fn group_matches<D: Disk>(
    log: &Log<D>,
    recovery: &Recovery,
    group: u64,
    expected: &ModelGroup,
) -> Result<(), String> {
    let same = |what: &str, same: bool| if same { Ok(()) } else { Err(format!("group {group}: {what}")) };
    let found = &recovery.groups[&RaftGroupId(group)];
    same("damage", found.damage.is_none())?;
    same("hard state", found.hard_state == expected.hard_state)?;
    same("last", found.last == expected.last())?;
    same("installing", found.installing == expected.installing)?;
    let start = found.start.index.0;
    same("start", start >= expected.start.index.0 && start < expected.released.max(expected.start.index.0 + 1))?;
    let entries = log.entries(RaftGroupId(group), found.first_index(), found.last.index.next(), u64::MAX);
    let entries = entries.map_err(|error| error.to_string())?;
    let kept = expected.entries.range(start + 1..);
    same("entries", entries.iter().cloned().eq(kept.map(|(&i, &(term, bytes))| entry(group, i, term, bytes))))?;
    for begin in &found.terms {
        same("terms", expected.entries.get(&begin.index.0).is_some_and(|(term, _)| *term == begin.term.0))?;
    }
    Ok(())
}
