//! Reads one length-prefixed request.
//!
//! The whole request is reserved in the node's byte budget before anything is allocated, so that many connections
//! together cannot exhaust the memory, and no two half-read requests can wait for each other. The buffer then grows as
//! bytes arrive: announcing a large request is not enough to occupy memory, and a request that arrives too slowly loses
//! its reservation with its connection.

use super::Limits;
use super::guard::Hostile;
use crate::broker::{ByteBudget, Reservation};
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
    Hostile(#[from] Hostile),
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
    let mut prefix = [0; 4];
    let soon = Instant::now() + limits.stall;
    timeout_at(soon, reader.read_exact(&mut prefix)).await.map_err(|_| FrameError::Stalled)??;
    let announced = i32::from_be_bytes(prefix);
    let length = usize::try_from(announced).ok().filter(|length| *length <= limits.request_bytes_max);
    let length = length.ok_or(Hostile::FrameTooLarge(announced))?;

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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn limits() -> Limits {
        Limits { request_bytes_max: 4 << 20, ..Limits::default() }
    }

    #[tokio::test]
    async fn a_large_frame_arrives_whole_and_is_reserved() {
        let budget = ByteBudget::new(8 << 20);
        let body: Vec<u8> = (0..3_000_001_u32).map(|index| index as u8).collect();
        let mut wire = 3_000_001_u32.to_be_bytes().to_vec();
        wire.extend_from_slice(&body);
        wire.extend_from_slice(&[1, 2, 3]);
        let mut reader = &wire[..];
        let (frame, reservation) = read(&mut reader, &limits(), &budget).await.expect("a whole frame");
        assert_eq!((frame.as_ref(), reader), (&body[..], &[1, 2, 3][..]));
        assert_eq!(budget.available(), (8 << 20) - body.len());
        drop(reservation);
        assert_eq!(budget.available(), 8 << 20);
    }

    #[tokio::test]
    async fn lengths_out_of_bounds_are_hostile() {
        let budget = ByteBudget::new(8 << 20);
        for length in [-1, i32::MIN, (4 << 20) + 1, i32::MAX] {
            let wire = length.to_be_bytes();
            let error = read(&mut &wire[..], &limits(), &budget).await.expect_err("no frame");
            assert!(matches!(error, FrameError::Hostile(Hostile::FrameTooLarge(told)) if told == length));
        }
    }

    #[tokio::test]
    async fn a_request_of_a_byte_now_and_then_gives_its_memory_back() {
        let budget = ByteBudget::new(8 << 20);
        let limits = Limits { stall: Duration::from_millis(100), ..limits() };
        let (mut client, mut server) = tokio::io::duplex(64);
        let trickle = async {
            client.write_all(&[0, 16, 0, 0]).await.expect("room");
            for _ in 0..100 {
                client.write_all(&[1]).await.expect("room");
                tokio::time::sleep(limits.stall / 10).await;
            }
        };
        let error = tokio::select! {
            error = read(&mut server, &limits, &budget) => error.expect_err("no frame"),
            () = trickle => panic!("a byte now and then is enough"),
        };
        assert!(matches!(error, FrameError::Stalled));
        assert_eq!(budget.available(), 8 << 20);
    }
}
