//! Which node to ask: the cluster's nodes, the leaders of partitions, and a connection to each that is needed.
//!
//! What is known is a guess that may be out of date; a node that is asked in error says so, and names the leader if it
//! knows one. Retries wait 50 ms, doubling up to a second, because an election takes about that long.

use super::ClientOptions;
use super::connection::Connection;
use super::error::{Error, Result};
use crate::proto::native::{self, ErrorCode, request, response, topic_reference::By};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// The first wait before a retry.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest one.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long a topic that nobody knows is looked for: it may just have been created.
const UNKNOWN_TOPIC: Duration = Duration::from_secs(2);
/// How long one try may take when there is time for more.
const TRY: Duration = Duration::from_secs(10);
/// How long the number of a topic's partitions is believed; they may become more.
const PARTITIONS_BELIEVED: Duration = Duration::from_secs(30);

/// Groups whose coordinators are remembered; of more, some are looked for again.
const COORDINATORS_MAX: usize = 10_000;

/// Waits that grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) const fn new() -> Self {
        Self(RETRY_FIRST)
    }

    /// Waits, and will wait longer the next time. At once, if the error says where to go instead.
    pub(super) async fn wait(&mut self, error: &Error) {
        let knows_better = error.leader.as_ref().is_some_and(|leader| leader.port != 0);
        if !(knows_better && self.0 == RETRY_FIRST) {
            sleep(self.0).await;
        }
        self.0 = (self.0 * 2).min(RETRY_MAX);
    }
}

/// Whether a request may be sent again although it may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It has no effect, or the same one.
    Harmless,
    /// It must not.
    Never,
}

/// A slot for one connection. Locked while it is made, so that it is made once.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Connection>>>>;

