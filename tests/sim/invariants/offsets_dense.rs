//! Offsets have no gaps and are given once: each batch begins where the one before it ended, a reader is shown every
//! offset of what it reads, and in the end every replica holds everything from its log start on.

use super::replay::Replay;
use crate::batch::batch_in;
use crate::observe::{Invariant, Observation};
use ackord::machine::Outcome;
use ackord::types::{Offset, RaftGroupId};
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct OffsetsDense {
    /// What is applied for the first time.
    replay: Replay,
    /// Where each group's next batch goes.
    next: BTreeMap<RaftGroupId, Offset>,
}

impl Invariant for OffsetsDense {
    fn name(&self) -> &'static str {
        "offsets_dense"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        if let Some((group, entry, Outcome::Appended { base_offset, duplicate: false })) =
            self.replay.fresh(observation)
        {
            let batch = batch_in(entry).ok_or_else(|| format!("entry {} of group {group} has no batch", entry.id))?;
            let next = self.next.entry(group).or_default();
            if base_offset != next {
                return Err(format!(
                    "the batch of entry {} of group {group} begins at offset {base_offset}, where {next} is next",
                    entry.id
                ));
            }
            next.0 += i64::from(batch.last_offset_delta()) + 1;
        }
        if let Observation::ReadEnded { group, log_start, end, records, .. } = observation {
            let is_next = |pair: &[(Offset, u64)]| pair[1].0.0 == pair[0].0.0 + 1;
            let inside = |(offset, _): &(Offset, u64)| log_start <= offset && offset < end;
            if !records.windows(2).all(is_next) || !records.iter().all(inside) || log_start > end {
                return Err(format!(
                    "a read of group {group}, which goes from {log_start} to {end}, showed {:?}",
                    records.iter().map(|(offset, _)| offset.0).collect::<Vec<_>>()
                ));
            }
        }
        if let Observation::Final { group, records, .. } = observation {
            let next = self.next.get(group).copied().unwrap_or_default();
            for (node, (start, values)) in *records {
                let end = Offset(start.0 + values.len() as i64);
                if end != next {
                    return Err(format!("group {group} ends at offset {end} for node {node}, where {next} is next"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, breaks, holds, produce};
    use super::*;
    use ackord::multiraft::core::effect::Ticket;
    use ackord::types::{LogEntry, NodeId, Term};

    fn applied<'a>(node: NodeId, entry: &'a LogEntry, outcome: &'a Outcome) -> Observation<'a> {
        Observation::Applied { node, group: GROUP, entry, outcome }
    }

    fn at(base_offset: i64) -> Outcome {
        Outcome::Appended { base_offset: Offset(base_offset), duplicate: false }
    }

    #[test]
    fn batches_follow_each_other() {
        let [one, two, _] = NODES;
        let (first, second, third) = (produce(2, 70, 3, None), produce(3, 80, 1, None), produce(4, 90, 1, None));
        let (zero, three, again) = (at(0), at(3), Outcome::Appended { base_offset: Offset(0), duplicate: true });
        let observations = [
            applied(one, &first, &zero),
            applied(one, &second, &three),
            applied(two, &first, &zero),
            applied(one, &third, &again),
        ];
        holds(&mut OffsetsDense::default(), &observations);
        for wrong in [at(2), at(4)] {
            let observations = [applied(one, &first, &zero), applied(one, &second, &wrong)];
            breaks(&mut OffsetsDense::default(), &observations, "where 3 is next");
        }
    }

    #[test]
    fn reads_have_no_gaps() {
        let read = |records| {
            let (ticket, epoch, log_start, end) = (Ticket(1), Term(1), Offset(2), Offset(5));
            Observation::ReadEnded { ticket, node: NODES[0], group: GROUP, epoch, log_start, end, records }
        };
        holds(&mut OffsetsDense::default(), &[read(&[]), read(&[(Offset(3), 7), (Offset(4), 9)])]);
        let wrong: [&[_]; 4] = [
            &[(Offset(2), 7), (Offset(4), 9)],
            &[(Offset(3), 7), (Offset(3), 9)],
            &[(Offset(1), 7)],
            &[(Offset(5), 7)],
        ];
        for records in wrong {
            breaks(&mut OffsetsDense::default(), &[read(records)], "showed");
        }
    }

    #[test]
    fn the_end_is_where_the_next_batch_would_go() {
        let (first, zero) = (produce(2, 70, 3, None), at(0));
        for (values, is_right) in [(vec![71, 72], true), (vec![71], false), (vec![71, 72, 73], false)] {
            let ends = BTreeMap::from([(NODES[0], (Offset(1), values))]);
            let last = Observation::Final { group: GROUP, records: &ends };
            let observations = [applied(NODES[0], &first, &zero), last];
            if is_right {
                holds(&mut OffsetsDense::default(), &observations);
            } else {
                breaks(&mut OffsetsDense::default(), &observations, "where 3 is next");
            }
        }
    }
}
