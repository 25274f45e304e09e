//! Replicas that have applied the same entries have the same state and the same members, and in the end the same
//! records. Where one of them has been given a log start from later entries with a snapshot, it is compared with others
//! that have that log start; which ones it may have is `log_start_monotone`'s business.

use crate::observe::{Invariant, Observation};
use ackord::types::{LogIndex, Membership, NodeId, Offset, RaftGroupId};
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct StateDigests {
    /// The first digest at each index and log start, with whose it was and the members then.
    known: BTreeMap<(RaftGroupId, LogIndex, Offset), (NodeId, u64, Membership)>,
}

/// Equal configurations as equal values, however they were kept.
fn sorted(membership: &Membership) -> Membership {
    let mut membership = membership.clone();
    membership.voters.sort_unstable();
    membership.learners.sort_unstable();
    membership.voters_outgoing.sort_unstable();
    membership.learners_next.sort_unstable();
    membership
}

impl Invariant for StateDigests {
    fn name(&self) -> &'static str {
        "state_digests"
    }

    fn observe(&mut self, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            // A replica that has joined and has had no snapshot: it knows only itself.
            Observation::Digest { at, .. } if at.index.0 == 0 => {}
            Observation::Digest { node, group, at, log_start, digest, membership } => {
                let membership = sorted(membership);
                let known = self.known.entry((*group, at.index, *log_start));
                let (first, theirs, members) = known.or_insert_with(|| (*node, *digest, membership.clone()));
                if theirs != digest {
                    return Err(format!("nodes {first} and {node} differ in group {group} as of entry {at}"));
                }
                if *members != membership {
                    return Err(format!(
                        "group {group} has the members {membership:?} for node {node} as of entry {at}, and \
                         {members:?} for node {first}"
                    ));
                }
            }
            Observation::Final { group, records, .. } => {
                let mut all = records.iter();
                let Some((first, contents)) = all.next() else { return Ok(()) };
                if let Some((node, _)) = all.find(|(_, other)| *other != contents) {
                    return Err(format!("nodes {first} and {node} end with different records of group {group}"));
                }
            }
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

    fn digest(node: NodeId, index: u64, digest: u64, membership: &Membership) -> Observation<'_> {
        let log_start = Offset(if index == 9 { i64::from(node.0) } else { 0 });
        Observation::Digest { node, group: GROUP, at: LogId::new(index, 1), log_start, digest, membership }
    }

    #[test]
    fn equal_states() {
        let [one, two, three] = NODES;
        let members = voters();
        let reordered = Membership { voters: vec![replica(three), replica(one), replica(two)], ..voters() };
        let observations = [digest(one, 5, 7, &members), digest(two, 5, 7, &reordered), digest(three, 6, 8, &members)];
        holds(&mut StateDigests::default(), &observations);
        let ahead = [digest(one, 9, 7, &members), digest(two, 9, 8, &members), digest(one, 9, 7, &members)];
        holds(&mut StateDigests::default(), &ahead);
    }

    #[test]
    fn different_states_or_members() {
        let [one, two, _] = NODES;
        let members = voters();
        let others = Membership::of_voters([replica(one)]);
        let observations = [digest(one, 5, 7, &members), digest(two, 5, 8, &members)];
        breaks(&mut StateDigests::default(), &observations, "differ in group 1");
        let observations = [digest(one, 5, 7, &members), digest(two, 5, 7, &others)];
        breaks(&mut StateDigests::default(), &observations, "has the members");
    }

    #[test]
    fn different_ends() {
        let same = NODES.map(|node| (node, (Offset(2), vec![5, 6]))).into_iter().collect();
        holds(&mut StateDigests::default(), &[Observation::Final { group: GROUP, records: &same }]);
        let mut other: BTreeMap<_, _> = same.clone();
        other.insert(NODES[2], (Offset(2), vec![5]));
        let last = Observation::Final { group: GROUP, records: &other };
        breaks(&mut StateDigests::default(), &[last], "end with different records");
    }
}
