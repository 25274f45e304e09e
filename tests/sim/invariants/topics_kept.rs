//! The controller forgets nothing: a topic that somebody was told of is there, with its partitions, until somebody
//! wants it gone; one that is gone stays gone; and a partition keeps its Raft group, which never serves another.

use crate::observe::{Invariant, Observation};
use ackord::multiraft::core::effect::Ticket;
use ackord::types::{RaftGroupId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// What a read must be told.
#[derive(Clone, Default)]
struct Told {
    /// Topics that are there, with how many partitions at least.
    made: BTreeMap<TopicId, usize>,
    /// Topics that are gone.
    deleted: BTreeSet<TopicId>,
}

/// See the module.
#[derive(Default)]
pub struct TopicsKept {
    /// What somebody was told.
    told: Told,
    /// Topics that somebody wants gone.
    deleting: BTreeSet<TopicId>,
    /// Reads on their way.
    reads: BTreeMap<Ticket, Told>,
    /// Which topic's which partition a group serves.
    groups: BTreeMap<RaftGroupId, (TopicId, usize)>,
    /// The groups of each topic, as far as anybody was told.
    partitions: BTreeMap<TopicId, Vec<RaftGroupId>>,
}

impl TopicsKept {
    fn check(&self, before: &Told, topics: &BTreeMap<TopicId, Vec<RaftGroupId>>) -> Result<(), String> {
        for (topic, count) in before.made.iter().filter(|(topic, _)| !self.deleting.contains(topic)) {
            let found = topics.get(topic).map(Vec::len);
            if found.is_none_or(|found| found < *count) {
                return Err(format!("topic {topic} has {found:?} partitions, and was told to have {count}"));
            }
        }
        match before.deleted.iter().find(|topic| topics.contains_key(topic)) {
            Some(topic) => Err(format!("topic {topic} is there after somebody was told that it is gone")),
            None => Ok(()),
        }
    }

    fn check_groups(&mut self, topics: &BTreeMap<TopicId, Vec<RaftGroupId>>) -> Result<(), String> {
        for (topic, groups) in topics {
            for (partition, group) in groups.iter().enumerate() {
                let first = *self.groups.entry(*group).or_insert((*topic, partition));
                if first != (*topic, partition) {
                    return Err(format!("group {group} serves {first:?}, and now {:?}", (topic, partition)));
                }
            }
            let known = self.partitions.entry(*topic).or_default();
            if known.iter().zip(groups).any(|(before, now)| before != now) {
                return Err(format!("topic {topic} had the groups {known:?}, and has {groups:?}"));
            }
            if groups.len() > known.len() {
                known.clone_from(groups);
            }
        }
        Ok(())
    }
}

impl Invariant for TopicsKept {
    fn name(&self) -> &'static str {
        "topics_kept"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::TopicMade { topic, partitions } => {
                let known = self.told.made.entry(*topic).or_default();
                *known = (*known).max(*partitions);
            }
            Observation::TopicDeletionBegan { topic } => {
                self.deleting.insert(*topic);
            }
            Observation::TopicDeleted { topic } => {
                self.told.deleted.insert(*topic);
            }
            Observation::TopicsReadBegan { ticket } => {
                self.reads.insert(*ticket, self.told.clone());
            }
            Observation::TopicsReadEnded { ticket, topics } => {
                let before = self.reads.remove(ticket).ok_or_else(|| format!("{ticket:?} never began"))?;
                self.check(&before, topics)?;
                self.check_groups(topics)?;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{breaks, holds};
    use super::*;

    const TOPIC: TopicId = TopicId(1);

    fn made(partitions: usize) -> Observation<'static> {
        Observation::TopicMade { topic: TOPIC, partitions }
    }

    fn began(ticket: u64) -> Observation<'static> {
        Observation::TopicsReadBegan { ticket: Ticket(ticket) }
    }

    fn ended(ticket: u64, topics: &BTreeMap<TopicId, Vec<RaftGroupId>>) -> Observation<'_> {
        Observation::TopicsReadEnded { ticket: Ticket(ticket), topics }
    }

    fn with(groups: &[u64]) -> BTreeMap<TopicId, Vec<RaftGroupId>> {
        BTreeMap::from([(TOPIC, groups.iter().copied().map(RaftGroupId).collect())])
    }

    #[test]
    fn topics_stay_until_they_are_deleted() {
        let (none, one, two) = (BTreeMap::new(), with(&[7]), with(&[7, 8]));
        let gone = [
            Observation::TopicDeletionBegan { topic: TOPIC },
            ended(3, &none),
            Observation::TopicDeleted { topic: TOPIC },
            began(4),
            ended(4, &none),
        ];
        let mut invariant = TopicsKept::default();
        holds(&mut invariant, &[began(1), made(1), ended(1, &none), began(2), ended(2, &two), began(3)]);
        holds(&mut invariant, &gone);
        breaks(&mut invariant, &[began(5), ended(5, &one)], "is there after");
        breaks(&mut TopicsKept::default(), &[made(1), began(1), ended(1, &none)], "has None partitions");
        breaks(&mut TopicsKept::default(), &[made(2), began(1), ended(1, &one)], "has Some(1) partitions");
        breaks(&mut TopicsKept::default(), &[ended(1, &one)], "never began");
    }

    #[test]
    fn a_group_serves_one_partition() {
        let (one, other) = (with(&[7]), with(&[8]));
        breaks(&mut TopicsKept::default(), &[began(1), ended(1, &one), began(2), ended(2, &other)], "had the groups");
        let moved = BTreeMap::from([(TopicId(2), vec![RaftGroupId(7)])]);
        breaks(&mut TopicsKept::default(), &[began(1), ended(1, &one), began(2), ended(2, &moved)], "group 7 serves");
    }
}
