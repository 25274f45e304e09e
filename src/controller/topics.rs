//! Commands about topics. Each topic of a request stands for itself: one may be refused and the next one made.

use super::command::{
    ConfigChanges, CreatedTopic, DeletedTopic, Layout, MorePartitions, NewTopic, Reason, Rejection, TopicReference,
    reject,
};
use super::names::flaw_of_topic_name;
use super::placement::Planner;
use super::rows::Editor;
use super::topic_config;
use super::view::{Cluster, MetadataView, Partition, Topic};
use crate::types::{COORDINATOR_TOPIC, NodeId, RaftGroupId, ReplicaId, TopicId};
use std::collections::BTreeSet;

/// Most topics of a cluster.
pub const TOPICS_MAX: usize = 20_000;
/// Most partitions of a cluster: every one is a Raft group.
pub const PARTITIONS_MAX: u64 = 200_000;
/// Most partitions of a topic.
pub const PARTITIONS_PER_TOPIC_MAX: usize = 10_000;
/// Most partitions that one request makes: the nodes create them all at once.
pub const PARTITIONS_PER_REQUEST_MAX: u64 = 10_000;
/// Most replicas of a partition: more make a write slower and hardly any safer.
pub const REPLICAS_MAX: usize = 7;

/// Topic ids below this one are Kafka's own: 0 is "no id", 1 its metadata log.
const FIRST_TOPIC_ID: TopicId = TopicId(2);

/// The names that a request has more than once: none of them is done, as nobody can tell which one was meant.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
}

fn refuse_repeated(repeated: &BTreeSet<String>, name: &str) -> Result<(), Rejection> {
    if repeated.contains(name) {
        return reject(Reason::InvalidRequest, format!("the request names topic {name} more than once"));
    }
    Ok(())
}

/// What one request has planned so far.
struct Plan<'a> {
    /// The nodes that were alive when it was proposed.
    live: &'a [NodeId],
    /// Partitions of this request, against its limit.
    partitions: u64,
    /// Where replicas go; made when the first topic needs it.
    planner: Option<Planner>,
}

impl<'a> Plan<'a> {
    fn new(live: &'a [NodeId]) -> Self {
        Self { live, partitions: 0, planner: None }
    }

    fn take(&mut self, view: &MetadataView, partitions: usize) -> Result<(), Rejection> {
        let partitions = partitions as u64;
        if self.partitions + partitions > PARTITIONS_PER_REQUEST_MAX {
            let what = format!("one request makes at most {PARTITIONS_PER_REQUEST_MAX} partitions");
            return reject(Reason::PolicyViolation, what);
        }
        if view.partition_count() + partitions > PARTITIONS_MAX {
            return reject(Reason::PolicyViolation, format!("a cluster has at most {PARTITIONS_MAX} partitions"));
        }
        self.partitions += partitions;
        Ok(())
    }
}

/// CreateTopics.
pub(super) fn create(
    editor: &mut Editor<'_>,
    topics: Vec<NewTopic>,
    live: &[NodeId],
    now_ms: i64,
    validate_only: bool,
) -> Vec<(String, Result<CreatedTopic, Rejection>)> {
    let repeated = repeated(topics.iter().map(|topic| topic.name.as_str()));
    let mut plan = Plan::new(live);
    let mut answers = Vec::with_capacity(topics.len());
    for topic in topics {
        let name = topic.name.clone();
        let planned = refuse_repeated(&repeated, &name).and_then(|()| new_topic(editor.view, topic, now_ms, &mut plan));
        let result = planned.map(|topic| {
            let created = CreatedTopic {
                id: topic.id,
                partitions: i32::try_from(topic.partitions.len()).expect("at most PARTITIONS_PER_TOPIC_MAX"),
                replication_factor: i16::try_from(topic.replication_factor()).expect("at most REPLICAS_MAX"),
                configs: topic.configs.clone(),
            };
            if !validate_only {
                store_with_new_groups(editor, topic);
            }
            created
        });
        answers.push((name, result));
    }
    answers
}

