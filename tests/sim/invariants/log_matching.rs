//! Two durable logs that hold an entry of the same index and term hold the same entry, and agree on everything before
//! it (Raft §5.3): with each entry goes the term of the one before, so equality reaches back by induction.

use super::by_index::ByIndex;
use super::durable::Logs;
use crate::observe::{Invariant, Observation};
use ackord::types::{LogEntry, NodeId, RaftGroupId, Term};
use ackord::wal::LogChange;
use std::collections::BTreeMap;

/// What an entry is known by.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Its term.
    term: Term,
    /// The hash of its content.
    hash: u32,
    /// The term of the entry before it, where the log knew it.
    before: Option<Term>,
}

/// The hash of an entry's content.
pub fn hash(entry: &LogEntry) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&entry.context), &entry.data) ^ entry.kind as u32
}

/// See the module.
#[derive(Default)]
pub struct LogMatching {
    /// What every node's logs hold.
    logs: Logs,
    /// The entries ever seen, by group and index; few indexes have more than one.
    known: BTreeMap<RaftGroupId, ByIndex<Vec<Known>>>,
}

impl LogMatching {
    fn check(&mut self, node: NodeId, group: RaftGroupId, entries: &[LogEntry]) -> Result<(), String> {
        let Some(first) = entries.first() else { return Ok(()) };
        let mut before = self.logs.of(node, group).and_then(|log| log.term_at(first.id.index.previous()));
        let known = self.known.entry(group).or_default();
        for entry in entries {
            let (id, hash) = (entry.id, hash(entry));
            let here = known.slot(id.index.0).get_or_insert_with(Vec::new);
            match here.iter_mut().find(|known| known.term == id.term) {
                Some(known) if known.hash != hash => {
                    return Err(format!("node {node} has another entry {id} of group {group} than others had"));
                }
                Some(known) => {
                    if let (Some(ours), Some(theirs)) = (before, known.before)
                        && ours != theirs
                    {
                        return Err(format!(
                            "node {node} has an entry of term {ours} before {id} in group {group}, and others had one \
                             of term {theirs}"
                        ));
                    }
                    known.before = known.before.or(before);
                }
                None => here.push(Known { term: id.term, hash, before }),
            }
            before = Some(id.term);
        }
        Ok(())
    }
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log_matching"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        if let Observation::Persisted { node, write } = observation
            && let LogChange::Append(entries) | LogChange::Refill(entries) = &write.change
        {
            self.check(*node, write.group, entries)?;
        }
        self.logs.observe(observation);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{NODES, append, birth, breaks, entry, holds, write};
    use super::*;

    #[test]
    fn logs_may_differ_until_they_agree() {
        let [one, two, three] = NODES;
        let (birth, old, new) = (birth(), append(2, 2..=3), append(3, 2..=4));
        let observations = [
            Observation::Persisted { node: one, write: &birth },
            Observation::Persisted { node: two, write: &birth },
            Observation::Persisted { node: three, write: &birth },
            Observation::Persisted { node: one, write: &old },
            Observation::Persisted { node: two, write: &new },
            Observation::Persisted { node: three, write: &new },
            Observation::Persisted { node: one, write: &new },
        ];
        holds(&mut LogMatching::default(), &observations);
    }

    #[test]
    fn one_place_and_term_is_one_entry() {
        let [one, two, _] = NODES;
        let (mine, other) = (append(2, 2..=2), write(2, LogChange::Append(vec![entry(2, 2, "other")])));
        let observations =
            [Observation::Persisted { node: one, write: &mine }, Observation::Persisted { node: two, write: &other }];
        breaks(&mut LogMatching::default(), &observations, "another entry 2@2");
    }

    #[test]
    fn equal_entries_have_equal_pasts() {
        let [one, two, _] = NODES;
        let (birth, early, late, third) = (birth(), append(2, 2..=2), append(3, 2..=2), append(4, 3..=3));
        let observations = [
            Observation::Persisted { node: one, write: &birth },
            Observation::Persisted { node: two, write: &birth },
            Observation::Persisted { node: one, write: &early },
            Observation::Persisted { node: two, write: &late },
            Observation::Persisted { node: one, write: &third },
            Observation::Persisted { node: two, write: &third },
        ];
        breaks(&mut LogMatching::default(), &observations, "an entry of term 3 before 3@4");
    }
}
