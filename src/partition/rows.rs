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

/// The version under which rows are written, but for positions and the rows of runs.
pub const ROW_VERSION: u8 = 1;

/// The version under which positions are written.
const POSITION_VERSION: u8 = 2;

/// The version whose runs did not count bytes.
const UNCOUNTED_VERSION: u8 = 1;

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

/// The position as version 1 had it: its runs knew neither what lies before them nor when they began.
#[derive(bincode::Decode)]
struct UncountedPosition {
    /// See `Position`.
    applied: LogId,
    /// See `Position`.
    generation: u64,
    /// See `Position`.
    log_start: Offset,
    /// See `Position`.
    next_offset: Offset,
    /// First offset, bytes, greatest timestamp.
    run: (Offset, u64, i64),
}

/// A position as it was found.
#[derive(Debug, PartialEq, Eq)]
pub enum StoredPosition {
    /// As it is written today.
    Counted(Position),
    /// Of version 1: `Run::bytes_before` is 0 until the rows of earlier runs are counted.
    Uncounted(Position),
}

impl Position {
    /// The row as it is written.
    pub fn encode(&self) -> Bytes {
        encode(POSITION_VERSION, self)
    }
}

impl StoredPosition {
    /// Reads a row of any version. The error is a sentence for the operator.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.first() != Some(&UNCOUNTED_VERSION) {
            return decode(POSITION_VERSION, bytes).map(Self::Counted);
        }
        let UncountedPosition { applied, generation, log_start, next_offset, run } = decode(UNCOUNTED_VERSION, bytes)?;
        let (first, bytes, max_timestamp) = run;
        let run = Run { first, bytes, max_timestamp, first_timestamp: max_timestamp, bytes_before: 0 };
        Ok(Self::Uncounted(Position { applied, generation, log_start, next_offset, run }))
    }
}

/// Reads a row of a run of version 1, which was its greatest timestamp.
pub fn decode_uncounted_run(bytes: &[u8]) -> Result<i64, String> {
    decode(UNCOUNTED_VERSION, bytes)
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

/// The generation of such a key.
pub fn generation(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(8..16)?.try_into().ok()?))
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

#[cfg(test)]
mod tests {
    use super::super::times::RunRow;
    use super::*;

    #[test]
    fn every_version_ever_written_is_still_read() {
        let run = Run { first: Offset(9), bytes: 70, max_timestamp: 5, first_timestamp: 5, bytes_before: 0 };
        let position =
            Position { applied: LogId::new(7, 2), generation: 1, log_start: Offset(3), next_offset: Offset(10), run };
        let old = [1, 7, 2, 1, 6, 20, 18, 70, 10];
        assert_eq!(StoredPosition::decode(&old), Ok(StoredPosition::Uncounted(position.clone())));
        assert_eq!(decode_uncounted_run(&[1, 10]), Ok(5));

        let run = Run { first_timestamp: 4, bytes_before: 80, ..run };
        let position = Position { run, ..position };
        let new = [2, 7, 2, 1, 6, 20, 18, 70, 10, 8, 80];
        assert_eq!(StoredPosition::decode(&new), Ok(StoredPosition::Counted(position.clone())));
        assert_eq!(position.encode(), &new[..]);
        let row = RunRow { max_timestamp: 5, bytes_before: 80 };
        assert_eq!((RunRow::decode(&[2, 10, 80]), row.encode()), (Ok(row), Bytes::from_static(&[2, 10, 80])));
        for bytes in [&[][..], &[3, 7, 2, 1, 6, 20, 18, 70, 10, 8, 80], &old[..8], &new[..10]] {
            assert!(StoredPosition::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
