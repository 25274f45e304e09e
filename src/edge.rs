//! What the edges share: accepting connections, limiting their number, ending them in an orderly way, and reading
//! length-prefixed frames within the node's memory (`frame`).
//!
//! An edge says what it serves by implementing [`Protocol`]; this room knows no protocol.

pub mod frame;

use std::fmt;
use std::future::Future;
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

/// What is served to every connection.
pub trait Protocol: Send + Sync + 'static {
    /// How a connection came to its end.
    type End: fmt::Display + Send + 'static;

    /// What it is called in the log.
    const NAME: &'static str;

    /// Connections open at once; one more is closed at once.
    fn connections_max(&self) -> usize;

    /// How long unanswered requests may take once the listener stops.
    fn grace(&self) -> Duration;

    /// Serves one connection to its end, or until `stop` becomes true and what was asked is answered.
    fn serve(self: Arc<Self>, stream: TcpStream, stop: watch::Receiver<bool>)
    -> impl Future<Output = Self::End> + Send;

    /// Whether the other side broke the protocol, which its operator may want to know.
    fn is_hostile(end: &Self::End) -> bool;
}

/// A bound socket, ready to serve.
#[derive(Debug)]
pub struct Listener<P> {
    /// The socket.
    socket: TcpListener,
    /// What its connections share.
    protocol: Arc<P>,
}

impl<P: Protocol> Listener<P> {
    /// Binds `address`. Clients are served once [`Listener::serve`] runs.
    pub async fn bind(address: SocketAddr, protocol: P) -> io::Result<Self> {
        Ok(Self::over(TcpListener::bind(address).await?, protocol))
    }

    /// Serves on a socket that is bound already.
    #[must_use]
    pub fn over(socket: TcpListener, protocol: P) -> Self {
        assert!(protocol.connections_max() >= 1, "limits allow at least one");
        Self { socket, protocol: Arc::new(protocol) }
    }

    /// The address it is bound to.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` becomes true (or its sender is gone). Then nothing new is accepted or read, and requests
    /// already read have [`Protocol::grace`] to be answered.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let stopped = stop.clone();
        loop {
            tokio::select! {
                biased;
                () = told_to_stop(&mut stop) => break,
                Some(ended) = connections.join_next() => report::<P>(ended),
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut connections, stream, peer, &stopped),
                    Err(error) => {
                        warn!(%error, protocol = P::NAME, "accepting a connection failed");
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
            }
        }
        drop(self.socket);
        let drained = timeout(self.protocol.grace(), async {
            while let Some(ended) = connections.join_next().await {
                report::<P>(ended);
            }
        });
        if drained.await.is_err() {
            let connections = connections.len();
            info!(connections, protocol = P::NAME, "ending connections with requests unanswered");
        }
        connections.shutdown().await;
    }

    fn admit(
        &self,
        connections: &mut JoinSet<(SocketAddr, P::End)>,
        stream: TcpStream,
        peer: SocketAddr,
        stop: &watch::Receiver<bool>,
    ) {
        let limit = self.protocol.connections_max();
        if connections.len() >= limit {
            warn!(%peer, limit, protocol = P::NAME, "too many connections; closing this one");
            return;
        }
        let (protocol, stop) = (Arc::clone(&self.protocol), stop.clone());
        connections.spawn(async move { (peer, protocol.serve(stream, stop).await) });
    }
}

/// Waits for the word to stop, or for nobody being left to say it.
pub async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

fn report<P: Protocol>(ended: Result<(SocketAddr, P::End), tokio::task::JoinError>) {
    match ended {
        Ok((peer, end)) if P::is_hostile(&end) => {
            warn!(%peer, reason = %end, protocol = P::NAME, "closed a connection");
        }
        Ok((peer, end)) => debug!(%peer, reason = %end, protocol = P::NAME, "a connection ended"),
        Err(error) => tracing::error!(%error, protocol = P::NAME, "serving a connection failed"),
    }
}
