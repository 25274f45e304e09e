//! A partition has one owner in a generation of a consumer group, and generations never go back: whoever joins is asked
//! to wait for none older than one that anybody had been told of when it began.

use crate::observe::{Invariant, Observation};
use ackord::multiraft::core::effect::Ticket;
use ackord::types::RaftGroupId;
use std::collections::BTreeMap;

/// A consumer group, wherever it is coordinated.
type Key = (RaftGroupId, String);

/// See the module.
#[derive(Default)]
pub struct GroupOwners {
    /// Who was told that a partition is its own, by group, generation and partition.
    owners: BTreeMap<(Key, i32, i32), usize>,
    /// The newest generation that anybody was told of.
    generations: BTreeMap<Key, i32>,
    /// Who is joining, and the newest generation when it began.
    joins: BTreeMap<Ticket, (Key, i32)>,
}

impl GroupOwners {
    fn learn(&mut self, key: Key, generation: i32) {
        let newest = self.generations.entry(key).or_default();
        *newest = (*newest).max(generation);
    }
}

impl Invariant for GroupOwners {
    fn name(&self) -> &'static str {
        "group_owners"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::JoinBegan { ticket, group: (raft, name) } => {
                let key = (*raft, (*name).to_owned());
                let newest = self.generations.get(&key).copied().unwrap_or_default();
                self.joins.insert(*ticket, (key, newest));
            }
            Observation::JoinEnded { ticket, generation } => {
                let (key, newest) = self.joins.remove(ticket).ok_or_else(|| format!("{ticket:?} never joined"))?;
                if *generation < newest {
                    return Err(format!("{key:?} is asked for generation {generation} after {newest} was told"));
                }
            }
            Observation::Generation { group: (raft, name), generation } => {
                self.learn((*raft, (*name).to_owned()), *generation);
            }
            Observation::Owned { group: (raft, name), generation, consumer, partitions } => {
                let key = (*raft, (*name).to_owned());
                self.learn(key.clone(), *generation);
                for partition in *partitions {
                    let place = (key.clone(), *generation, *partition);
                    let owner = *self.owners.entry(place).or_insert(*consumer);
                    if owner != *consumer {
                        return Err(format!(
                            "partition {partition} of {key:?} has two owners in generation {generation}: consumers \
                             {owner} and {consumer}"
                        ));
                    }
                }
            }
            Observation::Refused { ticket } | Observation::Open { ticket } => {
                self.joins.remove(ticket);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, breaks, holds};
    use super::*;

    fn owned(generation: i32, consumer: usize, partitions: &[i32]) -> Observation<'_> {
        Observation::Owned { group: (GROUP, "readers"), generation, consumer, partitions }
    }

    #[test]
    fn one_owner_in_a_generation() {
        let other = Observation::Owned { group: (GROUP, "others"), generation: 1, consumer: 7, partitions: &[1] };
        let observations = [owned(1, 1, &[1, 2]), owned(1, 2, &[3]), owned(1, 1, &[1, 2]), owned(2, 2, &[1]), other];
        holds(&mut GroupOwners::default(), &observations);
        breaks(&mut GroupOwners::default(), &[owned(1, 1, &[1, 2]), owned(1, 2, &[2])], "has two owners");
    }

    #[test]
    fn generations_never_go_back() {
        let group = (GROUP, "readers");
        let began = |ticket| Observation::JoinBegan { ticket: Ticket(ticket), group };
        let ended = |ticket, generation| Observation::JoinEnded { ticket: Ticket(ticket), generation };
        let told = Observation::Generation { group, generation: 4 };
        holds(&mut GroupOwners::default(), &[began(1), told.clone(), ended(1, 3), began(2), ended(2, 4)]);
        breaks(&mut GroupOwners::default(), &[told, began(1), ended(1, 3)], "asked for generation 3 after 4");
        breaks(&mut GroupOwners::default(), &[owned(5, 1, &[]), began(1), ended(1, 4)], "after 5");
        breaks(&mut GroupOwners::default(), &[ended(1, 4)], "never joined");
    }
}
