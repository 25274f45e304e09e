//! Where a log starts, and ends, follows from the entries that a replica has applied: it never starts earlier again,
//! nor later than anybody wanted, and after a restart it is where the state's entry has it. A replica that was given a
//! state by another one may start where later entries let it start: what its giver has removed is not given any more.

use super::replay::Replay;
use crate::batch::batch_in;
use crate::observe::{Invariant, Observation};
use ackord::machine::Outcome;
use ackord::partition::command::Command;
use ackord::types::{LogIndex, NodeId, Offset, RaftGroupId};
use std::collections::{BTreeMap, BTreeSet};

/// What readers of a group may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extent {
    /// The log start.
    start: Offset,
    /// The high watermark.
    end: Offset,
}

/// A group as its committed log has it.
#[derive(Default)]
struct Group {
    /// The extent as of each entry that changed it.
    extents: BTreeMap<LogIndex, Extent>,
    /// The greatest offset at which anybody wanted the log to start.
    wanted: Offset,
    /// The greatest log start that was acknowledged or shown.
    told: Offset,
}

impl Group {
    fn extent_at(&self, applied: LogIndex) -> Extent {
        self.extents.range(..=applied).next_back().map(|(_, extent)| *extent).unwrap_or_default()
    }
}

/// See the module.
#[derive(Default)]
pub struct LogStartMonotone {
    /// What is applied for the first time.
    replay: Replay,
    /// By group.
    groups: BTreeMap<RaftGroupId, Group>,
    /// What each replica whose process runs has applied.
    applied: BTreeMap<(NodeId, RaftGroupId), LogIndex>,
    /// Replicas that were given a state, or began to take it before a crash, and have not shown it yet.
    restored: BTreeSet<(NodeId, RaftGroupId)>,
    /// The log starts that replicas were given. A disk that was rolled back has an earlier one.
    given: BTreeMap<(NodeId, RaftGroupId), BTreeSet<Offset>>,
}

impl LogStartMonotone {
    fn learn(&mut self, observation: &Observation<'_>) {
        let Some((group, entry, outcome)) = self.replay.fresh(observation) else { return };
        let known = self.groups.entry(group).or_default();
        let mut extent = known.extent_at(entry.id.index);
        if let Outcome::Appended { base_offset, duplicate: false } = outcome
            && let Some(batch) = batch_in(entry)
        {
            extent.end = Offset(base_offset.0 + i64::from(batch.last_offset_delta()) + 1);
        } else if *outcome == Outcome::None
            && entry.data.is_empty()
            && let Ok(Command::SetLogStart { offset }) = Command::decode(&entry.context)
        {
            extent.start = extent.start.max(offset.min(extent.end));
        } else {
            return;
        }
        known.extents.insert(entry.id.index, extent);
    }

    fn check_bounds(&mut self, node: NodeId, group: RaftGroupId, now: Extent) -> Result<(), String> {
        let key = (node, group);
        let Some(applied) = self.applied.get(&key) else { return Ok(()) };
        let known = self.groups.entry(group).or_default();
        let expected = known.extent_at(*applied);
        let newest = known.extents.values().next_back().copied().unwrap_or_default();
        if self.restored.remove(&key) && now.start > expected.start && now.start <= newest.start {
            self.given.entry(key).or_default().insert(now.start);
        }
        let mut given = self.given.get(&key).into_iter().flatten();
        let is_given = |given: &Offset| now.start == expected.start.max((*given).min(expected.end));
        if now.end == expected.end && (now.start == expected.start || given.any(is_given)) {
            return Ok(());
        }
        let (start, end) = (now.start, now.end);
        Err(format!(
            "node {node} has applied entry {applied} of group {group} and shows {start} to {end}, where the log says \
             {} to {}",
            expected.start, expected.end
        ))
    }

    fn check_final(&self, group: RaftGroupId, node: NodeId, start: Offset) -> Result<(), String> {
        let Some(known) = self.groups.get(&group) else { return Ok(()) };
        if start < known.told || start > known.wanted {
            let (told, wanted) = (known.told, known.wanted);
            return Err(format!(
                "group {group} starts at {start} for node {node} in the end; somebody was told {told}, and nobody \
                 wanted more than {wanted}"
            ));
        }
        Ok(())
    }
}

