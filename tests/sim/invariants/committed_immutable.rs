//! What one replica applied, knew to be committed or acknowledged at an index, every other has there: the same entry,
//! with the same outcome.

use super::by_index::ByIndex;
use super::log_matching::hash;
use crate::observe::{Invariant, Observation};
use ackord::machine::Outcome;
use ackord::types::{LogId, RaftGroupId, Term};
use std::collections::BTreeMap;
use std::fmt::Arguments;

/// What is known of a committed entry.
#[derive(Clone, Debug)]
struct Known {
    /// Its term.
    term: Term,
    /// The hash of its content and its outcome, once somebody has applied it.
    applied: Option<(u32, Outcome)>,
}

/// See the module.
#[derive(Default)]
pub struct CommittedImmutable {
    /// By group and index.
    known: BTreeMap<RaftGroupId, ByIndex<Known>>,
}

impl CommittedImmutable {
    fn check(&mut self, group: RaftGroupId, id: LogId, what: Arguments<'_>) -> Result<&mut Known, String> {
        let slot = self.known.entry(group).or_default().slot(id.index.0);
        let known = slot.get_or_insert(Known { term: id.term, applied: None });
        if known.term == id.term {
            return Ok(known);
        }
        Err(format!("entry {id} of group {group} {what}, and one of term {} is committed there", known.term))
    }
}

impl Invariant for CommittedImmutable {
    fn name(&self) -> &'static str {
        "committed_immutable"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Committed { node, group, commit, .. } => {
                self.check(*group, *commit, format_args!("is committed for node {node}"))?;
            }
            Observation::Restored { node, group, at } => {
                self.check(*group, *at, format_args!("is the snapshot of node {node}"))?;
            }
            Observation::Opened { node, group, applied } => {
                self.check(*group, *applied, format_args!("is in the database of node {node}"))?;
            }
            Observation::Applied { node, group, entry, outcome } => {
                let id = entry.id;
                let known = self.check(*group, id, format_args!("is applied by node {node}"))?;
                let hash = hash(entry);
                let (first, theirs) = known.applied.get_or_insert_with(|| (hash, (*outcome).clone()));
                if *first != hash {
                    return Err(format!("node {node} applied another entry {id} of group {group} than others"));
                }
                if theirs != *outcome {
                    return Err(format!(
                        "entry {id} of group {group} came to {outcome:?} at node {node}, and to {theirs:?} elsewhere"
                    ));
                }
            }
            Observation::Acked { node, group, at, outcome, .. } => {
                let known = self.check(*group, *at, format_args!("is acknowledged by node {node}"))?;
                match &known.applied {
                    Some((_, applied)) if applied == *outcome => {}
                    other => {
                        return Err(format!(
                            "node {node} acknowledged entry {at} of group {group} with {outcome:?}, and applied: \
                             {other:?}"
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, breaks, entry, holds};
    use super::*;
    use ackord::multiraft::core::effect::Ticket;
    use ackord::types::{NodeId, Offset};

    fn applied<'a>(node: NodeId, entry: &'a ackord::types::LogEntry, outcome: &'a Outcome) -> Observation<'a> {
        Observation::Applied { node, group: GROUP, entry, outcome }
    }

    fn committed(index: u64, of_term: u64) -> Observation<'static> {
        Observation::Committed { node: NODES[1], group: GROUP, term: Term(9), commit: LogId::new(index, of_term) }
    }

    #[test]
    fn replicas_agree() {
        let [one, two, _] = NODES;
        let (entry, outcome) = (entry(2, 1, "a"), Outcome::None);
        let observations = [
            committed(2, 1),
            applied(one, &entry, &outcome),
            Observation::Acked { ticket: Ticket(1), node: one, group: GROUP, at: entry.id, outcome: &outcome },
            applied(two, &entry, &outcome),
            committed(3, 2),
        ];
        holds(&mut CommittedImmutable::default(), &observations);
    }

    #[test]
    fn another_entry_is_noticed() {
        let [one, two, _] = NODES;
        let (first, other, none) = (entry(2, 1, "a"), entry(2, 1, "b"), Outcome::None);
        let observations = [applied(one, &first, &none), applied(two, &other, &none)];
        breaks(&mut CommittedImmutable::default(), &observations, "another entry 2@1");
        let observations = [applied(one, &first, &none), committed(2, 3)];
        breaks(&mut CommittedImmutable::default(), &observations, "one of term 1 is committed there");
        let restored = Observation::Restored { node: two, group: GROUP, at: LogId::new(2, 4) };
        breaks(&mut CommittedImmutable::default(), &[committed(2, 3), restored], "is the snapshot of node 2");
        let opened = Observation::Opened { node: two, group: GROUP, applied: LogId::new(2, 4) };
        breaks(&mut CommittedImmutable::default(), &[committed(2, 3), opened], "is in the database of node 2");
    }

    #[test]
    fn another_outcome_is_noticed() {
        let [one, two, _] = NODES;
        let (entry, none) = (entry(2, 1, "a"), Outcome::None);
        let appended = Outcome::Appended { base_offset: Offset(0), duplicate: false };
        let observations = [applied(one, &entry, &none), applied(two, &entry, &appended)];
        breaks(&mut CommittedImmutable::default(), &observations, "elsewhere");
        let acked = Observation::Acked { ticket: Ticket(1), node: one, group: GROUP, at: entry.id, outcome: &appended };
        breaks(&mut CommittedImmutable::default(), &[applied(one, &entry, &none), acked], "acknowledged entry 2@1");
    }
}
