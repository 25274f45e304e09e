//! The rows and snapshots that name replacements, and those of version 1, which do not.
//!
//! What holds nothing that version 1 has no place for is written as version 1: a cluster in which no replica was ever
//! replaced stays readable for older nodes.

use super::rows::Applied;
use super::view::{Broker, Cluster, ControllerGroup, Partition, Topic};
use crate::machine::codec::{self, CodecError};
use crate::types::{CONTROLLER_GROUP, ClusterId, RaftGroupId, ReplicaId, TopicId};
use std::collections::BTreeMap;

/// The version of rows and snapshots that name replacements.
const REPLACEMENTS: u8 = 2;

/// Something that is written in one of two versions.
pub(super) trait Versioned: Sized + bincode::Encode + bincode::Decode<()> {
    /// Its form in version 1.
    type First: bincode::Encode + bincode::Decode<()>;

    /// It in version 1, if that can hold it.
    fn first(&self) -> Option<Self::First>;

    /// What version 1 meant.
    fn of_first(first: Self::First) -> Self;
}

/// In the oldest version that can hold it.
pub(super) fn encode<T: Versioned>(value: &T) -> Vec<u8> {
    match value.first() {
        Some(first) => codec::encode(&first),
        None => codec::encode_as(REPLACEMENTS, value),
    }
}

/// Reads `encode`'s bytes.
pub(super) fn decode<T: Versioned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.first() {
        Some(&REPLACEMENTS) => codec::decode_as::<T, LIMIT>(REPLACEMENTS, bytes),
        _ => codec::decode::<T::First, LIMIT>(bytes).map(T::of_first),
    }
}

/// The cluster's row in version 1.
#[derive(bincode::Encode, bincode::Decode)]
pub(super) struct FirstCluster {
    /// Its identity.
    id: ClusterId,
    /// The features in use.
    feature_level: u32,
    /// The next group.
    next_group: RaftGroupId,
    /// The next producer id.
    next_producer_id: i64,
}

impl Versioned for Cluster {
    type First = FirstCluster;

    fn first(&self) -> Option<FirstCluster> {
        let Self { id, feature_level, next_group, next_producer_id, ref controllers, ref retired, ref replacements } =
            *self;
        let plain = controllers.members.is_as_born() && controllers.learners.is_empty();
        let plain = plain && retired.is_empty() && replacements.is_empty();
        plain.then_some(FirstCluster { id, feature_level, next_group, next_producer_id })
    }

    /// The members of the controller's own group were not in the row; whoever reads it knows them.
    fn of_first(first: FirstCluster) -> Self {
        let FirstCluster { id, feature_level, next_group, next_producer_id } = first;
        let members = Partition::born(CONTROLLER_GROUP, Vec::new());
        let controllers = ControllerGroup { members, learners: Vec::new() };
        let (retired, replacements) = (Vec::new(), Vec::new());
        Self { id, feature_level, next_group, next_producer_id, controllers, retired, replacements }
    }
}

/// A topic's row in version 1.
#[derive(bincode::Encode, bincode::Decode)]
pub(super) struct FirstTopic {
    /// Its identity.
    id: TopicId,
    /// Its name.
    name: String,
    /// When it was made.
    created_ms: i64,
    /// Group and replicas of each partition.
    partitions: Vec<(RaftGroupId, Vec<ReplicaId>)>,
    /// What was set on it.
    configs: BTreeMap<String, String>,
}

impl Versioned for Topic {
    type First = FirstTopic;

    fn first(&self) -> Option<FirstTopic> {
        let Self { id, ref name, created_ms, ref partitions, ref configs } = *self;
        partitions.iter().all(Partition::is_as_born).then(|| FirstTopic {
            id,
            name: name.clone(),
            created_ms,
            partitions: partitions.iter().map(|partition| (partition.group, partition.replicas.clone())).collect(),
            configs: configs.clone(),
        })
    }

    fn of_first(first: FirstTopic) -> Self {
        let FirstTopic { id, name, created_ms, partitions, configs } = first;
        let partitions = partitions.into_iter().map(|(group, replicas)| Partition::born(group, replicas)).collect();
        Self { id, name, created_ms, partitions, configs }
    }
}

/// The whole state as of one position.
#[derive(bincode::Encode, bincode::Decode)]
pub(super) struct Snapshot {
    /// As of which entry.
    pub applied: Applied,
    /// The cluster.
    pub cluster: Cluster,
    /// The nodes.
    pub brokers: Vec<Broker>,
    /// The topics.
    pub topics: Vec<Topic>,
}

/// A snapshot in version 1.
#[derive(bincode::Encode, bincode::Decode)]
pub(super) struct FirstSnapshot {
    /// As of which entry.
    applied: Applied,
    /// The cluster.
    cluster: FirstCluster,
    /// The nodes.
    brokers: Vec<Broker>,
    /// The topics.
    topics: Vec<FirstTopic>,
}

impl Versioned for Snapshot {
    type First = FirstSnapshot;

    fn first(&self) -> Option<FirstSnapshot> {
        Some(FirstSnapshot {
            applied: self.applied.clone(),
            cluster: self.cluster.first()?,
            brokers: self.brokers.clone(),
            topics: self.topics.iter().map(Versioned::first).collect::<Option<_>>()?,
        })
    }

    fn of_first(first: FirstSnapshot) -> Self {
        let FirstSnapshot { applied, cluster, brokers, topics } = first;
        let topics = topics.into_iter().map(Topic::of_first).collect();
        Self { applied, cluster: Cluster::of_first(cluster), brokers, topics }
    }
}
