//! One connection to one node: requests go out in the order of [`Connection::send`], answers are matched by id.
//!
//! When the connection ends, every unanswered request is told so; its outcome is unknown. A request given to a
//! connection that has already ended was certainly not sent.

use super::error::{Error, Result};
use crate::proto::native::{self, request, response};
use crate::proto::{self, LENGTH_BYTES, PROTOCOL};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 512 << 20;
/// What is allocated for an answer of which no byte has arrived yet.
const FIRST_BYTES: usize = 1 << 20;
/// Small frames are read and written several at a time through buffers of this size.
const BUFFER_BYTES: usize = 64 << 10;
/// A server answers within the request's time; the network gets this much more.
const PATIENCE: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    /// What both loops and the senders share.
    shared: Arc<Shared>,
    /// The longest request that the server reads, in bytes.
    frame_bytes_max: usize,
    /// Ends with the connection.
    reading: JoinHandle<()>,
}

/// What both loops and the senders share.
#[derive(Debug)]
struct Shared {
    /// The state of the requests; a `Mutex`, so that ids and frames go out in one order.
    requests: Mutex<Requests>,
}

/// Requests on their way.
struct Requests {
    /// The next request's id.
    next_id: u64,
    /// Where frames go; none once the connection has ended.
    frames: Option<mpsc::UnboundedSender<Bytes>>,
    /// Who waits for which answer.
    unanswered: BTreeMap<u64, oneshot::Sender<Result<response::Body>>>,
}

impl fmt::Debug for Requests {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Requests").field("unanswered", &self.unanswered.len()).finish_non_exhaustive()
    }
}

/// An answer to come.
#[derive(Debug)]
pub(super) struct Reply {
    /// The request.
    id: u64,
    /// Where its answer arrives.
    answer: oneshot::Receiver<Result<response::Body>>,
    /// When its outcome counts as unknown.
    due: Instant,
    /// Where it is to be forgotten.
    shared: Arc<Shared>,
}

impl Reply {
    /// Waits for the answer. May be dropped and called again.
    pub(super) async fn wait(&mut self) -> Result<response::Body> {
        match timeout_at(self.due, &mut self.answer).await {
            Ok(Ok(Ok(response::Body::Error(error)))) => Err(error.into()),
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::lost("it was closed")),
            Err(_) => {
                self.shared.lock().unanswered.remove(&self.id);
                Err(Error::timed_out())
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits that no answer will come.
    fn end(&self, why: &str) {
        let mut requests = self.lock();
        requests.frames = None;
        let unanswered = std::mem::take(&mut requests.unanswered);
        drop(requests);
        for waiting in unanswered.into_values() {
            drop(waiting.send(Err(Error::lost(why))));
        }
    }
}

impl Connection {
    /// Connects and says hello.
    pub(super) async fn open(address: &str, name: &str, within: Duration) -> Result<Self> {
        let failed = |error: &dyn fmt::Display| Error::unreachable(format!("{address}: {error}"));
        let stream = timeout(within, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| failed(&"no connection in time"))?.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let (read_half, write_half) = stream.into_split();
        let (frames, to_send) = mpsc::unbounded_channel(); // bounded by what callers have in flight
        let requests = Requests { next_id: 1, frames: Some(frames), unanswered: BTreeMap::new() };
        let shared = Arc::new(Shared { requests: Mutex::new(requests) });
        tokio::spawn(write(to_send, write_half));
        let readers_share = Arc::clone(&shared);
        let reading = tokio::spawn(async move {
            let end = read(read_half, &readers_share).await;
            readers_share.end(&end);
        });
        let mut connection = Self { shared, frame_bytes_max: 1 << 20, reading };
        let hello = native::HelloRequest {
            protocol: PROTOCOL,
            client_name: name.to_owned(),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let answer = connection.send(request::Body::Hello(hello), within)?.wait().await;
        match answer.map_err(|error| failed(&error))? {
            response::Body::Hello(hello) if hello.protocol == PROTOCOL => {
                connection.frame_bytes_max = hello.frame_bytes_max as usize;
                Ok(connection)
            }
            _ => Err(failed(&"not a node that speaks this version of the native protocol")),
        }
    }

    /// Whether requests can still be sent.
    pub(super) fn is_open(&self) -> bool {
        self.shared.lock().frames.is_some()
    }

    /// Sends a request behind those sent before; `time` is how long the server may try. An error: it was not sent.
    pub(super) fn send(&self, body: request::Body, time: Duration) -> Result<Reply> {
        let timeout_ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1);
        let mut requests = self.shared.lock();
        let id = requests.next_id;
        let request = native::Request { id, timeout_ms, body: Some(body) };
        let frame = proto::encode_frame(&request, self.frame_bytes_max)
            .map_err(|error| Error::usage(format!("the request does not fit into the server's frames: {error}")))?;
        let ended = || Error::unreachable("the connection has ended".to_owned());
        requests.frames.as_ref().ok_or_else(ended)?.send(frame).map_err(|_| ended())?;
        requests.next_id += 1;
        let (waiting, answer) = oneshot::channel();
        requests.unanswered.insert(id, waiting);
        drop(requests);
        Ok(Reply { id, answer, due: Instant::now() + time + PATIENCE, shared: Arc::clone(&self.shared) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading.abort();
        self.shared.end("it was closed");
    }
}

/// Writes frames until nobody can send any more, or the connection breaks; then the reading loop notices, too.
async fn write(mut frames: mpsc::UnboundedReceiver<Bytes>, socket: OwnedWriteHalf) {
    let mut socket = BufWriter::with_capacity(BUFFER_BYTES, socket);
    while let Some(frame) = frames.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            if socket.write_all(&frame).await.is_err() {
                return;
            }
            next = frames.try_recv().ok();
        }
        if socket.flush().await.is_err() {
            return;
        }
    }
    drop(socket.shutdown().await);
}

/// Hands out answers until the connection ends; returns why.
async fn read(socket: OwnedReadHalf, shared: &Shared) -> String {
    let mut socket = BufReader::with_capacity(BUFFER_BYTES, socket);
    loop {
        match read_frame(&mut socket).await {
            Ok(frame) => match proto::decode_response(frame) {
                Ok(native::Response { id, body }) => {
                    let answer = body.ok_or_else(|| Error::protocol("an answer without a body this client knows"));
                    if let Some(waiting) = shared.lock().unanswered.remove(&id) {
                        drop(waiting.send(answer)); // nobody waits any more: their time ran out
                    }
                }
                Err(error) => return error.to_string(),
            },
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return "the server closed it".to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}

async fn read_frame(socket: &mut BufReader<OwnedReadHalf>) -> io::Result<Bytes> {
    let mut prefix = [0; LENGTH_BYTES];
    socket.read_exact(&mut prefix).await?;
    let length = proto::frame_length(prefix, ANSWER_BYTES_MAX).map_err(io::Error::other)?;
    let mut frame = BytesMut::with_capacity(length.min(FIRST_BYTES));
    while frame.len() < length {
        let mut rest = (&mut *socket).take((length - frame.len()) as u64);
        if rest.read_buf(&mut frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(frame.freeze())
}
