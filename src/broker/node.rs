//! The broker of a real node: answers clients out of its Raft groups, its database and its copy of the metadata.
//!
//! It decides nothing that must be the same everywhere; it looks things up, validates, proposes, and waits.
//!
//! * `leaders`: whom clients are told to ask.
//! * [`members`]: sees to it that groups get the replicas that the controller planned.
//! * [`views`]: what the state machines publish.
//! * [`controller_client`]: commands to the controller, wherever it is.
//! * [`coordinators`]: the topic whose partitions coordinate consumer groups.
//! * `produce`, `fetch`, `offsets`, `topics`, `admin`, `configs`, `producers`, `retention`, `status`, `nodes`: one file
//!   per kind of request.
//! * `groups`: consumer groups, as their coordinator.

mod admin;
mod configs;
pub mod controller_client;
pub mod coordinators;
mod fetch;
mod groups;
mod leaders;
pub mod members;
mod nodes;
mod offsets;
mod produce;
mod producers;
mod retention;
mod status;
mod topics;
pub mod views;

use super::records::{
    DeleteRecords, Fetch, FetchAnswer, OffsetAt, OffsetTarget, Produce, ProduceOutcome, ProducerIdentity,
};
use super::{
    ByteBudget, Cluster, ConfigChanges, ConfigEntry, ConfigResource, CreatedTopic, DeletedTopic, Edge, EndOfEpoch,
    EpochQuery, Error, ErrorKind, Growth, NewTopic, NodeList, PartitionIndex, PartitionLeader, ReplaceNode,
    ReplicaReport, Result, TopicAnswer, TopicName, TopicQuery, TopicRef,
};
use crate::controller::view::{MetadataView, Topic};
use crate::machine::MachineError;
use crate::metrics::Metrics;
use crate::multiraft::handle::Handle;
use crate::partition::read::PartitionView;
use crate::storage::Engine;
use crate::types::{CONTROLLER_GROUP, Incarnation, LeaderEpoch, NodeId, Offset, RaftGroupId, Term};
use controller_client::ControllerClient;
pub use groups::GroupSettings;
use producers::ProducerIds;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use views::Views;

/// What a node's operator decides about its broker.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// Partitions of a topic whose creator names no number.
    pub default_partitions: u32,
    /// Replicas of a topic whose creator names no number; fewer if the cluster has fewer nodes.
    pub default_replication_factor: u16,
    /// Whether a Metadata request may create the topic it asks for.
    pub auto_create_topics: bool,
    /// How long a batch waits for room before it is refused.
    pub admission_wait: Duration,
    /// Fetched batches in memory at once, in bytes.
    pub fetch_bytes: u32,
    /// Consumer groups.
    pub groups: GroupSettings,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            default_partitions: 1,
            default_replication_factor: 3,
            auto_create_topics: false,
            admission_wait: Duration::from_secs(5),
            fetch_bytes: 256 << 20,
            groups: GroupSettings::default(),
        }
    }
}

/// What the broker asks of the network.
pub trait Neighbours: Send + Sync + 'static {
    /// Whether a node is heard of.
    fn is_alive(&self, node: NodeId) -> bool;

    /// Which node serves a group, as it has announced: the newest term wins.
    fn announced_leader(&self, group: RaftGroupId) -> Option<(Term, NodeId)>;
}

/// A node's broker. Cloning gives another handle to the same one.
pub struct NodeBroker<E>(Arc<Inner<E>>);

impl<E> Clone for NodeBroker<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What the handles share.
struct Inner<E> {
    /// This node.
    node: NodeId,
    /// This life of its data directory.
    incarnation: Incarnation,
    /// The operator's decisions.
    settings: BrokerSettings,
    /// The Raft groups.
    handle: Handle,
    /// The database, to read.
    engine: E,
    /// What state machines publish.
    views: Views,
    /// The way to the controller.
    controller: ControllerClient,
    /// Other nodes.
    neighbours: Arc<dyn Neighbours>,
    /// What is measured.
    metrics: Metrics,
    /// Memory for fetched batches.
    fetch_budget: ByteBudget,
    /// Producer ids to hand out.
    producer_ids: ProducerIds,
    /// Consumer groups, as their leader knows them.
    led: groups::Led,
}

