//! The commands of a partition, as they lie in the Raft log: `LogEntry::context`. The batch itself is `LogEntry::data`.
//!
//! An upgraded node reads what an older one wrote: fields and variants are only ever added under a new version, and a
//! test keeps one encoded sample of each.

use super::rows;
use crate::types::Offset;
use bytes::Bytes;

/// The version that is written.
const VERSION: u8 = 1;

/// What a leader proposes to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Command {
    /// Adds the entry's batch to the log.
    Produce {
        /// The leader's clock when it proposed, in milliseconds: by it, and by no replica's own, producers expire.
        proposed_at_ms: i64,
    },
    /// Removes the records below `offset` (retention, DeleteRecords). Never moves the log start back, nor past the
    /// high watermark.
    SetLogStart {
        /// The first offset that stays.
        offset: Offset,
    },
}

impl Command {
    /// The command as an entry's context.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        rows::encode(VERSION, self)
    }

    /// Reads an entry's context. The error is a sentence: the entry is committed, so it is damage or a newer version.
    pub fn decode(context: &[u8]) -> Result<Self, String> {
        rows::decode(VERSION, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_ever_written_is_still_read() {
        let samples: [(&[u8], Command); 2] = [
            (&[1, 0, 0xfc, 0x00, 0xca, 0x9a, 0x3b], Command::Produce { proposed_at_ms: 500_000_000 }),
            (&[1, 1, 0xfb, 0x00, 0x08], Command::SetLogStart { offset: Offset(1024) }),
        ];
        for (bytes, command) in samples {
            assert_eq!(Command::decode(bytes), Ok(command));
            assert_eq!(command.encode(), bytes);
        }
    }

    #[test]
    fn unknown_versions_and_trailing_bytes_are_refused() {
        for bytes in [&[][..], &[2, 0, 0], &[1, 9], &[1, 0], &[1, 0, 0, 0]] {
            assert!(Command::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
