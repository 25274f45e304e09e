//! The sockets of a node, and what is served on them.

use super::data::SharedEngine;
use super::run::ServerError;
use crate::broker::node::NodeBroker;
use crate::broker::{ByteBudget, ConnectionIds};
use crate::config::{Config, HostPort};
use crate::kafka;
use crate::native;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The sockets of a node, bound.
pub(super) struct Sockets {
    /// For Kafka clients.
    pub kafka: TcpListener,
    /// For native clients.
    pub native: TcpListener,
    /// For metrics and health.
    pub http: TcpListener,
    /// For the other nodes.
    pub peer: TcpListener,
}

impl Sockets {
    /// Binds them all.
    pub async fn bind(config: &Config) -> Result<Self, ServerError> {
        Ok(Self {
            kafka: bind("kafka", &config.listeners.kafka).await?,
            native: bind("native", &config.listeners.native).await?,
            http: bind("http", &config.listeners.http).await?,
            peer: bind("peer", &config.listeners.peer).await?,
        })
    }

    /// Where they are.
    pub fn addresses(&self) -> Result<Addresses, ServerError> {
        Ok(Addresses {
            kafka: self.kafka.local_addr()?,
            native: self.native.local_addr()?,
            http: self.http.local_addr()?,
            peer: self.peer.local_addr()?,
        })
    }
}

/// Where a node is reached.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// By Kafka clients.
    pub kafka: SocketAddr,
    /// By native clients.
    pub native: SocketAddr,
    /// By Prometheus and whoever watches over the node.
    pub http: SocketAddr,
    /// By other nodes.
    pub peer: SocketAddr,
}

async fn bind(listener: &'static str, address: &HostPort) -> Result<TcpListener, ServerError> {
    let bound = TcpListener::bind((address.host.as_str(), address.port)).await;
    bound.map_err(|error| ServerError::Listen { listener, address: address.to_string(), error })
}

/// What the edges need; memory for requests and numbers of connections are shared between them.
pub(super) struct Edges {
    /// The Kafka edge.
    pub kafka: kafka::Service<NodeBroker<SharedEngine>>,
    /// The native edge.
    pub native: native::Service<NodeBroker<SharedEngine>>,
}

impl Edges {
    /// The services of `broker`.
    pub fn new(config: &Config, broker: NodeBroker<SharedEngine>) -> Self {
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
        let limits = native::Limits {
            request_bytes_max: request_bytes as usize,
            connections_max: connections,
            ..native::Limits::default()
        };
        Self { kafka, native: native::Service { broker, limits, request_memory, connection_ids } }
    }
}
