//! A replica's durable log has no hole and forgets nothing.
//!
//! Every append continues the log or cuts off what is not committed; terms, votes and commits never go back. What was
//! durable when a process ended is there when the next one starts: exactly that, or with the whole turn that was being
//! written. Only the front may be gone, because segments are freed. A node whose disk was damaged is taken as it comes
//! at its next start, and so are groups that say themselves that they are damaged, until they are repaired: then they
//! have everything up to where they ended, and more than they knew to be committed.

use super::durable::{DurableLog, take_in};
use crate::observe::{Invariant, Observation};
use ackord::types::{LogEntry, LogId, NodeId, RaftGroupId};
use ackord::wal::{GroupRecovery, GroupWrite, LogChange, Turn};
use std::collections::{BTreeMap, BTreeSet};

/// What a node's disk should hold.
#[derive(Default)]
struct Node {
    /// The groups that are known.
    logs: BTreeMap<RaftGroupId, DurableLog>,
    /// Groups that are damaged, with what they found of themselves and what was refilled since.
    damaged: BTreeMap<RaftGroupId, DurableLog>,
    /// Groups that were deleted.
    ended: BTreeSet<RaftGroupId>,
    /// The turn that is being written.
    writing: Option<Turn>,
    /// The disk was damaged, and no process has looked at it since.
    is_damaged: bool,
    /// It was, at some time: groups may say that they are damaged.
    was_damaged: bool,
}

/// Whether what a repair brings is what was lost.
fn check_refill(log: &DurableLog, entries: &[LogEntry]) -> Result<(), String> {
    match entries.iter().find(|entry| log.term_at(entry.id.index) != Some(entry.id.term)) {
        Some(entry) => Err(format!("refills {}, which is not what it had there", entry.id)),
        None => Ok(()),
    }
}

/// See the module.
#[derive(Default)]
pub struct NoHole {
    /// By node.
    nodes: BTreeMap<NodeId, Node>,
}

/// What may not follow on the log that is there.
fn check_promises(before: Option<&DurableLog>, write: &GroupWrite) -> Result<(), String> {
    if write.change == LogChange::Tombstone {
        return Ok(());
    }
    let Some(before) = before else { return Ok(()) };
    let (old, new) = (before.hard_state, write.hard_state);
    // A replica that finds its promises lost says nothing of what is committed.
    let says_commit = write.change != LogChange::Doubt;
    if new.term < old.term || (says_commit && new.commit < old.commit) {
        return Err(format!("goes back from {old:?} to {new:?}"));
    }
    if new.term == old.term && old.vote.is_some() && new.vote != old.vote {
        return Err(format!("takes back its vote: {old:?}, then {new:?}"));
    }
    if let LogChange::Append(entries) = &write.change
        && let Some(first) = entries.first()
        && first.id.index <= old.commit
    {
        return Err(format!("overwrites entry {} and knows that {} is committed", first.id, old.commit));
    }
    Ok(())
}

/// Whether a start found what should be there.
fn compare(expected: &DurableLog, found: &GroupRecovery) -> Result<(), String> {
    if let Some(damage) = &found.damage {
        return Err(format!("is said to be damaged, and nobody damaged it: {}", damage.reason));
    }
    let (ours, theirs) = (expected.hard_state, found.hard_state);
    if (theirs.term, theirs.vote) != (ours.term, ours.vote) || theirs.commit != ours.commit {
        return Err(format!("promised {ours:?} and remembers {theirs:?}"));
    }
    // A log that has lost an unknown tail may know of a commit beyond its end; its replica takes no part.
    let has_lost_its_end = ours.commit > expected.last.index;
    if found.last != expected.last || (theirs.commit > found.last.index && !has_lost_its_end) {
        return Err(format!("ended with entry {} and ends with {} now", expected.last, found.last));
    }
    if found.start.index < expected.start.index || expected.term_at(found.start.index) != Some(found.start.term) {
        return Err(format!("began after entry {} and begins after {} now", expected.start, found.start));
    }
    let mut rest = expected.clone();
    rest.start_after(found.start);
    if found.terms != rest.terms {
        return Err(format!("had terms that begin at {:?}, and has {:?} now", rest.terms, found.terms));
    }
    Ok(())
}

