//! Keeps this node's Raft groups as the controller wants them: creates what it planned, ends what it deleted.
//!
//! Groups come and go by the controller's word only, never by a message. Everything here may be repeated after a crash:
//! a state machine that is there already is taken as it is, and an end that is durable is not written twice.

use super::data::{self, SharedEngine};
use crate::broker::node::views::Views;
use crate::controller::view::{GroupFate, GroupPlan, MetadataView};
use crate::multiraft::handle::Handle;
use crate::types::{CONTROLLER_GROUP, NodeId, RaftGroupId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// See the module.
pub struct Groups {
    /// This node.
    node: NodeId,
    /// The Raft groups.
    handle: Handle,
    /// The database.
    engine: SharedEngine,
    /// The controller's state, to follow.
    views: Views,
    /// Groups of partitions that have a replica here.
    known: BTreeSet<RaftGroupId>,
    /// The log may have forgotten groups, so that none may be born here.
    incomplete: bool,
}

impl Groups {
    /// Groups that were there at the start. The controller's own is not among those that it plans and ends: its view
    /// calls a number that is no partition's deleted.
    #[must_use]
    pub fn new(
        node: NodeId,
        handle: Handle,
        (engine, views): (SharedEngine, Views),
        mut known: BTreeSet<RaftGroupId>,
        incomplete: bool,
    ) -> Self {
        known.remove(&CONTROLLER_GROUP);
        Self { node, handle, engine, views, known, incomplete }
    }

    /// Follows the controller until the node stops. `removed` brings groups whose end is durable. Returns why it can't
    /// go on.
    pub async fn follow(mut self, mut removed: UnboundedReceiver<RaftGroupId>) -> String {
        let mut metadata = self.views.watch_metadata();
        let mut seen = Arc::new(MetadataView::empty(self.views.metadata().cluster().id));
        loop {
            let now = Arc::clone(&metadata.borrow_and_update());
            if let Err(error) = self.reconcile(&seen, &now).await {
                return error;
            }
            seen = now;
            tokio::select! {
                changed = metadata.changed() => if changed.is_err() {
                    return "the controller's state machine is gone".to_owned();
                },
                Some(group) = removed.recv() => {
                    let mut groups = BTreeSet::from([group]);
                    while let Ok(group) = removed.try_recv() {
                        groups.insert(group);
                    }
                    if let Err(error) = self.destroy(groups).await {
                        return error;
                    }
                }
            }
        }
    }

    async fn reconcile(&mut self, seen: &MetadataView, now: &MetadataView) -> Result<(), String> {
        let changes = now.changes_since(seen, self.node);
        // A group may have been deleted while this node was down, or before it had applied its creation.
        let gone = |group: &&RaftGroupId| matches!(now.group(**group), GroupFate::Deleted);
        for group in self.known.iter().filter(gone).copied().collect::<Vec<_>>() {
            self.known.remove(&group);
            if self.handle.remove(group).is_err() {
                return Err("the Raft worker has stopped".to_owned());
            }
        }
        let new: Vec<_> = changes.create.into_iter().filter(|plan| !self.known.contains(&plan.group)).collect();
        if new.is_empty() || self.incomplete { Ok(()) } else { self.create(new, now).await }
    }

    async fn create(&mut self, plans: Vec<GroupPlan>, now: &MetadataView) -> Result<(), String> {
        let wanted: Vec<_> = plans.iter().map(|plan| (plan.group, plan.kind, plan.members.clone())).collect();
        let engine = Arc::clone(&self.engine);
        let machines = tokio::task::spawn_blocking(move || data::create_machines(&engine, &wanted))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        for (plan, machine) in plans.into_iter().zip(machines) {
            let preferred = self.is_preferred(&plan, now);
            self.known.insert(plan.group);
            if self.handle.create(plan.group, plan.replica, machine, preferred).is_err() {
                return Err("the Raft worker has stopped".to_owned());
            }
        }
        Ok(())
    }

    /// Whether this node's replica comes first among the partition's.
    fn is_preferred(&self, plan: &GroupPlan, now: &MetadataView) -> bool {
        let topic = now.topic(plan.topic);
        let partition = topic.and_then(|topic| topic.partitions.get(plan.partition));
        partition.and_then(|partition| partition.replicas.first()) == Some(&plan.replica)
    }

    async fn destroy(&self, groups: BTreeSet<RaftGroupId>) -> Result<(), String> {
        groups.iter().for_each(|group| self.views.remove(*group));
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || data::destroy_machines(&engine, &groups))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }
}
