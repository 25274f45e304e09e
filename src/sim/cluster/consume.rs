//! How consumers' steps come into a simulated cluster.

use super::Cluster;
use super::consumers::Sight;
use super::node::Node;
use crate::coordinator::group::Group;
use crate::multiraft::core::effect::Input;
use crate::types::{NodeId, RaftGroupId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The nodes, as consumers see them.
struct Nodes<'a> {
    /// All of them.
    nodes: &'a [Node],
    /// Which answers for which group.
    serving: &'a BTreeSet<(NodeId, RaftGroupId)>,
}

impl Sight for Nodes<'_> {
    fn group(&self, node: NodeId, raft: RaftGroupId, name: &str) -> Option<Option<Arc<Group>>> {
        let coordinator = self.nodes[node.0 as usize - 1].coordinator(raft)?;
        self.serving.contains(&(node, raft)).then(|| coordinator.groups().get(name).cloned())
    }
}

impl Cluster {
    pub(super) fn coordinators(&self) -> impl Iterator<Item = RaftGroupId> + use<> {
        let first = self.scenario.groups + 1;
        (first..first + self.scenario.coordinators).map(RaftGroupId)
    }

    /// A consumer does the next thing, somebody reads stored offsets, or a coordinator's timer goes off.
    pub(super) fn consume(&mut self) {
        let position = self.pick(self.nodes.len());
        match self.random.below(200) {
            0 => self.run_out(false),
            1..30 => {
                if self.nodes[position].is_running() {
                    let (group, ticket) = self.consumers.read(self.nodes[position].id, &mut self.random);
                    self.input(position, Input::ReadIndex { group, ticket });
                }
            }
            _ => {
                let consumer = self.pick(self.consumers.count());
                // Whom it asks is mostly the right one.
                let leader = self.leader_of(self.consumers.coordinator_of(consumer));
                let position = leader.filter(|_| !self.random.one_in(8)).unwrap_or(position);
                self.let_consume(consumer, position);
            }
        }
    }

    fn let_consume(&mut self, consumer: usize, position: usize) {
        let node = self.nodes[position].id;
        let nodes = Nodes { nodes: &self.nodes, serving: &self.serving };
        let (calm, seed) = (!self.faults, self.scenario.seed);
        let asked = self.consumers.act(consumer, node, &nodes, &mut self.random, (calm, seed));
        let Some((group, through, proposal)) = asked else { return };
        self.note(|| format!("consumer {consumer} asks node {through}: {:?}", proposal.ticket));
        if self.scenario.sabotage.assignments_uncommitted {
            self.consumers.believe_uncommitted(&proposal, seed);
        }
        let position = through.0 as usize - 1;
        if self.nodes[position].is_running() {
            self.input(position, Input::Propose { group, proposals: vec![proposal] });
        } else {
            self.consumers.lost_node(through);
        }
    }

    /// Every consumer does the next thing, and nobody is waited for in vain.
    pub(super) fn let_all_consume(&mut self) {
        for consumer in 0..self.consumers.count() {
            let raft = self.consumers.coordinator_of(consumer);
            if let Some(position) = self.leader_of(raft) {
                self.let_consume(consumer, position);
            }
        }
        self.run_out(true);
    }

    /// A session runs out, or the time to join; `only_strangers`: nobody who is there is given up.
    fn run_out(&mut self, only_strangers: bool) {
        for group in self.coordinators() {
            let Some(position) = self.leader_of(group) else { continue };
            let groups = self.nodes[position].coordinator(group).map(|coordinator| coordinator.groups().clone());
            for consumer_group in groups.unwrap_or_default().values() {
                let proposal = self.consumers.run_out(group, consumer_group, &mut self.random, only_strangers);
                if let Some(proposal) = proposal {
                    self.input(position, Input::Propose { group, proposals: vec![proposal] });
                }
            }
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.consumers.is_settled(|(raft, name)| {
            self.nodes[0].coordinator(*raft).and_then(|coordinator| coordinator.groups().get(name).cloned())
        })
    }
}
