//! What the state machines publish: written by the apply thread after each write, read and waited on by everybody.

use crate::controller::view::MetadataView;
use crate::coordinator::Coordinator;
use crate::coordinator::group::Group;
use crate::multiraft::apply::Observer;
use crate::multiraft::apply::machine::Machine;
use crate::partition::read::PartitionView;
use crate::types::{ClusterId, RaftGroupId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// See the module. Cloning gives another handle to the same views.
#[derive(Clone, Debug)]
pub struct Views {
    /// The controller's state.
    metadata: watch::Sender<Arc<MetadataView>>,
    /// Every partition that this node hosts.
    partitions: Arc<Mutex<BTreeMap<RaftGroupId, watch::Sender<PartitionView>>>>,
    /// What all partitions here have appended since the start, in bytes.
    appended: Arc<AtomicU64>,
    /// The consumer groups of every coordinator that this node hosts.
    coordinators: Arc<Mutex<BTreeMap<RaftGroupId, BTreeMap<String, GroupSender>>>>,
}

/// Publishes a consumer group; `None` says that it is gone.
type GroupSender = watch::Sender<Option<Arc<Group>>>;

impl Views {
    /// Nothing is published yet.
    #[must_use]
    pub fn new(cluster: ClusterId) -> Self {
        let (metadata, _) = watch::channel(Arc::new(MetadataView::empty(cluster)));
        Self { metadata, partitions: Arc::default(), appended: Arc::default(), coordinators: Arc::default() }
    }

    /// The controller's state as of now.
    #[must_use]
    pub fn metadata(&self) -> Arc<MetadataView> {
        Arc::clone(&self.metadata.borrow())
    }

    /// To wait for changes of the controller's state.
    #[must_use]
    pub fn watch_metadata(&self) -> watch::Receiver<Arc<MetadataView>> {
        self.metadata.subscribe()
    }

    /// A partition as of now, if this node hosts it.
    #[must_use]
    pub fn partition(&self, group: RaftGroupId) -> Option<PartitionView> {
        super::lock(&self.partitions).get(&group).map(|sender| sender.borrow().clone())
    }

    /// What all partitions of this node have appended since it started, in bytes; to see whether anything has grown.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// To wait for changes of a partition.
    #[must_use]
    pub fn watch_partition(&self, group: RaftGroupId) -> Option<watch::Receiver<PartitionView>> {
        super::lock(&self.partitions).get(&group).map(watch::Sender::subscribe)
    }

    /// A consumer group of a coordinator as of now.
    #[must_use]
    pub fn group(&self, coordinator: RaftGroupId, name: &str) -> Option<Arc<Group>> {
        super::lock(&self.coordinators).get(&coordinator)?.get(name)?.borrow().clone()
    }

    /// All consumer groups of a coordinator as of now, if this node hosts it.
    #[must_use]
    pub fn groups(&self, coordinator: RaftGroupId) -> Option<Vec<Arc<Group>>> {
        let coordinators = super::lock(&self.coordinators);
        let groups = coordinators.get(&coordinator)?.values();
        Some(groups.filter_map(|sender| sender.borrow().clone()).collect())
    }

    /// To wait for changes of a consumer group that is there or has been; `None` as its value says that it is gone.
    #[must_use]
    pub fn watch_group(&self, coordinator: RaftGroupId, name: &str) -> Option<watch::Receiver<Option<Arc<Group>>>> {
        super::lock(&self.coordinators).get(&coordinator)?.get(name).map(watch::Sender::subscribe)
    }

    fn publish_groups(&self, group: RaftGroupId, coordinator: &Coordinator) {
        let mut coordinators = super::lock(&self.coordinators);
        let published = coordinators.entry(group).or_default();
        for name in coordinator.changed() {
            match (coordinator.groups().get(name), published.get(name)) {
                (Some(now), Some(sender)) => drop(sender.send_replace(Some(Arc::clone(now)))),
                (Some(now), None) => {
                    drop(published.insert(name.clone(), watch::Sender::new(Some(Arc::clone(now)))));
                }
                (None, Some(sender)) => {
                    // Who waits is told that it is gone before the sender is.
                    sender.send_replace(None);
                    published.remove(name);
                }
                (None, None) => {}
            }
        }
    }

    /// Forgets a deleted partition; who waits for it is woken.
    pub fn remove(&self, group: RaftGroupId) {
        super::lock(&self.partitions).remove(&group);
        super::lock(&self.coordinators).remove(&group);
    }
}

impl Observer for Views {
    fn lost(&mut self, group: RaftGroupId) {
        // Of a partition what was read stays true, and nobody is served from it here meanwhile. Consumer groups may
        // have gone before another state comes.
        super::lock(&self.coordinators).remove(&group);
    }

    fn changed(&mut self, group: RaftGroupId, machine: &Machine) {
        match machine {
            Machine::Controller(controller) => {
                let view = controller.view();
                self.metadata.send_if_modified(|published| {
                    let changed = !Arc::ptr_eq(published, &view);
                    *published = view;
                    changed
                });
            }
            Machine::Coordinator(coordinator) => self.publish_groups(group, coordinator),
            Machine::Partition(partition) => {
                let view = partition.view();
                let mut partitions = super::lock(&self.partitions);
                match partitions.get(&group) {
                    Some(sender) => {
                        let appended = view.appended_bytes();
                        let before = sender.send_replace(view).appended_bytes();
                        self.appended.fetch_add(appended.saturating_sub(before), Ordering::Relaxed);
                    }
                    None => drop(partitions.insert(group, watch::Sender::new(view))),
                }
            }
        }
    }
}
