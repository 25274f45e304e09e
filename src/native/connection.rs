//! One client's connection.
//!
//! The reading loop takes frames and begins them in the order they came; what is then left to wait for runs in a task
//! of its own, and the writing loop sends answers as they become ready. A request's place among those in flight, and
//! the memory of its frame, are given back when its answer has been written.
//!
//! A frame that breaks the protocol ends the reading; what was asked before it is still answered.

use super::Service;
use super::answers::{self, Answer, Caller};
use crate::broker::{Broker, ConnectionId, Reservation};
use crate::edge::frame::{self, FrameError};
use crate::edge::told_to_stop;
use crate::proto::{self, native};
use bytes::{Buf, Bytes};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
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
    Hostile(#[from] proto::FrameError),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An encoded answer, and what it gives back once it is written.
struct Ready {
    /// The frame.
    frame: Bytes,
    /// What the answer's content occupies, where the broker counts it.
    _content: Option<Reservation>,
    /// The memory its request occupies, if it was not given back before.
    _memory: Option<Reservation>,
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
    if let Err(error) = stream.set_nodelay(true) {
        return error.into();
    }
    let caller = Caller { connection: id, host: stream.peer_addr().ok().map(|address| address.ip()) };
    let (read_half, mut write_half) = stream.into_split();
    let places = Arc::new(Semaphore::new(service.limits.in_flight_max));
    let (ready, to_write) = mpsc::unbounded_channel(); // bounded by the places
    let stall = service.limits.stall;
    let socket = BufReader::with_capacity(READ_BUFFER_BYTES, read_half);
    let reader = Reader { socket, service, caller, places, ready, unanswered: JoinSet::new() };
    let reading = async {
        match reader.run(stop).await {
            end @ (End::Hostile(_) | End::Stopped) => Ok(end), // what was asked before is still answered
            end => Err(end),
        }
    };
    match tokio::try_join!(reading, write_answers(to_write, &mut write_half, stall)) {
        Ok((end, ())) | Err(end) => end,
    }
}

/// The reading loop's state.
struct Reader<B> {
    /// Where frames come from.
    socket: BufReader<OwnedReadHalf>,
    /// What the listener's connections share.
    service: Arc<Service<B>>,
    /// Who asks on this connection.
    caller: Caller,
    /// As many as there may be unanswered requests.
    places: Arc<Semaphore>,
    /// Where answers go.
    ready: mpsc::UnboundedSender<Ready>,
    /// Requests that have begun. They end with the connection; what they had written stays written.
    unanswered: JoinSet<()>,
}

impl<B: Broker> Reader<B> {
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> End {
        loop {
            let more = tokio::select! {
                biased;
                () = told_to_stop(&mut stop) => Err(End::Stopped),
                arrived = self.bytes_arrive() => arrived,
            };
            let taken = match more {
                Ok(()) => self.take_request().await,
                Err(end) => Err(end),
            };
            if let Err(end) = taken {
                if matches!(end, End::Hostile(_) | End::Stopped) {
                    while self.unanswered.join_next().await.is_some() {}
                }
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
        while self.unanswered.try_join_next().is_some() {}
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        let service = &self.service;
        let length_of = |prefix| proto::frame_length(prefix, service.limits.request_bytes_max);
        let (frame, memory) =
            frame::read(&mut self.socket, length_of, service.limits.stall, &service.request_memory).await?;
        let request = proto::decode_request(frame)?;
        let id = request.id;
        let answer = answers::begin(service, self.caller, request, memory).await;
        let ready = self.ready.clone();
        self.unanswered.spawn(async move {
            let mut answer = answer.await;
            let memory = answer.memory.take();
            let (frame, content) = encode(id, answer);
            // Nobody writes any more: the connection has ended.
            drop(ready.send(Ready { frame, _content: content, _memory: memory, _place: place }));
        });
        Ok(())
    }
}

fn encode(id: u64, answer: Answer) -> (Bytes, Option<Reservation>) {
    let response = native::Response { id, body: Some(answer.body) };
    match proto::encode_frame(&response, u32::MAX as usize) {
        Ok(frame) => (frame, answer.held),
        Err(error) => {
            let body = native::response::Body::Error(super::errors::internal(&error.to_string()));
            let small = native::Response { id, body: Some(body) };
            (proto::encode_frame(&small, u32::MAX as usize).expect("an error fits into a frame"), None)
        }
    }
}

impl From<FrameError<proto::FrameError>> for End {
    fn from(error: FrameError<proto::FrameError>) -> Self {
        match error {
            FrameError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            FrameError::Io(error) => Self::Io(error),
            FrameError::Hostile(hostile) => Self::Hostile(hostile),
            FrameError::Stalled => Self::Stalled,
        }
    }
}

/// The writing loop: answers as they become ready, small ones together.
async fn write_answers<W: AsyncWrite + Unpin>(
    mut to_write: mpsc::UnboundedReceiver<Ready>,
    socket: &mut W,
    stall: Duration,
) -> Result<(), End> {
    let mut gathered = Vec::with_capacity(GATHERED_BYTES);
    while let Some(mut next) = to_write.recv().await {
        while next.frame.len() + gathered.len() <= GATHERED_BYTES {
            gathered.extend_from_slice(&next.frame);
            next.frame.clear();
            match to_write.try_recv() {
                Ok(more) => next = more,
                Err(_) => break,
            }
        }
        let mut bytes = Buf::chain(&gathered[..], &mut next.frame);
        while bytes.has_remaining() {
            let written = timeout(stall, socket.write_buf(&mut bytes)).await.map_err(|_| End::Stalled)??;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        gathered.clear();
    }
    Ok(())
}
