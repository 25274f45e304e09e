//! The version byte before the commands, answers, rows and snapshots of metadata and of consumer groups, and what may
//! follow it.
//!
//! bincode is not self-describing: what an older node wrote can be read only if the version says how. A new version is
//! a new number and a decoder beside the old one; a test keeps a sample of each.

use bincode::config::{self, Configuration, LittleEndian, Varint};
use bincode::{Decode, Encode};

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No byte at all.
    #[error("empty")]
    Empty,
    /// Longer than its kind may be.
    #[error("{0} bytes are too many")]
    TooLong(usize),
    /// Written by a newer program.
    #[error("format version {0} is unknown; this node is older than the one that wrote it")]
    UnknownVersion(u8),
    /// The body is not of that format.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// The first version of every such format. A format that has another one says so where it is written.
pub const VERSION: u8 = 1;

// Spelled out, because a change of bincode's default would be a change of our format.
type Format<const LIMIT: usize> = Configuration<LittleEndian, Varint, config::Limit<LIMIT>>;

/// `value` behind its version byte.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    encode_as(VERSION, value)
}

/// The same for a format whose version is another one.
pub fn encode_as<T: Encode>(version: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    bincode::encode_into_std_write(value, &mut bytes, config::standard().with_little_endian())
        .expect("a Vec takes every byte, and none of our types refuses to be encoded");
    bytes
}

/// Reads what `encode` wrote; decoding never claims more than `LIMIT` bytes of memory.
pub fn decode<T: Decode<()>, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_as::<T, LIMIT>(VERSION, bytes)
}

/// Reads what `encode_as` wrote under this version.
pub fn decode_as<T: Decode<()>, const LIMIT: usize>(expected: u8, bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != expected {
        return Err(CodecError::UnknownVersion(*version));
    }
    let format: Format<LIMIT> = config::standard().with_little_endian().with_limit::<LIMIT>();
    let (value, length) =
        bincode::decode_from_slice(body, format).map_err(|error| CodecError::Malformed(error.to_string()))?;
    if length != body.len() {
        return Err(CodecError::Malformed(format!("{} bytes too many", body.len() - length)));
    }
    Ok(value)
}
