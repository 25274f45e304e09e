//! A linearizable read sees every write that was acknowledged before it began, and no log start below one that somebody
//! was told before: by a linearizable read, or by the acknowledgement of a trim.

use crate::observe::{Invariant, Observation};
use ackord::machine::Outcome;
use ackord::multiraft::core::effect::Ticket;
use ackord::types::{Offset, RaftGroupId};
use std::collections::BTreeMap;

/// What everybody has to see.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// The log starts there, or later.
    start: Offset,
    /// The log ends there, or later.
    end: Offset,
}

/// See the module.
#[derive(Default)]
pub struct LinearizableEnd {
    /// By group.
    told: BTreeMap<RaftGroupId, Told>,
    /// Counts of records on their way.
    writes: BTreeMap<Ticket, u32>,
    /// Trims on their way: where the log surely starts afterwards. Beyond the end, the end as of then takes its place.
    trims: BTreeMap<Ticket, Offset>,
    /// Linearizable reads on their way: what they must see.
    reads: BTreeMap<Ticket, Told>,
}

impl Invariant for LinearizableEnd {
    fn name(&self) -> &'static str {
        "linearizable_end"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Wrote { ticket, count, .. } => {
                self.writes.insert(*ticket, *count);
            }
            Observation::TrimBegan { ticket, group, offset } => {
                let end = self.told.get(group).map_or(Offset(0), |told| told.end);
                self.trims.insert(*ticket, end.min(*offset));
            }
            Observation::Refused { ticket } | Observation::Open { ticket } => {
                self.writes.remove(ticket);
                self.trims.remove(ticket);
                self.reads.remove(ticket);
            }
            Observation::Acked { ticket, group, outcome, .. } => {
                let told = self.told.entry(*group).or_default();
                if let Outcome::Appended { base_offset, .. } = outcome {
                    let count = self.writes.remove(ticket).unwrap_or_default();
                    told.end = told.end.max(Offset(base_offset.0 + i64::from(count)));
                }
                let start = self.trims.remove(ticket).unwrap_or_default();
                told.start = told.start.max(start);
            }
            Observation::ReadBegan { ticket, group, linearizable: true, .. } => {
                self.reads.insert(*ticket, self.told.get(group).copied().unwrap_or_default());
            }
            Observation::ReadEnded { ticket, node, group, log_start, end, .. } => {
                let Some(before) = self.reads.remove(ticket) else { return Ok(()) };
                if *end < before.end || *log_start < before.start {
                    return Err(format!(
                        "a linearizable read of group {group} at node {node} saw {log_start} to {end}, and before it \
                         began everything up to {} was acknowledged, and the log known to start at {}",
                        before.end, before.start
                    ));
                }
                let told = self.told.entry(*group).or_default();
                told.start = told.start.max(*log_start);
                told.end = told.end.max(*end);
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

    const APPENDED: &Outcome = &Outcome::Appended { base_offset: Offset(4), duplicate: false };

    fn wrote(ticket: u64) -> Observation<'static> {
        let ticket = Ticket(ticket);
        Observation::Wrote { ticket, group: GROUP, node: NODES[0], value: 70, count: 2, producer: None }
    }

    fn acked(ticket: u64, outcome: &Outcome) -> Observation<'_> {
        Observation::Acked { ticket: Ticket(ticket), node: NODES[0], group: GROUP, at: LogId::new(2, 1), outcome }
    }

    fn trim(ticket: u64, offset: i64) -> Observation<'static> {
        Observation::TrimBegan { ticket: Ticket(ticket), group: GROUP, offset: Offset(offset) }
    }

    fn began(ticket: u64, linearizable: bool) -> Observation<'static> {
        Observation::ReadBegan { ticket: Ticket(ticket), node: NODES[0], group: GROUP, linearizable }
    }

    fn ended(ticket: u64, start: i64, end: i64) -> Observation<'static> {
        let (ticket, epoch, log_start, end) = (Ticket(ticket), Term(1), Offset(start), Offset(end));
        Observation::ReadEnded { ticket, node: NODES[0], group: GROUP, epoch, log_start, end, records: &[] }
    }

    #[test]
    fn reads_see_what_was_acknowledged_before_them() {
        let observations = [
            wrote(1),
            began(2, true),
            began(3, false),
            acked(1, APPENDED),
            ended(2, 0, 4),
            ended(3, 0, 0),
            began(4, true),
            ended(4, 0, 6),
        ];
        holds(&mut LinearizableEnd::default(), &observations);
        let observations = [wrote(1), acked(1, APPENDED), began(2, true), ended(2, 0, 5)];
        breaks(&mut LinearizableEnd::default(), &observations, "up to 6 was acknowledged");
    }

    #[test]
    fn reads_see_what_others_saw() {
        let observations = [began(1, true), ended(1, 0, 5), began(2, true), ended(2, 0, 4)];
        breaks(&mut LinearizableEnd::default(), &observations, "up to 5 was acknowledged");
        let observations = [began(1, true), ended(1, 2, 5), began(2, true), ended(2, 1, 5)];
        breaks(&mut LinearizableEnd::default(), &observations, "known to start at 2");
    }

    #[test]
    fn reads_see_trims() {
        let none = &Outcome::None;
        let begin = [wrote(1), acked(1, APPENDED), trim(2, 9), began(3, true), ended(3, 0, 6), acked(2, none)];
        let mut invariant = LinearizableEnd::default();
        holds(&mut invariant, &begin);
        breaks(&mut invariant, &[began(4, true), ended(4, 5, 6)], "known to start at 6");
    }
}
