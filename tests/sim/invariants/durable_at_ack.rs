//! What is acknowledged is applied, committed, and on the disks of a majority of the voters.
//!
//! Between a change of members and its application the leader counts by the members before it, so an entry may have
//! been committed by either of the last two. A node whose disk was damaged since counts as having had what it had, and
//! so does one that has ended its replica because the controller has deleted the group. A replica whose node has
//! another disk now counts with what it had on the old one; the replica that takes its place begins with nothing.

use super::durable::{DurableLog, Logs};
use crate::observe::{Invariant, Observation};
use ackord::types::{LogId, LogIndex, Membership, NodeId, RaftGroupId, ReplicaId};
use ackord::wal::LogChange;
use std::collections::{BTreeMap, BTreeSet};

/// How far a replica has come since its process started.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// What it knows to be committed.
    commit: LogIndex,
    /// What it has applied.
    applied: LogIndex,
}

/// See the module.
#[derive(Default)]
pub struct DurableAtAck {
    /// What every node's logs hold.
    logs: Logs,
    /// What logs held when their disk was damaged, or the group ended.
    had: BTreeMap<(NodeId, RaftGroupId), Vec<DurableLog>>,
    /// The same of replicas whose node has another disk now.
    lost: BTreeMap<(ReplicaId, RaftGroupId), Vec<DurableLog>>,
    /// The last replica of each node that was on its old disk: what is on the new one is a later one's.
    replaced: BTreeMap<(NodeId, RaftGroupId), ReplicaId>,
    /// The members, by group and the entry since which they are.
    members: BTreeMap<RaftGroupId, BTreeMap<LogIndex, Membership>>,
    /// Of every replica whose process runs.
    progress: BTreeMap<(NodeId, RaftGroupId), Progress>,
}

impl DurableAtAck {
    fn has_had(&self, voter: ReplicaId, group: RaftGroupId, id: LogId) -> bool {
        let node = voter.node();
        if self.replaced.get(&(node, group)).is_some_and(|last| voter <= *last) {
            return self.lost.get(&(voter, group)).is_some_and(|logs| logs.iter().any(|log| log.holds(id)));
        }
        let now = self.logs.of(node, group).is_some_and(|log| log.holds(id));
        now || self.had.get(&(node, group)).is_some_and(|logs| logs.iter().any(|log| log.holds(id)))
    }

    fn is_durable(&self, group: RaftGroupId, id: LogId, members: &Membership) -> bool {
        let majority = |voters: &[ReplicaId]| {
            let count = voters.iter().filter(|voter| self.has_had(**voter, group, id)).count();
            voters.is_empty() || count > voters.len() / 2
        };
        majority(&members.voters) && majority(&members.voters_outgoing)
    }

    fn check(&self, node: NodeId, group: RaftGroupId, at: LogId) -> Result<(), String> {
        let Progress { commit, applied } = self.progress.get(&(node, group)).copied().unwrap_or_default();
        if applied < at.index || commit < at.index {
            return Err(format!(
                "node {node} acknowledged entry {at} of group {group}: it has applied up to {applied}, and knows that \
                 {commit} is committed"
            ));
        }
        let members = self.members.get(&group).ok_or_else(|| format!("nobody told the members of group {group}"))?;
        let mut recent = members.range(..=at.index).rev().take(2).map(|(_, members)| members);
        if recent.any(|members| self.is_durable(group, at, members)) {
            return Ok(());
        }
        let voters = members.values().flat_map(|members| &members.voters);
        let holders: BTreeSet<_> = voters.filter(|voter| self.has_had(**voter, group, at)).collect();
        let holders: Vec<_> = holders.into_iter().map(|holder| holder.node()).collect();
        Err(format!("entry {at} of group {group} is acknowledged, and durable only on nodes {holders:?}"))
    }
}

