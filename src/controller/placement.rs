//! Where the replicas of new partitions go: spread over racks and nodes, and the preferred leaders over nodes.
//!
//! Greedy and deterministic: each choice takes the node that has least so far. Kafka starts a round robin at a random
//! node for every topic, which leaves clusters of many small topics uneven; counting what is there does not.

use super::view::MetadataView;
use crate::types::{NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// A node that may take replicas, with what it has.
struct Candidate<'a> {
    /// The node.
    node: NodeId,
    /// Where it stands.
    rack: Option<&'a str>,
    /// Of how many partitions it is the preferred leader.
    leaders: u32,
    /// How many replicas it has.
    replicas: u32,
}

/// Replicas for `partitions` new partitions on the registered ones of the `live` nodes, the preferred leader first.
/// `None` when there are fewer nodes than `replication_factor`.
pub(super) fn place(
    view: &MetadataView,
    live: &[NodeId],
    partitions: usize,
    replication_factor: usize,
) -> Option<Vec<Vec<ReplicaId>>> {
    let mut candidates = candidates(view, live);
    if candidates.len() < replication_factor {
        return None;
    }
    Some((0..partitions).map(|_| place_one(&mut candidates, replication_factor)).collect())
}

fn candidates<'a>(view: &'a MetadataView, live: &[NodeId]) -> Vec<Candidate<'a>> {
    let live: BTreeSet<_> = live.iter().copied().collect();
    let mut load: BTreeMap<NodeId, (u32, u32)> = BTreeMap::new();
    for partition in view.topics().flat_map(|topic| &topic.partitions) {
        for (place, replica) in partition.replicas.iter().enumerate() {
            let (leaders, replicas) = load.entry(replica.node()).or_default();
            *leaders += u32::from(place == 0);
            *replicas += 1;
        }
    }
    let registered = view.brokers().filter(|broker| live.contains(&broker.node));
    registered
        .map(|broker| {
            let (leaders, replicas) = load.get(&broker.node).copied().unwrap_or_default();
            Candidate { node: broker.node, rack: broker.rack.as_deref(), leaders, replicas }
        })
        .collect()
}

/// The leader goes where the fewest leaders are; each further replica to a rack that has the fewest of this partition.
fn place_one(candidates: &mut [Candidate<'_>], replication_factor: usize) -> Vec<ReplicaId> {
    let mut chosen: Vec<usize> = Vec::with_capacity(replication_factor);
    while chosen.len() < replication_factor {
        let leading = chosen.is_empty();
        let same_rack = |candidate: &Candidate<'_>| {
            chosen.iter().filter(|other| candidate.rack.is_some() && candidates[**other].rack == candidate.rack).count()
        };
        let (best, _) = candidates
            .iter()
            .enumerate()
            .filter(|(place, _)| !chosen.contains(place))
            .min_by_key(|(_, candidate)| {
                (same_rack(candidate), if leading { candidate.leaders } else { 0 }, candidate.replicas, candidate.node)
            })
            .expect("the caller has checked that there are enough nodes");
        chosen.push(best);
    }
    candidates[chosen[0]].leaders += 1;
    for place in &chosen {
        candidates[*place].replicas += 1;
    }
    chosen.into_iter().map(|place| ReplicaId::new(candidates[place].node, 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::view::Broker;
    use crate::types::{ClusterId, Incarnation, LogIndex};

    fn cluster(racks: &[Option<&str>]) -> (MetadataView, Vec<NodeId>) {
        let mut view = MetadataView::empty(ClusterId(1));
        let nodes: Vec<_> = (1..=u32::try_from(racks.len()).expect("a few")).map(NodeId).collect();
        for (node, rack) in nodes.iter().zip(racks) {
            view.set_broker(Broker {
                node: *node,
                incarnation: Incarnation(1),
                rack: rack.map(str::to_owned),
                listeners: Vec::new(),
                feature_level_max: 1,
                registered: LogIndex(1),
            });
        }
        (view, nodes)
    }

    fn spread(placed: &[Vec<ReplicaId>], count: impl Fn(&[ReplicaId], NodeId) -> bool, nodes: &[NodeId]) -> usize {
        let counts: Vec<_> =
            nodes.iter().map(|node| placed.iter().filter(|replicas| count(replicas, *node)).count()).collect();
        counts.iter().max().expect("nodes") - counts.iter().min().expect("nodes")
    }

    #[test]
    fn replicas_and_leaders_are_even_over_nodes() {
        for nodes in 1..=7 {
            let (view, nodes) = cluster(&vec![None; nodes]);
            for replication_factor in 1..=nodes.len().min(3) {
                let placed = place(&view, &nodes, 50, replication_factor).expect("enough nodes");
                assert!(spread(&placed, |replicas, node| replicas[0].node() == node, &nodes) <= 1);
                let hosts = |replicas: &[ReplicaId], node| replicas.iter().any(|replica| replica.node() == node);
                assert!(spread(&placed, hosts, &nodes) <= 2);
                let distinct = |replicas: &Vec<ReplicaId>| replicas.iter().collect::<BTreeSet<_>>().len();
                assert!(placed.iter().all(|replicas| distinct(replicas) == replication_factor));
            }
        }
    }

    #[test]
    fn replicas_are_in_different_racks_while_there_are_racks() {
        let racks = [Some("a"), Some("a"), Some("b"), Some("b"), Some("b"), Some("c")];
        let (view, nodes) = cluster(&racks);
        for replicas in place(&view, &nodes, 40, 3).expect("enough nodes") {
            let used: BTreeSet<_> = replicas.iter().map(|replica| racks[replica.node().0 as usize - 1]).collect();
            assert_eq!(used.len(), 3, "{replicas:?}");
        }
    }

    #[test]
    fn only_live_and_registered_nodes_are_used() {
        let (view, _) = cluster(&[None, None, None]);
        assert_eq!(place(&view, &[NodeId(1), NodeId(2)], 1, 3), None);
        assert_eq!(place(&view, &[NodeId(1), NodeId(9)], 1, 2), None);
        assert_eq!(place(&view, &[NodeId(2)], 1, 1), Some(vec![vec![ReplicaId::new(NodeId(2), 0)]]));
    }
}
