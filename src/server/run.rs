//! A whole node, from its configuration to its end.
//!
//! Listeners are bound before anything else, so that a port in use is said at once; clients are served once the groups
//! run. A node that is told to stop hands its leaderships over, ends its connections, seals the log and flushes.

use super::data::{self, DataError, Opened, SharedEngine};
use super::groups::Groups;
use super::membership;
use super::outside::{Cluster, Messenger, NodeOutside};
use super::space;
use crate::broker::node::controller_client::ControllerClient;
use crate::broker::node::{BrokerSettings, NodeBroker};
use crate::broker::{ByteBudget, ConnectionIds};
use crate::config::{Config, HostPort};
use crate::kafka;
use crate::multiraft::core::CoreOptions;
use crate::multiraft::handle::Handle;
use crate::multiraft::worker::{Outside, Worker, WorkerOptions};
use crate::native;
use crate::raft::{ReplicaOptions, Role};
use crate::storage::Engine;
use crate::transport::{self, Own, PeerSender, QueueLimits, Transport};
use crate::types::{CONTROLLER_GROUP, NodeId, RaftGroupId};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How long a stopping node waits for others to take over what it leads.
const HANDOVER_MAX: Duration = Duration::from_secs(2);

/// Why a node does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A listener.
    #[error("can't listen on {address} ({listener}): {error}; is the port in use, or the address another machine's?")]
    Listen { listener: &'static str, address: String, error: std::io::Error },
    /// The operating system refused something else.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// It met something that makes it unsafe to go on.
    #[error("{0}; the node has ended. Nothing acknowledged is lost: start it again, or replace its disk")]
    Fatal(String),
}

/// Runs a node until the process is asked to stop (SIGINT, SIGTERM) or the node can't go on.
pub fn run(config: Config) -> Result<(), ServerError> {
    tokio::runtime::Runtime::new()?.block_on(run_until_told(config))
}

async fn run_until_told(config: Config) -> Result<(), ServerError> {
    let node = Node::start(config).await?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stopped = async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    node.run_until(stopped).await
}

/// The sockets of a node, bound.
struct Sockets {
    /// For Kafka clients.
    kafka: TcpListener,
    /// For native clients.
    native: TcpListener,
    /// For the other nodes.
    peer: TcpListener,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Self, ServerError> {
        Ok(Self {
            kafka: bind("kafka", &config.listeners.kafka).await?,
            native: bind("native", &config.listeners.native).await?,
            peer: bind("peer", &config.listeners.peer).await?,
        })
    }

    fn addresses(&self) -> Result<Addresses, ServerError> {
        let Self { kafka, native, peer } = self;
        Ok(Addresses { kafka: kafka.local_addr()?, native: native.local_addr()?, peer: peer.local_addr()? })
    }
}

/// Where a node is reached.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// By Kafka clients.
    pub kafka: SocketAddr,
    /// By native clients.
    pub native: SocketAddr,
    /// By other nodes.
    pub peer: SocketAddr,
}

async fn bind(listener: &'static str, address: &HostPort) -> Result<TcpListener, ServerError> {
    let bound = TcpListener::bind((address.host.as_str(), address.port)).await;
    bound.map_err(|error| ServerError::Listen { listener, address: address.to_string(), error })
}

/// What runs without the network: the groups of an opened data directory.
struct Inside {
    /// The groups.
    worker: Worker,
    /// The cluster as this node sees it.
    cluster: Arc<Cluster>,
    /// The database.
    engine: SharedEngine,
    /// Groups that were there at the start.
    known: BTreeSet<RaftGroupId>,
    /// Who this node is to others.
    own: Own,
}

