//! One client's connection.
//!
//! Two loops in one task. The reading loop takes frames, lets the guard look at them and begins them in the order they
//! came: a produce is admitted before the next frame is read, which is both the order of its partitions and the
//! backpressure. The writing loop finishes them in the same order, so answers leave in the order of the questions.
//! Produces overlap while they wait for their commit; everything else is done when its turn to be answered has come,
//! one at a time, as in Kafka, so a connection's memory is bounded by its frames and one answer.
//!
//! That holds for members of consumer groups, too: what follows a JoinGroup on its connection waits until the group's
//! next generation is made up. Kafka reads no further at all until the answer has left, and clients count on it: Java's
//! and librdkafka keep a connection to the coordinator for nothing else, and bound a JoinGroup by the rebalance timeout
//! instead of their usual one. And what a client does in order, such as to store its offsets and
//! then leave, must not happen in another. A client that leaves while it waits takes its answer to come with it.
//!
//! A request that breaks the protocol ends the reading; what was asked before it is still answered.

use super::Service;
use super::caller::Caller;
use super::guard::{self, Hostile};
use super::reply::{Chunks, Reply};
use super::request::{Pending, Request};
use crate::broker::{Broker, ConnectionId};
use crate::edge::frame::{self, FrameError};
use crate::edge::told_to_stop;
use bytes::Buf;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

/// Small frames are read several at a time through a buffer of this size; large ones bypass it.
const READ_BUFFER_BYTES: usize = 16 << 10;

/// Answers that are ready are sent together up to about this size.
const GATHERED_BYTES: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The client closed it.
    #[error("closed by the client")]
    Closed,
    /// The listener stops.
    #[error("the listener stops")]
    Stopped,
    /// Nothing was asked for too long.
    #[error("idle")]
    Idle,
    /// The client does not read its answers, or does not finish its request.
    #[error("stalled")]
    Stalled,
    /// The client broke the protocol.
    #[error(transparent)]
    Hostile(#[from] Hostile),
    /// A produce with acks=0 failed.
    #[error("a produce that wanted no answer failed")]
    ProduceFailed,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A request on its way to its answer.
struct InFlight {
    /// The answer to come, with the memory that the request occupies.
    answer: Pending,
    /// Its place among the connection's unanswered requests.
    _place: OwnedSemaphorePermit,
}

/// Serves a client until it leaves, breaks the protocol, or `stop` says so.
pub async fn serve<B: Broker>(
    stream: TcpStream,
    service: Arc<Service<B>>,
    id: ConnectionId,
    stop: watch::Receiver<bool>,
) -> End {
    let host = match stream.set_nodelay(true).and_then(|()| stream.peer_addr()) {
        Ok(peer) => peer.ip(),
        Err(error) => return error.into(),
    };
    let caller = Arc::new(Caller { connection: id, host, stop: stop.clone() });
    let (read_half, mut write_half) = stream.into_split();
    let places = Arc::new(Semaphore::new(service.limits.in_flight_max));
    let (begun, to_answer) = mpsc::unbounded_channel(); // bounded by the places
    let stall = service.limits.stall;
    let reader =
        Reader { socket: BufReader::with_capacity(READ_BUFFER_BYTES, read_half), service, caller, places, begun };
    let reading = async {
        match reader.run(stop).await {
            end @ (End::Hostile(_) | End::Stopped) => Ok(end), // what was asked before is still answered
            end => Err(end),
        }
    };
    match tokio::try_join!(reading, write_answers(to_answer, &mut write_half, stall)) {
        Ok((end, ())) | Err(end) => end,
    }
}

/// The reading loop's state.
struct Reader<B> {
    /// Where frames come from.
    socket: BufReader<OwnedReadHalf>,
    /// What the listener's connections share.
    service: Arc<Service<B>>,
    /// Who asks.
    caller: Arc<Caller>,
    /// As many as there may be unanswered requests.
    places: Arc<Semaphore>,
    /// Where begun requests go to be answered.
    begun: mpsc::UnboundedSender<InFlight>,
}

impl<B: Broker> Reader<B> {
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> End {
        loop {
            let more = tokio::select! {
                biased;
                () = told_to_stop(&mut stop) => Err(End::Stopped),
                arrived = self.bytes_arrive() => arrived,
            };
            if let Err(end) = more {
                return end;
            }
            if let Err(end) = self.take_request().await {
                return end;
            }
        }
    }

    /// Waits for the first byte of a request. Waiting for an answer is not idleness.
    async fn bytes_arrive(&mut self) -> Result<(), End> {
        loop {
            match timeout(self.service.limits.idle, self.socket.fill_buf()).await {
                Ok(Ok([])) => return Err(End::Closed),
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if self.places.available_permits() == self.service.limits.in_flight_max => {
                    return Err(End::Idle);
                }
                Err(_) => {}
            }
        }
    }

    async fn take_request(&mut self) -> Result<(), End> {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        let service = &self.service;
        let length_of = |prefix| guard::frame_length(prefix, service.limits.request_bytes_max);
        let (frame, memory) =
            frame::read(&mut self.socket, length_of, service.limits.stall, &service.request_memory).await?;
        let answer = Request::read(frame)?.begin(service, &self.caller, memory).await?;
        let request = InFlight { answer, _place: place };
        self.begun.send(request).map_err(|_| End::Closed)
    }
}

impl From<FrameError<Hostile>> for End {
    fn from(error: FrameError<Hostile>) -> Self {
        match error {
            FrameError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            FrameError::Io(error) => Self::Io(error),
            FrameError::Hostile(hostile) => Self::Hostile(hostile),
            FrameError::Stalled => Self::Stalled,
        }
    }
}

/// The writing loop: answers in the order of the requests, several in one write if they are ready.
async fn write_answers<W: AsyncWrite + Unpin>(
    mut to_answer: mpsc::UnboundedReceiver<InFlight>,
    socket: &mut W,
    stall: Duration,
) -> Result<(), End> {
    let mut waiting: Option<InFlight> = None;
    let mut gathered = Chunks::default();
    loop {
        let next = match waiting.take() {
            Some(next) => Some(next),
            None => to_answer.recv().await,
        };
        let Some(mut next) = next else { return Ok(()) };
        let mut end = gather(&mut gathered, (&mut next.answer).await);
        drop(next);
        while end.is_none() && gathered.remaining() < GATHERED_BYTES {
            let Ok(mut next) = to_answer.try_recv() else { break };
            match std::future::poll_fn(|context| Poll::Ready(next.answer.as_mut().poll(context))).await {
                Poll::Ready(reply) => end = gather(&mut gathered, reply),
                Poll::Pending => {
                    waiting = Some(next);
                    break;
                }
            }
        }
        write(socket, &mut gathered, stall).await?;
        if let Some(end) = end {
            return Err(end);
        }
    }
}

/// Adds a reply to what goes out next, or says why the connection ends after that.
fn gather(gathered: &mut Chunks, reply: Result<Reply, Hostile>) -> Option<End> {
    match reply {
        Ok(Reply::Send(chunks)) => gathered.append(chunks),
        Ok(Reply::Silence) => {}
        Ok(Reply::Close) => return Some(End::ProduceFailed),
        Err(hostile) => return Some(End::Hostile(hostile)),
    }
    None
}

async fn write<W: AsyncWrite + Unpin>(socket: &mut W, chunks: &mut Chunks, stall: Duration) -> Result<(), End> {
    while chunks.has_remaining() {
        let written = timeout(stall, socket.write_buf(chunks)).await.map_err(|_| End::Stalled)??;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
    }
    chunks.clear();
    Ok(())
}
