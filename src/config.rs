//! A node's configuration: one TOML file, every field with its unit and default.
//!
//! What belongs to one node is at the top level and in `[listeners]`, `[limits]`, `[wal]`, `[retention]` and
//! `[groups]`; what must be equal on every node of the cluster is in `[cluster]`. Reading the file is the server's;
//! this room turns its text into values and says what is wrong with them, and what to do. Three lines make a node:
//!
//! ```toml
//! node_id = 1
//! data_dir = "/var/lib/ackord"
//! advertised_host = "node1.example.org"
//! ```

mod groups;
mod unknown_key;

use crate::types::{ClusterId, NodeId};
pub use groups::GroupsConfig;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A node's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's number, 1 to 2147483647, different on every node of the cluster. Required.
    pub node_id: u32,
    /// Where everything durable lies; made ready by `ackord format`. Required.
    pub data_dir: PathBuf,
    /// The name or address under which clients and other nodes reach this node. Default: the host of each listener,
    /// which must then not be a wildcard.
    pub advertised_host: Option<String>,
    /// Where the node stands (a rack, a zone); replicas of a partition are spread over these. Default: none.
    pub rack: Option<String>,
    /// Nodes to contact first, as `"number@host:port"` of their peer listeners; the rest is learned from them. This
    /// node itself may be among them. Default: none, a cluster of one node.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// Where this node listens.
    #[serde(default)]
    pub listeners: Listeners,
    /// What this node takes on at once.
    #[serde(default)]
    pub limits: Limits,
    /// The write-ahead log.
    #[serde(default)]
    pub wal: Wal,
    /// Consumer groups.
    #[serde(default)]
    pub groups: GroupsConfig,
    /// When records that topics no longer keep are removed.
    #[serde(default)]
    pub retention: Retention,
    /// Equal on every node of the cluster.
    #[serde(default)]
    pub cluster: ClusterConfig,
}

/// Where a node listens, as `"host:port"`; port 0 takes any free one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listeners {
    /// Kafka clients. Default: `"0.0.0.0:9092"`.
    pub kafka: HostPort,
    /// Native clients and `ackord`'s own commands. Default: `"0.0.0.0:9093"`.
    pub native: HostPort,
    /// Metrics and health. Default: `"0.0.0.0:9094"`.
    pub http: HostPort,
    /// The other nodes. Default: `"0.0.0.0:9095"`.
    pub peer: HostPort,
}

/// What a node takes on at once; beyond it, it refuses with a retriable error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open client connections. Default: 10000.
    pub connections: u32,
    /// Longest request, in bytes. Default: 104857600 (100 MiB, as Kafka's `socket.request.max.bytes`).
    pub request_bytes: u32,
    /// Produce requests that are not yet committed, all partitions together, in bytes. Default: 268435456 (256 MiB).
    pub inflight_bytes: u64,
    /// Free space in `data_dir` below which writes are refused, in bytes. Default: 1073741824 (1 GiB).
    pub disk_reserve_bytes: u64,
}

/// The write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wal {
    /// Size of a segment, in bytes; a turn lies in one segment. 16 MiB to 2 GiB, a multiple of 4096. Default:
    /// 268435456 (256 MiB).
    pub segment_bytes: u64,
    /// How much log is kept for replicas that were away, in bytes; one that needs what is gone gets a snapshot. At
    /// least `segment_bytes`. Default: 1073741824 (1 GiB).
    pub retain_bytes: u64,
    /// How far beyond `retain_bytes` the log may grow, in bytes, before the few entries that hold an old segment back
    /// (of a partition that has lost its majority, say) are copied forward, so that it can be freed. Less saves space
    /// and writes more. Entries that are not yet flushed are kept beyond it. 0 to 1 TiB. Default: 268435456 (256 MiB).
    pub slack_bytes: u64,
    /// How many freed segments are kept for reuse instead of being removed, so that no segment is written twice; two
    /// more are always kept ready. 0 to 1024, each of `segment_bytes`. Default: 8.
    pub recycled_segments_max: u16,
}

/// When records that topics no longer keep are removed. How much they keep is each topic's own setting.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// How often the partitions that this node leads are looked at, in milliseconds. Those that are kept by size are
    /// looked at when they have grown, too. Default: 300000 (5 minutes, as Kafka's `log.retention.check.interval.ms`).
    pub check_interval_ms: u32,
}

