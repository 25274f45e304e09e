//! The controller's rows in the database, and the one way to change them: together with the view.
//!
//! One row for the cluster, one for each node, one for each topic with its partitions. Keys begin with the group's
//! number and a letter for the kind.

use super::topic_config::TopicSettings;
use super::versions::{self, Versioned};
use super::view::{Broker, Cluster, GroupFate, MetadataView, Partition, Topic};
use crate::machine::codec::{self, CodecError};
use crate::storage::{Engine, EngineError, Family, WriteBatch};
use crate::types::{CONTROLLER_GROUP, ClusterId, LogId, Membership, NodeId, TopicId};
use std::ops::ControlFlow;

/// What decoding one row may claim, in bytes: the largest is a topic with all its partitions.
const ROW_MEMORY_MAX: usize = 64 << 20;

const CLUSTER: u8 = b'c';
const BROKER: u8 = b'n';
const TOPIC: u8 = b't';

/// Why the stored state can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A row is not what was written there.
    #[error("controller row {key:02x?}: {error}")]
    Row { key: Vec<u8>, error: CodecError },
    /// The rows contradict each other or the node.
    #[error("controller state: {0}")]
    Contradiction(String),
}

/// Which entries are in the rows, and the members as of then.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct Applied {
    /// The last entry.
    pub position: LogId,
    /// The members.
    pub membership: Membership,
}

fn meta_key() -> Vec<u8> {
    CONTROLLER_GROUP.0.to_be_bytes().to_vec()
}

fn key(kind: u8, id: &[u8]) -> Vec<u8> {
    [&CONTROLLER_GROUP.0.to_be_bytes()[..], &[kind], id].concat()
}

fn cluster_key() -> Vec<u8> {
    key(CLUSTER, &[])
}

fn broker_key(node: NodeId) -> Vec<u8> {
    key(BROKER, &node.0.to_be_bytes())
}

fn topic_key(id: TopicId) -> Vec<u8> {
    key(TOPIC, &id.0.to_be_bytes())
}

/// The range of keys that the controller's rows lie in.
fn all_keys() -> (Vec<u8>, Vec<u8>) {
    (key(0, &[]), key(u8::MAX, &[]))
}

/// Writes how far the rows have come.
pub(super) fn put_applied(batch: &mut WriteBatch, applied: &Applied) {
    batch.put(Family::Meta, meta_key(), codec::encode(applied));
}

/// Whether the engine holds a state.
pub(super) fn is_there(engine: &dyn Engine) -> Result<bool, EngineError> {
    Ok(engine.get(Family::Meta, &meta_key())?.is_some())
}

/// A change of the view and its rows at once.
pub(super) struct Editor<'a> {
    /// The state as changed so far.
    pub view: &'a mut MetadataView,
    /// The rows' changes.
    pub batch: &'a mut WriteBatch,
}

impl Editor<'_> {
    pub fn set_cluster(&mut self, cluster: Cluster) {
        self.batch.put(Family::Controller, cluster_key(), versions::encode(&cluster));
        self.view.set_cluster(cluster);
    }

    pub fn set_broker(&mut self, broker: Broker) {
        self.batch.put(Family::Controller, broker_key(broker.node), codec::encode(&broker));
        self.view.set_broker(broker);
    }

    pub fn remove_broker(&mut self, node: NodeId) {
        self.batch.delete(Family::Controller, broker_key(node));
        self.view.remove_broker(node);
    }

    pub fn set_topic(&mut self, topic: Topic) {
        self.batch.put(Family::Controller, topic_key(topic.id), versions::encode(&topic));
        self.view.set_topic(topic);
    }

    pub fn remove_topic(&mut self, id: TopicId) {
        self.batch.delete(Family::Controller, topic_key(id));
        self.view.remove_topic(id);
    }
}

/// Replaces every row by those of `view`.
pub(super) fn replace_all(batch: &mut WriteBatch, view: &MetadataView) {
    let (from, to) = all_keys();
    batch.delete_range(Family::Controller, from, to);
    batch.put(Family::Controller, cluster_key(), versions::encode(view.cluster()));
    for broker in view.brokers() {
        batch.put(Family::Controller, broker_key(broker.node), codec::encode(broker.as_ref()));
    }
    for topic in view.topics() {
        batch.put(Family::Controller, topic_key(topic.id), versions::encode(topic.as_ref()));
    }
}

