//! The Kafka edge: bytes of the Kafka protocol in, bytes out; in between the vocabulary of [`crate::broker`].
//!
//! ```text
//! listener ─ accepts ─▶ connection ─ frame ─▶ guard ─ request ─▶ api/<one file per API> ─▶ Broker
//!                           ◀──────────── reply (chunks, vectored) ◀───────┘
//! ```
//!
//! * `listener`: accepts, limits the number of connections, stops gracefully.
//! * `connection`: one client. Admits produces in the order they came, answers strictly in the order asked.
//! * `caller`: who is at the other end, and how long it may be kept waiting.
//! * `guard`: walks a request's bytes against its shape before any other parser sees them. The crate that decodes
//!   allocates what the wire tells it to; nothing reaches it that the guard has not bounded.
//! * `request`: finds a frame's API and version, and who answers it.
//! * `api`: one file per API, with the versions it serves at its top. The ApiVersions answer is made from these.
//! * `reply`: an answer as chunks, so that stored batches are sent without a copy.
//! * `error_codes`: the only place that knows Kafka's error codes; `translate` does names, ids and epochs.
//!
//! A request that breaks the protocol closes its connection, as in Kafka. It never ends the process, and never delays
//! another connection.

pub mod api;
pub mod caller;
pub mod connection;
pub mod error_codes;
pub mod guard;
pub mod listener;
pub mod reply;
pub mod request;
pub mod translate;

use crate::broker::{ByteBudget, ConnectionIds};
use std::sync::Arc;
use std::time::Duration;

/// What one Kafka listener and its clients may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request in bytes (Kafka: `socket.request.max.bytes`).
    pub request_bytes_max: usize,
    /// Requests of one connection that may be unanswered; it is read no further until one is answered.
    pub in_flight_max: usize,
    /// Connections open at once; one more is closed at once.
    pub connections_max: usize,
    /// How long a connection may be silent with nothing unanswered (Kafka: `connections.max.idle.ms`).
    pub idle: Duration,
    /// How long a request that has begun to arrive, or an answer on its way out, may go without a byte moving.
    pub stall: Duration,
    /// How long unanswered requests may take once the listener stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 100 << 20,
            in_flight_max: 256,
            connections_max: 4096,
            idle: Duration::from_secs(10 * 60),
            stall: Duration::from_secs(30),
            grace: Duration::from_secs(10),
        }
    }
}

/// What every connection of a listener shares.
#[derive(Debug)]
pub struct Service<B> {
    /// Who does the work.
    pub broker: Arc<B>,
    /// What clients may use.
    pub limits: Limits,
    /// Bytes of requests in memory, over all connections of the node; at least `limits.request_bytes_max`.
    pub request_memory: ByteBudget,
    /// Where connections get their numbers from, over all edges of the node.
    pub connection_ids: ConnectionIds,
}
