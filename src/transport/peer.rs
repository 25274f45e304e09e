//! The connection to one peer, opened by this node and opened again for as long as the peer exists.
//!
//! One task each. It sends what waits in the peer's queue, and reads outcomes and signs of life. While there is no
//! connection, what was put into the queue lives until the next attempt has failed. Attempts grow rarer, until the peer
//! connects to this node.

use super::admission::{Admission, Met};
use super::queue::Queue;
use super::translate::outcome_from_wire;
use super::wire::{self, End};
use super::{Inbox, Leaders, Options, PeerStates, Registered};
use crate::proto::peer::frame::Body;
use crate::proto::{PEER_FRAME_BYTES_MAX, peer};
use crate::types::NodeId;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

/// The least pause between two attempts: two nodes that let each other in and then break off again and again must not
/// keep each other busy.
const REDIAL_AFTER: Duration = Duration::from_millis(20);

/// What a connection to a peer needs.
pub struct Peer {
    /// The peer.
    pub node: NodeId,
    /// Where all nodes are.
    pub addresses: watch::Receiver<BTreeMap<NodeId, String>>,
    /// What waits for it.
    pub queue: Arc<Queue>,
    /// How it stands.
    pub states: Arc<PeerStates>,
    /// Who may be talked to.
    pub admission: Arc<Admission>,
    /// Told when the connection breaks.
    pub inbox: Arc<dyn Inbox>,
    /// Asked who leads what when the connection begins.
    pub leaders: Arc<dyn Leaders>,
    /// Limits and timing.
    pub options: Options,
}

impl Peer {
    /// Connects, for ever.
    pub async fn run(self) {
        let arrival = self.states.arrival(self.node);
        let mut failures = 0;
        // Who is only greeted anew is there all the while.
        let mut greeting_anew = None;
        loop {
            let said = self.admission.own_registration();
            let connected = self.connect().await;
            let before = greeting_anew.take();
            let end = match connected {
                Ok((stream, met)) => {
                    let since = Instant::now();
                    let there = before.unwrap_or_else(|| self.states.connected(self.node));
                    let end = tokio::select! {
                        end = self.talk(stream) => end,
                        () = self.outdated(said, met) => {
                            greeting_anew = Some(there);
                            End::Unwanted("a registration is newer than the greetings".to_owned())
                        }
                    };
                    self.inbox.unreachable(self.node);
                    // A connection that breaks at once is no better than none.
                    if since.elapsed() > self.options.backoff_max {
                        failures = 0;
                    }
                    end
                }
                Err(end) => end,
            };
            self.queue.clear();
            self.report(&end);
            pause(backoff(&self.options, failures), &arrival).await;
            failures = (failures + 1).min(30);
        }
    }

    /// A problem that repeats is said once: a first one may be no more than a restart.
    fn report(&self, end: &End) {
        let problem = end.to_string();
        match self.states.failed(self.node, &problem) {
            2 => tracing::warn!(node = self.node.0, %problem, "no connection to a peer"),
            times => tracing::debug!(node = self.node.0, %problem, times, "no connection to a peer"),
        }
    }

    async fn connect(&self) -> Result<(TcpStream, Met), End> {
        let known = || self.addresses.borrow().get(&self.node).cloned();
        let address = self.admission.claimed_address(self.node).or_else(known).unwrap_or_default();
        let greeting = async {
            let mut stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            let met = self.greet(&mut stream).await?;
            Ok((stream, met))
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer"));
        timeout(self.options.greeting_max, greeting).await.unwrap_or_else(|_| Err(late().into()))
    }

    async fn greet(&self, stream: &mut TcpStream) -> Result<Met, End> {
        wire::write_short(stream, Body::Hello(self.admission.hello(self.node))).await?;
        match wire::read(stream, wire::GREETING_BYTES_MAX, self.options.greeting_max).await? {
            Body::Welcome(welcome) => self.admission.check_welcome(self.node, &welcome).map_err(End::Unwanted),
            Body::Refused(peer::Refused { reason }) => Err(End::Refused(reason)),
            _ => Err(End::Hostile("neither a welcome nor a refusal".to_owned())),
        }
    }

    async fn talk(&self, stream: TcpStream) -> End {
        tracing::info!(node = self.node.0, "connected to a peer");
        self.queue.announce(&self.leaders.current());
        let (reading, writing) = stream.into_split();
        tokio::select! {
            end = self.listen(reading) => end,
            end = self.speak(writing) => end.into(),
        }
    }

    /// Ends when the greetings do not hold any more: this node is registered otherwise than it has said to a peer that
    /// does not know it, and may have no other way to learn it; or the peer has another disk than the one that was met,
    /// and maybe elsewhere.
    async fn outdated(&self, said: Option<Registered>, met: Met) {
        let holds = || met.knows_us || self.admission.own_registration() == said;
        while holds() && !self.admission.knows_another(met.peer) {
            sleep(self.options.alive_every).await;
        }
    }

    /// Sends what waits. Ends when the socket fails; that nobody reads is `listen`'s to notice.
    async fn speak(&self, mut stream: OwnedWriteHalf) -> io::Error {
        loop {
            let sent = match self.queue.take() {
                Some(body) => match wire::encode(body) {
                    Some(frame) => stream.write_all(&frame).await,
                    None => unreachable!("the queue takes nothing in that is longer than a frame"),
                },
                None => match timeout(self.options.alive_every, self.queue.filled()).await {
                    Ok(()) => Ok(()),
                    Err(_) => wire::write_short(&mut stream, Body::Alive(peer::Alive {})).await,
                },
            };
            if let Err(error) = sent {
                return error;
            }
        }
    }

    async fn listen(&self, mut stream: OwnedReadHalf) -> End {
        loop {
            match wire::read(&mut stream, PEER_FRAME_BYTES_MAX, self.options.silence_max).await {
                Ok(Body::Alive(peer::Alive {})) => {}
                Ok(Body::Outcome(outcome)) => self.queue.decided(outcome.id, outcome_from_wire(outcome)),
                Ok(_) => return End::Hostile("not something that is said to whoever connected".to_owned()),
                Err(end) => return end,
            }
        }
    }
}

/// Waits, but not much longer once the peer has connected to this node: it can most likely be reached, too.
async fn pause(whole: Duration, arrival: &Notify) {
    let least = whole.min(REDIAL_AFTER);
    sleep(least).await;
    let _arrived = timeout(whole - least, arrival.notified()).await;
}

/// Doubles with every failure, up to the limit; somewhere between half and all of it, so that nodes that failed
/// together do not come back together.
fn backoff(options: &Options, failures: u32) -> Duration {
    let whole = options.backoff_min.saturating_mul(1 << failures.min(16)).min(options.backoff_max);
    let mut chance = [0; 1];
    // Without randomness the pause is only not spread.
    let _unspread = getrandom::fill(&mut chance);
    whole / 2 + whole.mul_f64(f64::from(chance[0]) / 512.0)
}
