//! A producer's (id, epoch, sequence) is in the log at most once, and whoever repeats it is told the original offset.
//! One that keeps to the rules is never refused for its sequence.

use super::replay::Replay;
use crate::batch::batch_in;
use crate::observe::{Invariant, Observation};
use ackord::machine::Outcome;
use ackord::multiraft::core::effect::Ticket;
use ackord::record::{Producer, sequence_after};
use ackord::types::{LogId, Offset, RaftGroupId};
use std::collections::BTreeMap;

/// A producer's record: group, producer, epoch, sequence.
type Key = (RaftGroupId, i64, i16, i32);

/// See the module.
#[derive(Default)]
pub struct IdempotentOnce {
    /// What is applied for the first time.
    replay: Replay,
    /// Where each record is.
    places: BTreeMap<Key, Offset>,
    /// The values of batches on their way.
    open: BTreeMap<Ticket, u64>,
    /// Where batches were acknowledged, by their first value.
    acknowledged: BTreeMap<u64, (RaftGroupId, Offset)>,
}

impl IdempotentOnce {
    fn take(
        &mut self,
        (group, id): (RaftGroupId, LogId),
        producer: Producer,
        count: i32,
        (base, duplicate): (Offset, bool),
    ) -> Result<(), String> {
        let Producer { id: producer_id, epoch, first_sequence, .. } = producer;
        for step in 0..count {
            let sequence = sequence_after(first_sequence, step);
            let (key, offset) = ((group, producer_id, epoch, sequence), Offset(base.0 + i64::from(step)));
            let known = self.places.get(&key).copied();
            if duplicate && known != Some(offset) {
                return Err(format!(
                    "entry {id} of group {group} repeats sequence {sequence} of producer {producer_id} in epoch \
                     {epoch}, and is answered with {offset}, where it is at {known:?}"
                ));
            }
            if let Some(known) = known.filter(|_| !duplicate) {
                return Err(format!(
                    "sequence {sequence} of producer {producer_id} in epoch {epoch} is in group {group} at {known}, \
                     and again at {offset}"
                ));
            }
            self.places.insert(key, offset);
        }
        Ok(())
    }

    fn acknowledged(&mut self, ticket: Ticket, group: RaftGroupId, base: Offset) -> Result<(), String> {
        let Some(value) = self.open.remove(&ticket) else { return Ok(()) };
        let first = *self.acknowledged.entry(value).or_insert((group, base));
        if first == (group, base) {
            return Ok(());
        }
        Err(format!("the batch of {value} was acknowledged at {first:?}, and then at {:?}", (group, base)))
    }
}

impl Invariant for IdempotentOnce {
    fn name(&self) -> &'static str {
        "idempotent_once"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        if let Some((group, entry, Outcome::Appended { base_offset, duplicate })) = self.replay.fresh(observation)
            && let Some(batch) = batch_in(entry)
        {
            let count = batch.last_offset_delta() + 1;
            return match batch.producer() {
                Some(producer) => self.take((group, entry.id), producer, count, (*base_offset, *duplicate)),
                None if *duplicate => Err(format!("entry {} of group {group} has no producer to repeat", entry.id)),
                None => Ok(()),
            };
        }
        match observation {
            Observation::Wrote { ticket, value, .. } => {
                self.open.insert(*ticket, *value);
                Ok(())
            }
            Observation::Refused { ticket } | Observation::Open { ticket } => {
                self.open.remove(ticket);
                Ok(())
            }
            Observation::Acked { ticket, group, outcome: Outcome::Appended { base_offset, .. }, .. } => {
                self.acknowledged(*ticket, *group, *base_offset)
            }
            Observation::WronglyRefused { ticket, group, refusal } => {
                let value = self.open.get(ticket);
                Err(format!("group {group} refuses the batch of {value:?}, which keeps to all rules: {refusal:?}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, breaks, holds, produce};
    use super::*;
    use ackord::types::LogEntry;

    fn applied<'a>(entry: &'a LogEntry, outcome: &'a Outcome) -> Observation<'a> {
        Observation::Applied { node: NODES[0], group: GROUP, entry, outcome }
    }

    fn at(base_offset: i64, duplicate: bool) -> Outcome {
        Outcome::Appended { base_offset: Offset(base_offset), duplicate }
    }

    #[test]
    fn repeated_batches_are_answered_with_their_offset() {
        let (first, second) = (produce(2, 70, 2, Some((5, 0, 0))), produce(3, 72, 1, Some((5, 0, 2))));
        let (again, new_epoch) = (produce(4, 70, 2, Some((5, 0, 0))), produce(5, 73, 1, Some((5, 1, 0))));
        let (zero, two, three, repeated) = (at(0, false), at(2, false), at(3, false), at(0, true));
        let observations = [
            applied(&first, &zero),
            applied(&second, &two),
            applied(&again, &repeated),
            applied(&first, &zero),
            applied(&new_epoch, &three),
        ];
        holds(&mut IdempotentOnce::default(), &observations);
    }

    #[test]
    fn a_sequence_is_there_once() {
        let (first, again, inside) = (
            produce(2, 70, 2, Some((5, 0, 0))),
            produce(3, 70, 2, Some((5, 0, 0))),
            produce(3, 71, 1, Some((5, 0, 1))),
        );
        let (zero, two, wrong) = (at(0, false), at(2, false), at(1, true));
        breaks(&mut IdempotentOnce::default(), &[applied(&first, &zero), applied(&again, &two)], "and again at 2");
        breaks(&mut IdempotentOnce::default(), &[applied(&first, &zero), applied(&inside, &two)], "and again at 2");
        breaks(&mut IdempotentOnce::default(), &[applied(&first, &zero), applied(&again, &wrong)], "answered with 1");
        breaks(&mut IdempotentOnce::default(), &[applied(&first, &wrong)], "answered with 1");
        let nobodys = produce(2, 70, 1, None);
        breaks(&mut IdempotentOnce::default(), &[applied(&nobodys, &wrong)], "no producer");
    }

    #[test]
    fn a_retry_is_acknowledged_at_the_same_offset() {
        let wrote = |ticket| {
            let ticket = Ticket(ticket);
            Observation::Wrote { ticket, group: GROUP, node: NODES[0], value: 70, count: 1, producer: Some((5, 0)) }
        };
        fn acked(ticket: u64, outcome: &Outcome) -> Observation<'_> {
            Observation::Acked { ticket: Ticket(ticket), node: NODES[0], group: GROUP, at: LogId::new(2, 1), outcome }
        }
        let (zero, repeated, wrong) = (at(0, false), at(0, true), at(1, true));
        let ok = [
            wrote(1),
            Observation::Open { ticket: Ticket(1) },
            wrote(2),
            acked(2, &zero),
            wrote(3),
            acked(3, &repeated),
        ];
        holds(&mut IdempotentOnce::default(), &ok);
        let broken = [wrote(2), acked(2, &zero), wrote(3), acked(3, &wrong)];
        breaks(&mut IdempotentOnce::default(), &broken, "and then at");
        let (ticket, refusal) = (Ticket(1), ackord::machine::Refusal::OutOfOrderSequence);
        let refused = Observation::WronglyRefused { ticket, group: GROUP, refusal };
        breaks(&mut IdempotentOnce::default(), &[wrote(1), refused], "keeps to all rules");
    }
}
