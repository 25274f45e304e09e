//! Changes of groups' members: the leader of each group sees to it that it gets the replicas that the controller
//! planned, and reports when it has them.
//!
//! Every node does this for the groups it leads, from its own copy of the metadata, and whoever leads next goes on. A
//! copy that lags behind may want members back that were replaced since. So every leader looks at every group it leads,
//! replacement or not: once in its term, and again with each newer copy. What an older one wanted is changed back then,
//! and what it reports is passed over.

use super::{Inner, NodeBroker};
use crate::controller::command::{Answer, Command, Finished};
use crate::controller::view::{GroupFate, MetadataView, Partition, Replacement};
use crate::multiraft::core::membership::WantedMembers;
use crate::raft::Role;
use crate::storage::Engine;
use crate::types::{CONTROLLER_GROUP, Membership, RaftGroupId, Term};
use std::collections::BTreeMap;
use std::sync::Arc;
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

/// What is to be done about members now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Groups that take one step towards these members.
    pub change: Vec<(RaftGroupId, WantedMembers)>,
    /// Groups that have the members that replacements wanted for them.
    pub finished: Vec<Finished>,
}

/// A group that this node leads.
#[derive(Clone, Copy, Debug)]
pub struct Led<'a> {
    /// Which.
    pub group: RaftGroupId,
    /// The term.
    pub term: Term,
    /// Its members.
    pub members: &'a Membership,
}

/// Decides what a node does about the members of the groups that it leads.
#[derive(Debug, Default)]
pub struct Keeper {
    /// The copy of the metadata that was looked at last.
    view: Option<Arc<MetadataView>>,
    /// In which terms groups were seen to have the members that it wants.
    settled: BTreeMap<RaftGroupId, Term>,
}

impl Keeper {
    /// Whether there may be something to do. `served`: the groups that this node leads, with their terms.
    #[must_use]
    pub fn is_due(&self, view: &Arc<MetadataView>, served: impl IntoIterator<Item = (RaftGroupId, Term)>) -> bool {
        let is_settled = |(group, term)| self.has_seen(view) && self.settled.get(&group) == Some(&term);
        !view.cluster().replacements.is_empty() || !served.into_iter().all(is_settled)
    }

    fn has_seen(&self, view: &Arc<MetadataView>) -> bool {
        self.view.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, view))
    }

    /// What there is to do, for the groups that this node leads.
    pub fn look<'a>(&mut self, view: &Arc<MetadataView>, led: impl IntoIterator<Item = Led<'a>>) -> Work {
        if !self.has_seen(view) {
            (self.view, self.settled) = (Some(Arc::clone(view)), BTreeMap::new());
        }
        let (mut work, mut waiting) = (Work::default(), Vec::new());
        for Led { group, term, members } in led {
            let Some(partition) = planned(view, group) else {
                self.settled.insert(group, term);
                continue;
            };
            let wanted = wanted_of(view, &partition);
            if wanted.are(members) {
                let finished = |pair: &Replacement| Finished { group, old: pair.old, new: pair.new };
                work.finished.extend(partition.replacing.iter().map(finished));
                self.settled.insert(group, term);
            } else if group == CONTROLLER_GROUP || wanted.voters.iter().all(|voter| members.contains(*voter)) {
                work.change.push((group, wanted));
            } else {
                waiting.push((group, wanted));
            }
        }
        let room = CHANGING_MAX.saturating_sub(work.change.len());
        work.change.extend(waiting.into_iter().take(room));
        work
    }
}

impl<E: Engine + Clone + 'static> NodeBroker<E> {
    /// Changes members, until the node stops.
    pub async fn keep_members(self) {
        let inner = &self.0;
        let mut metadata = inner.views.watch_metadata();
        let mut keeper = Keeper::default();
        loop {
            let view = metadata.borrow_and_update().clone();
            if !keeper.is_due(&view, inner.handle.board().serving()) {
                let changed = timeout(REST, metadata.changed()).await;
                if changed.is_ok_and(|changed| changed.is_err()) {
                    return; // the node is stopping
                }
                continue;
            }
            let reports = timeout(PATIENCE, inner.handle.report()).await.unwrap_or_default();
            let leads = reports.iter().filter(|report| report.role == Some(Role::Leader));
            let led = leads.map(|report| Led { group: report.group, term: report.term, members: &report.members });
            inner.change_members(keeper.look(&view, led)).await;
            sleep(LOOK_EVERY).await;
        }
    }
}

/// The members that a group is to have. All nodes have the controller's state.
fn wanted_of(view: &MetadataView, partition: &Partition) -> WantedMembers {
    let mut voters = partition.wanted();
    voters.sort_unstable();
    let controllers = &view.cluster().controllers;
    let learners = if partition.group == CONTROLLER_GROUP { controllers.learners.clone() } else { Vec::new() };
    WantedMembers { voters, learners }
}

/// A group as the controller wants it; nothing if this copy does not have it, yet or any more.
fn planned(view: &MetadataView, group: RaftGroupId) -> Option<Partition> {
    if group == CONTROLLER_GROUP {
        return Some(view.cluster().controllers.members.clone());
    }
    let GroupFate::Alive(topic, partition) = view.group(group) else { return None };
    topic.partitions.get(partition).cloned()
}

impl<E: Engine + Clone + 'static> Inner<E> {
    /// One step of each group, and word of those that are done.
    async fn change_members(&self, work: Work) {
        for (group, wanted) in work.change {
            // A worker that has stopped belongs to a node that is stopping.
            let _stopping = self.handle.change_members(group, wanted);
        }
        for finished in work.finished.chunks(REPORTED_MAX) {
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
}