/// What must be equal on every node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// The cluster this node must belong to, as `ackord format` shows it. Default: the one `data_dir` belongs to.
    pub id: Option<Id>,
    /// Partitions of a topic whose creator names no number. Default: 1.
    pub default_partitions: u16,
    /// Replicas of a topic whose creator names no number; fewer when the cluster has fewer nodes. Default: 3.
    pub default_replication_factor: u8,
    /// Whether a client's Metadata request may create the topic it asks for. Default: false.
    pub auto_create_topics: bool,
    /// One Raft tick, in milliseconds; a leader's heartbeats are this far apart. Default: 100.
    pub tick_ms: u32,
    /// How long a follower hears nothing before it campaigns, in milliseconds; a random part up to as much again is
    /// added. At least 5 ticks. Default: 1000.
    pub election_timeout_ms: u32,
}

/// A host and a TCP port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort {
    /// A name or an address; without the brackets of IPv6.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Another node and its peer listener.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Peer {
    /// The node's number.
    pub node: NodeId,
    /// Its peer listener.
    pub address: HostPort,
}

/// A cluster's id in a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Id(pub ClusterId);

/// Why a configuration can't be used: sentences for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not TOML, or a value has the wrong type.
    #[error("{0}")]
    Unreadable(String),
    /// A key that nobody knows.
    #[error("{message}{}", nearest.as_ref().map(|name| format!("did you mean `{name}`?\n")).unwrap_or_default())]
    UnknownKey { message: String, nearest: Option<String> },
    /// A value that can't be.
    #[error("{key}: {problem}")]
    Invalid { key: &'static str, problem: String },
}

impl Default for Listeners {
    fn default() -> Self {
        let on = |port| HostPort { host: "0.0.0.0".to_owned(), port };
        Self { kafka: on(9092), native: on(9093), http: on(9094), peer: on(9095) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, request_bytes: 100 << 20, inflight_bytes: 256 << 20, disk_reserve_bytes: 1 << 30 }
    }
}

impl Default for Wal {
    fn default() -> Self {
        Self { segment_bytes: 256 << 20, retain_bytes: 1 << 30, slack_bytes: 256 << 20, recycled_segments_max: 8 }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { check_interval_ms: 300_000 }
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            id: None,
            default_partitions: 1,
            default_replication_factor: 3,
            auto_create_topics: false,
            tick_ms: 100,
            election_timeout_ms: 1000,
        }
    }
}

impl Config {
    /// Reads and checks the text of a configuration file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| unknown_key::explain(&error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// This node's number.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    /// The host under which others reach one of this node's listeners.
    #[must_use]
    pub fn advertised<'a>(&'a self, listener: &'a HostPort) -> &'a str {
        self.advertised_host.as_deref().unwrap_or(&listener.host)
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_node_number("node_id", self.node_id)?;
        require(!self.data_dir.as_os_str().is_empty(), "data_dir", "it is empty; name a directory of this node's own")?;
        self.check_addresses()?;
        self.check_peers()?;
        self.check_sizes()?;
        self.groups.check()?;
        let interval = self.retention.check_interval_ms;
        let problem = "it is 100 to 86400000 (a day)";
        require((100..=86_400_000).contains(&interval), "retention.check_interval_ms", problem)?;
        self.cluster.check()
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let Listeners { kafka, native, http, peer } = &self.listeners;
        let listeners = [kafka, native, http, peer];
        let wildcard = listeners.into_iter().find(|listener| matches!(listener.host.as_str(), "0.0.0.0" | "::"));
        if let (Some(wildcard), None) = (wildcard, &self.advertised_host) {
            let problem = format!(
                "nobody can connect to {wildcard}; set advertised_host to this node's name or address, or listen on one"
            );
            return Err(ConfigError::Invalid { key: "advertised_host", problem });
        }
        let used: Vec<_> = listeners.into_iter().filter(|listener| listener.port != 0).collect();
        let distinct: BTreeSet<_> = used.iter().collect();
        require(
            distinct.len() == used.len(),
            "listeners",
            "two listeners have the same address; give each its own port",
        )?;
        let advertised = self.advertised_host.as_deref();
        require(advertised.is_none_or(is_host), "advertised_host", "it is a name or an address, without a port")?;
        let bounded = |text: &String| (1..=255).contains(&text.len());
        require(self.rack.as_ref().is_none_or(bounded), "rack", "it has 1 to 255 bytes; leave it out for none")
    }

