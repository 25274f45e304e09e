//! A replica applies its log without gaps, and forgets nothing of it that was flushed: a restart finds a state that
//! holds what flushes had made durable, and a log that reaches back to it.

use crate::observe::{Invariant, Observation};
use ackord::types::{LogIndex, NodeId, RaftGroupId};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Default)]
pub struct AppliedInOrder {
    /// The newest entry that each replica whose process runs has applied.
    applied: BTreeMap<(NodeId, RaftGroupId), LogIndex>,
    /// What flushes have made durable.
    flushed: BTreeMap<(NodeId, RaftGroupId), LogIndex>,
    /// Where each log began when its process started.
    starts: BTreeMap<(NodeId, RaftGroupId), LogIndex>,
    /// Nodes whose disk was damaged: what they have forgotten is not theirs to keep.
    damaged: BTreeSet<NodeId>,
}

impl AppliedInOrder {
    fn open(&mut self, node: NodeId, group: RaftGroupId, applied: LogIndex) -> Result<(), String> {
        let key = (node, group);
        self.applied.insert(key, applied);
        if self.damaged.contains(&node) {
            return Ok(());
        }
        let flushed = self.flushed.get(&key).copied().unwrap_or_default();
        if applied < flushed {
            return Err(format!(
                "node {node} finds the state of group {group} as of entry {applied}, and had made entry {flushed} \
                 durable"
            ));
        }
        match self.starts.get(&key) {
            Some(start) if *start > applied => Err(format!(
                "node {node} finds the state of group {group} as of entry {applied}, and its log begins after {start}"
            )),
            _ => Ok(()),
        }
    }
}

impl Invariant for AppliedInOrder {
    fn name(&self) -> &'static str {
        "applied_in_order"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Damaged { node } => {
                self.damaged.insert(*node);
            }
            // The new disk has never had anything.
            Observation::Replaced { node, .. } => {
                self.flushed.retain(|(other, _), _| other != node);
                self.damaged.remove(node);
            }
            Observation::Started { node, groups } => {
                self.applied.retain(|(other, _), _| other != node);
                self.starts.retain(|(other, _), _| other != node);
                let starts = groups.iter().map(|(group, recovery)| ((*node, *group), recovery.start.index));
                self.starts.extend(starts);
            }
            Observation::Opened { node, group, applied } => self.open(*node, *group, applied.index)?,
            Observation::Restored { node, group, at } => {
                self.applied.insert((*node, *group), at.index);
            }
            Observation::Flushed { node, group, applied } => {
                let flushed = self.flushed.entry((*node, *group)).or_default();
                *flushed = (*flushed).max(*applied);
            }
            Observation::Applied { node, group, entry, .. } => {
                let before = self.applied.insert((*node, *group), entry.id.index);
                if let Some(before) = before.filter(|before| before.next() != entry.id.index) {
                    return Err(format!("node {node} applied entry {} of group {group} after {before}", entry.id));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, breaks, entry, holds};
    use super::*;
    use ackord::machine::Outcome;
    use ackord::types::LogId;
    use ackord::wal::GroupRecovery;

    const ONE: NodeId = NODES[0];

    fn opened(index: u64) -> Observation<'static> {
        Observation::Opened { node: ONE, group: GROUP, applied: LogId::new(index, 1) }
    }

    fn applied(entry: &ackord::types::LogEntry) -> Observation<'_> {
        Observation::Applied { node: ONE, group: GROUP, entry, outcome: &Outcome::None }
    }

    #[test]
    fn entries_follow_each_other() {
        let (two, three, nine) = (entry(2, 1, "a"), entry(3, 1, "b"), entry(9, 1, "c"));
        let restored = Observation::Restored { node: ONE, group: GROUP, at: LogId::new(8, 1) };
        let again = [applied(&two), applied(&three), opened(1), applied(&two), restored, applied(&nine)];
        holds(&mut AppliedInOrder::default(), &again);
        breaks(&mut AppliedInOrder::default(), &[opened(1), applied(&three)], "applied entry 3@1 of group 1 after 1");
        breaks(&mut AppliedInOrder::default(), &[applied(&two), applied(&two)], "after 2");
    }

    #[test]
    fn flushes_are_durable() {
        let flushed = Observation::Flushed { node: ONE, group: GROUP, applied: LogIndex(5) };
        holds(&mut AppliedInOrder::default(), &[flushed.clone(), opened(5), opened(7)]);
        breaks(&mut AppliedInOrder::default(), &[flushed.clone(), opened(4)], "had made entry 5 durable");
        holds(&mut AppliedInOrder::default(), &[flushed, Observation::Damaged { node: ONE }, opened(4)]);
    }

    #[test]
    fn the_log_reaches_back_to_the_state() {
        let recovery = GroupRecovery { start: LogId::new(6, 1), ..GroupRecovery::default() };
        let groups = BTreeMap::from([(GROUP, recovery)]);
        let started = Observation::Started { node: ONE, groups: &groups };
        holds(&mut AppliedInOrder::default(), &[started.clone(), opened(6)]);
        breaks(&mut AppliedInOrder::default(), &[started, opened(5)], "begins after 6");
    }
}
