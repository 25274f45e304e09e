//! Frames on a socket: one at a time, bounded, and never waited for without a limit.

use crate::proto::peer::frame::Body;
use crate::proto::{self, FrameError, LENGTH_BYTES, peer};
use bytes::{Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Longest frame before a node is welcome.
pub const GREETING_BYTES_MAX: usize = 4 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The other side closed it.
    #[error("closed by the other side")]
    Closed,
    /// The other side says nothing, not even that it is alive.
    #[error("silent for {0:?}")]
    Silent(Duration),
    /// The other side does not let us in.
    #[error("refused: {0}")]
    Refused(String),
    /// This node does not want to talk to the other one.
    #[error("not wanted: {0}")]
    Unwanted(String),
    /// Not our protocol.
    #[error("hostile: {0}")]
    Hostile(String),
    /// This node's groups are stopping.
    #[error("this node is stopping")]
    Stopping,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Hostile(error.to_string())
    }
}

impl From<proto::Malformed> for End {
    fn from(error: proto::Malformed) -> Self {
        Self::Hostile(error.to_string())
    }
}

/// Reads the next frame. `silence_max` bounds the wait for every piece of it, not for the whole.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), bytes_max: usize, silence_max: Duration) -> Result<Body, End> {
    let mut prefix = [0; LENGTH_BYTES];
    match timeout(silence_max, stream.read_exact(&mut prefix)).await {
        Err(_) => return Err(End::Silent(silence_max)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(End::Closed),
        Ok(Err(error)) => return Err(error.into()),
        Ok(Ok(_)) => {}
    }
    let length = proto::frame_length(prefix, bytes_max)?;
    let body = read_body(stream, length, silence_max).await?;
    let frame = proto::decode_peer_frame(body)?;
    frame.body.ok_or_else(|| End::Hostile("an empty frame".to_owned()))
}

/// The buffer's pages are the kernel's until bytes arrive: a length that is only claimed costs no memory.
async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: usize, silence_max: Duration) -> Result<Bytes, End> {
    let mut body = BytesMut::with_capacity(length);
    let mut rest = stream.take(length as u64);
    while body.len() < length {
        match timeout(silence_max, rest.read_buf(&mut body)).await {
            Err(_) => return Err(End::Silent(silence_max)),
            Ok(Ok(0)) => return Err(End::Closed),
            Ok(read) => read?,
        };
    }
    Ok(body.freeze())
}

/// A frame, ready to be sent. `None`: it is longer than frames may be.
#[must_use]
pub fn encode(body: Body) -> Option<Bytes> {
    proto::encode_frame(&peer::Frame { body: Some(body) }, proto::PEER_FRAME_BYTES_MAX).ok()
}

/// Sends a frame that is known to be short.
pub async fn write_short(stream: &mut (impl AsyncWrite + Unpin), body: Body) -> io::Result<()> {
    stream.write_all(&encode(body).expect("it has a handful of short fields")).await
}
