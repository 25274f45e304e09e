//! What is in a log was written by somebody, as it is there, is there once if it was sent once, and was not refused: a
//! refusal is definite.

use super::replay::Replay;
use crate::batch::{batch_in, values_of};
use crate::observe::{Invariant, Observation};
use ackord::machine::Outcome;
use ackord::multiraft::core::effect::Ticket;
use ackord::types::{LogEntry, RaftGroupId};
use std::collections::BTreeMap;

/// A batch that somebody has sent, perhaps several times.
#[derive(Debug, Default)]
struct Batch {
    /// How often it was sent and not refused.
    fates_open: u32,
    /// How often it is in the log.
    found: u32,
    /// How many records it has.
    count: u32,
    /// Its producer, and the sequence of its first record.
    producer: Option<(i64, i32)>,
}

/// See the module.
#[derive(Default)]
pub struct OnlyWritten {
    /// What is applied for the first time.
    replay: Replay,
    /// By group and first value.
    batches: BTreeMap<(RaftGroupId, u64), Batch>,
    /// Which batch a ticket is for.
    tickets: BTreeMap<Ticket, (RaftGroupId, u64)>,
}

impl OnlyWritten {
    fn check(&mut self, group: RaftGroupId, entry: &LogEntry) -> Result<(), String> {
        let Some(batch) = batch_in(entry) else { return Ok(()) };
        let values = values_of(&batch);
        let value = values.first().copied().unwrap_or_default();
        let (id, known) = (entry.id, self.batches.get_mut(&(group, value)));
        let known = known.ok_or_else(|| format!("nobody wrote the batch of {value} in entry {id} of group {group}"))?;
        known.found += 1;
        let producer = batch.producer().map(|producer| (producer.id, producer.first_sequence));
        let sent = value..value + u64::from(known.count);
        if producer != known.producer || !sent.clone().eq(values.iter().copied()) {
            return Err(format!(
                "entry {id} of group {group} holds {values:?} of producer {producer:?}, and {sent:?} of {:?} was sent",
                known.producer
            ));
        }
        if known.found > known.fates_open {
            let Batch { fates_open, found, .. } = *known;
            return Err(format!(
                "the batch of {value} is in group {group} {found} times, last as entry {id}, and was sent {fates_open} \
                 times without being refused"
            ));
        }
        Ok(())
    }
}

impl Invariant for OnlyWritten {
    fn name(&self) -> &'static str {
        "only_written"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        if let Some((group, entry, Outcome::Appended { .. })) = self.replay.fresh(observation) {
            return self.check(group, entry);
        }
        match observation {
            Observation::Wrote { ticket, group, value, count, producer, .. } => {
                self.tickets.insert(*ticket, (*group, *value));
                let batch = self.batches.entry((*group, *value)).or_default();
                batch.fates_open += 1;
                (batch.count, batch.producer) = (*count, *producer);
            }
            Observation::Refused { ticket } => {
                let Some(key) = self.tickets.remove(ticket) else { return Ok(()) };
                let batch = self.batches.entry(key).or_default();
                batch.fates_open -= 1;
                if batch.found > batch.fates_open {
                    let (group, value) = key;
                    return Err(format!("the batch of {value} was refused, and is in group {group}"));
                }
            }
            Observation::Acked { ticket, .. } => {
                self.tickets.remove(ticket);
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
    use ackord::types::Offset;

    const APPENDED: &Outcome = &Outcome::Appended { base_offset: Offset(0), duplicate: false };

    fn wrote(ticket: u64) -> Observation<'static> {
        let ticket = Ticket(ticket);
        Observation::Wrote { ticket, group: GROUP, node: NODES[0], value: 70, count: 1, producer: None }
    }

    fn refused(ticket: u64) -> Observation<'static> {
        Observation::Refused { ticket: Ticket(ticket) }
    }

    fn applied(entry: &LogEntry) -> Observation<'_> {
        Observation::Applied { node: NODES[0], group: GROUP, entry, outcome: APPENDED }
    }

    #[test]
    fn what_was_sent_may_be_there() {
        let (entry, again) = (produce(2, 70, 1, None), produce(3, 70, 1, None));
        let open = Observation::Open { ticket: Ticket(2) };
        let observations = [wrote(1), refused(1), wrote(2), open, applied(&entry), wrote(3), applied(&again)];
        holds(&mut OnlyWritten::default(), &observations);
    }

    #[test]
    fn what_was_refused_or_never_sent_may_not() {
        let (entry, again) = (produce(2, 70, 1, None), produce(3, 70, 1, None));
        breaks(&mut OnlyWritten::default(), &[applied(&entry)], "nobody wrote");
        for other in [produce(2, 70, 2, None), produce(2, 70, 1, Some((5, 0, 0)))] {
            breaks(&mut OnlyWritten::default(), &[wrote(1), applied(&other)], "was sent");
        }
        breaks(&mut OnlyWritten::default(), &[wrote(1), refused(1), applied(&entry)], "sent 0 times");
        breaks(&mut OnlyWritten::default(), &[wrote(1), applied(&entry), refused(1)], "was refused");
        breaks(&mut OnlyWritten::default(), &[wrote(1), applied(&entry), applied(&again)], "sent 1 times");
    }
}