impl Inside {
    fn start(
        config: &Config,
        opened: Opened,
        removed: UnboundedSender<RaftGroupId>,
        fatal: &UnboundedSender<String>,
    ) -> Result<Self, ServerError> {
        let Opened { identity, engine, views, log, applier, starts, unborn_controller, tombstones, durable_turn } =
            opened;
        // Rows of groups that ended before this start; none are left if their deletion was finished.
        data::destroy_partitions(&engine, &tombstones.into_iter().collect()).map_err(DataError::from)?;
        let sender = PeerSender::new(QueueLimits::default());
        let durable_turn = Arc::new(AtomicU64::new(durable_turn.0));
        let outside = NodeOutside {
            node: identity.node,
            sender: sender.clone(),
            removed,
            fatal: fatal.clone(),
            durable_turn: Arc::clone(&durable_turn),
        };
        let known = starts.iter().map(|start| start.group).collect();
        let outside: Arc<dyn Outside> = Arc::new(outside);
        let worker = Worker::start(&worker_options(config), starts, applier, log, &outside)?;
        let handle = worker.handle().clone();
        if let Some((replica, machine)) = unborn_controller {
            let preferred = identity.voters.first().is_some_and(|voter| voter.node == identity.node);
            handle
                .create(CONTROLLER_GROUP, replica, machine, preferred)
                .map_err(|_| ServerError::Fatal("the Raft worker has stopped".to_owned()))?;
        }
        let own =
            Own { cluster: identity.cluster, node: identity.node, incarnation: identity.incarnation, durable_turn };
        let node = identity.node;
        let cluster = Arc::new(Cluster { node, identity, views, handle, sender, announced: Mutex::default() });
        Ok(Self { worker, cluster, engine, known, own })
    }
}

/// A running node.
pub struct Node {
    /// Its number.
    id: NodeId,
    /// Its groups.
    worker: Worker,
    /// Its connections to other nodes.
    transport: Transport,
    /// What clients are answered from.
    broker: NodeBroker<SharedEngine>,
    /// The database, flushed at the end.
    engine: SharedEngine,
    /// Tells listeners to stop.
    stop: watch::Sender<bool>,
    /// Listeners and followers.
    tasks: JoinSet<()>,
    /// Why the node must end.
    fatal: mpsc::UnboundedReceiver<String>,
    /// Where it is reached.
    addresses: Addresses,
}

impl Node {
    /// Starts a node.
    pub async fn start(config: Config) -> Result<Self, ServerError> {
        let sockets = Sockets::bind(&config).await?;
        let addresses = sockets.addresses()?;
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || data::open(&opening))
            .await
            .map_err(|error| ServerError::Fatal(format!("opening the data directory: {error}")))??;
        let (removed, removals) = mpsc::unbounded_channel();
        let (fatal_sender, fatal) = mpsc::unbounded_channel();
        let Inside { worker, cluster, engine, known, own } = Inside::start(&config, opened, removed, &fatal_sender)?;
        let (identity, views, sender) = (cluster.identity.clone(), cluster.views.clone(), cluster.sender.clone());
        let handle = worker.handle().clone();

        let (peers, peers_watch) = watch::channel(membership::configured_peers(&config));
        let surroundings = transport::Surroundings {
            inbox: Arc::new(handle.clone()),
            registry: cluster.clone(),
            proposals: cluster.clone(),
            leaders: cluster.clone(),
        };
        let options = transport::Options::default();
        let transport = Transport::start(options, own, sockets.peer, peers_watch, sender.clone(), surroundings);
        let controller = ControllerClient::new(identity.node, handle.clone(), Arc::new(Messenger(sender)));
        let broker = NodeBroker::new(
            (identity.node, identity.incarnation),
            broker_settings(&config),
            handle.clone(),
            (Arc::clone(&engine), views.clone()),
            controller.clone(),
            cluster,
        );

        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let groups = Groups::new(identity.node, handle, (Arc::clone(&engine), views.clone()), known);
        tasks.spawn(async move {
            let reason = groups.follow(removals).await;
            // A node that is stopping needs no reason to end.
            let _stopping = fatal_sender.send(reason);
        });
        tasks.spawn(space::watch(config.data_dir.clone(), config.limits.disk_reserve_bytes, worker.handle().clone()));
        let registration = membership::registration(&config, &identity, &addresses);
        tasks.spawn(membership::register(controller, registration.clone(), views.clone()));
        tasks.spawn(membership::follow_peers(config.clone(), views.clone(), peers));
        let edges = Edges::new(&config, broker.clone());
        tasks.spawn(native::listener::Listener::over(sockets.native, edges.native).serve(stopping.clone()));
        let kafka = kafka::listener::Listener::over(sockets.kafka, edges.kafka);
        tasks.spawn(async move {
            // What is asked before that waits in the listener's backlog: a first answer without brokers, or with the
            // addresses of an earlier life, is one that clients keep for long.
            membership::registered(&registration, &views).await;
            tracing::info!("Kafka clients are served");
            kafka.serve(stopping).await;
        });
        tracing::info!(node = %identity.node, kafka = %addresses.kafka, native = %addresses.native, "node started");
        Ok(Self { id: identity.node, worker, transport, broker, engine, stop, tasks, fatal, addresses })
    }

    /// Where it is reached.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What clients are answered from.
    #[must_use]
    pub fn broker(&self) -> &NodeBroker<SharedEngine> {
        &self.broker
    }

    /// The node's Raft groups.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.worker.handle()
    }

    /// Serves until `stopped`, then stops in an orderly way; or until the node can't go on.
    pub async fn run_until(mut self, stopped: impl Future<Output = ()>) -> Result<(), ServerError> {
        tokio::select! {
            () = stopped => {}
            Some(reason) = self.fatal.recv() => return Err(ServerError::Fatal(reason)),
        }
        self.stop().await;
        Ok(())
    }

    async fn stop(mut self) {
        tracing::info!(node = %self.id, "stopping");
        hand_over(self.worker.handle()).await;
        self.stop.send_replace(true);
        self.transport.stop().await;
        self.tasks.shutdown().await;
        let (worker, engine) = (self.worker, self.engine);
        let ended = tokio::task::spawn_blocking(move || {
            worker.stop();
            engine.flush()
        });
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(%error, "the database could not be flushed; the next start replays the log");
        }
    }
}

