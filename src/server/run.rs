//! A whole node, from its configuration to its end.
//!
//! Listeners are bound before anything else, so that a port in use is said at once; clients are served once the groups
//! run. A node that is told to stop hands its leaderships over, ends its connections, seals the log and flushes. One
//! whose database turns out to be damaged begins anew in the same process: its start sets the database aside and
//! fetches the states from its peers.

use super::data::{self, DataError, SharedEngine};
use super::groups::Groups;
use super::inside::Inside;
use super::listeners::{Addresses, Edges, Sockets};
use super::observe::{self, LateBroker};
use super::outside::{Cluster, Disks, Messenger};
use super::{joining, membership, space};
use crate::broker::node::controller_client::ControllerClient;
use crate::broker::node::coordinators::CoordinatorLayout;
use crate::broker::node::views::Views;
use crate::broker::node::{BrokerSettings, GroupSettings, NodeBroker};
use crate::config::{Config, GroupsConfig};
use crate::controller::command::Registration;
use crate::http;
use crate::kafka;
use crate::multiraft::handle::Handle;
use crate::multiraft::worker::Worker;
use crate::native;
use crate::raft::{FollowerProgress, Role};
use crate::storage::Engine;
use crate::transport::{self, Own, PeerSender, QueueLimits, Transport};
use crate::types::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long a stopping node waits for others to take over what it leads.
const HANDOVER_MAX: Duration = Duration::from_secs(2);

/// How often a process begins anew because its database is damaged. A disk that damages one after the other is for the
/// operator to replace.
const ANEW_MAX: usize = 2;
/// How long the groups of a damaged database, and what a stopped node has begun in its own, may take to end; then only
/// the end of the process is sure to end them.
const END_MAX: Duration = Duration::from_secs(30);

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
    /// Its database is damaged.
    #[error("{0}; the node has ended. Nothing acknowledged is lost: start it again, and it fetches what it needs")]
    DamagedState(String),
}

/// Runs a node until the process is asked to stop (SIGINT, SIGTERM) or the node can't go on. After an error some of its
/// threads may still run: the process is to end without destroying what they use ([`crate::cli`] does).
pub fn run(config: Config) -> Result<(), ServerError> {
    let runtime = Runtime::new()?;
    let end = runtime.block_on(run_until_told(config));
    end_runtime(runtime, end.is_ok());
    end
}

/// Ends what a node's life has left on the runtime. Its tasks are cut off, but not a job that one of them has given to
/// the database: it ends before the process does, which destroys what RocksDB still uses. A node that could not end in
/// an orderly way waits for nothing: a disk may hold it up for ever.
fn end_runtime(runtime: Runtime, orderly: bool) {
    if orderly {
        runtime.shutdown_timeout(END_MAX);
    } else {
        runtime.shutdown_background();
    }
}

async fn run_until_told(config: Config) -> Result<(), ServerError> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut stopped = pin!(async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    });
    begin_anew(async || Node::start(config.clone()).await?.run_until(&mut stopped).await).await
}

