//! Reads one length-prefixed request.
//!
//! The whole request is reserved in the node's byte budget before anything is allocated, so that many connections
//! together cannot exhaust the memory, and no two half-read requests can wait for each other. The buffer then grows as
//! bytes arrive: announcing a large request is not enough to occupy memory, and a request that arrives too slowly loses
//! its reservation with its connection. What a length may be is the protocol's to say.

use crate::broker::{ByteBudget, Reservation};
use bytes::{BufMut, Bytes};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

/// The length of the length before a frame, in both protocols.
pub const LENGTH_BYTES: usize = 4;

/// What is allocated for a request of which no byte has arrived yet.
const FIRST_BYTES: usize = 1 << 20;

/// A request must arrive at this rate at least, but for the time that it may stall: a byte now and then does not hold
/// memory.
const BYTES_PER_SECOND_MIN: usize = 256 << 10;

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError<H> {
    /// The connection is closed or broken.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The length is no request's, in the protocol's words.
    #[error("{0}")]
    Hostile(H),
    /// The request began and did not go on.
    #[error("the request arrives too slowly")]
    Stalled,
}

/// Reads a frame whose first byte is about to arrive, without its length prefix. `length_of` turns the prefix into a
/// length, within the protocol's bounds; a frame may stand still for `stall`.
pub async fn read<R: AsyncRead + Unpin, H>(
    reader: &mut R,
    length_of: impl FnOnce([u8; LENGTH_BYTES]) -> Result<usize, H>,
    stall: Duration,
    budget: &ByteBudget,
) -> Result<(Bytes, Reservation), FrameError<H>> {
    let mut prefix = [0; LENGTH_BYTES];
    let soon = Instant::now() + stall;
    timeout_at(soon, reader.read_exact(&mut prefix)).await.map_err(|_| FrameError::Stalled)??;
    let length = length_of(prefix).map_err(FrameError::Hostile)?;

    let reservation = budget.reserve(length).await;
    let begun = Instant::now();
    let mut frame = Vec::with_capacity(length.min(FIRST_BYTES));
    while frame.len() < length {
        if frame.len() == frame.capacity() {
            frame.reserve_exact((length - frame.len()).min(frame.len()));
        }
        let room = (frame.capacity() - frame.len()).min(length - frame.len());
        let earned = Duration::from_secs((frame.len() / BYTES_PER_SECOND_MIN) as u64);
        let due = Instant::now().min(begun + earned) + stall;
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

    const STALL: Duration = Duration::from_millis(100);

    fn length_of(prefix: [u8; LENGTH_BYTES]) -> Result<usize, u32> {
        let length = u32::from_be_bytes(prefix);
        if length <= 4 << 20 { Ok(length as usize) } else { Err(length) }
    }

    #[tokio::test]
    async fn a_large_frame_arrives_whole_and_is_reserved() {
        let budget = ByteBudget::new(8 << 20);
        let body: Vec<u8> = (0..3_000_001_u32).map(|index| index as u8).collect();
        let mut wire = 3_000_001_u32.to_be_bytes().to_vec();
        wire.extend_from_slice(&body);
        wire.extend_from_slice(&[1, 2, 3]);
        let mut reader = &wire[..];
        let (frame, reservation) = read(&mut reader, length_of, STALL, &budget).await.expect("a whole frame");
        assert_eq!((frame.as_ref(), reader), (&body[..], &[1, 2, 3][..]));
        assert_eq!(budget.available(), (8 << 20) - body.len());
        drop(reservation);
        assert_eq!(budget.available(), 8 << 20);
    }

    #[tokio::test]
    async fn a_length_out_of_bounds_reserves_nothing() {
        let budget = ByteBudget::new(1);
        let wire = u32::MAX.to_be_bytes();
        let error = read(&mut &wire[..], length_of, STALL, &budget).await.expect_err("no frame");
        assert!(matches!(error, FrameError::Hostile(u32::MAX)));
    }

    #[tokio::test]
    async fn a_request_of_a_byte_now_and_then_gives_its_memory_back() {
        let budget = ByteBudget::new(8 << 20);
        let (mut client, mut server) = tokio::io::duplex(64);
        let trickle = async {
            client.write_all(&[0, 16, 0, 0]).await.expect("room");
            for _ in 0..100 {
                client.write_all(&[1]).await.expect("room");
                tokio::time::sleep(STALL / 10).await;
            }
        };
        let error = tokio::select! {
            error = read(&mut server, length_of, STALL, &budget) => error.expect_err("no frame"),
            () = trickle => panic!("a byte now and then is enough"),
        };
        assert!(matches!(error, FrameError::Stalled));
        assert_eq!(budget.available(), 8 << 20);
    }
}
