//! An acknowledged record stays at its offset for ever, and so does one that a reader was shown: in every later read
//! that covers it, and in the final contents of every replica, unless the log start has moved past it.

use super::by_index::ByIndex;
use crate::observe::{Invariant, Observation};
use ackord::machine::Outcome;
use ackord::multiraft::core::effect::Ticket;
use ackord::types::{NodeId, Offset, RaftGroupId};
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct AckedStays {
    /// Batches that were not answered yet: who was asked, first value and count.
    open: BTreeMap<Ticket, (NodeId, u64, u32)>,
    /// The values that somebody was told, by group and offset.
    known: BTreeMap<RaftGroupId, ByIndex<u64>>,
}

impl AckedStays {
    fn learn(&mut self, group: RaftGroupId, offset: Offset, value: u64, how: &str) -> Result<(), String> {
        let known = *self.known.entry(group).or_default().slot(offset.0 as u64).get_or_insert(value);
        if known == value {
            return Ok(());
        }
        Err(format!("offset {offset} of group {group} {how} as {value}, and was known to hold {known}"))
    }

    fn check_end(&self, group: RaftGroupId, node: NodeId, start: Offset, values: &[u64]) -> Result<(), String> {
        let Some(known) = self.known.get(&group) else { return Ok(()) };
        let (start, end) = (start.0 as u64, start.0 as u64 + values.len() as u64);
        for (offset, value) in (start..end).zip(values) {
            if let Some(known) = known.get(offset).filter(|known| *known != value) {
                return Err(format!("offset {offset} of group {group} ends as {value} at node {node}, not {known}"));
            }
        }
        match (end.max(start)..known.end()).find(|offset| known.get(*offset).is_some()) {
            Some(lost) => Err(format!("offset {lost} of group {group}, which somebody was told of, is gone at {node}")),
            None => Ok(()),
        }
    }
}

impl Invariant for AckedStays {
    fn name(&self) -> &'static str {
        "acked_stays"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Wrote { ticket, node, value, count, .. } => {
                self.open.insert(*ticket, (*node, *value, *count));
            }
            Observation::Refused { ticket } | Observation::Open { ticket } => {
                self.open.remove(ticket);
            }
            Observation::Acked { ticket, node, group, outcome: Outcome::Appended { base_offset, .. }, .. } => {
                let asked = self.open.remove(ticket).filter(|(asked, ..)| asked == node);
                let (_, value, count) = asked.ok_or_else(|| format!("nobody wrote {ticket:?} at node {node}"))?;
                for place in 0..count {
                    let offset = Offset(base_offset.0 + i64::from(place));
                    self.learn(*group, offset, value + u64::from(place), "is acknowledged")?;
                }
            }
            Observation::ReadEnded { group, records, .. } => {
                for (offset, value) in *records {
                    self.learn(*group, *offset, *value, "is read")?;
                }
            }
            Observation::Final { group, records, .. } => {
                for (node, (start, values)) in *records {
                    self.check_end(*group, *node, *start, values)?;
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
    use ackord::types::{LogId, Term};

    fn wrote(ticket: u64, value: u64) -> Observation<'static> {
        let ticket = Ticket(ticket);
        Observation::Wrote { ticket, group: GROUP, node: NODES[0], value, count: 2, producer: None }
    }

    fn acked(ticket: u64, outcome: &Outcome) -> Observation<'_> {
        Observation::Acked { ticket: Ticket(ticket), node: NODES[0], group: GROUP, at: LogId::new(2, 1), outcome }
    }

    fn read(records: &[(Offset, u64)]) -> Observation<'_> {
        let (ticket, epoch, end) = (Ticket(99), Term(1), Offset(10));
        Observation::ReadEnded { ticket, node: NODES[0], group: GROUP, epoch, log_start: Offset(0), end, records }
    }

    const AT_0: &Outcome = &Outcome::Appended { base_offset: Offset(0), duplicate: false };
    const AT_1: &Outcome = &Outcome::Appended { base_offset: Offset(1), duplicate: false };

    #[test]
    fn what_was_told_stays() {
        let records = [(Offset(0), 70), (Offset(1), 71), (Offset(2), 80)];
        let ends = BTreeMap::from([(NODES[0], (Offset(0), vec![70, 71, 80])), (NODES[1], (Offset(1), vec![71, 80]))]);
        let last = Observation::Final { group: GROUP, records: &ends };
        let observations = [wrote(1, 70), acked(1, AT_0), read(&records[..1]), read(&records), last];
        holds(&mut AckedStays::default(), &observations);
    }

    #[test]
    fn no_offset_changes() {
        let other = [(Offset(1), 5)];
        breaks(&mut AckedStays::default(), &[wrote(1, 70), acked(1, AT_0), read(&other)], "is read as 5");
        let observations = [wrote(1, 70), acked(1, AT_0), wrote(2, 80), acked(2, AT_1)];
        breaks(&mut AckedStays::default(), &observations, "is acknowledged as 80");
        let earlier = [(Offset(1), 6)];
        breaks(&mut AckedStays::default(), &[read(&earlier), read(&other)], "is read as 5");
        breaks(&mut AckedStays::default(), &[acked(1, AT_0)], "nobody wrote");
    }

    #[test]
    fn no_record_is_lost_in_the_end() {
        for (values, sentence) in [(vec![70], "offset 1 of group 1, which"), (vec![70, 5], "ends as 5")] {
            let ends = BTreeMap::from([(NODES[0], (Offset(0), values))]);
            let last = Observation::Final { group: GROUP, records: &ends };
            breaks(&mut AckedStays::default(), &[wrote(1, 70), acked(1, AT_0), last], sentence);
        }
    }
}
