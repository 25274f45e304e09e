//! Commands that move a node's replicas to another node, or to the same node with another disk.
//!
//! The controller decides which replica takes whose place; the leader of each group changes its members accordingly,
//! and reports when that is done. A replica's number is never given out twice, so whatever an old disk has promised
//! under its number is never taken for a promise of the new one.

use super::command::{Finished, Joining, Reason, Rejection, reject};
use super::rows::Editor;
use super::view::{Cluster, GroupFate, MetadataView, NodeReplacement, Partition, Replacement, Topic};
use crate::types::{CONTROLLER_GROUP, Incarnation, NodeId, ReplicaId};
use std::collections::BTreeMap;

impl Partition {
    /// The replica that a further one on `node` becomes: the node's next number in this group.
    fn next_replica(&self, node: NodeId, learners: &[ReplicaId]) -> ReplicaId {
        let ever = self.present().chain(self.removed.iter().chain(learners).copied());
        let newest = ever.filter(|replica| replica.node() == node).map(|replica| replica.generation()).max();
        ReplicaId::new(node, newest.map_or(0, |generation| generation + 1))
    }

    /// The replica that this node is to have in the end.
    fn wanted_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.wanted().into_iter().find(|replica| replica.node() == node)
    }

    /// Has `new` take the place of `old`, one of the wanted replicas, and of those whose places that was to take.
    fn replace(&mut self, old: ReplicaId, new: ReplicaId) {
        self.replacing.iter_mut().filter(|pair| pair.new == old).for_each(|pair| pair.new = new);
        self.replacing.push(Replacement { old, new });
    }

    /// A replacement is complete.
    fn finish(&mut self, pair: Replacement) {
        if self.born.is_empty() {
            self.born = self.replicas.clone();
        }
        self.replacing.retain(|open| *open != pair);
        self.replicas.iter_mut().filter(|replica| **replica == pair.old).for_each(|replica| *replica = pair.new);
        self.retire(pair.old);
    }

    /// Remembers that a replica's number is used up. The newest of each node says it of the others.
    fn retire(&mut self, replica: ReplicaId) {
        self.removed.retain(|known| known.node() != replica.node() || known.generation() > replica.generation());
        self.removed.push(replica);
        self.removed.sort_unstable();
    }
}

/// What is to happen to one group.
struct Plan {
    /// The replica that is lost.
    old: ReplicaId,
    /// The one that takes its place.
    new: ReplicaId,
}

/// `None`: the group has nothing on the old node.
fn plan(partition: &Partition, name: &str, (old, new): (NodeId, NodeId), learners: &[ReplicaId]) -> Planned {
    let Some(lost) = partition.wanted_on(old) else { return Ok(None) };
    if old != new {
        let mut ever = partition.present().chain(partition.removed.iter().copied());
        if ever.any(|replica| replica.node() == new) {
            let what = format!("node {new} has, or had, a replica of {name} itself; choose another node");
            return reject(Reason::InvalidReplicaAssignment, what);
        }
    }
    let known = learners.iter().copied().find(|learner| learner.node() == new && old != new);
    let new = known.unwrap_or_else(|| partition.next_replica(new, learners));
    Ok(Some(Plan { old: lost, new }))
}

type Planned = Result<Option<Plan>, Rejection>;

/// How many groups get a new replica.
pub(super) fn replace_node(
    editor: &mut Editor<'_>,
    (old, new): (NodeId, NodeId),
    disk: Option<Incarnation>,
    live: &[NodeId],
    force: bool,
) -> Result<u32, Rejection> {
    let open = editor.view.cluster().replacements.iter().find(|open| (open.old, open.new) == (old, new));
    let disk_now = editor.view.broker(old).map(|broker| broker.incarnation);
    match open {
        // Whoever was not told the answer asks again.
        Some(open) if old != new || disk_now.is_none() || disk_now != disk => return Ok(open.groups),
        None if disk_now != disk => {
            let what = format!("node {old} has another disk by now, or is gone: list the nodes, then ask again");
            return reject(Reason::InvalidRequest, what);
        }
        _ => {}
    }
    check_nodes(editor.view, (old, new), live, force)?;
    let mut cluster = editor.view.cluster().clone();
    let learners = cluster.controllers.learners.clone();
    let controllers = plan(&cluster.controllers.members, "the controller's group", (old, new), &learners)?;
    let mut changed: Vec<Topic> = Vec::new();
    let mut groups = u32::from(controllers.is_some());
    for topic in editor.view.topics() {
        let mut copy: Option<Topic> = None;
        for (number, partition) in topic.partitions.iter().enumerate() {
            let name = || format!("{}/{number}", topic.name);
            if let Some(plan) = plan(partition, &name(), (old, new), &[])? {
                let copy = copy.get_or_insert_with(|| Topic::clone(topic));
                copy.partitions[number].replace(plan.old, plan.new);
                groups += 1;
            }
        }
        changed.extend(copy);
    }
    if let Some(Plan { old, new }) = controllers {
        cluster.controllers.members.replace(old, new);
        cluster.controllers.learners.retain(|learner| *learner != new);
    }
    cluster.forget_learner(old);
    if old == new {
        // The new disk registers under another incarnation; from now on the old one is refused.
        cluster.retired.extend(editor.view.broker(old).map(|broker| broker.incarnation));
        editor.remove_broker(old);
    }
    cluster.replacements.retain(|known| known.old != old);
    cluster.replacements.push(NodeReplacement { old, new, groups });
    editor.set_cluster(cluster);
    changed.into_iter().for_each(|topic| editor.set_topic(topic));
    finish_nodes(editor);
    Ok(groups)
}