/// Lives one life of a node after another, as long as each ends because its database is damaged.
async fn begin_anew(mut live: impl AsyncFnMut() -> Result<(), ServerError>) -> Result<(), ServerError> {
    for _ in 0..ANEW_MAX {
        match live().await {
            Err(ServerError::DamagedState(reason)) => {
                tracing::error!(reason, "the node begins anew, without the damaged database");
            }
            end => return end,
        }
    }
    live().await
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
        let opened = open_data(&config).await.map_err(|error| match error {
            ServerError::Data(DataError::Controller(reason)) => ServerError::DamagedState(reason),
            error => error,
        })?;
        let (removed, removals) = mpsc::unbounded_channel();
        let (fatal_sender, fatal) = mpsc::unbounded_channel();
        let sender = PeerSender::new(QueueLimits::default());
        let late_broker = LateBroker::default();
        let (metrics, registry) = observe::metrics(Arc::clone(&late_broker), sender.clone());
        let ends = (removed, fatal_sender.clone());
        let peer_address = membership::peer_address(&config, &addresses);
        let inside = Inside::start((&config, peer_address), opened, sender, ends, metrics.clone())?;

        let Inside { worker, cluster, engine, known, joins, own } = inside;
        let voters = cluster.identity.voters.len();
        let (identity, views, handle) = (cluster.identity.clone(), cluster.views.clone(), worker.handle().clone());
        let (peers, peers_watch) = watch::channel(membership::configured_peers(&config));
        let transport = connect(&cluster, own, sockets.peer, peers_watch);
        let messenger = Arc::new(Messenger(cluster.sender.clone()));
        let controller = ControllerClient::new(identity.node, handle.clone(), messenger);
        let broker = NodeBroker::new(
            (identity.node, identity.incarnation),
            broker_settings(&config),
            handle.clone(),
            (Arc::clone(&engine), views.clone()),
            controller.clone(),
            cluster,
            metrics,
        );
        let _first = late_broker.set(broker.clone());

        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let shared = (Arc::clone(&engine), views.clone());
        let groups = Groups::new(identity.incarnation, handle.clone(), shared, known);
        tasks.spawn(async move {
            let reason = groups.follow(removals).await;
            // A node that is stopping needs no reason to end.
            let _stopping = fatal_sender.send(reason);
        });
        tasks.spawn(space::watch(config.data_dir.clone(), config.limits.disk_reserve_bytes, handle.clone()));
        let check_interval = Duration::from_millis(config.retention.check_interval_ms.into());
        tasks.spawn(broker.clone().keep_retention(check_interval));
        let registration = membership::registration(&config, &identity, &addresses);
        if let Some(may_be_there) = joins {
            let joining = joining::Joining::new(controller.clone(), registration.clone());
            tasks.spawn(joining.run(handle.clone(), (Arc::clone(&engine), identity.cluster), may_be_there));
        }
        tasks.spawn(membership::register(controller, registration.clone(), views.clone()));
        tasks.spawn(broker.clone().keep_members());
        tasks.spawn(broker.clone().create_coordinators(coordinator_layout(&config, voters)));
        tasks.spawn(broker.clone().keep_groups());
        tasks.spawn(membership::follow_peers(config.clone(), views.clone(), peers));
        let edges = Edges::new(&config, broker.clone());
        let kafka = kafka::listener::Listener::over(sockets.kafka, edges.kafka);
        tasks.spawn(serve_kafka(kafka, registration, views, stopping.clone()));
        tasks.spawn(native::listener::Listener::over(sockets.native, edges.native).serve(stopping.clone()));
        let pages = observe::pages(registry, handle);
        tasks.spawn(async move {
            if let Err(error) = http::serve(sockets.http, pages, stopping).await {
                tracing::error!(%error, "metrics and health are no longer served");
            }
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
            () = stopped => {
                tracing::info!(node = %self.id, "stopping");
                hand_over(self.worker.handle()).await;
                self.stop().await;
                Ok(())
            }
            Some(reason) = self.fatal.recv() => {
                // Anything else is ended by the end of the process alone, and at once.
                if !self.engine.is_condemned() {
                    return Err(ServerError::Fatal(reason));
                }
                match timeout(END_MAX, self.stop()).await {
                    Ok(()) => Err(ServerError::DamagedState(reason)),
                    // What has not ended may still write: no new life beside it.
                    Err(_) => Err(ServerError::Fatal(reason)),
                }
            }
        }
    }

    async fn stop(mut self) {
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

/// Opens the data directory beside whatever else this thread has to do, and logs to where it would.
async fn open_data(config: &Config) -> Result<data::Opened, ServerError> {
    let (config, log) = (config.clone(), tracing::dispatcher::get_default(tracing::Dispatch::clone));
    let open = move || tracing::dispatcher::with_default(&log, || data::open(&config));
    let opened = tokio::task::spawn_blocking(open).await;
    Ok(opened.map_err(|error| ServerError::Fatal(format!("opening the data directory: {error}")))??)
}

/// What is asked before the node is registered waits in the listener's backlog: a first answer without brokers, or with
/// the addresses of an earlier life, is one that clients keep for long.
async fn serve_kafka(
    kafka: kafka::listener::Listener<NodeBroker<SharedEngine>>,
    registration: Registration,
    views: Views,
    stopping: watch::Receiver<bool>,
) {
    membership::registered(&registration, &views).await;
    tracing::info!("Kafka clients are served");
    kafka.serve(stopping).await;
}

/// Connects the groups to the other nodes.
fn connect(
    cluster: &Arc<Cluster>,
    own: Own,
    socket: TcpListener,
    peers: watch::Receiver<BTreeMap<NodeId, String>>,
) -> Transport {
    let surroundings = transport::Surroundings {
        inbox: Arc::new(cluster.handle.clone()),
        registry: Arc::new(Disks::new(cluster.identity.clone(), cluster.views.watch_metadata())),
        proposals: cluster.clone(),
        leaders: cluster.clone(),
    };
    Transport::start(transport::Options::default(), own, socket, peers, cluster.sender.clone(), surroundings)
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
            let may_lead = |follower: &&FollowerProgress| {
                follower.recently_active && report.members.voters.contains(&follower.replica)
            };
            let heirs = report.followers.iter().filter(may_lead);
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

/// Coordinators are replicated like other topics; the first voters are the nodes that a new cluster will have.
fn coordinator_layout(config: &Config, voters: usize) -> CoordinatorLayout {
    let wanted = u16::from(config.cluster.default_replication_factor);
    let replication_factor = wanted.min(u16::try_from(voters.max(1)).unwrap_or(u16::MAX));
    CoordinatorLayout { partitions: config.groups.coordinators, replication_factor }
}

fn broker_settings(config: &Config) -> BrokerSettings {
    BrokerSettings {
        default_partitions: u32::from(config.cluster.default_partitions),
        default_replication_factor: u16::from(config.cluster.default_replication_factor),
        auto_create_topics: config.cluster.auto_create_topics,
        groups: group_settings(&config.groups),
        ..BrokerSettings::default()
    }
}

fn group_settings(config: &GroupsConfig) -> GroupSettings {
    let millis = |value: u32| Duration::from_millis(value.into());
    GroupSettings {
        session_timeout_min: millis(config.min_session_timeout_ms),
        session_timeout_max: millis(config.max_session_timeout_ms),
        initial_rebalance_delay: millis(config.initial_rebalance_delay_ms),
        members_max: config.max_size,
        offsets_retention: Duration::from_secs(60 * u64::from(config.offsets_retention_minutes)),
        offsets_check_interval: millis(config.offsets_retention_check_interval_ms),
        offset_metadata_bytes: config.offset_metadata_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::identity::{FirstVoter, Identity};
    use crate::types::{ClusterId, Incarnation};
    use std::future::pending;
    use std::path::Path;

    async fn end_of(mut node: Node, reason: &str) -> ServerError {
        let (fatal, ends) = mpsc::unbounded_channel();
        fatal.send(reason.to_owned()).unwrap();
        node.fatal = ends;
        node.run_until(pending()).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_node_begins_anew_for_a_damaged_database_only_and_not_without_end() {
        let lives = async |end: fn(String) -> ServerError| {
            let mut lives = 0;
            let live = async || {
                lives += 1;
                Err(end(format!("life {lives}")))
            };
            (begin_anew(live).await.unwrap_err().to_string(), lives)
        };
        let (end, lives_of_damaged) = lives(ServerError::DamagedState).await;
        assert!(lives_of_damaged == 1 + ANEW_MAX && end.starts_with("life 3"), "{end}");
        assert_eq!(lives(ServerError::Fatal).await.1, 1);
    }

    /// The only node of a cluster, formatted in `data` of this place.
    fn formatted(place: &Path) -> Config {
        let data_dir = place.join("data");
        let text = format!(
            "node_id = 1\ndata_dir = {data_dir:?}\npeers = [\"1@127.0.0.1:1\"]\n[listeners]\nkafka = \"127.0.0.1:0\"\n\
             peer = \"127.0.0.1:0\"\nnative = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
             [wal]\nsegment_bytes = 16777216\n"
        );
        let config = Config::parse(&text).unwrap();
        let (node, incarnation) = (NodeId(1), Incarnation(2));
        let voters = vec![FirstVoter { node, incarnation }];
        data::format(&config, &Identity { cluster: ClusterId(3), node, incarnation, voters }).unwrap();
        config
    }

    /// Opening a log rewrites its end, and what was acknowledged meanwhile would be lost.
    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_opens_what_a_node_is_using() {
        let place = tempfile::tempdir().unwrap();
        let (config, data_dir) = (formatted(place.path()), place.path().join("data"));
        let node = Node::start(config.clone()).await.unwrap();
        let segments = || -> BTreeSet<_> {
            let entries = std::fs::read_dir(data_dir.join("wal")).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| name.as_encoded_bytes().starts_with(b"seg"))
                .collect()
        };
        let before = segments();
        let Err(refused) = Node::start(config.clone()).await else { panic!("a second one runs beside the first") };
        assert!(matches!(refused, ServerError::Data(DataError::InUse(_))), "{refused}");
        assert_eq!(segments(), before, "opening begins a new segment");
        node.stop().await;
        Node::start(config).await.unwrap().stop().await;
        assert!(segments() != before);
    }

    /// As a topic's removal that has begun.
    #[test]
    fn a_node_that_has_stopped_waits_for_what_is_still_at_work_in_its_database() {
        let place = tempfile::tempdir().unwrap();
        let config = formatted(place.path());
        let runtime = Runtime::new().unwrap();
        let (_never, word) = std::sync::mpsc::channel::<()>();
        let engine = runtime.block_on(async {
            let node = Node::start(config).await.unwrap();
            let (engine, held) = (Arc::downgrade(&node.engine), Arc::clone(&node.engine));
            tokio::task::spawn_blocking(move || {
                let _lasts = word.recv_timeout(Duration::from_millis(200));
                drop(held);
            });
            node.stop().await;
            engine
        });
        end_runtime(runtime, true);
        assert_eq!(engine.strong_count(), 0, "RocksDB's threads use what the process destroys when it ends");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_with_a_damaged_database_ends_whole_so_that_it_can_begin_anew_without_it() {
        let place = tempfile::tempdir().unwrap();
        let (config, data_dir) = (formatted(place.path()), place.path().join("data"));
        let node = Node::start(config.clone()).await.unwrap();
        node.engine.condemn("on purpose");
        let end = end_of(node, "the database fails").await;
        assert!(matches!(end, ServerError::DamagedState(_)), "{end}");
        // Nothing of it holds the log, the database or a port any more.
        let node = Node::start(config).await.unwrap();
        assert!(data_dir.join("state.damaged-1").exists());
        let end = end_of(node, "the log fails").await;
        assert!(matches!(end, ServerError::Fatal(_)), "another start would not help: {end}");
    }
}
