//! Keeps this node's Raft groups as the controller wants them: creates what it planned, ends what it deleted.
//!
//! Groups come and go by the controller's word only, never by a message. Everything here may be repeated after a crash:
//! a state machine that is there already is taken as it is, and an end that is durable is not written twice.

use super::data::{self, SharedEngine};
use crate::broker::node::views::Views;
use crate::controller::view::{GroupFate, GroupPlan, MetadataView};
use crate::multiraft::core::GroupStart;
use crate::multiraft::handle::Handle;
use crate::types::{CONTROLLER_GROUP, NodeId, RaftGroupId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// What this node has of what the controller wants.
pub struct Known {
    /// This node.
    node: NodeId,
    /// Groups of partitions that have a replica here.
    groups: BTreeSet<RaftGroupId>,
    /// Groups that have ended here. The controller's state may be older than that after a start.
    ended: BTreeSet<RaftGroupId>,
    /// Those of them whose state machine can't be used.
    stateless: BTreeSet<RaftGroupId>,
    /// The log may have forgotten groups, so that none may be born here.
    incomplete: bool,
}

/// What is to be done.
pub struct Work {
    /// Groups to end.
    pub remove: Vec<RaftGroupId>,
    /// Groups to create, and whether this node's replica is the preferred leader.
    pub create: Vec<(GroupPlan, bool)>,
    /// Groups whose replica here has lost its state machine, or may have been forgotten: to be repaired.
    pub adopt: Vec<GroupPlan>,
}

impl Known {
    /// Groups that were there at the start. The controller's own is not among those that it plans and ends: its view
    /// calls a number that is no partition's deleted.
    #[must_use]
    pub fn new(node: NodeId, starts: &[GroupStart], ended: BTreeSet<RaftGroupId>, incomplete: bool) -> Self {
        let planned = || starts.iter().filter(|start| start.group != CONTROLLER_GROUP);
        let groups = planned().map(|start| start.group).collect();
        let stateless = planned().filter(|start| start.state_damage.is_some()).map(|start| start.group).collect();
        Self { node, groups, ended, stateless, incomplete }
    }

    /// What the controller's state as of `now` wants beyond what that of `seen` did. All of it counts as known.
    pub fn take_work(&mut self, seen: &MetadataView, now: &MetadataView) -> Work {
        let changes = now.changes_since(seen, self.node);
        // A group may have been deleted while this node was down, or before it had applied its creation.
        let gone = |group: &&RaftGroupId| matches!(now.group(**group), GroupFate::Deleted);
        let remove: Vec<_> = self.groups.iter().filter(gone).copied().collect();
        self.groups.retain(|group| !remove.contains(group));
        let (mut create, mut adopt) = (Vec::new(), Vec::new());
        for plan in changes.create.into_iter().filter(|plan| !self.ended.contains(&plan.group)) {
            let is_new = self.groups.insert(plan.group);
            let is_stateless = self.stateless.remove(&plan.group);
            if is_stateless || (is_new && self.incomplete) {
                adopt.push(plan);
            } else if is_new {
                let preferred = is_preferred(&plan, now);
                create.push((plan, preferred));
            }
        }
        Work { remove, create, adopt }
    }
}

/// Whether this node's replica comes first among the partition's.
fn is_preferred(plan: &GroupPlan, now: &MetadataView) -> bool {
    let topic = now.topic(plan.topic);
    let partition = topic.and_then(|topic| topic.partitions.get(plan.partition));
    partition.and_then(|partition| partition.replicas.first()) == Some(&plan.replica)
}

/// See the module.
pub struct Groups {
    /// The Raft groups.
    handle: Handle,
    /// The database.
    engine: SharedEngine,
    /// The controller's state, to follow.
    views: Views,
    /// What there is.
    known: Known,
}

impl Groups {
    /// Groups that were there at the start are known.
    #[must_use]
    pub fn new(handle: Handle, (engine, views): (SharedEngine, Views), known: Known) -> Self {
        Self { handle, engine, views, known }
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
        let Work { remove, create, adopt } = self.known.take_work(seen, now);
        for group in remove {
            if self.handle.remove(group).is_err() {
                return Err("the Raft worker has stopped".to_owned());
            }
        }
        if !create.is_empty() {
            self.create(create).await?;
        }
        if adopt.is_empty() { Ok(()) } else { self.adopt(adopt).await }
    }

    async fn adopt(&self, plans: Vec<GroupPlan>) -> Result<(), String> {
        let wanted: Vec<_> = plans.iter().map(|plan| (plan.group, plan.kind, plan.members.clone())).collect();
        let engine = Arc::clone(&self.engine);
        let machines = tokio::task::spawn_blocking(move || data::adopt_machines(&engine, &wanted))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        for (plan, machine) in plans.into_iter().zip(machines) {
            if self.handle.adopt(plan.group, plan.replica, plan.members, machine).is_err() {
                return Err("the Raft worker has stopped".to_owned());
            }
        }
        Ok(())
    }

    async fn create(&self, plans: Vec<(GroupPlan, bool)>) -> Result<(), String> {
        let wanted: Vec<_> = plans.iter().map(|(plan, _)| (plan.group, plan.kind, plan.members.clone())).collect();
        let engine = Arc::clone(&self.engine);
        let machines = tokio::task::spawn_blocking(move || data::create_machines(&engine, &wanted))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        for ((plan, preferred), machine) in plans.into_iter().zip(machines) {
            if self.handle.create(plan.group, plan.replica, machine, preferred).is_err() {
                return Err("the Raft worker has stopped".to_owned());
            }
        }
        Ok(())
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
