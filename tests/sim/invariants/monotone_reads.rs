//! What readers are shown never goes back: neither the end of the log nor its start, within a leader epoch or from one
//! to a later one. A read is held against those that had ended before it began, so concurrent ones may differ.

use crate::observe::{Invariant, Observation};
use ackord::multiraft::core::effect::Ticket;
use ackord::types::{NodeId, Offset, RaftGroupId, Term};
use std::collections::{BTreeMap, BTreeSet};

/// Where a log began and ended at most, as somebody was told.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    /// The log start.
    start: Offset,
    /// The end.
    end: Offset,
}

/// See the module.
#[derive(Default)]
pub struct MonotoneReads {
    /// What was shown in each leader epoch, by group.
    shown: BTreeMap<RaftGroupId, BTreeMap<Term, Shown>>,
    /// The same as of the beginning of each read, and who was asked.
    open: BTreeMap<Ticket, (NodeId, BTreeMap<Term, Shown>)>,
    /// The bounds that each replica has had since its process started.
    bounds: BTreeMap<(NodeId, RaftGroupId), Shown>,
    /// Replicas that are being repaired.
    quarantined: BTreeSet<(NodeId, RaftGroupId)>,
}

impl MonotoneReads {
    fn check(
        &mut self,
        (ticket, node): (Ticket, NodeId),
        group: RaftGroupId,
        epoch: Term,
        now: Shown,
    ) -> Result<(), String> {
        let began = self.open.remove(&ticket).filter(|(asked, _)| *asked == node);
        let (_, before) = began.ok_or_else(|| format!("read {ticket:?} never began at node {node}"))?;
        for (earlier, shown) in before.range(..=epoch) {
            if now.end < shown.end || now.start < shown.start {
                return Err(format!(
                    "a read of group {group} in epoch {epoch} was shown {} to {}, after one in epoch {earlier} had \
                     been shown {} to {}",
                    now.start, now.end, shown.start, shown.end
                ));
            }
        }
        let shown = self.shown.entry(group).or_default().entry(epoch).or_default();
        *shown = Shown { start: shown.start.max(now.start), end: shown.end.max(now.end) };
        Ok(())
    }
}

impl Invariant for MonotoneReads {
    fn name(&self) -> &'static str {
        "monotone_reads"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::ReadBegan { ticket, node, group, .. } => {
                let shown = self.shown.get(group).cloned().unwrap_or_default();
                self.open.insert(*ticket, (*node, shown));
            }
            Observation::Refused { ticket } | Observation::Open { ticket } => {
                self.open.remove(ticket);
            }
            Observation::ReadEnded { ticket, node, group, epoch, log_start, end, .. } => {
                self.check((*ticket, *node), *group, *epoch, Shown { start: *log_start, end: *end })?;
            }
            Observation::Started { node, .. } => {
                self.bounds.retain(|(other, _), _| other != node);
                self.quarantined.retain(|(other, _)| other != node);
            }
            Observation::Quarantined { node, group, .. } => drop(self.quarantined.insert((*node, *group))),
            Observation::Repaired { node, group, .. } => drop(self.quarantined.remove(&(*node, *group))),
            // A state that takes a lost one's place may be older; nobody is shown it before the replica leads again.
            Observation::Restored { node, group, .. } if self.quarantined.contains(&(*node, *group)) => {
                self.bounds.remove(&(*node, *group));
            }
            Observation::Bounds { node, group, log_start, high_watermark } => {
                let now = Shown { start: *log_start, end: *high_watermark };
                let before = self.bounds.insert((*node, *group), now).unwrap_or_default();
                if now.end < before.end || now.start < before.start {
                    return Err(format!("group {group} of node {node} goes back from {before:?} to {now:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, breaks, holds};
    use super::*;
    use ackord::types::LogId;

    fn began(ticket: u64) -> Observation<'static> {
        Observation::ReadBegan { ticket: Ticket(ticket), node: NODES[0], group: GROUP, linearizable: false }
    }

    fn ended(ticket: u64, epoch: u64, start: i64, end: i64) -> Observation<'static> {
        let (ticket, epoch, log_start, end) = (Ticket(ticket), Term(epoch), Offset(start), Offset(end));
        Observation::ReadEnded { ticket, node: NODES[0], group: GROUP, epoch, log_start, end, records: &[] }
    }

    #[test]
    fn reads_go_forward() {
        // The second began before the first ended; the last is a leader of old that does not know better.
        let observations =
            [began(1), began(2), ended(1, 2, 1, 5), ended(2, 2, 0, 4), began(3), ended(3, 3, 1, 5), began(4)];
        let mut invariant = MonotoneReads::default();
        holds(&mut invariant, &observations);
        holds(&mut invariant, &[ended(4, 1, 0, 3)]);
    }

    #[test]
    fn and_not_back() {
        for (epoch, start, end) in [(2, 1, 4), (2, 0, 5), (3, 1, 4), (3, 0, 9)] {
            let observations = [began(1), ended(1, 2, 1, 5), began(2), ended(2, epoch, start, end)];
            breaks(&mut MonotoneReads::default(), &observations, "after one in epoch 2");
        }
        breaks(&mut MonotoneReads::default(), &[ended(1, 2, 1, 5)], "never began");
    }

    #[test]
    fn a_replica_does_not_go_back_while_it_runs() {
        let bounds = |start, end| {
            let (log_start, high_watermark) = (Offset(start), Offset(end));
            Observation::Bounds { node: NODES[0], group: GROUP, log_start, high_watermark }
        };
        let nothing = BTreeMap::new();
        let started = Observation::Started { node: NODES[0], groups: &nothing };
        holds(&mut MonotoneReads::default(), &[bounds(0, 2), bounds(1, 2), bounds(1, 3), started, bounds(0, 1)]);
        breaks(&mut MonotoneReads::default(), &[bounds(1, 3), bounds(1, 2)], "goes back");
        breaks(&mut MonotoneReads::default(), &[bounds(1, 3), bounds(0, 3)], "goes back");
        let (node, group, at) = (NODES[0], GROUP, LogId::new(9, 1));
        let restored = Observation::Restored { node, group, at };
        breaks(&mut MonotoneReads::default(), &[bounds(1, 3), restored, bounds(1, 2)], "goes back");
        let restored = Observation::Restored { node, group, at };
        let lost = Observation::Quarantined { node, group, reason: "rust" };
        holds(&mut MonotoneReads::default(), &[bounds(1, 3), lost, restored, bounds(1, 2)]);
    }
}
