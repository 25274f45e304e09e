//! The topic whose partitions coordinate consumer groups: made once, by the cluster itself, when it is complete.

use super::{Inner, NodeBroker, now_ms};
use crate::controller::command::{Answer, Command, Layout, NewTopic, Reason};
use crate::controller::view::MetadataView;
use crate::storage::Engine;
use crate::types::{CONTROLLER_GROUP, COORDINATOR_TOPIC, NodeId, TopicId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after an attempt, or a look in vain, the next one waits.
const PAUSE: Duration = Duration::from_millis(100);

/// How many coordinators a new cluster gets.
#[derive(Clone, Copy, Debug)]
pub struct CoordinatorLayout {
    /// Partitions of the topic; never changed afterwards, because groups are found by it.
    pub partitions: u16,
    /// Replicas of each, and how many nodes must be there before they are made.
    pub replication_factor: u16,
}

impl<E: Engine + Clone + 'static> NodeBroker<E> {
    /// Makes the topic, from the node that leads the controller, once enough nodes are alive. Ends when it exists.
    pub async fn create_coordinators(self, layout: CoordinatorLayout) {
        let inner = &self.0;
        let mut metadata = inner.views.watch_metadata();
        let exists = |view: &Arc<MetadataView>| view.topic_named(COORDINATOR_TOPIC).is_some();
        // An error says that the node is stopping.
        while timeout(PAUSE, metadata.wait_for(exists)).await.is_err() {
            let leads = inner.handle.board().status(CONTROLLER_GROUP).leadership.serving;
            let live = inner.live_nodes();
            if leads && live.len() >= usize::from(layout.replication_factor) {
                inner.create_coordinator_topic(layout, live).await;
            }
        }
    }
}

impl<E: Engine + Clone + 'static> Inner<E> {
    async fn create_coordinator_topic(&self, layout: CoordinatorLayout, live: Vec<NodeId>) {
        let topic = NewTopic {
            id: TopicId(uuid::Uuid::new_v4().as_u128()),
            name: COORDINATOR_TOPIC.to_owned(),
            layout: Layout::Counted {
                partitions: i32::from(layout.partitions),
                replication_factor: i16::try_from(layout.replication_factor).unwrap_or(i16::MAX),
            },
            configs: Vec::new(),
        };
        let command = Command::CreateTopics { topics: vec![topic], live, now_ms: now_ms(), validate_only: false };
        match self.controller.decide(&command, PATIENCE).await {
            Ok(Answer::Created(created)) => match created.into_iter().next().map(|(_, result)| result) {
                Some(Err(rejection)) if rejection.reason != Reason::TopicAlreadyExists => {
                    tracing::warn!(reason = rejection.message, "the coordinators of consumer groups can't be made");
                }
                _ => tracing::info!(partitions = layout.partitions, "the coordinators of consumer groups are made"),
            },
            Ok(answer) => tracing::error!(?answer, "the controller's answer is of another kind"),
            Err(error) => tracing::debug!(%error, "the coordinators of consumer groups are not made yet"),
        }
    }
}
