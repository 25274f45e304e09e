//! The keys and small values of a partition in the database.
//!
//! Every key begins with the group's number, and all but the two of `Meta` with group and generation: a snapshot that
//! replaces the state is written under a new generation and takes effect with one row. Values are `bincode` behind a
//! version byte, because `bincode` does not describe itself.
//!
//! Records lie under their batch's *last* offset: the batch that holds an offset is the first at or after it, so a
//! fetch is one forward seek. A backward seek has to read a block of every unmerged file.

use super::epochs::Epochs;
use super::times::Run;
use crate::types::{LogId, Membership, Offset, RaftGroupId};
use bytes::Bytes;

/// The version under which rows are written.
pub const ROW_VERSION: u8 = 1;

/// No value of ours is larger, whatever its lengths claim.
const VALUE_BYTES_MAX: usize = 64 << 20;

/// What changes with every apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Position {
    /// The newest entry whose effects are in the state.
    pub applied: LogId,
    /// Under which generation the rows lie.
    pub generation: u64,
    /// The first offset there is.
    pub log_start: Offset,
    /// The offset of the next record: the high watermark, since only committed entries are applied.
    pub next_offset: Offset,
    /// The newest run of batches, which has no row in `Times` yet.
    pub run: Run,
}

/// What hardly ever changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Shape {
    /// The group's members as of the applied entry.
    pub membership: Membership,
    /// Where each leader's records begin.
    pub epochs: Epochs,
}

/// The key of `Position`.
pub fn position_key(group: RaftGroupId) -> Vec<u8> {
    [&group.0.to_be_bytes()[..], &[0]].concat()
}

/// The key of `Shape`.
pub fn shape_key(group: RaftGroupId) -> Vec<u8> {
    [&group.0.to_be_bytes()[..], &[1]].concat()
}

/// A key of `Records` (by last offset), `Times` (by first offset) or `Producers` (by id). None is ever negative.
pub fn key(group: RaftGroupId, generation: u64, number: i64) -> Vec<u8> {
    let number = u64::try_from(number).expect("offsets and producer ids in the state are not negative");
    [group.0.to_be_bytes(), generation.to_be_bytes(), number.to_be_bytes()].concat()
}

/// The offset or producer id of a key.
pub fn number(key: &[u8]) -> Option<i64> {
    let number = key.get(16..24).filter(|_| key.len() == 24)?;
    i64::try_from(u64::from_be_bytes(number.try_into().ok()?)).ok()
}

/// The least key of a generation; that of the next generation is the first beyond it.
pub fn generation_key(group: RaftGroupId, generation: u64) -> Vec<u8> {
    [group.0.to_be_bytes(), generation.to_be_bytes()].concat()
}

/// The least key of a group.
pub fn group_key(group: RaftGroupId) -> Vec<u8> {
    group.0.to_be_bytes().to_vec()
}

/// The version byte and the value.
pub fn encode<T: bincode::Encode>(version: u8, value: &T) -> Bytes {
    let mut bytes = vec![version];
    bincode::encode_into_std_write(value, &mut bytes, bincode::config::standard())
        .expect("writing to memory can't fail, and our values have no parts that can't be encoded");
    Bytes::from(bytes)
}

/// Reads what `encode` wrote under this version, all of it. The error is a sentence for the operator.
pub fn decode<T: bincode::Decode<()>>(version: u8, bytes: &[u8]) -> Result<T, String> {
    let (found, body) = bytes.split_first().ok_or("an empty value where a version byte was expected")?;
    if *found != version {
        return Err(format!("version {found} is unknown here; {version} is the newest that is"));
    }
    let config = bincode::config::standard().with_limit::<VALUE_BYTES_MAX>();
    let (value, used) = bincode::decode_from_slice(body, config).map_err(|error| error.to_string())?;
    if used == body.len() { Ok(value) } else { Err(format!("{} bytes too many", body.len() - used)) }
}
