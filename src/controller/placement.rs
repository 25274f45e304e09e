//! Where the replicas of new partitions go: spread over racks and nodes, and the preferred leaders over nodes.
//!
//! Greedy and deterministic: each choice takes the node that has least so far. Kafka starts a round robin at a random
//! node for every topic, which leaves clusters of many small topics uneven; counting what is there does not.

use super::view::MetadataView;
use crate::types::{NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// Places the partitions of one request. What it has placed counts at once, so that the request's topics are spread
/// over each other, too; counting all replicas of the cluster is done once.
pub(super) struct Planner {
    /// The nodes that may take replicas, by number.
    candidates: Vec<Candidate>,
}

/// A node that may take replicas, with what it has.
struct Candidate {
    /// The node.
    node: NodeId,
    /// Where it stands.
    rack: Option<String>,
    /// Of how many partitions it is the preferred leader.
    leaders: u32,
    /// How many replicas it has.
    replicas: u32,
}

impl Planner {
    /// A planner for the registered ones of the `live` nodes.
    pub fn new(view: &MetadataView, live: &[NodeId]) -> Self {
        let live: BTreeSet<_> = live.iter().copied().collect();
        let may_take = |node: NodeId| live.contains(&node) && !view.is_leaving(node);
        let registered = view.brokers().filter(|broker| may_take(broker.node));
        let candidate = |node, rack| Candidate { node, rack, leaders: 0, replicas: 0 };
        let mut candidates: BTreeMap<NodeId, Candidate> =
            registered.map(|broker| (broker.node, candidate(broker.node, broker.rack.clone()))).collect();
        for partition in view.topics().flat_map(|topic| &topic.partitions) {
            for (place, replica) in partition.replicas.iter().enumerate() {
                if let Some(candidate) = candidates.get_mut(&replica.node()) {
                    candidate.leaders += u32::from(place == 0);
                    candidate.replicas += 1;
                }
            }
        }
        Self { candidates: candidates.into_values().collect() }
    }

    /// Replicas for `partitions` new partitions, the preferred leader first; `None` when there are fewer nodes than
    /// `replication_factor`.
    pub fn place(&mut self, partitions: usize, replication_factor: usize) -> Option<Vec<Vec<ReplicaId>>> {
        let enough = self.candidates.len() >= replication_factor;
        enough.then(|| (0..partitions).map(|_| self.place_one(replication_factor)).collect())
    }

    /// The leader goes where the fewest leaders are; each further replica to a rack that has the fewest of this
    /// partition.
    fn place_one(&mut self, replication_factor: usize) -> Vec<ReplicaId> {
        let mut chosen: Vec<usize> = Vec::with_capacity(replication_factor);
        while chosen.len() < replication_factor {
            let free = (0..self.candidates.len()).filter(|place| !chosen.contains(place));
            let best = free.min_by_key(|place| self.cost(*place, &chosen));
            chosen.push(best.expect("the caller has checked that there are enough nodes"));
        }
        self.candidates[chosen[0]].leaders += 1;
        for place in &chosen {
            self.candidates[*place].replicas += 1;
        }
        chosen.into_iter().map(|place| ReplicaId::new(self.candidates[place].node, 0)).collect()
    }

    /// Least is best: replicas of this partition in the same rack, leaders if it is to lead, replicas, and the number
    /// of the node so that all replicas of the controller choose alike.
    fn cost(&self, place: usize, chosen: &[usize]) -> (usize, u32, u32, NodeId) {
        let candidate = &self.candidates[place];
        let in_its_rack = |other: &&usize| candidate.rack.is_some() && self.candidates[**other].rack == candidate.rack;
        let leaders = if chosen.is_empty() { candidate.leaders } else { 0 };
        (chosen.iter().filter(in_its_rack).count(), leaders, candidate.replicas, candidate.node)
    }
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
                let placed = Planner::new(&view, &nodes).place(50, replication_factor).expect("enough nodes");
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
        for replicas in Planner::new(&view, &nodes).place(40, 3).expect("enough nodes") {
            let used: BTreeSet<_> = replicas.iter().map(|replica| racks[replica.node().0 as usize - 1]).collect();
            assert_eq!(used.len(), 3, "{replicas:?}");
        }
    }

    #[test]
    fn only_live_and_registered_nodes_are_used() {
        let (view, _) = cluster(&[None, None, None]);
        let place = |live: &[u32], replication_factor| {
            let live: Vec<_> = live.iter().copied().map(NodeId).collect();
            Planner::new(&view, &live).place(1, replication_factor)
        };
        assert_eq!(place(&[1, 2], 3), None);
        assert_eq!(place(&[1, 9], 2), None);
        assert_eq!(place(&[2], 1), Some(vec![vec![ReplicaId::new(NodeId(2), 0)]]));
    }
}
