//! The native edge: frames of `proto/ackord.proto` in, frames out; in between the vocabulary of [`crate::broker`].
//!
//! ```text
//! listener ─ accepts ─▶ connection ─ frame ─▶ answers/<produce, read, status, admin> ─▶ Broker
//!                           ◀───────── whichever answer is ready ◀─────────┘
//! ```
//!
//! * `listener`: accepts, limits the number of connections, stops gracefully.
//! * `connection`: one client. Requests begin in the order they came: a produce is admitted before the next frame is
//!   read, which is both the order of its partition and the backpressure. Answers leave as they become ready.
//! * `answers`: one file per kind of request.
//! * `errors`: the only place that knows the protocol's error codes.
//!
//! `docs/native-protocol.md` is what clients are promised. A frame that breaks the protocol closes its connection; it
//! never ends the process, and never delays another connection.

pub mod answers;
pub mod connection;
pub mod errors;
pub mod listener;

use crate::broker::{ByteBudget, ConnectionIds};
use std::sync::Arc;
use std::time::Duration;

/// What one native listener and its clients may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest request in bytes, its length prefix not counted.
    pub request_bytes_max: usize,
    /// Requests of one connection that may be unanswered; it is read no further until one is answered.
    pub in_flight_max: usize,
    /// Connections open at once; one more is closed at once.
    pub connections_max: usize,
    /// How long a connection may be silent with nothing unanswered.
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
            in_flight_max: 1024,
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
