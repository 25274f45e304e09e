//! Accepts connections, limits their number, and ends them in an orderly way.

use super::Service;
use super::connection::{self, End};
use crate::broker::Broker;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// How long to wait after a failed accept: usually the process is out of file descriptors, and closing takes a moment.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A bound socket, ready to serve.
#[derive(Debug)]
pub struct Listener<B> {
    /// The socket.
    socket: TcpListener,
    /// What its connections share.
    service: Arc<Service<B>>,
}

impl<B: Broker> Listener<B> {
    /// Binds `address`. Clients are served once [`Listener::serve`] runs.
    pub async fn bind(address: SocketAddr, service: Service<B>) -> io::Result<Self> {
        Ok(Self::over(TcpListener::bind(address).await?, service))
    }

    /// Serves on a socket that is bound already.
    #[must_use]
    pub fn over(socket: TcpListener, service: Service<B>) -> Self {
        let limits = &service.limits;
        assert!(service.request_memory.total() >= limits.request_bytes_max, "the largest request must fit");
        assert!(limits.in_flight_max >= 1 && limits.connections_max >= 1, "limits allow at least one");
        Self { socket, service: Arc::new(service) }
    }

    /// The address it is bound to.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` becomes true (or its sender is gone). Then nothing new is accepted or read, and requests
    /// already read have [`super::Limits::grace`] to be answered.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let stopped = stop.clone();
        loop {
            tokio::select! {
                biased;
                () = told_to_stop(&mut stop) => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut connections, stream, peer, &stopped),
                    Err(error) => {
                        warn!(%error, "accepting a native connection failed");
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
            }
        }
        drop(self.socket);
        let drained = timeout(self.service.limits.grace, async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        });
        if drained.await.is_err() {
            info!(connections = connections.len(), "ending native connections with requests unanswered");
        }
        connections.shutdown().await;
    }

    fn admit(
        &self,
        connections: &mut JoinSet<(SocketAddr, End)>,
        stream: TcpStream,
        peer: SocketAddr,
        stop: &watch::Receiver<bool>,
    ) {
        if connections.len() >= self.service.limits.connections_max {
            warn!(%peer, limit = self.service.limits.connections_max, "too many native connections; closing this one");
            return;
        }
        let (service, stop) = (Arc::clone(&self.service), stop.clone());
        let id = service.connection_ids.next();
        connections.spawn(async move { (peer, connection::serve(stream, service, id, stop).await) });
    }
}

/// Waits for the word to stop, or for nobody being left to say it.
pub(super) async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

fn report(ended: Result<(SocketAddr, End), tokio::task::JoinError>) {
    match ended {
        Ok((peer, End::Hostile(reason))) => warn!(%peer, %reason, "closed a native connection"),
        Ok((peer, end)) => debug!(%peer, reason = %end, "a native connection ended"),
        Err(error) => tracing::error!(%error, "serving a native connection failed"),
    }
}
