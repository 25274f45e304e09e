//! What a node does for its clients, in Ackord's own words: the waist between the edges (`kafka`, `native`) and
//! everything behind them.
//!
//! The edges translate a wire protocol into these requests and these answers back into wire bytes. They know no Raft
//! group; the broker knows no wire version and no error code. Invariants of the waist:
//!
//! * every failure says whether it is definite (nothing was written) or indefinite (it may have been): [`ErrorKind`];
//! * a list of questions is answered by a list of the same length in the same order;
//! * what can be answered from this node's own copy of the cluster's metadata is not `async`, so it cannot stall;
//! * a batch handed to [`Broker::produce`] is one slice of the frame it came in and is never copied.
//!
//! This file owns the trait and the small shared names. It does not validate batches or decide anything.

pub mod admin;
pub mod budget;
pub mod cluster;
pub mod error;
pub mod groups;
pub mod node;
pub mod nodes;
pub mod records;
pub mod status;

pub use admin::{
    ConfigChanges, ConfigEffect, ConfigEntry, ConfigOperation, ConfigResource, ConfigSource, ConfigType, CreatedTopic,
    DeletedTopic, Growth, NewTopic, Partitions,
};
pub use budget::{ByteBudget, Reservation};
pub use cluster::{Address, Cluster, Edge, Node, Partition, Topic, TopicAnswer, TopicQuery, TopicRef};
pub use error::{Certainty, Error, ErrorKind};
pub use groups::{
    CommitOffsets, CommittedOffset, DescribedGroup, DescribedMember, FetchOffsets, FetchedOffset, GROUP_TEXT_BYTES_MAX,
    Generation, GenerationMember, GroupState, Groups, Heartbeat, JoinGroup, Joined, ListedGroup, MemberIdentity,
    OffsetToCommit, PerItem, SyncGroup, Synced,
};
pub use nodes::{NodeList, NodeReport, ReplaceNode, ReplacementReport};
pub use records::{
    DeleteRecords, EndOfEpoch, EpochQuery, Fetch, FetchAllowance, FetchAnswer, FetchPartition, FetchedBatch,
    FetchedPartition, Isolation, OffsetAt, OffsetQuery, OffsetTarget, Produce, ProduceOutcome, Produced,
    ProducerIdentity,
};
pub use status::{FollowerReport, ReplicaReport, Role};

use crate::types::{LeaderEpoch, NodeId, Offset};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the broker says to a request.
pub type Result<T> = std::result::Result<T, Error>;

/// A topic's name. Shared, so that it can be kept without pinning the frame it was read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TopicName {
    fn from(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A topic's identity: given once, never reused, so that a topic deleted and created again is another topic (KIP-516).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub uuid::Uuid);

/// A partition's number within its topic, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionIndex(pub i32);

/// Who leads a partition, and since which epoch. Always one pair: an old leader is never shown with a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLeader {
    /// The leading node.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
}

/// One client connection of this node, for as long as the process lives. Never reused.
///
/// A broker that refuses a batch because it is full must also refuse what the same connection had already sent behind
/// it, or the log would reorder what the producer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Numbers the connections of a node, over all its edges. Cloning shares the count.
#[derive(Clone, Debug, Default)]
pub struct ConnectionIds(Arc<AtomicU64>);

impl ConnectionIds {
    /// A number nobody had before.
    #[must_use]
    pub fn next(&self) -> ConnectionId {
        ConnectionId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// A node of the cluster, as its clients may use it.
pub trait Broker: Groups {
    /// This node.
    fn node(&self) -> NodeId;

    /// The cluster as this node knows it now, with the addresses under which `edge` is reached.
    fn cluster(&self, edge: Edge) -> Cluster;

    /// Topics as this node knows them now, one answer per topic asked for. Never waits: a topic that `query` allows to
    /// be created is created behind the answer, which is `UnknownTopicOrPartition` or `LeaderNotAvailable`.
    fn topics(&self, query: &TopicQuery) -> Vec<TopicAnswer>;

    /// Takes one partition's batch. Returns once the batch is admitted (its place in the partition's order is fixed) or
    /// refused; the outcome is another future. A connection reads no further while it waits for admission: this is
    /// backpressure, and it keeps the batches of one connection in order.
    ///
    /// A refusal is definite. The outcome resolves at the latest at the request's own timeout, indefinite if need be.
    /// Dropping either future takes back nothing that was admitted.
    fn produce(&self, request: Produce) -> impl Future<Output = Result<ProduceOutcome>> + Send;

    /// Reads committed batches; waits up to `max_wait` until there are `min_bytes` or an error to report.
    fn fetch(&self, request: Fetch) -> impl Future<Output = FetchAnswer> + Send;

    /// Finds offsets by time, or a log's ends. `Latest` is linearizable.
    fn list_offsets(&self, targets: Vec<OffsetTarget>) -> impl Future<Output = Vec<Result<Option<OffsetAt>>>> + Send;

    /// Where epochs end in the leader's log (KIP-320). `None`: no epoch at or below the one asked for is known.
    fn end_of_epochs(&self, queries: Vec<EpochQuery>) -> impl Future<Output = Vec<Result<Option<EndOfEpoch>>>> + Send;

    /// Removes records from the front of partitions, each of which is named once; where each begins afterwards.
    fn delete_records(
        &self,
        targets: Vec<DeleteRecords>,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Result<Offset>>> + Send;

    /// Hands out a producer id that nobody had before.
    fn new_producer(&self) -> impl Future<Output = Result<ProducerIdentity>> + Send;

    /// Creates topics, or only checks whether it could. Answers when every live node knows them and every partition has
    /// a leader, or at `timeout`. Names are distinct.
    fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Result<CreatedTopic>>> + Send;

    /// Deletes topics and their records. Topics are distinct.
    fn delete_topics(
        &self,
        topics: Vec<TopicRef>,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Result<DeletedTopic>>> + Send;

    /// Adds partitions to topics, or only checks whether it could. Names are distinct.
    fn grow_topics(
        &self,
        topics: Vec<Growth>,
        validate_only: bool,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Result<()>>> + Send;

    /// All settings of each resource, defaults included.
    fn describe_configs(
        &self,
        resources: Vec<ConfigResource>,
    ) -> impl Future<Output = Vec<Result<Vec<ConfigEntry>>>> + Send;

    /// Changes settings, those of each resource together or not at all, or only checks whether it could. Resources are
    /// distinct. A node's settings are in its file and can't be changed here. Answers when this node itself knows the
    /// new settings, or at `timeout`.
    fn alter_configs(
        &self,
        changes: Vec<ConfigChanges>,
        validate_only: bool,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Result<()>>> + Send;

    /// Every replica of this node, as it stands now; the controller's first. Empty if the node does not answer in time.
    fn replicas(&self) -> impl Future<Output = Vec<ReplicaReport>> + Send;

    /// The cluster's nodes, dead ones included, as this node knows them now.
    fn nodes(&self) -> NodeList;

    /// Has another node take the replicas of a lost one; how many groups that concerns. Answers when it is decided, not
    /// when it is done. Asked twice, it is as if asked once.
    fn replace_node(&self, asked: ReplaceNode, timeout: Duration) -> impl Future<Output = Result<u32>> + Send;
}