/// What is believed of the cluster.
#[derive(Debug, Default)]
struct Known {
    /// Nodes and their native listeners.
    nodes: BTreeMap<u32, String>,
    /// The leaders' addresses by topic and partition.
    leaders: BTreeMap<(String, u32), String>,
    /// How many partitions topics have, and since when this is known.
    partitions: BTreeMap<String, (u32, Instant)>,
    /// The addresses of groups' coordinators.
    coordinators: BTreeMap<String, String>,
    /// A connection per address.
    slots: BTreeMap<String, Slot>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Router {
    /// Addresses that the caller gave.
    bootstrap: Vec<String>,
    /// How to talk.
    pub(super) options: ClientOptions,
    /// What is believed.
    known: Mutex<Known>,
}

impl Router {
    pub(super) fn new(bootstrap: Vec<String>, options: ClientOptions) -> Self {
        Self { bootstrap, options, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open connection to an address.
    pub(super) async fn connection(&self, address: &str) -> Result<Arc<Connection>> {
        let slot = Arc::clone(self.known().slots.entry(address.to_owned()).or_default());
        let mut slot = slot.lock().await;
        if let Some(open) = slot.as_ref().filter(|connection| connection.is_open()) {
            return Ok(Arc::clone(open));
        }
        *slot = None;
        let opened = Connection::open(address, &self.options.name, self.options.connect_timeout).await?;
        let opened = Arc::new(opened);
        *slot = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// A connection to any node; `turn` says which address is tried first.
    async fn any(&self, turn: usize) -> Result<Arc<Connection>> {
        let mut addresses = self.bootstrap.clone();
        for address in self.known().nodes.values() {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        let mut failures = Vec::new();
        for index in 0..addresses.len() {
            match self.connection(&addresses[(turn + index) % addresses.len()]).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failures.push(error.to_string()),
            }
        }
        if failures.is_empty() {
            return Err(Error::usage("no address of a node was given"));
        }
        Err(Error::unreachable(format!("no node can be reached ({})", failures.join("; "))))
    }

    /// Asks any node, until one answers or the time is over.
    pub(super) async fn ask_any(&self, body: request::Body, repeat: Repeat) -> Result<response::Body> {
        let begun = Instant::now();
        let deadline = begun + self.options.timeout;
        let mut backoff = Backoff::new();
        let mut turn = 0;
        loop {
            let asked = match self.any(turn).await {
                Ok(connection) => ask(&connection, body.clone(), deadline, repeat).await,
                Err(error) => Err(error),
            };
            match asked {
                Err(error) if may_retry(&error, repeat) && Instant::now() < patience(&error, begun, deadline) => {
                    turn += 1;
                    if timeout_at(deadline, backoff.wait(&error)).await.is_err() {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    /// Asks the leader of a partition something harmless, until one answers or the time is over.
    pub(super) async fn ask_leader(&self, topic: &str, partition: u32, body: request::Body) -> Result<response::Body> {
        let begun = Instant::now();
        let deadline = begun + self.options.timeout;
        let mut backoff = Backoff::new();
        loop {
            let asked = match self.leader(topic, partition).await {
                Ok(connection) => ask(&connection, body.clone(), deadline, Repeat::Harmless).await,
                Err(error) => Err(error),
            };
            match asked {
                Err(error)
                    if may_retry(&error, Repeat::Harmless) && Instant::now() < patience(&error, begun, deadline) =>
                {
                    self.learn(topic, partition, &error);
                    if timeout_at(deadline, backoff.wait(&error)).await.is_err() {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    /// A connection to the node that is believed to lead.
    pub(super) async fn leader(&self, topic: &str, partition: u32) -> Result<Arc<Connection>> {
        let key = (topic.to_owned(), partition);
        let believed = self.known().leaders.get(&key).cloned();
        if let Some(address) = believed {
            match self.connection(&address).await {
                Ok(connection) => return Ok(connection),
                Err(_) => drop(self.known().leaders.remove(&key)),
            }
        }
        let count = self.find_topic(topic).await?.partitions.len();
        if partition as usize >= count {
            return Err(Error::unknown_partition(topic, partition, count));
        }
        let address = self.known().leaders.get(&key).cloned();
        self.connection(&address.ok_or_else(|| Error::no_leader(topic, partition))?).await
    }

    /// Draws the conclusions of an error from the node that was believed to lead.
    pub(super) fn learn(&self, topic: &str, partition: u32, error: &Error) {
        let mut known = self.known();
        let key = (topic.to_owned(), partition);
        match error.leader.as_ref().and_then(address_of) {
            Some(address) => drop(known.leaders.insert(key, address)),
            None => drop(known.leaders.remove(&key)),
        }
    }

    pub(super) fn believed_coordinator(&self, group: &str) -> Option<String> {
        self.known().coordinators.get(group).cloned()
    }

    pub(super) fn remember_coordinator(&self, group: &str, address: &str) {
        let mut known = self.known();
        if known.coordinators.len() >= COORDINATORS_MAX {
            known.coordinators.pop_first();
        }
        known.coordinators.insert(group.to_owned(), address.to_owned());
    }

    pub(super) fn forget_coordinator(&self, group: &str) {
        self.known().coordinators.remove(group);
    }

    /// How many partitions a topic has.
    pub(super) async fn partition_count(&self, topic: &str) -> Result<u32> {
        let believed = self.known().partitions.get(topic).copied();
        match believed {
            Some((count, since)) if since.elapsed() < PARTITIONS_BELIEVED => Ok(count),
            _ => Ok(self.find_topic(topic).await?.partitions.len() as u32),
        }
    }

    /// Looks a topic up, and remembers its leaders.
    pub(super) async fn find_topic(&self, topic: &str) -> Result<native::Topic> {
        let reference = native::TopicReference { by: Some(By::Name(topic.to_owned())) };
        let body = request::Body::Topics(native::TopicsRequest { topics: vec![reference] });
        match self.ask_any(body, Repeat::Harmless).await? {
            response::Body::Topics(mut answer) if answer.topics.len() == 1 => {
                let found = answer.topics.remove(0);
                self.remember(&found);
                Ok(found)
            }
            _ => Err(Error::protocol("another answer than the topic")),
        }
    }

    fn remember(&self, topic: &native::Topic) {
        let mut known = self.known();
        known.partitions.insert(topic.name.clone(), (topic.partitions.len() as u32, Instant::now()));
        for partition in &topic.partitions {
            let key = (topic.name.clone(), partition.partition);
            match partition.leader.as_ref().and_then(address_of) {
                Some(address) => drop(known.leaders.insert(key, address)),
                None => drop(known.leaders.remove(&key)),
            }
        }
    }

    /// Asks the cluster for its nodes, and remembers where they are.
    pub(super) async fn refresh_nodes(&self) -> Result<native::ClusterStatusResponse> {
        let body = request::Body::ClusterStatus(native::ClusterStatusRequest {});
        let response::Body::ClusterStatus(cluster) = self.ask_any(body, Repeat::Harmless).await? else {
            return Err(Error::protocol("another answer than the cluster's status"));
        };
        let address = |node: &native::Node| Some((node.node, join(node.native.as_ref()?)));
        self.known().nodes = cluster.nodes.iter().filter_map(address).collect();
        Ok(cluster)
    }

    /// Asks one node.
    pub(super) async fn ask_node(&self, address: &native::Address, body: request::Body) -> Result<response::Body> {
        let connection = self.connection(&join(address)).await?;
        ask(&connection, body, Instant::now() + self.options.timeout, Repeat::Harmless).await
    }
}

pub(super) async fn ask(
    connection: &Connection,
    body: request::Body,
    deadline: Instant,
    repeat: Repeat,
) -> Result<response::Body> {
    let left = deadline.saturating_duration_since(Instant::now());
    let time = if repeat == Repeat::Harmless { left.min(TRY) } else { left };
    connection.send(body, time)?.wait().await
}

pub(super) fn may_retry(error: &Error, repeat: Repeat) -> bool {
    error.is_retriable() && (error.is_definite() || repeat == Repeat::Harmless)
}

/// Until when an error is retried.
fn patience(error: &Error, begun: Instant, deadline: Instant) -> Instant {
    match error.code() {
        Some(ErrorCode::UnknownTopic | ErrorCode::UnknownPartition) => deadline.min(begun + UNKNOWN_TOPIC),
        _ => deadline,
    }
}

fn address_of(leader: &native::Leader) -> Option<String> {
    let address = native::Address { host: leader.host.clone(), port: leader.port };
    (leader.port != 0).then(|| join(&address))
}

pub(super) fn join(address: &native::Address) -> String {
    match address.host.contains(':') {
        true => format!("[{}]:{}", address.host, address.port),
        false => format!("{}:{}", address.host, address.port),
    }
}
