//! The Kafka listener: what is served on its socket.

use super::Service;
use super::connection::{self, End};
use crate::broker::Broker;
use crate::edge::Protocol;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A bound socket, ready to serve.
pub type Listener<B> = crate::edge::Listener<Service<B>>;

impl<B: Broker> Protocol for Service<B> {
    type End = End;

    const NAME: &'static str = "kafka";

    fn connections_max(&self) -> usize {
        self.limits.connections_max
    }

    fn grace(&self) -> Duration {
        self.limits.grace
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, stop: watch::Receiver<bool>) -> End {
        assert!(self.request_memory.total() >= self.limits.request_bytes_max, "the largest request must fit");
        assert!(self.limits.in_flight_max >= 1, "limits allow at least one");
        let id = self.connection_ids.next();
        connection::serve(stream, self, id, stop).await
    }

    fn is_hostile(end: &End) -> bool {
        matches!(end, End::Hostile(_))
    }
}