fn check_nodes(
    view: &MetadataView,
    (old, new): (NodeId, NodeId),
    live: &[NodeId],
    force: bool,
) -> Result<(), Rejection> {
    let open = view.cluster().replacements.iter().find(|open| open.old == old);
    if let Some(other) = open.filter(|open| open.new != old) {
        let what =
            format!("node {old} is being replaced by node {0}; if that is lost, too, replace node {0}", other.new);
        return reject(Reason::InvalidRequest, what);
    }
    if view.broker(old).is_none() && open.is_none() {
        return reject(Reason::UnknownBroker, format!("node {old} is not registered"));
    }
    if old != new && view.broker(new).is_none() {
        let what = format!("node {new} is not registered: format and start it first");
        return reject(Reason::UnknownBroker, what);
    }
    if old != new && view.cluster().replacements.iter().any(|open| open.old == new && open.new != new) {
        return reject(Reason::InvalidRequest, format!("node {new} is being replaced itself"));
    }
    if live.contains(&old) && view.broker(old).is_some() && !force {
        let what = format!("node {old} is alive; stop it first, or force the replacement");
        return reject(Reason::InvalidRequest, what);
    }
    Ok(())
}

/// Groups report that their members are the wanted ones. What is not wanted any more is passed over.
pub(super) fn finish(editor: &mut Editor<'_>, finished: &[Finished]) {
    let mut topics: BTreeMap<_, Topic> = BTreeMap::new();
    let mut cluster = editor.view.cluster().clone();
    let is_open =
        |report: &&Finished| editor.view.awaits(report.group, Replacement { old: report.old, new: report.new });
    for Finished { group, old, new } in finished.iter().filter(is_open) {
        let pair = Replacement { old: *old, new: *new };
        if *group == CONTROLLER_GROUP {
            cluster.controllers.members.finish(pair);
        } else if let GroupFate::Alive(topic, partition) = editor.view.group(*group) {
            let topic = topics.entry(topic.id).or_insert_with(|| Topic::clone(&topic));
            topic.partitions[partition].finish(pair);
        }
    }
    if cluster != *editor.view.cluster() {
        editor.set_cluster(cluster);
    }
    topics.into_values().for_each(|topic| editor.set_topic(topic));
    finish_nodes(editor);
}

/// A node whose replicas have all found their places elsewhere, or whose topics were deleted, is gone for good.
pub(super) fn finish_nodes(editor: &mut Editor<'_>) {
    let mut cluster = editor.view.cluster().clone();
    let before = cluster.replacements.len();
    let done = |replacement: &NodeReplacement| editor.view.unfinished(replacement) == 0;
    let gone: Vec<_> = cluster.replacements.extract_if(.., |replacement| done(replacement)).collect();
    if cluster.replacements.len() == before {
        return;
    }
    for NodeReplacement { old, new, .. } in gone {
        if old != new {
            cluster.retired.extend(editor.view.broker(old).map(|broker| broker.incarnation));
            editor.remove_broker(old);
        }
    }
    editor.set_cluster(cluster);
}

/// The replica of the controller's group that a registered node without one is to have.
pub(super) fn join(editor: &mut Editor<'_>, node: NodeId, incarnation: Incarnation) -> Result<Joining, Rejection> {
    let replica = joining_replica(editor, node, incarnation)?;
    let members = &editor.view.cluster().controllers.members;
    let peers = members.peers().voters;
    let has_begun = members.replicas.contains(&replica);
    Ok(Joining { replica, has_begun, peers })
}

fn joining_replica(editor: &mut Editor<'_>, node: NodeId, incarnation: Incarnation) -> Result<ReplicaId, Rejection> {
    if editor.view.broker(node).is_none_or(|known| known.incarnation != incarnation) {
        return reject(Reason::UnknownBroker, format!("node {node} is not registered with this data directory"));
    }
    let mut cluster = editor.view.cluster().clone();
    let controllers = &cluster.controllers;
    let learner = || controllers.learners.iter().copied().find(|learner| learner.node() == node);
    let members = &controllers.members;
    if let Some(known) = members.replica_on(node) {
        // One whose place was given to another node before it came is never added.
        if members.replicas.contains(&known) || members.wanted().contains(&known) {
            return Ok(known);
        }
        return reject(Reason::InvalidRequest, format!("node {node} is being replaced; it joins when that is done"));
    }
    if let Some(known) = learner() {
        return Ok(known);
    }
    let replica = controllers.members.next_replica(node, &controllers.learners);
    cluster.controllers.learners.push(replica);
    cluster.controllers.learners.sort_unstable();
    editor.set_cluster(cluster);
    Ok(replica)
}

impl Cluster {
    /// A node is gone: its copy of the metadata counts no more.
    pub(super) fn forget_learner(&mut self, node: NodeId) {
        let gone = self.controllers.learners.extract_if(.., |learner| learner.node() == node);
        for learner in gone.collect::<Vec<_>>() {
            self.controllers.members.retire(learner);
        }
    }
}