impl Node {
    fn persist(&mut self, write: &GroupWrite) -> Result<(), String> {
        let group = write.group;
        if self.ended.contains(&group) {
            return Err("writes after its end".to_owned());
        }
        if matches!(write.change, LogChange::Born { .. } | LogChange::Installed { .. } | LogChange::Tombstone) {
            self.damaged.remove(&group);
        }
        if let Some(log) = self.damaged.get_mut(&group) {
            return match &write.change {
                LogChange::Refill(entries) => log.refill(entries),
                LogChange::Append(_) => Err("appends while it is damaged".to_owned()),
                _ => Ok(()),
            };
        }
        if let (Some(log), LogChange::Refill(entries)) = (self.logs.get(&group), &write.change) {
            check_refill(log, entries)?;
        }
        check_promises(self.logs.get(&group), write)?;
        if write.change == LogChange::Tombstone {
            self.ended.insert(group);
        }
        take_in(&mut self.logs, write)?;
        match self.logs.get(&group) {
            Some(log) if log.hard_state.commit > log.last.index => {
                Err(format!("knows that {} is committed, and ends with {}", log.hard_state.commit, log.last))
            }
            _ => Ok(()),
        }
    }

    /// What should be there if the turn that was being written is.
    fn with_writing(&self) -> Option<BTreeMap<RaftGroupId, DurableLog>> {
        let mut logs = self.logs.clone();
        // What a damaged group writes of its repair touches no other group.
        let is_whole = |write: &&GroupWrite| !self.damaged.contains_key(&write.group);
        for write in self.writing.as_ref()?.writes.iter().filter(is_whole) {
            take_in(&mut logs, write).ok()?;
        }
        Some(logs)
    }

    fn check(
        &self,
        logs: &BTreeMap<RaftGroupId, DurableLog>,
        found: &BTreeMap<RaftGroupId, GroupRecovery>,
    ) -> Result<(), String> {
        let excused = |group: &RaftGroupId| self.damaged.contains_key(group);
        for (group, log) in logs.iter().filter(|(group, _)| !excused(group)) {
            let Some(found) = found.get(group) else { return Err(format!("group {group} is not there any more")) };
            if self.was_damaged && found.damage.is_some() {
                continue;
            }
            compare(log, found).map_err(|reason| format!("group {group} {reason}"))?;
        }
        // What could not be read once may be read again, and says so.
        let is_back = |recovery: &GroupRecovery| self.was_damaged && recovery.damage.is_some();
        let mut strange = found.iter().filter(|(group, _)| !logs.contains_key(group) && !excused(group));
        match strange.find(|(_, recovery)| !is_back(recovery)) {
            Some((group, _)) => Err(format!("group {group} is there, and was never born or has ended")),
            None => Ok(()),
        }
    }

    /// A group takes part again, with a log that ends there.
    fn repaired(&mut self, group: RaftGroupId, last: LogId) -> Result<(), String> {
        if let Some(log) = self.damaged.remove(&group) {
            self.logs.insert(group, log);
        }
        let log = self.logs.get(&group).ok_or("is repaired without a log")?;
        if log.last != last || log.hard_state.commit > last.index {
            let commit = log.hard_state.commit;
            return Err(format!("had a log up to {}, and knew that {commit} was committed", log.last));
        }
        Ok(())
    }

    fn start(&mut self, found: &BTreeMap<RaftGroupId, GroupRecovery>) -> Result<(), String> {
        if !self.is_damaged
            && let Err(reason) = self.check(&self.logs, found)
        {
            let other = self.with_writing().ok_or_else(|| reason.clone())?;
            if let Err(other) = self.check(&other, found) {
                return Err(format!("{reason} (or, with the turn that was being written: {other})"));
            }
        }
        let logs = found.iter().map(|(group, recovery)| (*group, DurableLog::of(recovery)));
        (self.logs, self.damaged) = logs.partition(|(group, _)| found[group].damage.is_none());
        // An older disk does not know of their end.
        let was_damaged = self.is_damaged;
        self.ended.retain(|group| !was_damaged && !found.contains_key(group));
        (self.writing, self.is_damaged) = (None, false);
        Ok(())
    }
}

impl Invariant for NoHole {
    fn name(&self) -> &'static str {
        "no_hole"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Started { node, groups } => {
                let known = self.nodes.entry(*node).or_default();
                known.start(groups).map_err(|reason| format!("node {node}, after a start: {reason}"))
            }
            Observation::Writing { node, turn } => {
                self.nodes.entry(*node).or_default().writing = Some((*turn).clone());
                Ok(())
            }
            Observation::Persisted { node, write } => {
                let known = self.nodes.entry(*node).or_default();
                known.writing = None;
                known.persist(write).map_err(|reason| format!("group {} of node {node} {reason}", write.group))
            }
            Observation::Damaged { node } => {
                let known = self.nodes.entry(*node).or_default();
                (known.is_damaged, known.was_damaged) = (true, true);
                Ok(())
            }
            // The new disk has never promised anything.
            Observation::Replaced { node, .. } => {
                self.nodes.remove(node);
                Ok(())
            }
            Observation::Repaired { node, group, start, last } => {
                let known = self.nodes.entry(*node).or_default();
                let repaired = known.repaired(*group, *last);
                repaired.map_err(|reason| format!("group {group} of node {node}, from {start} to {last}, {reason}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "no_hole/tests.rs"]
mod tests;
