//! A group whose majority runs, is connected and takes part makes progress once the faults have stopped; where it does
//! not, somebody was told why: a replica was quarantined, or a node refused to start.
//!
//! And nobody cries wolf: a replica is quarantined, and a node refuses to start, only after a disk was damaged.

use crate::observe::{Invariant, Observation};
use ackord::types::{Membership, NodeId, RaftGroupId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Default)]
pub struct NoSilentStop {
    /// The newest members of each group.
    members: BTreeMap<RaftGroupId, (ackord::types::LogIndex, Membership)>,
    /// Replicas that take no part, since their process started or until they were repaired.
    quarantined: BTreeSet<(NodeId, RaftGroupId)>,
    /// A disk was damaged somewhere.
    is_damaged: bool,
}

impl NoSilentStop {
    fn check(&self, group: RaftGroupId, up: &BTreeSet<NodeId>, progress: bool) -> Result<(), String> {
        let (_, members) = self.members.get(&group).ok_or_else(|| format!("nobody told the members of {group}"))?;
        let takes_part = |voter: &&ReplicaId| {
            let node = voter.node();
            up.contains(&node) && !self.quarantined.contains(&(node, group))
        };
        let majority =
            |voters: &[ReplicaId]| voters.is_empty() || voters.iter().filter(takes_part).count() > voters.len() / 2;
        if progress || !majority(&members.voters) || !majority(&members.voters_outgoing) {
            return Ok(());
        }
        Err(format!("group {group} has stopped without a word: {up:?} run, {:?} are quarantined", self.quarantined))
    }
}

impl Invariant for NoSilentStop {
    fn name(&self) -> &'static str {
        "no_silent_stop"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Members { group, at, membership } => {
                let known = self.members.entry(*group).or_insert_with(|| (at.index, (*membership).clone()));
                if known.0 < at.index {
                    *known = (at.index, (*membership).clone());
                }
            }
            Observation::Started { node, .. } => self.quarantined.retain(|(other, _)| other != node),
            Observation::Damaged { .. } => self.is_damaged = true,
            Observation::Quarantined { node, group, reason } => {
                self.quarantined.insert((*node, *group));
                if !self.is_damaged {
                    return Err(format!("node {node} quarantines group {group}, and no disk was damaged: {reason}"));
                }
            }
            Observation::RefusedStart { node, reason } if !self.is_damaged => {
                return Err(format!("node {node} refuses to start, and no disk was damaged: {reason}"));
            }
            Observation::Repaired { node, group, .. } => {
                self.quarantined.remove(&(*node, *group));
            }
            Observation::Liveness { group, up, progress } => self.check(*group, up, *progress)?,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{GROUP, NODES, breaks, holds, replica, voters};
    use super::*;
    use ackord::types::LogId;

    /// How a group of three voters gets on while so many of them are up.
    fn judged<'a>(up: &'a BTreeSet<NodeId>, progress: bool) -> Observation<'a> {
        Observation::Liveness { group: GROUP, up, progress }
    }

    fn members(index: u64, membership: &Membership) -> Observation<'_> {
        Observation::Members { group: GROUP, at: LogId::new(index, 1), membership }
    }

    const STOP: &str = "stopped without a word";

    #[test]
    fn a_majority_makes_progress() {
        let (members_of_three, two, one) = (voters(), BTreeSet::from([NODES[0], NODES[1]]), BTreeSet::from([NODES[0]]));
        let begin = members(1, &members_of_three);
        holds(&mut NoSilentStop::default(), &[begin.clone(), judged(&two, true), judged(&one, false)]);
        breaks(&mut NoSilentStop::default(), &[begin.clone(), judged(&two, false)], STOP);
        let alone = Membership::of_voters([replica(NODES[0])]);
        breaks(&mut NoSilentStop::default(), &[begin, members(5, &alone), judged(&one, false)], STOP);
        breaks(&mut NoSilentStop::default(), &[judged(&one, false)], "nobody told the members");
    }

    #[test]
    fn a_quarantine_explains_a_stop_until_it_ends() {
        let (members_of_three, two, nothing) = (voters(), BTreeSet::from([NODES[0], NODES[1]]), BTreeMap::new());
        let begin = [
            members(1, &members_of_three),
            Observation::Damaged { node: NODES[0] },
            Observation::Quarantined { node: NODES[0], group: GROUP, reason: "rust" },
        ];
        let ready = || {
            let mut invariant = NoSilentStop::default();
            holds(&mut invariant, &begin);
            invariant
        };
        holds(&mut ready(), &[judged(&two, false)]);
        let last = LogId::new(5, 1);
        let repaired = Observation::Repaired { node: NODES[0], group: GROUP, start: last, last };
        breaks(&mut ready(), &[repaired, judged(&two, false)], STOP);
        let started = Observation::Started { node: NODES[0], groups: &nothing };
        breaks(&mut ready(), &[started, judged(&two, false)], STOP);
    }

    #[test]
    fn nobody_cries_wolf() {
        let quarantined = Observation::Quarantined { node: NODES[0], group: GROUP, reason: "rust" };
        breaks(&mut NoSilentStop::default(), &[quarantined], "no disk was damaged: rust");
        let refused = Observation::RefusedStart { node: NODES[0], reason: "empty" };
        holds(&mut NoSilentStop::default(), &[Observation::Damaged { node: NODES[0] }, refused.clone()]);
        breaks(&mut NoSilentStop::default(), &[refused], "no disk was damaged: empty");
    }
}
