//! The Rust client of the native protocol.
//!
//! A [`Client`] knows a cluster by the addresses of some of its nodes and finds the others, and the leaders of
//! partitions, by itself. Cloning it is cheap and shares its connections. From it come an [`Admin`] for topics and
//! status, a [`Producer`], and a [`Reader`] per partition.
//!
//! ```no_run
//! # async fn example() -> Result<(), ackord::client::Error> {
//! use ackord::client::{Client, ClientOptions, ProducerOptions, ReaderOptions, Record, Start};
//!
//! let client = Client::connect(&["127.0.0.1:19093"], ClientOptions::default()).await?;
//! let producer = client.producer(ProducerOptions::default())?;
//! let delivery = producer.send("orders", None, Record::new(Some("customer-7"), "two apples")).await?;
//! let commit = delivery.await?; // on the disks of a majority
//! println!("partition {} offset {}: entry {}@{}", commit.partition, commit.offset, commit.log_index, commit.term);
//!
//! let mut reader = client.reader("orders", commit.partition, Start::Beginning, ReaderOptions::default()).await?;
//! for record in reader.read().await? {
//!     println!("{}: {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! An [`Error`] says whether the request certainly had no effect ([`Error::is_definite`]). The client retries by itself
//! what certainly had none, until [`ClientOptions::timeout`] is over, and what may be repeated without harm: reads,
//! queries, and an idempotent producer's batches. Anything else that may have happened is reported, never repeated.

mod admin;
mod connection;
mod error;
mod group;
mod partitioner;
mod producer;
mod reader;
mod routing;

pub use crate::proto::native::{
    ClusterStatusResponse as ClusterStatus, ConfigEffect, DescribeGroupResponse as DescribedGroup, DescribedMember,
    Follower, GroupOffset, ListNodesResponse as NodeList, ListedGroup, Node, NodeReplacement, NodeStatus,
    OffsetsResponse as Offsets, Partition, Replica, Role, Topic, TopicConfig,
};
pub use admin::{Admin, ConfigChanges, NewTopic};
pub use error::{Error, ErrorKind, Result};
pub use group::assignment::read_share as assigned_partitions;
pub use group::member::{Chunk, GroupMember, MemberOptions};
pub use group::requests::MemberRequests;
pub use partitioner::partition_of_key;
pub use producer::{Commit, Delivery, Producer, ProducerOptions, Record};
pub use reader::{Reader, ReaderOptions, Received, Start};

use routing::Router;
use std::sync::Arc;
use std::time::Duration;

/// How a client talks to its cluster.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// What the client calls itself. Default: `ackord`.
    pub name: String,
    /// How long a connection may take to be made. Default: 3 seconds.
    pub connect_timeout: Duration,
    /// How long a request may take, retries included. Default: 30 seconds.
    pub timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { name: "ackord".to_owned(), connect_timeout: Duration::from_secs(3), timeout: Duration::from_secs(30) }
    }
}

/// A cluster, seen from outside. See the module.
#[derive(Clone, Debug)]
pub struct Client {
    /// Connections, nodes and leaders.
    router: Arc<Router>,
}

impl Client {
    /// Connects to the first of these native listeners (`host:port`) that answers.
    pub async fn connect(bootstrap: &[impl AsRef<str>], options: ClientOptions) -> Result<Self> {
        let bootstrap = bootstrap.iter().map(|address| address.as_ref().to_owned()).collect();
        let router = Router::new(bootstrap, options);
        router.refresh_nodes().await?;
        Ok(Self { router: Arc::new(router) })
    }

    /// Topics and status.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.router))
    }

    /// A producer. An error says which option is out of range.
    pub fn producer(&self, options: ProducerOptions) -> Result<Producer> {
        Producer::new(Arc::clone(&self.router), options)
    }

    /// A member of a consumer group; it joins when it is asked for records.
    #[must_use]
    pub fn group_member(&self, group: &str, topics: &[impl AsRef<str>], options: MemberOptions) -> GroupMember {
        GroupMember::new(Arc::clone(&self.router), group, topics, options)
    }

    /// A member of a consumer group that reads nothing and sends what it is told to.
    #[must_use]
    pub fn member_requests(&self, group: &str, topics: &[impl AsRef<str>], options: &MemberOptions) -> MemberRequests {
        MemberRequests::new(Arc::clone(&self.router), group, topics, options)
    }

    /// A reader of one partition.
    pub async fn reader(&self, topic: &str, partition: u32, start: Start, options: ReaderOptions) -> Result<Reader> {
        Reader::open(Arc::clone(&self.router), topic, partition, start, options).await
    }
}