/// A partition that a request names, with everything to serve it.
struct Target {
    /// Its group.
    group: RaftGroupId,
    /// Its topic.
    topic: Arc<Topic>,
}

impl<E: Engine + Clone + 'static> NodeBroker<E> {
    /// The broker of `node`.
    #[must_use]
    pub fn new(
        (node, incarnation): (NodeId, Incarnation),
        settings: BrokerSettings,
        handle: Handle,
        (engine, views): (E, Views),
        controller: ControllerClient,
        neighbours: Arc<dyn Neighbours>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            node,
            incarnation,
            fetch_budget: ByteBudget::new(settings.fetch_bytes),
            led: groups::Led::new(settings.groups.initial_rebalance_delay),
            settings,
            handle,
            engine,
            views,
            controller,
            neighbours,
            metrics,
            producer_ids: ProducerIds::default(),
        }))
    }

    /// The controller's state as this node knows it.
    #[must_use]
    pub fn metadata(&self) -> Arc<MetadataView> {
        self.0.views.metadata()
    }
}

impl<E: Engine + Clone + 'static> Inner<E> {
    fn target(&self, topic: &TopicName, partition: PartitionIndex) -> Result<Target> {
        let metadata = self.views.metadata();
        let topic = metadata.topic_named(topic.as_str()).ok_or(ErrorKind::UnknownTopicOrPartition)?;
        if topic.is_internal() {
            return Err(Error::new(ErrorKind::InvalidTopic, "the topic belongs to the cluster and holds no records"));
        }
        let index = usize::try_from(partition.0).map_err(|_| ErrorKind::UnknownTopicOrPartition)?;
        let group = topic.partitions.get(index).ok_or(ErrorKind::UnknownTopicOrPartition)?.group;
        Ok(Target { group, topic: Arc::clone(topic) })
    }

    /// Leader and epoch of a group as one pair. A leader that can't answer clients yet is none, and so is one on a node
    /// that nobody hears of.
    fn leader(&self, group: RaftGroupId) -> Option<PartitionLeader> {
        let leadership = self.handle.board().status(group).leadership;
        let (term, node) = leaders::serving(self.node, leadership, self.neighbours.announced_leader(group))?;
        let is_alive = node == self.node || self.neighbours.is_alive(node);
        is_alive.then_some(PartitionLeader { node, epoch: epoch_of(term) })
    }

    /// The epoch under which this node leads the group, or whom to ask instead.
    fn lead(&self, group: RaftGroupId) -> Result<LeaderEpoch> {
        let status = self.handle.board().status(group);
        if let Some(reason) = status.quarantined {
            return Err(Error::new(ErrorKind::NotLeader, format!("this node's replica is quarantined: {reason}")));
        }
        if status.leadership.serving {
            return Ok(epoch_of(status.leadership.term));
        }
        Err(Error::not_leader(self.leader(group).filter(|leader| leader.node != self.node)))
    }

    /// Checks the epoch that a reader believes in (KIP-320), and gives what can be read.
    fn readable(&self, group: RaftGroupId, believed: Option<LeaderEpoch>) -> Result<PartitionView> {
        let epoch = self.lead(group)?;
        match believed {
            Some(believed) if believed < epoch => Err(ErrorKind::FencedLeaderEpoch.into()),
            Some(believed) if believed > epoch => Err(ErrorKind::UnknownLeaderEpoch.into()),
            _ => self.views.partition(group).ok_or_else(|| Error::not_leader(None)),
        }
    }

    /// A coordinator's rows can't be read: its replica is repaired if they are damaged.
    fn offsets_unreadable(&self, coordinator: RaftGroupId, error: &MachineError) {
        tracing::error!(%error, group = %coordinator, "stored offsets can't be read");
        if error.is_damage() {
            self.handle.state_damaged(coordinator, 0, error.to_string());
        }
    }

    /// Nodes that a new replica can be placed on.
    fn live_nodes(&self) -> Vec<NodeId> {
        let metadata = self.views.metadata();
        let is_alive = |node: &NodeId| *node == self.node || self.neighbours.is_alive(*node);
        metadata.brokers().map(|broker| broker.node).filter(is_alive).collect()
    }

    fn controller_node(&self) -> Option<NodeId> {
        self.leader(CONTROLLER_GROUP).map(|leader| leader.node)
    }
}

