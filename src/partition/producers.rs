//! What the partition remembers of idempotent producers (KIP-98), and what it decides by it.
//!
//! The rules are Kafka's (ProducerStateEntry, ProducerAppendInfo). They are applied when the entry is, never before:
//! only then is it certain which batches precede it. All of it is part of the replicated state, so a retry is
//! recognised by the next leader and after a restart, too.

use crate::machine::Refusal;
use crate::record::Producer;
use crate::types::Offset;
use std::collections::{BTreeMap, BTreeSet};

/// How many batches of a producer are remembered, as in Kafka: clients have at most five in flight.
const BATCHES_REMEMBERED: usize = 5;

/// A producer is forgotten when it has written nothing for this long (Kafka's `producer.id.expiration.ms`).
pub const PRODUCER_EXPIRATION_MS: i64 = 86_400_000;

/// How many producers a partition remembers. Beyond it the one that has been silent longest is forgotten; its next
/// batch is then accepted under any sequence number, as Kafka does for a producer it doesn't know.
pub const PRODUCERS_MAX: usize = 65_536;

/// How many expired producers one batch may remove: an upper bound on the work of one entry.
const EXPIRED_PER_BATCH: usize = 16;

/// One batch that a producer has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct WrittenBatch {
    /// The sequence number of its first record.
    pub first_sequence: i32,
    /// The sequence number of its last record.
    pub last_sequence: i32,
    /// Where it went.
    pub base_offset: Offset,
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ProducerState {
    /// The newest epoch seen.
    pub epoch: i16,
    /// When its newest batch was proposed, by the leader's clock in milliseconds.
    pub last_proposed_at_ms: i64,
    /// Its last batches under this epoch, oldest first; at least one, at most five.
    pub batches: Vec<WrittenBatch>,
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes into the log.
    Append,
    /// It is in the log already, at this offset.
    Duplicate(Offset),
    /// It may not go into the log.
    Refuse(Refusal),
}

/// All producers of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    /// By producer id.
    states: BTreeMap<i64, ProducerState>,
    /// (time of its newest batch, producer id): who expires first.
    by_age: BTreeSet<(i64, i64)>,
    /// Whose rows are to be written, or deleted where no state is left.
    changed: BTreeSet<i64>,
}

impl Producers {
    /// The table that these rows make. More than the limit can't have been written.
    pub fn from_rows(rows: impl IntoIterator<Item = (i64, ProducerState)>) -> Self {
        let states: BTreeMap<_, _> = rows.into_iter().collect();
        let by_age = states.iter().map(|(id, state)| (state.last_proposed_at_ms, *id)).collect();
        Self { states, by_age, changed: BTreeSet::new() }
    }

    /// The rows, by producer id.
    pub fn rows(&self) -> impl Iterator<Item = (i64, &ProducerState)> {
        self.states.iter().map(|(id, state)| (*id, state))
    }

    /// Decides about a batch that was proposed at `now_ms`.
    pub fn judge(&self, batch: &Producer, now_ms: i64) -> Verdict {
        let Some(state) = self.states.get(&batch.id).filter(|state| !is_expired(state, now_ms)) else {
            return Verdict::Append;
        };
        let repeats = |old: &&WrittenBatch| {
            (old.first_sequence, old.last_sequence) == (batch.first_sequence, batch.last_sequence)
        };
        if batch.epoch < state.epoch {
            return Verdict::Refuse(Refusal::InvalidProducerEpoch);
        }
        if batch.epoch > state.epoch {
            // A new incarnation begins its sequence anew.
            return if batch.first_sequence == 0 { Verdict::Append } else { OUT_OF_ORDER };
        }
        if let Some(old) = state.batches.iter().find(repeats) {
            return Verdict::Duplicate(old.base_offset);
        }
        let last = state.batches.last().expect("a producer is remembered for what it wrote").last_sequence;
        if crate::record::sequence_after(last, 1) == batch.first_sequence { Verdict::Append } else { OUT_OF_ORDER }
    }

    /// Remembers a batch that went into the log at `base_offset`.
    pub fn remember(&mut self, batch: &Producer, base_offset: Offset, now_ms: i64) {
        let known = self.forget(batch.id).filter(|state| !is_expired(state, now_ms) && state.epoch == batch.epoch);
        let mut batches = known.map_or_else(Vec::new, |state| state.batches);
        if batches.len() == BATCHES_REMEMBERED {
            batches.remove(0);
        }
        let Producer { first_sequence, last_sequence, epoch, id } = *batch;
        batches.push(WrittenBatch { first_sequence, last_sequence, base_offset });
        self.states.insert(id, ProducerState { epoch, last_proposed_at_ms: now_ms, batches });
        self.by_age.insert((now_ms, id));
        if self.states.len() > PRODUCERS_MAX {
            let &(_, oldest) = self.by_age.first().expect("the table is full");
            self.forget(oldest);
        }
    }

    /// Forgets some producers that have been silent for too long at `now_ms`, longest first.
    pub fn expire(&mut self, now_ms: i64) {
        for _ in 0..EXPIRED_PER_BATCH {
            match self.by_age.first() {
                Some(&(_, id)) if is_expired(&self.states[&id], now_ms) => drop(self.forget(id)),
                _ => return,
            }
        }
    }

