//! Creating, growing and deleting topics: commands to the controller, and waiting for what they bring.

use super::configs;
use super::topics::{own_id, wire_id};
use super::{Inner, now_ms};
use crate::broker::admin::{CreatedTopic, DeletedTopic, Growth, NewTopic, Partitions};
use crate::broker::cluster::{TopicAnswer, TopicRef};
use crate::broker::{Error, ErrorKind, Result, TopicId, TopicName};
use crate::controller::command::{self, Answer, Command, Layout, MorePartitions, Reason, Rejection, TopicReference};
use crate::controller::view::MetadataView;
use crate::storage::Engine;
use crate::types::{COORDINATOR_TOPIC, NodeId, RaftGroupId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long the automatic creation of a topic may take.
const AUTO_CREATE_PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn create<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    topics: Vec<NewTopic>,
    validate_only: bool,
    timeout: Duration,
) -> Vec<Result<CreatedTopic>> {
    let count = topics.len();
    let deadline = Instant::now() + timeout;
    let topics = topics.into_iter().map(|topic| inner.new_topic(topic)).collect::<Result<Vec<_>>>();
    let topics = match topics {
        Ok(topics) => topics,
        Err(error) => return (0..count).map(|_| Err(error.clone())).collect(),
    };
    let live = inner.live_nodes();
    let command = Command::CreateTopics { topics, live, now_ms: now_ms(), validate_only };
    let created = match inner.controller.decide(&command, timeout).await {
        Ok(Answer::Created(created)) => created,
        Ok(_) => return (0..count).map(|_| Err(ErrorKind::Internal.into())).collect(),
        Err(error) => return (0..count).map(|_| Err(error.clone())).collect(),
    };
    let mut answers = Vec::with_capacity(count);
    for (_, result) in created {
        answers.push(match result {
            Ok(topic) if validate_only => Ok(inner.created(&topic, true)),
            Ok(topic) => {
                inner.wait_for_leaders(topic.id, deadline).await;
                Ok(inner.created(&topic, false))
            }
            Err(rejection) => Err(rejected(rejection)),
        });
    }
    answers
}

pub(super) async fn delete<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    topics: Vec<TopicRef>,
    timeout: Duration,
) -> Vec<Result<DeletedTopic>> {
    let count = topics.len();
    let reference = |topic: TopicRef| match topic {
        TopicRef::Name(name) => TopicReference::Name(name.as_str().to_owned()),
        TopicRef::Id(id) => TopicReference::Id(own_id(id)),
    };
    let command = Command::DeleteTopics { topics: topics.into_iter().map(reference).collect() };
    match inner.controller.decide(&command, timeout).await {
        Ok(Answer::Deleted(deleted)) => deleted
            .into_iter()
            .map(|topic| match topic.result {
                Ok((name, id)) => Ok(DeletedTopic { name: TopicName::from(name.as_str()), id: wire_id(id) }),
                Err(rejection) => Err(rejected(rejection)),
            })
            .collect(),
        Ok(_) => (0..count).map(|_| Err(ErrorKind::Internal.into())).collect(),
        Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
    }
}

pub(super) async fn grow<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    topics: Vec<Growth>,
    validate_only: bool,
    timeout: Duration,
) -> Vec<Result<()>> {
    let count = topics.len();
    let deadline = Instant::now() + timeout;
    let names: Vec<String> = topics.iter().map(|growth| growth.topic.as_str().to_owned()).collect();
    let more = |growth: Growth| MorePartitions {
        name: growth.topic.as_str().to_owned(),
        count: i32::try_from(growth.partitions).unwrap_or(i32::MAX),
        assignment: growth.assignments,
    };
    let topics = topics.into_iter().map(more).collect();
    let command = Command::CreatePartitions { topics, live: inner.live_nodes(), validate_only };
    let changed = match inner.controller.decide(&command, timeout).await {
        Ok(Answer::Changed(changed)) => changed,
        Ok(_) => return (0..count).map(|_| Err(ErrorKind::Internal.into())).collect(),
        Err(error) => return (0..count).map(|_| Err(error.clone())).collect(),
    };
    if !validate_only {
        for name in names {
            let id = inner.views.metadata().topic_named(&name).map(|topic| topic.id);
            if let Some(id) = id {
                inner.wait_for_leaders(id, deadline).await;
            }
        }
    }
    changed.into_iter().map(|(_, result)| result.map_err(rejected)).collect()
}