/// A term as Kafka shows it. Groups refuse terms that do not fit.
fn epoch_of(term: Term) -> LeaderEpoch {
    LeaderEpoch(i32::try_from(term.0).expect("replicas refuse terms above i32::MAX"))
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<E: Engine + Clone + 'static> super::Broker for NodeBroker<E> {
    fn node(&self) -> NodeId {
        self.0.node
    }

    fn cluster(&self, edge: Edge) -> Cluster {
        self.0.cluster(edge)
    }

    fn topics(&self, query: &TopicQuery) -> Vec<TopicAnswer> {
        topics::answer(&self.0, query)
    }

    fn produce(&self, request: Produce) -> impl Future<Output = Result<ProduceOutcome>> + Send {
        produce::produce(Arc::clone(&self.0), request)
    }

    fn fetch(&self, request: Fetch) -> impl Future<Output = FetchAnswer> + Send {
        fetch::fetch(Arc::clone(&self.0), request)
    }

    fn list_offsets(&self, targets: Vec<OffsetTarget>) -> impl Future<Output = Vec<Result<Option<OffsetAt>>>> + Send {
        offsets::list(Arc::clone(&self.0), targets)
    }

    fn end_of_epochs(&self, queries: Vec<EpochQuery>) -> impl Future<Output = Vec<Result<Option<EndOfEpoch>>>> + Send {
        std::future::ready(queries.iter().map(|query| self.0.end_of_epoch(query)).collect())
    }

    fn delete_records(
        &self,
        targets: Vec<DeleteRecords>,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Result<Offset>>> + Send {
        retention::delete(Arc::clone(&self.0), targets, timeout)
    }

    fn new_producer(&self) -> impl Future<Output = Result<ProducerIdentity>> + Send {
        producers::new_producer(Arc::clone(&self.0))
    }

    fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Result<CreatedTopic>>> + Send {
        admin::create(Arc::clone(&self.0), topics, validate_only, timeout)
    }

    fn delete_topics(
        &self,
        topics: Vec<TopicRef>,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Result<DeletedTopic>>> + Send {
        admin::delete(Arc::clone(&self.0), topics, timeout)
    }

    fn grow_topics(
        &self,
        topics: Vec<Growth>,
        validate_only: bool,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Result<()>>> + Send {
        admin::grow(Arc::clone(&self.0), topics, validate_only, timeout)
    }

    fn describe_configs(
        &self,
        resources: Vec<ConfigResource>,
    ) -> impl Future<Output = Vec<Result<Vec<ConfigEntry>>>> + Send {
        std::future::ready(resources.iter().map(|resource| configs::describe(&self.0, resource)).collect())
    }

    fn alter_configs(
        &self,
        changes: Vec<ConfigChanges>,
        validate_only: bool,
        timeout: Duration,
    ) -> impl Future<Output = Vec<Result<()>>> + Send {
        configs::alter(Arc::clone(&self.0), changes, validate_only, timeout)
    }

    fn replicas(&self) -> impl Future<Output = Vec<ReplicaReport>> + Send {
        status::replicas(Arc::clone(&self.0))
    }

    fn nodes(&self) -> NodeList {
        nodes::list(&self.0)
    }

    fn replace_node(&self, asked: ReplaceNode, timeout: Duration) -> impl Future<Output = Result<u32>> + Send {
        nodes::replace(Arc::clone(&self.0), asked, timeout)
    }
}
