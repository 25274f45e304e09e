//! At most one replica leads a group in a term (Raft §5.2), nobody is told of another, and no other answers for it.

use crate::observe::{Invariant, Observation};
use ackord::types::{RaftGroupId, ReplicaId, Term};
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct ElectionSafety {
    /// Who leads or is said to lead, by group and term.
    leaders: BTreeMap<(RaftGroupId, Term), ReplicaId>,
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election_safety"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        let (group, term, leader) = match observation {
            Observation::Led { group, replica, term, .. } => (*group, *term, *replica),
            Observation::Published { node, group, leadership } => match leadership.leader {
                Some(leader) if leadership.serving && leader.node() != *node => {
                    return Err(format!("node {node} answers for group {group}, which replica {leader} leads"));
                }
                Some(leader) => (*group, leadership.term, leader),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        let first = *self.leaders.entry((group, term)).or_insert(leader);
        if first == leader {
            return Ok(());
        }
        Err(format!("group {group} has two leaders in term {term}: replicas {first} and {leader}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, breaks, holds, replica};
    use super::*;
    use ackord::multiraft::core::effect::Leadership;
    use ackord::types::NodeId;

    fn led(node: NodeId, term: u64) -> Observation<'static> {
        Observation::Led { node, group: GROUP, replica: replica(node), term: Term(term) }
    }

    fn published(by: NodeId, leader: NodeId, term: u64) -> Observation<'static> {
        let leadership = Leadership { term: Term(term), leader: Some(replica(leader)), serving: false };
        Observation::Published { node: by, group: GROUP, leadership }
    }

    #[test]
    fn one_leader_per_term() {
        let [one, two, three] = NODES;
        let other = Observation::Led { node: two, group: RaftGroupId(2), replica: replica(two), term: Term(2) };
        holds(
            &mut ElectionSafety::default(),
            &[led(one, 2), published(three, one, 2), led(two, 3), led(one, 4), other],
        );
        breaks(&mut ElectionSafety::default(), &[led(one, 2), led(two, 2)], "two leaders in term 2");
    }

    #[test]
    fn nobody_is_told_of_another() {
        let [one, two, three] = NODES;
        breaks(&mut ElectionSafety::default(), &[led(one, 2), published(three, two, 2)], "two leaders");
        let leadership = Leadership { term: Term(2), leader: Some(replica(one)), serving: true };
        let serves = |node| Observation::Published { node, group: GROUP, leadership };
        holds(&mut ElectionSafety::default(), &[led(one, 2), serves(one)]);
        breaks(&mut ElectionSafety::default(), &[led(one, 2), serves(two)], "node 2 answers for group 1");
    }
}