/// Creates the topics that a Metadata request asked for and did not find, behind its answer.
pub(super) fn create_missing<E: Engine + Clone + 'static>(inner: &Arc<Inner<E>>, answers: &[TopicAnswer]) {
    let missing = answers.iter().filter_map(|answer| match (&answer.asked, &answer.topic) {
        (TopicRef::Name(name), Err(error)) if error.kind == ErrorKind::UnknownTopicOrPartition => Some(name),
        _ => None,
    });
    let topics: Vec<_> = missing
        .map(|name| NewTopic {
            name: name.clone(),
            partitions: Partitions::Count { partitions: None, replication_factor: None },
            configs: Vec::new(),
        })
        .collect();
    if topics.is_empty() {
        return;
    }
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        for result in create(inner, topics, false, AUTO_CREATE_PATIENCE).await {
            if let Err(error) = result.as_ref().map_err(|error| error.kind)
                && error != ErrorKind::TopicExists
            {
                tracing::warn!(?result, "a topic could not be created automatically");
            }
        }
    });
}

impl<E: Engine + Clone + 'static> Inner<E> {
    fn new_topic(&self, topic: NewTopic) -> Result<command::NewTopic> {
        let id = uuid::Uuid::new_v4().as_u128();
        let nodes = self.views.metadata().brokers().len();
        let layout = match topic.partitions {
            Partitions::Count { partitions, replication_factor } => {
                let default = usize::from(self.settings.default_replication_factor).min(nodes.max(1));
                let factor = replication_factor.map_or(default, usize::from);
                Layout::Counted {
                    partitions: i32::try_from(partitions.unwrap_or(self.settings.default_partitions))
                        .map_err(|_| ErrorKind::InvalidPartitions)?,
                    replication_factor: i16::try_from(factor).map_err(|_| ErrorKind::InvalidReplicationFactor)?,
                }
            }
            Partitions::Assigned(assigned) => {
                let in_order = assigned.keys().zip(0..).all(|(index, expected)| index.0 == expected);
                if !in_order {
                    let what = "partitions must be numbered from 0 without a gap";
                    return Err(Error::new(ErrorKind::InvalidAssignment, what));
                }
                Layout::Manual(assigned.into_values().collect::<Vec<Vec<NodeId>>>())
            }
        };
        let name = topic.name.as_str().to_owned();
        if name == COORDINATOR_TOPIC {
            return Err(Error::new(ErrorKind::InvalidTopic, "the cluster makes this topic by itself"));
        }
        Ok(command::NewTopic { id: crate::types::TopicId(id), name, layout, configs: topic.configs })
    }

    fn created(&self, topic: &command::CreatedTopic, validated_only: bool) -> CreatedTopic {
        CreatedTopic {
            id: if validated_only { TopicId::default() } else { wire_id(topic.id) },
            partitions: u32::try_from(topic.partitions).unwrap_or_default(),
            replication_factor: u16::try_from(topic.replication_factor).unwrap_or_default(),
            configs: configs::entries(&topic.configs, usize::try_from(topic.replication_factor).unwrap_or(1)),
        }
    }

    /// Waits until this node knows the topic and every partition of it has a leader that answers clients, or until the
    /// deadline: the topic exists either way.
    async fn wait_for_leaders(&self, topic: crate::types::TopicId, deadline: Instant) {
        let mut metadata = self.views.watch_metadata();
        let known = |view: &Arc<MetadataView>| view.topic(topic).is_some();
        if timeout_at(deadline, metadata.wait_for(known)).await.is_err() {
            return;
        }
        let groups: Vec<RaftGroupId> = self
            .views
            .metadata()
            .topic(topic)
            .map(|topic| topic.partitions.iter().map(|partition| partition.group).collect())
            .unwrap_or_default();
        for group in groups {
            while self.leader(group).is_none() && Instant::now() < deadline {
                let mut status = self.handle.board().watch(group);
                if self.leader(group).is_none() {
                    let pause = deadline.min(Instant::now() + Duration::from_millis(50));
                    // What other nodes announce, and whether they are heard of, shows only by looking again.
                    let _late = timeout_at(pause, status.changed()).await;
                }
            }
        }
    }
}

pub(super) fn rejected(rejection: Rejection) -> Error {
    let kind = match rejection.reason {
        Reason::InvalidTopic => ErrorKind::InvalidTopic,
        Reason::TopicAlreadyExists => ErrorKind::TopicExists,
        Reason::UnknownTopic => ErrorKind::UnknownTopicOrPartition,
        Reason::UnknownTopicId => ErrorKind::UnknownTopicId,
        Reason::InvalidPartitions => ErrorKind::InvalidPartitions,
        Reason::InvalidReplicationFactor => ErrorKind::InvalidReplicationFactor,
        Reason::InvalidReplicaAssignment => ErrorKind::InvalidAssignment,
        Reason::InvalidConfig => ErrorKind::InvalidConfig,
        Reason::InvalidRequest
        | Reason::PolicyViolation
        | Reason::DuplicateBroker
        | Reason::UnknownBroker
        | Reason::InvalidFeatureLevel => ErrorKind::InvalidRequest,
    };
    Error::new(kind, rejection.message)
}
