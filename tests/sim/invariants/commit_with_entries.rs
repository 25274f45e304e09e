//! Entries become durable together with the commit index that was known when they came: a replica that has them on its
//! disk after a crash knows as much of what is committed as it did when it took them in (etcd#7625).
//!
//! Without it a replica could come back with the entries that its new members agreed on, and believe in the old ones:
//! members are taken at apply, so two configurations that have nothing in common could each elect a leader. That takes
//! two changes of members, flushed by some and not by others, and the right crashes; the rule is what is watched.

use crate::observe::{Invariant, Observation};
use ackord::types::{LogId, LogIndex, NodeId, RaftGroupId, Term};
use ackord::wal::LogChange;
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct CommitWithEntries {
    /// Of every replica whose process runs, where its log ended and in which term it was when it learned of a commit
    /// index, by that index.
    known: BTreeMap<(NodeId, RaftGroupId), BTreeMap<LogIndex, (LogIndex, Term)>>,
}

impl Invariant for CommitWithEntries {
    fn name(&self) -> &'static str {
        "commit_with_entries"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Started { node, .. } | Observation::Crashed { node } => {
                self.known.retain(|(other, _), _| other != node);
            }
            Observation::Knows { node, group, term, commit, last } => {
                self.known.entry((*node, *group)).or_default().insert(*commit, (*last, *term));
            }
            Observation::Persisted { node, write } => {
                let (LogChange::Append(entries), Some(known)) =
                    (&write.change, self.known.get_mut(&(*node, write.group)))
                else {
                    return Ok(());
                };
                let Some(LogId { index: end, term }) = entries.last().map(|entry| entry.id) else { return Ok(()) };
                // What lies beyond where the log ended has come later: within a term nothing of that term is cut off.
                let later = |(_, known): &(&LogIndex, &(LogIndex, Term))| known.0 < end && known.1 == term;
                let newest = known.iter().rev().find(later).map(|(commit, _)| *commit);
                if let Some(commit) = newest {
                    known.retain(|other, _| *other >= commit);
                    if write.hard_state.commit < commit {
                        return Err(format!(
                            "node {node} writes entries of group {} up to {end} with commit index {}, and knew before \
                             they came that {commit} is committed",
                            write.group, write.hard_state.commit
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[test]
fn what_was_known_is_written() {
    use super::sample::{GROUP, NODES, append, breaks, holds};
    let knows = |commit, last, term| {
        let (node, group, term) = (NODES[0], GROUP, Term(term));
        Observation::Knows { node, group, term, commit: LogIndex(commit), last: LogIndex(last) }
    };
    let with = |commit, mut write: ackord::wal::GroupWrite| {
        write.hard_state.commit = LogIndex(commit);
        write
    };
    let (right, early, late) = (with(3, append(2, 5..=6)), with(1, append(2, 4..=4)), with(2, append(2, 5..=6)));
    let persisted = |write| Observation::Persisted { node: NODES[0], write };
    holds(&mut CommitWithEntries::default(), &[knows(3, 4, 2), persisted(&early), persisted(&right)]);
    breaks(&mut CommitWithEntries::default(), &[knows(3, 4, 2), persisted(&late)], "knew before they came that 3");
    let crashed = Observation::Crashed { node: NODES[0] };
    holds(&mut CommitWithEntries::default(), &[knows(3, 4, 2), crashed, persisted(&late)]);
    // An entry of an earlier term may have been cut off before this was known, and be written yet.
    holds(&mut CommitWithEntries::default(), &[knows(3, 4, 3), persisted(&late)]);
}