/// Reads the state that the engine holds; an engine that holds none is a new cluster's.
pub(super) fn load(engine: &dyn Engine, cluster: ClusterId) -> Result<(MetadataView, Applied), LoadError> {
    let mut view = MetadataView::empty(cluster);
    if let Some(row) = engine.get(Family::Controller, &cluster_key())? {
        view = MetadataView::of(checked_cluster(decode_versioned(&cluster_key(), &row)?, cluster)?);
    }
    let (from, to) = all_keys();
    let mut failure = None;
    engine.scan(Family::Controller, &from, &to, &mut |key, row| match load_row(&mut view, key, row) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    let applied = match engine.get(Family::Meta, &meta_key())? {
        Some(row) => decode_row(&meta_key(), &row)?,
        None => Applied::default(),
    };
    Ok((view, applied))
}

fn load_row(view: &mut MetadataView, key: &[u8], row: &[u8]) -> Result<(), LoadError> {
    match key.get(CONTROLLER_GROUP.0.to_be_bytes().len()) {
        Some(&CLUSTER) => {}
        Some(&BROKER) => view.set_broker(decode_row(key, row)?),
        Some(&TOPIC) => view.set_topic(checked_topic(view, decode_versioned(key, row)?)?),
        _ => return Err(LoadError::Contradiction(format!("an unknown kind of row, {key:02x?}"))),
    }
    Ok(())
}

/// The cluster's row from the disk or a snapshot, on a node of the cluster `own`.
pub(super) fn checked_cluster(cluster: Cluster, own: ClusterId) -> Result<Cluster, LoadError> {
    if cluster.id != own {
        let what = format!("it belongs to cluster {}, this node to {own}", cluster.id);
        return Err(LoadError::Contradiction(what));
    }
    if !replacements_fit(&cluster.controllers.members) {
        return Err(LoadError::Contradiction("its replacements are not of the controller's replicas".to_owned()));
    }
    if cluster.next_group == CONTROLLER_GROUP || cluster.next_producer_id < 0 {
        return Err(LoadError::Contradiction("its counters are impossible".to_owned()));
    }
    Ok(cluster)
}

fn replacements_fit(partition: &Partition) -> bool {
    let wanted = partition.wanted();
    partition.replacing.iter().all(|pair| wanted.contains(&pair.new))
}

/// A topic from the disk or a snapshot, before the view takes for granted what a command's topic always keeps.
pub(super) fn checked_topic(view: &MetadataView, topic: Topic) -> Result<Topic, LoadError> {
    let groups = || topic.partitions.iter().map(|partition| partition.group);
    let flaw = if view.topic(topic.id).is_some() || view.topic_colliding_with(&topic.name).is_some() {
        "it is there twice"
    } else if !groups().all(|group| group != CONTROLLER_GROUP && view.group(group) == GroupFate::Deleted) {
        "it has a group that was never given out, or another topic's"
    } else if !groups().is_sorted_by(|left, right| left < right) {
        "its groups are not in the order in which they were given out"
    } else if !topic.partitions.iter().all(replacements_fit) {
        "its replacements are not of its replicas"
    } else if TopicSettings::read(&topic.configs).is_none() {
        "its configs make no sense"
    } else {
        return Ok(topic);
    };
    Err(LoadError::Contradiction(format!("topic {} ({}): {flaw}", topic.name, topic.id)))
}

fn decode_versioned<T: Versioned>(key: &[u8], row: &[u8]) -> Result<T, LoadError> {
    versions::decode::<_, ROW_MEMORY_MAX>(row).map_err(|error| LoadError::Row { key: key.to_vec(), error })
}

fn decode_row<T: bincode::Decode<()>>(key: &[u8], row: &[u8]) -> Result<T, LoadError> {
    codec::decode::<_, ROW_MEMORY_MAX>(row).map_err(|error| LoadError::Row { key: key.to_vec(), error })
}
