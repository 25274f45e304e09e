//! Reads one length-prefixed request.
//!
//! The whole request is reserved in the node's byte budget before anything is allocated. The buffer then grows as bytes
//! arrive: announcing a long request is not enough to occupy memory, and one that arrives too slowly loses its
//! reservation with its connection.

use super::Limits;
use crate::broker::{ByteBudget, Reservation};
use crate::proto::{self, LENGTH_BYTES};
use bytes::{BufMut, Bytes};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

/// What is allocated for a request of which no byte has arrived yet.
const FIRST_BYTES: usize = 1 << 20;

/// A request must arrive at this rate at least, but for [`Limits::stall`]: a byte now and then does not hold memory.
const BYTES_PER_SECOND_MIN: usize = 256 << 10;

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection is closed or broken.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The length is no request's.
    #[error(transparent)]
    Hostile(#[from] proto::FrameError),
    /// The request began and did not go on.
    #[error("the request arrives too slowly")]
    Stalled,
}

/// Reads a frame whose first byte is about to arrive, without its length prefix.
pub async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    limits: &Limits,
    budget: &ByteBudget,
) -> Result<(Bytes, Reservation), FrameError> {
    let mut prefix = [0; LENGTH_BYTES];
    let soon = Instant::now() + limits.stall;
    timeout_at(soon, reader.read_exact(&mut prefix)).await.map_err(|_| FrameError::Stalled)??;
    let length = proto::frame_length(prefix, limits.request_bytes_max)?;

    let reservation = budget.reserve(length).await;
    let begun = Instant::now();
    let mut frame = Vec::with_capacity(length.min(FIRST_BYTES));
    while frame.len() < length {
        if frame.len() == frame.capacity() {
            frame.reserve_exact((length - frame.len()).min(frame.len()));
        }
        let room = (frame.capacity() - frame.len()).min(length - frame.len());
        let earned = Duration::from_secs((frame.len() / BYTES_PER_SECOND_MIN) as u64);
        let due = Instant::now().min(begun + earned) + limits.stall;
        let mut target = (&mut frame).limit(room);
        let read = timeout_at(due, reader.read_buf(&mut target)).await.map_err(|_| FrameError::Stalled)??;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok((Bytes::from(frame), reservation))
}