    /// The rows that changed since the last call: written, or deleted where there is no state.
    pub fn take_changes(&mut self) -> Vec<(i64, Option<&ProducerState>)> {
        std::mem::take(&mut self.changed).into_iter().map(|id| (id, self.states.get(&id))).collect()
    }

    fn forget(&mut self, id: i64) -> Option<ProducerState> {
        self.changed.insert(id);
        let state = self.states.remove(&id)?;
        self.by_age.remove(&(state.last_proposed_at_ms, id));
        Some(state)
    }
}

const OUT_OF_ORDER: Verdict = Verdict::Refuse(Refusal::OutOfOrderSequence);

fn is_expired(state: &ProducerState, now_ms: i64) -> bool {
    now_ms.saturating_sub(state.last_proposed_at_ms) >= PRODUCER_EXPIRATION_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: i64, epoch: i16, first_sequence: i32, count: i32) -> Producer {
        let last_sequence = crate::record::sequence_after(first_sequence, count - 1);
        Producer { id, epoch, first_sequence, last_sequence }
    }

    /// Judges and, if the batch goes in, remembers it at the next offset.
    fn write(producers: &mut Producers, next: &mut i64, batch: Producer, now_ms: i64) -> Verdict {
        let verdict = producers.judge(&batch, now_ms);
        if verdict == Verdict::Append {
            producers.remember(&batch, Offset(*next), now_ms);
            *next += 10;
        }
        verdict
    }

    #[test]
    fn sequences_as_kafka_judges_them() {
        let (mut producers, mut next) = (Producers::default(), 0);
        let mut write = |batch| write(&mut producers, &mut next, batch, 0);
        assert_eq!(write(batch(1, 0, 17, 3)), Verdict::Append, "an unknown producer may begin anywhere");
        assert_eq!(write(batch(1, 0, 20, 2)), Verdict::Append);
        assert_eq!(write(batch(1, 0, 17, 3)), Verdict::Duplicate(Offset(0)));
        assert_eq!(write(batch(1, 0, 20, 1)), OUT_OF_ORDER, "only whole batches are duplicates");
        assert_eq!(write(batch(1, 0, 23, 1)), OUT_OF_ORDER);
        assert_eq!(write(batch(1, 1, 5, 1)), OUT_OF_ORDER, "a new epoch begins at 0");
        assert_eq!(write(batch(1, 1, 0, 1)), Verdict::Append);
        assert_eq!(write(batch(1, 0, 22, 1)), Verdict::Refuse(Refusal::InvalidProducerEpoch));
        assert_eq!(write(batch(1, 1, 0, 1)), Verdict::Duplicate(Offset(20)), "the new epoch's, not the old one's");
        assert_eq!(write(batch(2, 3, 0, 1)), Verdict::Append, "producers don't know each other");
    }

    #[test]
    fn five_batches_are_remembered() {
        let (mut producers, mut next) = (Producers::default(), 0);
        for sequence in 0..7 {
            assert_eq!(write(&mut producers, &mut next, batch(1, 0, sequence, 1), 0), Verdict::Append);
        }
        assert_eq!(producers.judge(&batch(1, 0, 1, 1), 0), OUT_OF_ORDER);
        assert_eq!(producers.judge(&batch(1, 0, 2, 1), 0), Verdict::Duplicate(Offset(20)));
    }

    #[test]
    fn sequences_wrap_within_and_between_batches() {
        let (mut producers, mut next) = (Producers::default(), 0);
        let within = batch(1, 0, i32::MAX - 1, 4);
        assert_eq!(within.last_sequence, 1);
        assert_eq!(write(&mut producers, &mut next, within, 0), Verdict::Append);
        assert_eq!(write(&mut producers, &mut next, batch(1, 0, 2, 1), 0), Verdict::Append);
        assert_eq!(producers.judge(&within, 0), Verdict::Duplicate(Offset(0)));
        assert_eq!(write(&mut producers, &mut next, batch(2, 0, i32::MAX, 1), 0), Verdict::Append);
        assert_eq!(producers.judge(&batch(2, 0, 0, 1), 0), Verdict::Append);
    }

    #[test]
    fn the_silent_are_forgotten_by_the_leaders_clock() {
        let (mut producers, mut next) = (Producers::default(), 0);
        for id in 0..40 {
            write(&mut producers, &mut next, batch(id, 0, 0, 1), id);
        }
        let day_later = PRODUCER_EXPIRATION_MS + 20;
        assert_eq!(producers.judge(&batch(20, 0, 9, 1), day_later), Verdict::Append, "expired, if not yet removed");
        assert_eq!(producers.judge(&batch(21, 0, 9, 1), day_later), OUT_OF_ORDER);
        producers.take_changes();
        producers.expire(day_later);
        assert_eq!(producers.take_changes().len(), EXPIRED_PER_BATCH);
        producers.expire(day_later);
        assert_eq!(producers.states.len(), 19);
        assert!(producers.take_changes().iter().all(|(_, state)| state.is_none()));
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut producers, mut next) = (Producers::default(), 0);
        for id in 0..=PRODUCERS_MAX as i64 {
            write(&mut producers, &mut next, batch(id, 0, 0, 1), id);
        }
        assert_eq!(producers.states.len(), PRODUCERS_MAX);
        assert_eq!(producers.judge(&batch(0, 0, 7, 1), 0), Verdict::Append, "the most silent one was forgotten");
    }
}
