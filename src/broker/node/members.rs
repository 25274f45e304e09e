//! Changes of groups' members: the leader of each group sees to it that it gets the replicas that the controller
//! planned, and reports when it has them.
//!
//! Every node does this for the groups it leads, from its own copy of the metadata, and remembers nothing: whoever
//! leads next goes on. A copy that lags behind does no harm: what it wants is changed again, and what it reports is
//! passed over.

use super::{Inner, NodeBroker};
use crate::controller::command::{Answer, Command, Finished};
use crate::controller::view::{GroupFate, MetadataView, Partition};
use crate::multiraft::core::membership::WantedMembers;
use crate::multiraft::worker::status::GroupReport;
use crate::raft::Role;
use crate::storage::Engine;
use crate::types::{CONTROLLER_GROUP, RaftGroupId, Term};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often the groups are looked at while something is to be done.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long nothing is looked at while nothing is to be done and nothing changes.
const REST: Duration = Duration::from_secs(1);
/// How long the worker, or the controller, may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Groups of one leader that get new replicas at the same time: each fetches a state from it.
const CHANGING_MAX: usize = 16;
/// Groups reported at once.
const REPORTED_MAX: usize = 1_000;

impl<E: Engine + Clone + 'static> NodeBroker<E> {
    /// Changes members, until the node stops.
    pub async fn keep_members(self) {
        let inner = &self.0;
        let mut metadata = inner.views.watch_metadata();
        // In which term the controller's group was last seen to have these members.
        let mut settled: Option<(Term, WantedMembers)> = None;
        loop {
            let view = metadata.borrow_and_update().clone();
            let led = inner.handle.board().status(CONTROLLER_GROUP).leadership;
            let controllers = (led.term, wanted_of(&view, &view.cluster().controllers.members));
            let unsettled = led.serving && settled.as_ref() != Some(&controllers);
            if view.cluster().replacements.is_empty() && !unsettled {
                let changed = timeout(REST, metadata.changed()).await;
                if changed.is_ok_and(|changed| changed.is_err()) {
                    return; // the node is stopping
                }
                continue;
            }
            let reports = timeout(PATIENCE, inner.handle.report()).await.unwrap_or_default();
            let reports: Vec<_> = reports.iter().filter(|report| report.role == Some(Role::Leader)).collect();
            if reports.iter().any(|report| is_settled(report, &controllers)) {
                settled = Some(controllers);
            }
            inner.change_members(&view, &reports).await;
            sleep(LOOK_EVERY).await;
        }
    }
}

fn is_settled(report: &GroupReport, (term, wanted): &(Term, WantedMembers)) -> bool {
    report.group == CONTROLLER_GROUP && report.term == *term && wanted.are(&report.members)
}

/// The members that a group is to have. All nodes have the controller's state.
fn wanted_of(view: &MetadataView, partition: &Partition) -> WantedMembers {
    let mut voters = partition.wanted();
    voters.sort_unstable();
    let controllers = &view.cluster().controllers;
    let learners = if partition.group == CONTROLLER_GROUP { controllers.learners.clone() } else { Vec::new() };
    WantedMembers { voters, learners }
}

/// A group as the controller wants it, if it may want another one than there is.
fn planned(view: &MetadataView, group: RaftGroupId) -> Option<Partition> {
    if group == CONTROLLER_GROUP {
        return Some(view.cluster().controllers.members.clone());
    }
    let GroupFate::Alive(topic, partition) = view.group(group) else { return None };
    topic.partitions.get(partition).filter(|partition| !partition.replacing.is_empty()).cloned()
}

impl<E: Engine + Clone + 'static> Inner<E> {
    /// One step of each group that this node leads.
    async fn change_members(&self, view: &MetadataView, reports: &[&GroupReport]) {
        let (mut finished, mut begun, mut waiting) = (Vec::new(), 0, Vec::new());
        for report in reports {
            let Some(partition) = planned(view, report.group) else { continue };
            let wanted = wanted_of(view, &partition);
            let group = report.group;
            if wanted.are(&report.members) {
                finished.extend(partition.replacing.iter().map(|pair| Finished {
                    group,
                    old: pair.old,
                    new: pair.new,
                }));
            } else if group == CONTROLLER_GROUP || wanted.voters.iter().all(|voter| report.members.contains(*voter)) {
                begun += 1;
                self.change(group, wanted);
            } else {
                waiting.push((group, wanted));
            }
        }
        for (group, wanted) in waiting.into_iter().take(CHANGING_MAX.saturating_sub(begun)) {
            self.change(group, wanted);
        }
        for finished in finished.chunks(REPORTED_MAX) {
            let command = Command::FinishReplacements { finished: finished.to_vec() };
            match self.controller.decide(&command, PATIENCE).await {
                Ok(Answer::Done(Ok(()))) => {
                    tracing::info!(groups = finished.len(), "replicas have taken the places of others");
                }
                Ok(answer) => tracing::error!(?answer, "the controller's answer is of another kind"),
                // It is reported again.
                Err(error) => tracing::debug!(%error, "the controller has not heard of changed members yet"),
            }
        }
    }

    fn change(&self, group: RaftGroupId, wanted: WantedMembers) {
        // A worker that has stopped belongs to a node that is stopping.
        let _stopping = self.handle.change_members(group, wanted);
    }
}
