//! Who asks: a connection, where it comes from, and how long it may be kept waiting.

use crate::broker::{ConnectionId, ErrorKind, Result};
use crate::edge::told_to_stop;
use std::future::Future;
use std::net::IpAddr;
use tokio::sync::watch;

/// The client at the other end of a connection.
#[derive(Debug)]
pub struct Caller {
    /// Its connection.
    pub connection: ConnectionId,
    /// Where it is.
    pub host: IpAddr,
    /// Becomes true when the listener stops.
    pub stop: watch::Receiver<bool>,
}

impl Caller {
    /// Where it is, as Kafka shows it: Java's `InetAddress.toString` of an address without a name.
    #[must_use]
    pub fn host_text(&self) -> String {
        format!("/{}", self.host.to_canonical())
    }

    /// Waits for other members of a group, which may take minutes: a listener that stops does not wait for them. Its
    /// node will not coordinate the group much longer, so that is what the member is told; it asks again elsewhere.
    pub async fn wait_for_members<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            answer = answer => answer,
            () = told_to_stop(&mut stop) => Err(ErrorKind::NotCoordinator.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_shown_as_kafka_shows_them() {
        let (_, stop) = watch::channel(false);
        let mut caller = Caller { connection: ConnectionId(1), host: IpAddr::from([127, 0, 0, 1]), stop };
        assert_eq!(caller.host_text(), "/127.0.0.1");
        caller.host = "::ffff:10.0.0.7".parse().expect("an address");
        assert_eq!(caller.host_text(), "/10.0.0.7", "a socket for both families");
    }
}