    fn check_peers(&self) -> Result<(), ConfigError> {
        let mut numbers = BTreeSet::new();
        for peer in &self.peers {
            check_node_number("peers", peer.node.0)?;
            require(peer.address.port != 0, "peers", "a peer's port can't be 0; name the one it listens on")?;
            let problem = format!("node {} is there twice; each node has one peer listener", peer.node);
            require(numbers.insert(peer.node), "peers", &problem)?;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let Limits { connections, request_bytes, inflight_bytes, disk_reserve_bytes } = self.limits;
        require(connections > 0, "limits.connections", "it is 0: nobody could connect; leave it out for 10000")?;
        let request_range = (1 << 20)..=(1 << 30);
        require(request_range.contains(&request_bytes), "limits.request_bytes", "it is 1048576 (1 MiB) to 1 GiB")?;
        let problem = "it is less than limits.request_bytes: the longest request could never be taken";
        require(inflight_bytes >= request_bytes.into(), "limits.inflight_bytes", problem)?;
        let problem = "it is less than 64 MiB: a node needs that much to keep voting on a full disk";
        require(disk_reserve_bytes >= 64 << 20, "limits.disk_reserve_bytes", problem)?;
        self.wal.check()
    }
}

impl Wal {
    fn check(&self) -> Result<(), ConfigError> {
        let is_valid =
            ((16 << 20)..=(2 << 30)).contains(&self.segment_bytes) && self.segment_bytes.is_multiple_of(4096);
        require(is_valid, "wal.segment_bytes", "it is 16 MiB to 2 GiB, a multiple of 4096")?;
        let problem = "it is less than wal.segment_bytes: a segment is kept or freed whole";
        require(self.retain_bytes >= self.segment_bytes, "wal.retain_bytes", problem)?;
        require(self.slack_bytes <= 1 << 40, "wal.slack_bytes", "it is 0 to 1 TiB")?;
        require(self.recycled_segments_max <= 1024, "wal.recycled_segments_max", "it is 0 to 1024")
    }
}

impl ClusterConfig {
    fn check(&self) -> Result<(), ConfigError> {
        require((1..=10_000).contains(&self.default_partitions), "cluster.default_partitions", "it is 1 to 10000")?;
        let replicas = self.default_replication_factor;
        require((1..=7).contains(&replicas), "cluster.default_replication_factor", "it is 1 to 7")?;
        require((10..=1000).contains(&self.tick_ms), "cluster.tick_ms", "it is 10 to 1000")?;
        let enough = self.election_timeout_ms >= self.tick_ms.saturating_mul(5);
        let problem = "it is less than 5 ticks: one late heartbeat would cost a leader; raise it, or lower tick_ms";
        require(enough, "cluster.election_timeout_ms", problem)?;
        require(self.election_timeout_ms <= 60_000, "cluster.election_timeout_ms", "it is at most 60000 (a minute)")
    }
}

fn require(holds: bool, key: &'static str, problem: &str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Invalid { key, problem: problem.to_owned() }) }
}

fn check_node_number(key: &'static str, number: u32) -> Result<(), ConfigError> {
    let problem = format!("{number} is no node's number; they are 1 to {}", i32::MAX);
    require((1..=i32::MAX.cast_unsigned()).contains(&number), key, &problem)
}

fn is_host(host: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'%');
    let colons = host.bytes().filter(|byte| *byte == b':').count();
    (1..=255).contains(&host.len()) && host.bytes().all(legal) && colons != 1
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(formatter, "[{}]:{}", self.host, self.port),
            false => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is not \"host:port\" (for IPv6 \"[address]:port\")");
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        if !is_host(host) || (host.contains(':') != bracketed.is_some()) {
            return Err(expected());
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| expected())? })
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is not \"number@host:port\"");
        let (number, address) = text.split_once('@').ok_or_else(expected)?;
        let node = NodeId(number.parse().map_err(|_| expected())?);
        Ok(Self { node, address: address.parse()? })
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for Peer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("{text:?}: {error}"))
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