fn new_topic(view: &MetadataView, topic: NewTopic, now_ms: i64, plan: &mut Plan<'_>) -> Result<Topic, Rejection> {
    if let Some(flaw) = flaw_of_topic_name(&topic.name) {
        return reject(Reason::InvalidTopic, flaw);
    }
    match view.topic_colliding_with(&topic.name) {
        Some(known) if known.name == topic.name => {
            return reject(Reason::TopicAlreadyExists, format!("topic {} exists", topic.name));
        }
        Some(known) => {
            let what = format!("topic {} collides with {}: '.' and '_' count as the same", topic.name, known.name);
            return reject(Reason::InvalidTopic, what);
        }
        None => {}
    }
    if topic.id < FIRST_TOPIC_ID || view.topic(topic.id).is_some() {
        return reject(Reason::InvalidRequest, format!("topic id {} can't be given to a new topic", topic.id));
    }
    if view.topics().len() >= TOPICS_MAX {
        return reject(Reason::PolicyViolation, format!("a cluster has at most {TOPICS_MAX} topics"));
    }
    let replicas = match &topic.layout {
        Layout::Counted { partitions, replication_factor } => counted(view, plan, *partitions, *replication_factor)?,
        Layout::Manual(assignment) => manual(view, plan, assignment, None)?,
    };
    let configs = topic_config::initial(topic.configs, replicas[0].len())?;
    let partitions = replicas.into_iter().map(unnumbered).collect();
    Ok(Topic { id: topic.id, name: topic.name, created_ms: now_ms, partitions, configs })
}

/// A partition before its group has been given out.
fn unnumbered(replicas: Vec<ReplicaId>) -> Partition {
    Partition::born(RaftGroupId(u64::MAX), replicas)
}

/// Stores a topic, and gives each of its new partitions the next group.
fn store_with_new_groups(editor: &mut Editor<'_>, mut topic: Topic) {
    let known = editor.view.topic(topic.id).map_or(0, |before| before.partitions.len());
    let mut cluster: Cluster = editor.view.cluster().clone();
    for partition in &mut topic.partitions[known..] {
        partition.group = cluster.next_group;
        cluster.next_group.0 += 1;
    }
    editor.set_cluster(cluster);
    editor.set_topic(topic);
}

fn check_partition_count(count: i64) -> Result<usize, Rejection> {
    match usize::try_from(count) {
        Ok(0) | Err(_) => reject(Reason::InvalidPartitions, format!("{count} partitions; a topic has at least one")),
        Ok(count) if count > PARTITIONS_PER_TOPIC_MAX => {
            let what = format!("{count} partitions; a topic has at most {PARTITIONS_PER_TOPIC_MAX}");
            reject(Reason::InvalidPartitions, what)
        }
        Ok(count) => Ok(count),
    }
}

fn counted(
    view: &MetadataView,
    plan: &mut Plan<'_>,
    partitions: i32,
    replication_factor: i16,
) -> Result<Vec<Vec<ReplicaId>>, Rejection> {
    let partitions = check_partition_count(partitions.into())?;
    let replicas = usize::try_from(replication_factor).unwrap_or(0);
    if replicas == 0 || replicas > REPLICAS_MAX {
        let what = format!("replication factor {replication_factor}; it is 1 to {REPLICAS_MAX}");
        return reject(Reason::InvalidReplicationFactor, what);
    }
    plan.take(view, partitions)?;
    let planner = plan.planner.get_or_insert_with(|| Planner::new(view, plan.live));
    planner.place(partitions, replicas).ok_or_else(|| Rejection {
        reason: Reason::InvalidReplicationFactor,
        message: format!("replication factor {replicas} is larger than the number of nodes that are alive"),
    })
}

/// The assignment a client has chosen: known nodes, none twice, and equally many for each partition.
fn manual(
    view: &MetadataView,
    plan: &mut Plan<'_>,
    assignment: &[Vec<NodeId>],
    replication_factor: Option<usize>,
) -> Result<Vec<Vec<ReplicaId>>, Rejection> {
    check_partition_count(i64::try_from(assignment.len()).unwrap_or(i64::MAX))?;
    let expected = replication_factor.unwrap_or(assignment[0].len());
    for nodes in assignment {
        let distinct: BTreeSet<_> = nodes.iter().collect();
        if nodes.is_empty() || nodes.len() > REPLICAS_MAX || distinct.len() < nodes.len() || nodes.len() != expected {
            let what = format!("each partition has {expected} different nodes, 1 to {REPLICAS_MAX}; got {nodes:?}");
            return reject(Reason::InvalidReplicaAssignment, what);
        }
        if let Some(unknown) = nodes.iter().find(|node| view.broker(**node).is_none()) {
            return reject(Reason::InvalidReplicaAssignment, format!("node {unknown} is not registered"));
        }
        if let Some(leaving) = nodes.iter().find(|node| view.is_leaving(**node)) {
            return reject(Reason::InvalidReplicaAssignment, format!("node {leaving} is being replaced"));
        }
    }
    plan.take(view, assignment.len())?;
    let first_replica = |node: &NodeId| ReplicaId::new(*node, 0);
    Ok(assignment.iter().map(|nodes| nodes.iter().map(first_replica).collect()).collect())
}

