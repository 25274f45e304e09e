//! Entries become durable together with the commit index that was known when they came: a replica that has them on its
//! disk after a crash knows as much of what is committed as it did when it took them in (etcd#7625).
//!
//! Without it a replica could come back with the entries that its new members agreed on, and believe in the old ones:
//! members are taken at apply, so two configurations that have nothing in common could each elect a leader. That takes
//! two changes of members, flushed by some and not by others, and the right crashes; the rule is what is watched.

use crate::observe::{Invariant, Observation};
use ackord::types::{LogIndex, NodeId, RaftGroupId};
use ackord::wal::LogChange;
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct CommitWithEntries {
    /// Of every replica whose process runs, where its log ended when it learned of a commit index, by that index.
    known: BTreeMap<(NodeId, RaftGroupId), BTreeMap<LogIndex, LogIndex>>,
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
            Observation::Knows { node, group, commit, last } => {
                self.known.entry((*node, *group)).or_default().insert(*commit, *last);
            }
            Observation::Persisted { node, write } => {
                let (LogChange::Append(entries), Some(known)) =
                    (&write.change, self.known.get_mut(&(*node, write.group)))
                else {
                    return Ok(());
                };
                let Some(end) = entries.last().map(|entry| entry.id.index) else { return Ok(()) };
                // What lies beyond where the log ended has come later.
                let newest = known.iter().rev().find(|(_, last)| **last < end).map(|(commit, _)| *commit);
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
    let knows = |commit, last| Observation::Knows {
        node: NODES[0],
        group: GROUP,
        commit: LogIndex(commit),
        last: LogIndex(last),
    };
    let with = |commit, mut write: ackord::wal::GroupWrite| {
        write.hard_state.commit = LogIndex(commit);
        write
    };
    let (right, early, late) = (with(3, append(2, 5..=6)), with(1, append(2, 4..=4)), with(2, append(2, 5..=6)));
    let persisted = |write| Observation::Persisted { node: NODES[0], write };
    holds(&mut CommitWithEntries::default(), &[knows(3, 4), persisted(&early), persisted(&right)]);
    breaks(&mut CommitWithEntries::default(), &[knows(3, 4), persisted(&late)], "knew before they came that 3");
    let crashed = Observation::Crashed { node: NODES[0] };
    holds(&mut CommitWithEntries::default(), &[knows(3, 4), crashed, persisted(&late)]);
}
