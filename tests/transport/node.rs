//! A node that has a transport and otherwise only remembers what it hears.

use ackord::multiraft::apply::transfer::SnapshotMessage;
use ackord::multiraft::core::effect::Refused;
use ackord::multiraft::core::repair::message::RepairMessage;
use ackord::raft::RaftMessage;
use ackord::transport::{
    Announcement, BoxFuture, Inbox, Leaders, Options, Own, PeerRegistry, PeerSender, ProposalOutcome, Proposals,
    QueueLimits, Registered, Surroundings, Transport,
};
use ackord::types::{ClusterId, Incarnation, LogIndex, NodeId, RaftGroupId, ReplicaId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

/// The cluster that everybody belongs to.
pub const CLUSTER: ClusterId = ClusterId(7);

/// The generation whose replicas were lost with their disks, and the group in which they were.
pub const LOST: (RaftGroupId, u32) = (RaftGroupId(0), 7);

/// Every node that starts has a life of its own.
static LIVES: AtomicU64 = AtomicU64::new(1_000);

/// The incarnation under which a node is known.
pub fn incarnation(node: NodeId) -> Incarnation {
    Incarnation(u128::from(node.0) << 64)
}

/// How a node is to be.
pub struct Setup {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub durable_turn: u64,
    /// 0: any.
    pub port: u16,
    pub options: Options,
    pub limits: QueueLimits,
    pub admits_unknown: bool,
    pub leads: Vec<Announcement>,
}

impl Setup {
    pub fn of(node: NodeId) -> Self {
        let options = Options {
            alive_every: Duration::from_millis(50),
            silence_max: Duration::from_millis(500),
            greeting_max: Duration::from_millis(500),
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(50),
            ..Options::default()
        };
        Self {
            cluster: CLUSTER,
            node,
            incarnation: incarnation(node),
            durable_turn: 10,
            port: 0,
            options,
            limits: QueueLimits::default(),
            admits_unknown: false,
            leads: Vec::new(),
        }
    }
}

/// What a node hears, and how it behaves.
pub struct Heard {
    messages: Mutex<Vec<(RaftGroupId, RaftMessage)>>,
    snapshots: Mutex<Vec<SnapshotMessage>>,
    repairs: Mutex<Vec<RepairMessage>>,
    leaders: Mutex<Vec<Announcement>>,
    broken: Mutex<Vec<NodeId>>,
    /// How often messages were handed in.
    pub deliveries: AtomicU64,
    proposals: AtomicU64,
    /// What a proposal becomes; without it nothing is ever decided.
    decision: Mutex<Option<ProposalOutcome>>,
    takes_in: watch::Sender<bool>,
    admits_unknown: bool,
    leads: Vec<Announcement>,
    /// What its copy of the metadata shows beside the first voters.
    registered: Mutex<BTreeMap<NodeId, Registered>>,
}

impl Heard {
    pub fn learns(&self, node: NodeId, registered: Registered) {
        self.registered.lock().unwrap().insert(node, registered);
    }

    pub fn messages(&self) -> MutexGuard<'_, Vec<(RaftGroupId, RaftMessage)>> {
        self.messages.lock().unwrap()
    }

    pub fn snapshots(&self) -> MutexGuard<'_, Vec<SnapshotMessage>> {
        self.snapshots.lock().unwrap()
    }

    pub fn repairs(&self) -> MutexGuard<'_, Vec<RepairMessage>> {
        self.repairs.lock().unwrap()
    }

    pub fn leaders(&self) -> MutexGuard<'_, Vec<Announcement>> {
        self.leaders.lock().unwrap()
    }

    pub fn broken(&self) -> MutexGuard<'_, Vec<NodeId>> {
        self.broken.lock().unwrap()
    }

    pub fn proposals(&self) -> u64 {
        self.proposals.load(Ordering::Relaxed)
    }

    pub fn will_decide(&self, outcome: ProposalOutcome) {
        *self.decision.lock().unwrap() = Some(outcome);
    }

    pub fn take_nothing_in(&self) {
        self.takes_in.send_replace(false);
    }

    pub fn take_everything_in(&self) {
        self.takes_in.send_replace(true);
    }
}

