//! A leader has every entry that was committed in earlier terms (Raft §5.4).
//!
//! In which term an entry was committed is known only as an upper bound: the term of the replica that knows of it. A
//! leader's log is looked at when it is elected; it has persisted everything it had before it asked for votes. Who
//! learns of a commit later holds it against the leaders of later terms that have been seen already.

use super::durable::{DurableLog, Logs};
use crate::observe::{Invariant, Observation};
use ackord::multiraft::core::BIRTH;
use ackord::types::{LogId, NodeId, RaftGroupId, Term};
use std::collections::BTreeMap;

/// What is known of one group.
#[derive(Default)]
struct Group {
    /// The log of each term's leader when it was elected.
    leaders: BTreeMap<Term, (NodeId, DurableLog)>,
    /// The newest commit that was known in each term.
    commits: BTreeMap<Term, LogId>,
}

/// See the module.
#[derive(Default)]
pub struct LeaderCompleteness {
    /// What every node's logs hold.
    logs: Logs,
    /// By group.
    groups: BTreeMap<RaftGroupId, Group>,
}

fn check(group: RaftGroupId, term: Term, leader: &(NodeId, DurableLog), commit: LogId) -> Result<(), String> {
    let (node, log) = leader;
    if log.holds(commit) {
        return Ok(());
    }
    let (start, last) = (log.start, log.last);
    Err(format!(
        "node {node} was elected in term {term} of group {group} with a log from {start} to {last}, without entry \
         {commit}, which was committed in an earlier term"
    ))
}

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader_completeness"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        self.logs.observe(observation);
        match observation {
            Observation::Led { node, group, term, .. } => {
                // A voter that is alone may lead before its group's birth is durable.
                let newborn = || DurableLog { start: BIRTH, last: BIRTH, ..DurableLog::default() };
                let log = self.logs.of(*node, *group).cloned().unwrap_or_else(newborn);
                let known = self.groups.entry(*group).or_default();
                known.leaders.insert(*term, (*node, log));
                let newest = known.commits.range(..*term).map(|(_, commit)| *commit).max_by_key(|commit| commit.index);
                newest.map_or(Ok(()), |commit| check(*group, *term, &known.leaders[term], commit))
            }
            Observation::Committed { group, term, commit, .. } => {
                let known = self.groups.entry(*group).or_default();
                let newest = known.commits.entry(*term).or_insert(*commit);
                if newest.index < commit.index {
                    *newest = *commit;
                }
                let mut later = known.leaders.range(Term(term.0 + 1)..);
                later.try_for_each(|(led, leader)| check(*group, *led, leader, *commit))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, append, birth, breaks, holds, replica};
    use super::*;

    fn led(node: NodeId, term: u64) -> Observation<'static> {
        Observation::Led { node, group: GROUP, replica: replica(node), term: Term(term) }
    }

    fn committed(term: u64, index: u64, of_term: u64) -> Observation<'static> {
        Observation::Committed { node: NODES[0], group: GROUP, term: Term(term), commit: LogId::new(index, of_term) }
    }

    #[test]
    fn a_leader_may_lack_what_is_committed_in_its_term_or_later() {
        let [one, two, _] = NODES;
        let (birth, entries) = (birth(), append(2, 2..=3));
        let observations = [
            Observation::Persisted { node: one, write: &birth },
            Observation::Persisted { node: two, write: &birth },
            Observation::Persisted { node: one, write: &entries },
            led(one, 3),
            committed(3, 3, 2),
            led(two, 2),
            led(one, 4),
        ];
        holds(&mut LeaderCompleteness::default(), &observations);
        holds(&mut LeaderCompleteness::default(), &[led(one, 2), committed(1, 1, 1), led(one, 3)]);
    }

    #[test]
    fn a_leader_must_not_lack_what_was_committed() {
        let [one, two, _] = NODES;
        let (birth, entries) = (birth(), append(2, 2..=3));
        let births = [one, two].map(|node| Observation::Persisted { node, write: &birth });
        let mut invariant = LeaderCompleteness::default();
        holds(&mut invariant, &births);
        let observations = [Observation::Persisted { node: one, write: &entries }, committed(2, 3, 2), led(two, 3)];
        breaks(&mut invariant, &observations, "without entry 3@2");
    }

    #[test]
    fn nor_what_is_heard_of_only_later() {
        let [one, two, _] = NODES;
        let (birth, entries) = (birth(), append(2, 2..=3));
        let births = [one, two].map(|node| Observation::Persisted { node, write: &birth });
        let mut invariant = LeaderCompleteness::default();
        holds(&mut invariant, &births);
        let observations = [Observation::Persisted { node: one, write: &entries }, led(two, 3), committed(2, 3, 2)];
        breaks(&mut invariant, &observations, "without entry 3@2");
    }
}