impl Invariant for LogStartMonotone {
    fn name(&self) -> &'static str {
        "log_start_monotone"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        self.learn(observation);
        match observation {
            Observation::Started { node, .. } => self.applied.retain(|(other, _), _| other != node),
            Observation::Opened { node, group, applied } => {
                self.applied.insert((*node, *group), applied.index);
            }
            Observation::Installing { node, group } => drop(self.restored.insert((*node, *group))),
            Observation::Restored { node, group, at } => {
                self.applied.insert((*node, *group), at.index);
                self.restored.insert((*node, *group));
            }
            Observation::Applied { node, group, entry, .. } => {
                self.applied.insert((*node, *group), entry.id.index);
            }
            Observation::Bounds { node, group, log_start, high_watermark } => {
                self.check_bounds(*node, *group, Extent { start: *log_start, end: *high_watermark })?;
            }
            Observation::TrimBegan { group, offset, .. } => {
                let known = self.groups.entry(*group).or_default();
                known.wanted = known.wanted.max(*offset);
            }
            Observation::ReadEnded { group, log_start, .. } => {
                let known = self.groups.entry(*group).or_default();
                known.told = known.told.max(*log_start);
                if *log_start > known.wanted {
                    let wanted = known.wanted;
                    return Err(format!("group {group} starts at {log_start}, and nobody wanted more than {wanted}"));
                }
            }
            Observation::Final { group, records, .. } => {
                for (node, (start, _)) in *records {
                    self.check_final(*group, *node, *start)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, breaks, holds, produce};
    use super::*;
    use ackord::multiraft::core::effect::Ticket;
    use ackord::types::{EntryKind, LogEntry, LogId, Term};
    use bytes::Bytes;

    const ONE: NodeId = NODES[0];
    const APPENDED: &Outcome = &Outcome::Appended { base_offset: Offset(0), duplicate: false };

    fn applied<'a>(entry: &'a LogEntry, outcome: &'a Outcome) -> Observation<'a> {
        Observation::Applied { node: ONE, group: GROUP, entry, outcome }
    }

    fn trim(offset: i64) -> LogEntry {
        let context = Command::SetLogStart { offset: Offset(offset) }.encode();
        LogEntry { id: LogId::new(3, 1), kind: EntryKind::Normal, context, data: Bytes::new() }
    }

    fn wanted(offset: i64) -> Observation<'static> {
        Observation::TrimBegan { ticket: Ticket(1), group: GROUP, offset: Offset(offset) }
    }

    fn bounds(start: i64, end: i64) -> Observation<'static> {
        let (log_start, high_watermark) = (Offset(start), Offset(end));
        Observation::Bounds { node: ONE, group: GROUP, log_start, high_watermark }
    }

    #[test]
    fn bounds_follow_from_the_log() {
        let (batch, trim, nothing) = (produce(2, 70, 4, None), trim(9), BTreeMap::new());
        let begin = [wanted(9), applied(&batch, APPENDED), bounds(0, 4), applied(&trim, &Outcome::None)];
        let again = [
            Observation::Started { node: ONE, groups: &nothing },
            Observation::Opened { node: ONE, group: GROUP, applied: LogId::new(2, 1) },
        ];
        let ready = || {
            let mut invariant = LogStartMonotone::default();
            holds(&mut invariant, &begin);
            invariant
        };
        holds(&mut ready(), &[bounds(4, 4)]);
        holds(&mut ready(), &[again[0].clone(), again[1].clone(), bounds(0, 4)]);
        breaks(&mut ready(), &[bounds(0, 4)], "where the log says 4 to 4");
        breaks(&mut ready(), &[again[0].clone(), again[1].clone(), bounds(4, 4)], "where the log says 0 to 4");
        let restored = Observation::Restored { node: ONE, group: GROUP, at: LogId::new(3, 1) };
        breaks(&mut ready(), &[again[0].clone(), restored, bounds(0, 4)], "where the log says 4 to 4");
    }

    #[test]
    fn a_snapshot_may_bring_a_later_start() {
        let (batch, trim) = (produce(2, 70, 4, None), trim(3));
        let ready = || {
            let mut invariant = LogStartMonotone::default();
            holds(&mut invariant, &[wanted(3), applied(&batch, APPENDED), applied(&trim, &Outcome::None)]);
            invariant
        };
        let two = NODES[1];
        let restored = Observation::Restored { node: two, group: GROUP, at: LogId::new(2, 1) };
        let opened = Observation::Opened { node: two, group: GROUP, applied: LogId::new(2, 1) };
        let shows = |start| {
            let (log_start, high_watermark) = (Offset(start), Offset(4));
            Observation::Bounds { node: two, group: GROUP, log_start, high_watermark }
        };
        holds(&mut ready(), &[restored.clone(), shows(3), opened.clone(), shows(3)]);
        holds(&mut ready(), &[restored.clone(), shows(0)]);
        let installing = Observation::Installing { node: two, group: GROUP };
        holds(&mut ready(), &[installing.clone(), opened.clone(), shows(3)]);
        holds(&mut ready(), &[installing, opened.clone(), shows(0)]);
        breaks(&mut ready(), &[restored.clone(), shows(4)], "where the log says 0 to 4");
        breaks(&mut ready(), &[restored, shows(0), shows(3)], "where the log says 0 to 4");
        breaks(&mut ready(), &[opened, shows(3)], "where the log says 0 to 4");
    }

    #[test]
    fn a_log_starts_where_somebody_wanted() {
        let read = |start| {
            let (ticket, epoch, log_start, end) = (Ticket(7), Term(1), Offset(start), Offset(9));
            Observation::ReadEnded { ticket, node: ONE, group: GROUP, epoch, log_start, end, records: &[] }
        };
        holds(&mut LogStartMonotone::default(), &[read(0), wanted(3), read(2)]);
        breaks(&mut LogStartMonotone::default(), &[wanted(3), read(4)], "nobody wanted more than 3");
        for (start, is_right) in [(1, false), (2, true), (3, true), (4, false)] {
            let ends = BTreeMap::from([(ONE, (Offset(start), Vec::new()))]);
            let last = Observation::Final { group: GROUP, records: &ends };
            let observations = [wanted(3), read(2), last];
            if is_right {
                holds(&mut LogStartMonotone::default(), &observations);
            } else {
                breaks(&mut LogStartMonotone::default(), &observations, "in the end");
            }
        }
    }
}