impl Inbox for Heard {
    fn deliver(&self, messages: Vec<(RaftGroupId, RaftMessage)>) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(async move {
            self.takes_in.subscribe().wait_for(|takes| *takes).await.unwrap();
            self.deliveries.fetch_add(1, Ordering::Relaxed);
            self.messages().extend(messages);
            Ok(())
        })
    }

    fn deliver_snapshot(&self, message: SnapshotMessage) -> BoxFuture<'_, Result<(), Refused>> {
        self.snapshots().push(message);
        Box::pin(async { Ok(()) })
    }

    fn deliver_repair(&self, message: RepairMessage) -> BoxFuture<'_, Result<(), Refused>> {
        self.repairs().push(message);
        Box::pin(async { Ok(()) })
    }

    fn unreachable(&self, node: NodeId) {
        self.broken().push(node);
    }
}

impl PeerRegistry for Heard {
    fn registered(&self, node: NodeId) -> Option<Registered> {
        let first = || (node.0 < 10).then(|| Registered { at: LogIndex(0), incarnation: incarnation(node) });
        self.registered.lock().unwrap().get(&node).copied().or_else(first)
    }

    fn admits_unknown(&self, _node: NodeId, _incarnation: Incarnation) -> bool {
        self.admits_unknown
    }

    fn is_lost(&self, group: RaftGroupId, replica: ReplicaId) -> bool {
        (group, replica.generation()) == LOST
    }
}

impl Proposals for Heard {
    fn propose(&self, _command: Bytes, _timeout: Duration) -> BoxFuture<'static, ProposalOutcome> {
        self.proposals.fetch_add(1, Ordering::Relaxed);
        match self.decision.lock().unwrap().clone() {
            Some(outcome) => Box::pin(async move { outcome }),
            None => Box::pin(std::future::pending()),
        }
    }
}

impl Leaders for Heard {
    fn current(&self) -> Vec<Announcement> {
        self.leads.clone()
    }

    fn heard(&self, announcements: Vec<Announcement>) {
        self.leaders().extend(announcements);
    }
}

/// A running node.
pub struct Node {
    pub node: NodeId,
    pub port: u16,
    pub durable_turn: Arc<AtomicU64>,
    pub peers: watch::Sender<BTreeMap<NodeId, String>>,
    pub sender: PeerSender,
    pub heard: Arc<Heard>,
    transport: Transport,
}

impl Node {
    pub async fn start(setup: Setup) -> Self {
        let listener = listen(setup.port).await;
        let port = listener.local_addr().unwrap().port();
        let durable_turn = Arc::new(AtomicU64::new(setup.durable_turn));
        let own = Own {
            cluster: setup.cluster,
            node: setup.node,
            incarnation: setup.incarnation,
            durable_turn: Arc::clone(&durable_turn),
            life: u128::from(LIVES.fetch_add(1, Ordering::Relaxed)),
            first_turn: setup.durable_turn,
            losses: 0,
            in_doubt: false,
            address: format!("127.0.0.1:{port}"),
        };
        let heard = Arc::new(Heard {
            messages: Mutex::default(),
            snapshots: Mutex::default(),
            repairs: Mutex::default(),
            leaders: Mutex::default(),
            broken: Mutex::default(),
            deliveries: AtomicU64::new(0),
            proposals: AtomicU64::new(0),
            decision: Mutex::default(),
            takes_in: watch::Sender::new(true),
            admits_unknown: setup.admits_unknown,
            leads: setup.leads,
            registered: Mutex::default(),
        });
        let surroundings = Surroundings {
            inbox: heard.clone(),
            registry: heard.clone(),
            proposals: heard.clone(),
            leaders: heard.clone(),
        };
        let peers = watch::Sender::new(BTreeMap::new());
        let sender = PeerSender::new(setup.limits);
        let transport = Transport::start(setup.options, own, listener, peers.subscribe(), sender.clone(), surroundings);
        Self { node: setup.node, port, durable_turn, peers, sender, heard, transport }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub async fn stop(self) {
        self.transport.stop().await;
    }
}

/// A port that was in use a moment ago can be had again.
async fn listen(port: u16) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], port).into()).unwrap();
    socket.listen(64).unwrap()
}

/// Where nodes are, for each other.
pub fn addresses(nodes: &[&Node]) -> BTreeMap<NodeId, String> {
    nodes.iter().map(|node| (node.node, node.address())).collect()
}

/// Waits until something is so.
pub async fn within(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "{what}: not in time");
}