/// Hands every leadership to the follower that has the most, so that clients wait for no election. Each once: when all
/// nodes stop together, they would hand them around.
async fn hand_over(handle: &Handle) {
    let deadline = Instant::now() + HANDOVER_MAX;
    let mut handed = BTreeSet::new();
    loop {
        let reports = handle.report().await;
        let led: Vec<_> = reports.iter().filter(|report| report.role == Some(Role::Leader)).collect();
        for report in &led {
            if handed.contains(&report.group) {
                continue;
            }
            let heirs = report.followers.iter().filter(|follower| follower.recently_active);
            if let Some(heir) = heirs.max_by_key(|follower| follower.matched)
                && handle.transfer_leader(report.group, heir.replica).is_ok()
            {
                handed.insert(report.group);
            }
        }
        if !led.iter().any(|report| handed.contains(&report.group)) || Instant::now() >= deadline {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn worker_options(config: &Config) -> WorkerOptions {
    let ticks = config.cluster.election_timeout_ms.div_ceil(config.cluster.tick_ms);
    let replica =
        ReplicaOptions { election_ticks: ticks, seed: u64::from(config.node_id), ..ReplicaOptions::default() };
    WorkerOptions {
        core: CoreOptions { replica, ..CoreOptions::default() },
        tick: Duration::from_millis(u64::from(config.cluster.tick_ms)),
        mailbox_bytes: usize::try_from(config.limits.inflight_bytes).unwrap_or(usize::MAX),
        ..WorkerOptions::default()
    }
}

fn broker_settings(config: &Config) -> BrokerSettings {
    BrokerSettings {
        default_partitions: u32::from(config.cluster.default_partitions),
        default_replication_factor: u16::from(config.cluster.default_replication_factor),
        auto_create_topics: config.cluster.auto_create_topics,
        ..BrokerSettings::default()
    }
}

/// What the edges need; memory for requests and numbers of connections are shared between them.
struct Edges {
    /// The Kafka edge.
    kafka: kafka::Service<NodeBroker<SharedEngine>>,
    /// The native edge.
    native: native::Service<NodeBroker<SharedEngine>>,
}

impl Edges {
    fn new(config: &Config, broker: NodeBroker<SharedEngine>) -> Self {
        let broker = Arc::new(broker);
        let (request_bytes, connections) = (config.limits.request_bytes, config.limits.connections as usize);
        let request_memory = ByteBudget::new(request_bytes.saturating_mul(4));
        let connection_ids = ConnectionIds::default();
        let kafka = kafka::Service {
            broker: Arc::clone(&broker),
            limits: kafka::Limits {
                request_bytes_max: request_bytes as usize,
                connections_max: connections,
                ..kafka::Limits::default()
            },
            request_memory: request_memory.clone(),
            connection_ids: connection_ids.clone(),
        };
        let limits = native::Limits { connections_max: connections, ..native::Limits::default() };
        Self { kafka, native: native::Service { broker, limits, request_memory, connection_ids } }
    }
}
