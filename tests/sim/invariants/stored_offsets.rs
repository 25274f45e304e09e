//! An offset that was acknowledged as stored is never lost: who reads later is told it or a newer one, and in the end
//! every replica has it.

use crate::observe::{Consumers, Invariant, Observation};
use ackord::multiraft::core::effect::Ticket;
use ackord::types::RaftGroupId;
use std::collections::BTreeMap;

/// A consumer group, wherever it is coordinated.
type Key = (RaftGroupId, String);

/// See the module.
#[derive(Default)]
pub struct StoredOffsets {
    /// The newest offset that anybody was told of, by group and partition.
    stored: BTreeMap<Key, BTreeMap<i32, i64>>,
    /// Reads on their way: of which group, and what they must be told.
    reads: BTreeMap<Ticket, (Key, BTreeMap<i32, i64>)>,
}

fn key((raft, name): Consumers<'_>) -> Key {
    (raft, name.to_owned())
}

fn check(key: &Key, expected: &BTreeMap<i32, i64>, found: &BTreeMap<i32, i64>) -> Result<(), String> {
    for (partition, stored) in expected {
        let found = found.get(partition).copied();
        if found.is_none_or(|found| found < *stored) {
            return Err(format!("{key:?} has {found:?} for partition {partition}, and {stored} was told before"));
        }
    }
    Ok(())
}

impl StoredOffsets {
    fn learn(&mut self, key: Key, partition: i32, offset: i64) {
        let stored = self.stored.entry(key).or_default().entry(partition).or_insert(offset);
        *stored = (*stored).max(offset);
    }
}

impl Invariant for StoredOffsets {
    fn name(&self) -> &'static str {
        "stored_offsets"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::OffsetStored { group, partition, offset } => self.learn(key(*group), *partition, *offset),
            Observation::OffsetsReadBegan { ticket, group } => {
                let key = key(*group);
                let expected = self.stored.get(&key).cloned().unwrap_or_default();
                self.reads.insert(*ticket, (key, expected));
            }
            Observation::OffsetsReadEnded { ticket, offsets } => {
                let (key, expected) = self.reads.remove(ticket).ok_or_else(|| format!("{ticket:?} never began"))?;
                check(&key, &expected, offsets)?;
                offsets.iter().for_each(|(partition, offset)| self.learn(key.clone(), *partition, *offset));
            }
            Observation::FinalOffsets { node, group, offsets } => {
                let key = key(*group);
                let expected = self.stored.get(&key).cloned().unwrap_or_default();
                check(&key, &expected, offsets).map_err(|reason| format!("node {node}, in the end: {reason}"))?;
            }
            Observation::Refused { ticket } | Observation::Open { ticket } => {
                self.reads.remove(ticket);
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

    const READERS: Consumers<'_> = (GROUP, "readers");

    fn stored(partition: i32, offset: i64) -> Observation<'static> {
        Observation::OffsetStored { group: READERS, partition, offset }
    }

    fn began(ticket: u64) -> Observation<'static> {
        Observation::OffsetsReadBegan { ticket: Ticket(ticket), group: READERS }
    }

    fn ended(ticket: u64, offsets: &BTreeMap<i32, i64>) -> Observation<'_> {
        Observation::OffsetsReadEnded { ticket: Ticket(ticket), offsets }
    }

    #[test]
    fn reads_are_told_what_was_stored_before_them() {
        let (none, five, six) = (BTreeMap::new(), BTreeMap::from([(0, 5)]), BTreeMap::from([(0, 6)]));
        let observations = [
            began(1),
            stored(0, 5),
            ended(1, &none),
            began(2),
            stored(0, 6),
            ended(2, &five),
            began(3),
            ended(3, &six),
        ];
        holds(&mut StoredOffsets::default(), &observations);
        breaks(&mut StoredOffsets::default(), &[stored(0, 5), began(1), ended(1, &none)], "has None for partition 0");
        breaks(&mut StoredOffsets::default(), &[stored(0, 6), began(1), ended(1, &five)], "and 6 was told before");
        let told = [began(1), ended(1, &six), began(2), ended(2, &five)];
        breaks(&mut StoredOffsets::default(), &told, "and 6 was told before");
        breaks(&mut StoredOffsets::default(), &[ended(1, &none)], "never began");
    }

    #[test]
    fn they_are_there_in_the_end() {
        let (five, six) = (BTreeMap::from([(0, 5)]), BTreeMap::from([(0, 6)]));
        let last = |offsets| Observation::FinalOffsets { node: NODES[0], group: READERS, offsets };
        holds(&mut StoredOffsets::default(), &[stored(0, 5), last(&five), last(&six)]);
        breaks(&mut StoredOffsets::default(), &[stored(0, 6), last(&five)], "in the end");
    }
}