/// DeleteTopics.
pub(super) fn delete(editor: &mut Editor<'_>, topics: Vec<TopicReference>) -> Vec<DeletedTopic> {
    let mut answers = Vec::with_capacity(topics.len());
    for reference in topics {
        let found = match &reference {
            TopicReference::Name(name) => editor.view.topic_named(name),
            TopicReference::Id(id) => editor.view.topic(*id),
        };
        let result = match (found.map(|topic| (topic.name.clone(), topic.id)), &reference) {
            (Some((name, _)), _) if name == COORDINATOR_TOPIC => reject(Reason::InvalidTopic, belongs_to_the_cluster()),
            (Some((name, id)), _) => {
                editor.remove_topic(id);
                Ok((name, id))
            }
            (None, TopicReference::Name(name)) => reject(Reason::UnknownTopic, format!("no topic {name}")),
            (None, TopicReference::Id(id)) => reject(Reason::UnknownTopicId, format!("no topic with id {id}")),
        };
        answers.push(DeletedTopic { reference, result });
    }
    answers
}

/// CreatePartitions.
pub(super) fn create_partitions(
    editor: &mut Editor<'_>,
    topics: Vec<MorePartitions>,
    live: &[NodeId],
    validate_only: bool,
) -> Vec<(String, Result<(), Rejection>)> {
    let repeated = repeated(topics.iter().map(|topic| topic.name.as_str()));
    let mut plan = Plan::new(live);
    let mut answers = Vec::with_capacity(topics.len());
    for topic in topics {
        let planned =
            refuse_repeated(&repeated, &topic.name).and_then(|()| grown_topic(editor.view, &topic, &mut plan));
        let result = planned.map(|topic| {
            if !validate_only {
                store_with_new_groups(editor, topic);
            }
        });
        answers.push((topic.name, result));
    }
    answers
}

fn grown_topic(view: &MetadataView, growth: &MorePartitions, plan: &mut Plan<'_>) -> Result<Topic, Rejection> {
    let known = existing(view, &growth.name)?;
    if known.is_internal() {
        // A consumer group is found by its name and the number of partitions: with more, it would be looked for
        // elsewhere.
        return reject(Reason::InvalidTopic, belongs_to_the_cluster());
    }
    let count = check_partition_count(growth.count.into())?;
    let Some(added) = count.checked_sub(known.partitions.len()).filter(|added| *added > 0) else {
        let what = format!("topic {} has {} partitions; it can only get more", growth.name, known.partitions.len());
        return reject(Reason::InvalidPartitions, what);
    };
    let replication_factor = known.replication_factor();
    let replicas = match &growth.assignment {
        None => {
            let replication_factor = i16::try_from(replication_factor).expect("at most REPLICAS_MAX");
            let added = i32::try_from(added).expect("at most PARTITIONS_PER_TOPIC_MAX");
            counted(view, plan, added, replication_factor)?
        }
        Some(assignment) if assignment.len() != added => {
            let what = format!("{added} partitions are to be made, {} are assigned", assignment.len());
            return reject(Reason::InvalidReplicaAssignment, what);
        }
        Some(assignment) => manual(view, plan, assignment, Some(replication_factor))?,
    };
    let mut topic = Topic::clone(known);
    topic.partitions.extend(replicas.into_iter().map(unnumbered));
    Ok(topic)
}

/// AlterTopicConfigs.
pub(super) fn alter_configs(
    editor: &mut Editor<'_>,
    topics: Vec<ConfigChanges>,
    validate_only: bool,
) -> Vec<(String, Result<(), Rejection>)> {
    let repeated = repeated(topics.iter().map(|topic| topic.name.as_str()));
    let mut answers = Vec::with_capacity(topics.len());
    for changes in topics {
        let name = changes.name.clone();
        let planned = refuse_repeated(&repeated, &name).and_then(|()| altered_topic(editor.view, changes));
        let result = planned.map(|topic| {
            if !validate_only {
                editor.set_topic(topic);
            }
        });
        answers.push((name, result));
    }
    answers
}

fn altered_topic(view: &MetadataView, changes: ConfigChanges) -> Result<Topic, Rejection> {
    let known = existing(view, &changes.name)?;
    if known.is_internal() {
        // It holds no records: nothing would be honoured.
        return reject(Reason::InvalidTopic, belongs_to_the_cluster());
    }
    let mut topic = Topic::clone(known);
    topic.configs = topic_config::changed(changes, &topic.configs, topic.replication_factor())?;
    Ok(topic)
}

fn belongs_to_the_cluster() -> String {
    format!("topic {COORDINATOR_TOPIC} belongs to the cluster: its partitions coordinate the consumer groups")
}

fn existing<'a>(view: &'a MetadataView, name: &str) -> Result<&'a Topic, Rejection> {
    match view.topic_named(name) {
        Some(topic) => Ok(topic),
        None => reject(Reason::UnknownTopic, format!("no topic {name}")),
    }
}