impl Invariant for DurableAtAck {
    fn name(&self) -> &'static str {
        "durable_at_ack"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Damaged { node } => {
                for (group, log) in self.logs.of_node(*node).into_iter().flatten() {
                    self.had.entry((*node, *group)).or_default().push(log.clone());
                }
            }
            Observation::Replaced { node, replicas } => {
                for (group, replica) in *replicas {
                    let mut logs = self.had.remove(&(*node, *group)).unwrap_or_default();
                    logs.extend(self.logs.of(*node, *group).cloned());
                    self.lost.entry((*replica, *group)).or_default().extend(logs);
                    self.replaced.insert((*node, *group), *replica);
                }
            }
            Observation::Persisted { node, write } if write.change == LogChange::Tombstone => {
                let log = self.logs.of(*node, write.group).cloned();
                self.had.entry((*node, write.group)).or_default().extend(log);
            }
            Observation::Started { node, .. } | Observation::Crashed { node } => {
                self.progress.retain(|(other, _), _| other != node);
            }
            Observation::Members { group, at, membership } => {
                self.members.entry(*group).or_default().insert(at.index, (*membership).clone());
            }
            Observation::Committed { node, group, commit, .. } => {
                let progress = self.progress.entry((*node, *group)).or_default();
                progress.commit = progress.commit.max(commit.index);
            }
            Observation::Applied { node, group, entry, .. } => {
                let progress = self.progress.entry((*node, *group)).or_default();
                progress.applied = progress.applied.max(entry.id.index);
            }
            Observation::Acked { node, group, at, .. } => self.check(*node, *group, *at)?,
            _ => {}
        }
        self.logs.observe(observation);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, append, birth, breaks, entry, holds, replica, voters, write};
    use super::*;
    use ackord::machine::Outcome;
    use ackord::multiraft::core::effect::Ticket;
    use ackord::types::Term;
    use ackord::wal::GroupWrite;

    const NONE: &Outcome = &Outcome::None;

    /// An invariant that knows of a group, born on all nodes, with entries 2 and 3 on node 1 only, applied there.
    fn ready(members: &Membership) -> DurableAtAck {
        let mut invariant = DurableAtAck::default();
        let (birth, entries, last) = (birth(), append(2, 2..=3), entry(3, 2, "data"));
        let (one, at) = (NODES[0], LogId::new(1, 1));
        let mut observations: Vec<_> =
            NODES.iter().map(|node| Observation::Persisted { node: *node, write: &birth }).collect();
        observations.push(Observation::Members { group: GROUP, at, membership: members });
        observations.push(Observation::Persisted { node: one, write: &entries });
        observations.push(Observation::Committed { node: one, group: GROUP, term: Term(2), commit: last.id });
        observations.push(Observation::Applied { node: one, group: GROUP, entry: &last, outcome: NONE });
        holds(&mut invariant, &observations);
        invariant
    }

    fn persisted(node: usize, write: &GroupWrite) -> Observation<'_> {
        Observation::Persisted { node: NODES[node], write }
    }

    fn acked() -> Observation<'static> {
        Observation::Acked { ticket: Ticket(1), node: NODES[0], group: GROUP, at: LogId::new(3, 2), outcome: NONE }
    }

    #[test]
    fn a_majority_has_it() {
        let (entries, others) = (append(2, 2..=3), append(3, 2..=3));
        holds(&mut ready(&voters()), &[persisted(1, &entries), acked()]);
        breaks(&mut ready(&voters()), &[acked()], "durable only on nodes [NodeId(1)]");
        breaks(&mut ready(&voters()), &[persisted(1, &others), acked()], "durable only on nodes [NodeId(1)]");
        let snapshot = write(2, LogChange::Installed { at: LogId::new(9, 2), generation: 2 });
        holds(&mut ready(&voters()), &[persisted(2, &snapshot), acked()]);
        let ended = write(2, LogChange::Tombstone);
        holds(&mut ready(&voters()), &[persisted(1, &entries), persisted(1, &ended), acked()]);
        breaks(&mut ready(&voters()), &[persisted(1, &ended), acked()], "durable only on nodes [NodeId(1)]");
    }

    #[test]
    fn damage_does_not_count() {
        let entries = append(2, 2..=3);
        let nothing = BTreeMap::new();
        let damaged = Observation::Damaged { node: NODES[1] };
        let started = Observation::Started { node: NODES[1], groups: &nothing };
        holds(&mut ready(&voters()), &[persisted(1, &entries), damaged, started.clone(), acked()]);
        breaks(&mut ready(&voters()), &[persisted(1, &entries), started, acked()], "durable only on");
    }

    #[test]
    fn a_new_disk_has_nothing_of_what_the_old_one_had() {
        let (entries, replicas) = (append(2, 2..=3), BTreeMap::from([(GROUP, replica(NODES[1]))]));
        let replaced = Observation::Replaced { node: NODES[1], replicas: &replicas };
        holds(&mut ready(&voters()), &[persisted(1, &entries), replaced.clone(), acked()]);
        breaks(&mut ready(&voters()), &[replaced.clone(), persisted(1, &entries), acked()], "durable only on");
        let [one, _, three] = NODES.map(replica);
        let new = Membership::of_voters([one, ReplicaId::new(NODES[1], 1), three]);
        breaks(&mut ready(&new), &[persisted(1, &entries), replaced.clone(), acked()], "durable only on");
        let installed = write(2, LogChange::Installed { at: LogId::new(3, 2), generation: 1 });
        holds(&mut ready(&new), &[replaced, persisted(1, &installed), acked()]);
    }

    #[test]
    fn both_halves_of_a_joint_configuration_count() {
        let [one, two, three] = NODES.map(replica);
        let joint = Membership { voters: vec![one], voters_outgoing: vec![one, two, three], ..Membership::default() };
        breaks(&mut ready(&joint), &[acked()], "durable only on");
        holds(&mut ready(&joint), &[persisted(1, &append(2, 2..=3)), acked()]);
        // One change later, the members before may still have been the ones that counted.
        let alone = Membership::of_voters([one]);
        let change = Observation::Members { group: GROUP, at: LogId::new(3, 2), membership: &alone };
        holds(&mut ready(&voters()), &[change, acked()]);
    }

    #[test]
    fn the_acknowledging_replica_has_applied_it() {
        let (entries, nothing) = (append(2, 2..=3), BTreeMap::new());
        let again = Observation::Started { node: NODES[0], groups: &nothing };
        for end in [again, Observation::Crashed { node: NODES[0] }] {
            breaks(&mut ready(&voters()), &[persisted(1, &entries), end, acked()], "has applied up to 0");
        }
    }
}
