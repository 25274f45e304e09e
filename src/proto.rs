//! The messages of the native protocol and between nodes, generated from `proto/`, and the frames they travel in.
//!
//! A frame is four bytes of length, big-endian, and one message. Both are hostile until they are read: the length is
//! checked before anything is allocated, and the number of a message's elements before it is decoded, because two bytes
//! on the wire may ask for some hundred in memory. Bytes fields are slices of their frame.

mod convert;
mod limits;

pub use convert::{Malformed, id_bytes, read_id};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// The native protocol (`proto/ackord.proto`).
#[expect(clippy::all, reason = "generated")]
pub mod native {
    include!(concat!(env!("OUT_DIR"), "/ackord.v1.rs"));
}

/// What nodes say to each other (`proto/peer.proto`).
#[expect(clippy::all, reason = "generated")]
pub mod peer {
    include!(concat!(env!("OUT_DIR"), "/ackord.peer.v1.rs"));
}

/// The bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;
/// The version of both protocols that this program speaks.
pub const PROTOCOL: u32 = 1;
/// Longest frame between nodes, its length not counted. A sender closes a batch of messages well below.
pub const PEER_FRAME_BYTES_MAX: usize = 128 << 20;

/// Why bytes are not a frame. The connection they came on is closed: what follows can't be understood either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is beyond the limit.
    #[error("a frame of {length} bytes; {max} are the most")]
    TooLong { length: usize, max: usize },
    /// More elements of one kind than a message may have.
    #[error("more than {max} elements in field {field}")]
    TooMany { field: &'static str, max: usize },
    /// Not the protobuf encoding of such a message.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// The length of the message that follows these four bytes.
pub fn frame_length(prefix: [u8; LENGTH_BYTES], max: usize) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if length > max { Err(FrameError::TooLong { length, max }) } else { Ok(length) }
}

/// A message in its frame, ready to be sent.
pub fn encode_frame(message: &impl Message, max: usize) -> Result<Bytes, FrameError> {
    let length = message.encoded_len();
    let prefix = u32::try_from(length).ok().filter(|_| length <= max).ok_or(FrameError::TooLong { length, max })?;
    let mut frame = BytesMut::with_capacity(LENGTH_BYTES + length);
    frame.put_u32(prefix);
    message.encode(&mut frame).expect("the buffer grows as needed");
    Ok(frame.freeze())
}

/// Reads the body of a client's frame.
pub fn decode_request(body: Bytes) -> Result<native::Request, FrameError> {
    limits::check(&body, limits::REQUEST)?;
    decode(body)
}

/// Reads the body of a server's frame.
pub fn decode_response(body: Bytes) -> Result<native::Response, FrameError> {
    limits::check(&body, limits::RESPONSE)?;
    decode(body)
}

/// Reads the body of another node's frame.
pub fn decode_peer_frame(body: Bytes) -> Result<peer::Frame, FrameError> {
    limits::check(&body, limits::PEER_FRAME)?;
    decode(body)
}

fn decode<M: Message + Default>(body: Bytes) -> Result<M, FrameError> {
    M::decode(body).map_err(|error| FrameError::Malformed(error.to_string()))
}

#[cfg(test)]
#[path = "proto/tests.rs"]
mod tests;
