//! Keeps this node's Raft groups as the controller wants them: creates what it planned, ends what it deleted.
//!
//! Groups come and go by the controller's word only, never by a message. Everything here may be repeated after a crash:
//! a state machine that is there already is taken as it is, and an end that is durable is not written twice.

use super::data::{self, SharedEngine};
use crate::broker::node::views::Views;
use crate::controller::view::{GroupFate, GroupPlan, MetadataView};
use crate::multiraft::handle::Handle;
use crate::storage::Engine;
use crate::types::{CONTROLLER_GROUP, Incarnation, LogIndex, NodeId, RaftGroupId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

/// How often the controller's replica is looked at while the log may have forgotten groups.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// What this node has of what the controller wants.
pub struct Known {
    /// This node.
    node: NodeId,
    /// Groups of partitions that have a replica here.
    groups: BTreeSet<RaftGroupId>,
    /// Groups whose replica here has ended for good. The controller's state may be older than that after a start.
    ended: BTreeSet<RaftGroupId>,
    /// The log may have forgotten groups that are not here again: those that could have been here before are adopted,
    /// not born.
    incomplete: bool,
    /// Where the log of the controller's replica ended when it was first seen to take part.
    promised: Option<LogIndex>,
    /// The first number that no group of this node's past can have, once that is known.
    unheard_of: Option<RaftGroupId>,
}

/// What is to be done.
pub struct Work {
    /// Groups to end.
    pub remove: Vec<RaftGroupId>,
    /// Groups to create, and whether this node's replica is the preferred leader.
    pub create: Vec<(GroupPlan, bool)>,
    /// Groups that are here, or that the log may have forgotten: whoever repairs them learns who the members are.
    pub adopt: Vec<GroupPlan>,
    /// Groups that are here, or about to be, and whose other replicas are new or others now.
    pub others: Vec<GroupPlan>,
}

impl Known {
    /// Groups that were there at the start. The controller's own is not among those that it plans and ends: its view
    /// calls a number that is no partition's deleted.
    #[must_use]
    pub fn new(
        node: NodeId,
        mut groups: BTreeSet<RaftGroupId>,
        ended: BTreeSet<RaftGroupId>,
        incomplete: bool,
    ) -> Self {
        groups.remove(&CONTROLLER_GROUP);
        Self { node, groups, ended, incomplete, promised: None, unheard_of: None }
    }

    /// Whether the log may have forgotten groups that are not here again.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.incomplete
    }

    /// Looks whether the controller's state here shows every group that may have been here. Its replica here takes
    /// part, its log ends at `last`, and `applied` is in the state of which `view` is a view: once that is everything
    /// that the log held when the replica was first seen to take part, the numbers from the next one on are of groups
    /// that were never here. A group was born here only after its creation was applied here, so that is in the log, or
    /// in what the replica's repair brought.
    pub fn look(&mut self, last: LogIndex, applied: LogIndex, view: &MetadataView) {
        if self.unheard_of.is_none() && applied >= *self.promised.get_or_insert(last) {
            self.unheard_of = Some(view.cluster().next_group);
        }
    }

    /// Whether all that the log had forgotten is known again: its groups that are still to be here take part, so the
    /// log has what they promised, and the others never come back to this disk. Says so once, and only after the work
    /// of the view that `look` has seen was taken. `live`: the groups that take part here. The controller's state must
    /// be durable before the log is told: an older one would show groups again that are no more.
    pub fn settle(&mut self, live: &BTreeSet<RaftGroupId>) -> bool {
        let settles = self.is_unsettled() && self.unheard_of.is_some() && self.groups.is_subset(live);
        self.incomplete &= !settles;
        settles
    }

    /// What the controller's state as of `now` wants beyond what that of `seen` did. All of it counts as known.
    pub fn take_work(&mut self, seen: &MetadataView, now: &MetadataView) -> Work {
        let changes = now.changes_since(seen, self.node);
        // A group may have been deleted while this node was down, or before it had applied its creation.
        // Or its replica was to go elsewhere, and is there.
        let gone =
            |group: &&RaftGroupId| matches!(now.group(**group), GroupFate::Deleted) || now.gave_up(**group, self.node);
        let remove: Vec<_> = self.groups.iter().filter(gone).copied().collect();
        self.groups.retain(|group| !remove.contains(group));
        self.ended.extend(&remove);
        let mut others: Vec<_> = changes.others.into_iter().filter(|plan| self.groups.contains(&plan.group)).collect();
        let (mut create, mut adopt) = (Vec::new(), Vec::new());
        for plan in changes.create {
            // The controller never gives a group back to a disk that had it: the log could not tell the two replicas
            // apart.
            if self.ended.contains(&plan.group) {
                continue;
            }
            let is_new = !self.incomplete || self.unheard_of.is_some_and(|first| plan.group >= first);
            if self.groups.insert(plan.group) && is_new {
                let preferred = is_preferred(&plan, now);
                others.push(plan.clone());
                create.push((plan, preferred));
            } else {
                adopt.push(plan);
            }
        }
        Work { remove, create, adopt, others }
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
    /// This life of its data directory.
    incarnation: Incarnation,
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
    pub fn new(incarnation: Incarnation, handle: Handle, (engine, views): (SharedEngine, Views), known: Known) -> Self {
        Self { incarnation, handle, engine, views, known }
    }

    /// Follows the controller until the node stops. `removed` brings groups whose end is durable. Returns why it can't
    /// go on.
    pub async fn follow(mut self, mut removed: UnboundedReceiver<RaftGroupId>) -> String {
        let mut metadata = self.views.watch_metadata();
        let mut seen = Arc::new(MetadataView::empty(self.views.metadata().cluster().id));
        loop {
            if self.known.is_unsettled()
                && let Err(error) = self.look().await
            {
                return error;
            }
            let now = Arc::clone(&metadata.borrow_and_update());
            if let Err(error) = self.reconcile(&seen, &now).await {
                return error;
            }
            seen = now;
            tokio::select! {
                changed = metadata.changed() => if changed.is_err() {
                    return "the controller's state machine is gone".to_owned();
                },
                () = sleep(SETTLE_EVERY), if self.known.is_unsettled() => {}
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

    async fn look(&mut self) -> Result<(), String> {
        let reports = self.handle.report().await;
        let live = reports.iter().filter(|report| report.quarantined.is_none());
        if self.known.settle(&live.clone().map(|report| report.group).collect()) {
            let engine = Arc::clone(&self.engine);
            let flushed = tokio::task::spawn_blocking(move || engine.flush()).await;
            flushed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            tracing::info!("every group that the log may have forgotten is here again, or is no more");
            return self.handle.settled().map_err(|_| "the Raft worker has stopped".to_owned());
        }
        if let Some(report) = live.clone().find(|report| report.group == CONTROLLER_GROUP) {
            // What was applied before the report is in the view after it.
            self.known.look(report.last, report.applied, &self.views.metadata());
        }
        Ok(())
    }

    async fn reconcile(&mut self, seen: &MetadataView, now: &MetadataView) -> Result<(), String> {
        if now.cluster().retired.contains(&self.incarnation) {
            return Err("this data directory was replaced, and its replicas are elsewhere".to_owned());
        }
        let Work { remove, create, adopt, others } = self.known.take_work(seen, now);
        for GroupPlan { group, replica, peers, .. } in adopt {
            if self.handle.adopt(group, replica, peers).is_err() {
                return Err("the Raft worker has stopped".to_owned());
            }
        }
        for GroupPlan { group, replica, peers, .. } in others {
            if self.handle.tell_replicas(group, replica, peers).is_err() {
                return Err("the Raft worker has stopped".to_owned());
            }
        }
        for group in remove {
            if self.handle.remove(group).is_err() {
                return Err("the Raft worker has stopped".to_owned());
            }
        }
        if create.is_empty() { Ok(()) } else { self.create(create).await }
    }

    async fn create(&self, plans: Vec<(GroupPlan, bool)>) -> Result<(), String> {
        let wanted: Vec<_> = plans.iter().map(|(plan, _)| plan.clone()).collect();
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
