//! A replica's log as it is on its disk: what the invariants about durability compare with.

use crate::observe::Observation;
use ackord::types::{HardState, LogEntry, LogId, LogIndex, NodeId, RaftGroupId, Term};
use ackord::wal::{GroupRecovery, GroupWrite, LogChange};
use std::collections::BTreeMap;

/// One replica's log, without the entries themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurableLog {
    /// What it has promised.
    pub hard_state: HardState,
    /// The entry before the first.
    pub start: LogId,
    /// The last entry, or `start`.
    pub last: LogId,
    /// Where each term begins, ascending.
    pub terms: Vec<LogId>,
}

impl DurableLog {
    /// What a start has found.
    pub fn of(recovery: &GroupRecovery) -> Self {
        let GroupRecovery { hard_state, start, last, ref terms, .. } = *recovery;
        Self { hard_state, start, last, terms: terms.clone() }
    }

    /// The term of the entry at `index`, from `start` on.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index < self.start.index || index > self.last.index {
            return None;
        }
        self.terms.iter().rev().find(|begin| begin.index <= index).map(|begin| begin.term)
    }

    /// Whether this entry is in it, or in the state that it continues.
    pub fn holds(&self, id: LogId) -> bool {
        id.index < self.start.index || self.term_at(id.index) == Some(id.term)
    }

    /// Lets go of everything up to `start`, as a log does when old segments are freed.
    pub fn start_after(&mut self, start: LogId) {
        let first = start.index.next();
        let next_term = self.term_at(first);
        self.terms.retain(|begin| begin.index > first);
        if let Some(term) = next_term {
            self.terms.insert(0, LogId { index: first, term });
        }
        self.start = start;
    }

    /// Takes in entries; an error if they leave a hole.
    fn append(&mut self, entries: &[LogEntry]) -> Result<(), String> {
        let Some(first) = entries.first() else { return Err("appends nothing".to_owned()) };
        if first.id.index > self.last.index.next() || first.id.index <= self.start.index {
            return Err(format!("appends {} to a log from {} to {}", first.id, self.start, self.last));
        }
        self.terms.retain(|begin| begin.index < first.id.index);
        let before = first.id.index.previous();
        let mut last = self.term_at(before).map(|term| LogId { index: before, term });
        for entry in entries {
            let begins = self.terms.last().is_none_or(|begin| begin.term != entry.id.term);
            if let Some(last) = last
                && (entry.id.index != last.index.next() || entry.id.term < last.term)
            {
                return Err(format!("appends {} after {last}", entry.id));
            }
            if begins {
                self.terms.push(entry.id);
            }
            last = Some(entry.id);
        }
        self.last = last.unwrap_or(self.last);
        Ok(())
    }

    /// Takes in entries that were lost; an error if there is no place for them.
    pub fn refill(&mut self, entries: &[LogEntry]) -> Result<(), String> {
        for LogEntry { id, .. } in entries {
            if id.index <= self.start.index || id.index > self.last.index {
                return Err(format!("refills {id} in a log from {} to {}", self.start, self.last));
            }
            self.set_term(*id);
        }
        Ok(())
    }

    /// The entry at this index has that term, whatever was thought of it.
    fn set_term(&mut self, id: LogId) {
        if self.term_at(id.index) == Some(id.term) {
            return;
        }
        let next = id.index.next();
        let after = self.term_at(next).filter(|_| !self.terms.iter().any(|begin| begin.index == next));
        self.terms.retain(|begin| begin.index != id.index);
        self.terms.push(id);
        self.terms.extend(after.map(|term| LogId { index: next, term }));
        self.terms.sort_unstable_by_key(|begin| begin.index);
        self.terms.dedup_by_key(|begin| begin.term);
    }
}

/// Takes a write into a node's logs; an error says what can't be written there.
pub fn take_in(logs: &mut BTreeMap<RaftGroupId, DurableLog>, write: &GroupWrite) -> Result<(), String> {
    match &write.change {
        LogChange::Tombstone => {
            logs.remove(&write.group);
            return Ok(());
        }
        LogChange::Born { start } | LogChange::Installed { at: start, .. } => {
            let log = DurableLog { start: *start, last: *start, hard_state: write.hard_state, terms: Vec::new() };
            let earlier = logs.insert(write.group, log);
            let is_born = matches!(write.change, LogChange::Born { .. });
            return if is_born && earlier.is_some() { Err("is born twice".to_owned()) } else { Ok(()) };
        }
        _ => {}
    }
    let Some(log) = logs.get_mut(&write.group) else { return Err("writes before it is born".to_owned()) };
    let known = if write.change == LogChange::Doubt { log.hard_state.commit } else { LogIndex(0) };
    log.hard_state = HardState { commit: write.hard_state.commit.max(known), ..write.hard_state };
    match &write.change {
        LogChange::Append(entries) => log.append(entries),
        LogChange::Refill(entries) => log.refill(entries),
        _ => Ok(()),
    }
}

/// Every node's logs, as far as they are known.
#[derive(Debug, Default)]
pub struct Logs {
    /// By node and group.
    nodes: BTreeMap<NodeId, BTreeMap<RaftGroupId, DurableLog>>,
}

impl Logs {
    /// Takes in what has become durable, and at each start what was found: with the entries that a damaged log has
    /// lost, as far as it knows their terms, because it takes no part before it has them again. What can't be is
    /// `no_hole`'s business.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Replaced { node, .. } => self.forget(*node),
            Observation::Started { node, groups } => {
                let logs = groups.iter().map(|(group, recovery)| (*group, DurableLog::of(recovery))).collect();
                self.nodes.insert(*node, logs);
            }
            Observation::Repaired { node, group, start, .. } => {
                // It may begin behind what was lost, if a flushed state covers that.
                let log = self.nodes.get_mut(node).and_then(|logs| logs.get_mut(group));
                if let Some(log) = log.filter(|log| log.start.index < start.index) {
                    log.start_after(*start);
                }
            }
            Observation::Persisted { node, write } => {
                let _reported_elsewhere = take_in(self.nodes.entry(*node).or_default(), write);
            }
            _ => {}
        }
    }

    /// A node has another disk, with nothing on it.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// One node's logs.
    pub fn of_node(&self, node: NodeId) -> Option<&BTreeMap<RaftGroupId, DurableLog>> {
        self.nodes.get(&node)
    }

    /// One replica's log.
    pub fn of(&self, node: NodeId, group: RaftGroupId) -> Option<&DurableLog> {
        self.nodes.get(&node)?.get(&group)
    }
}
