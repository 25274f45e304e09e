//! How much of the records family is deleted and still in files.
//!
//! A range that retention removed goes with the files that hold nothing else. What a flush has just written is not
//! among them: such a file holds some of every partition, and RocksDB drops no file of its first level whole. Left to
//! itself it is merged, and the deleted part goes, when there are 32 of them: 4 GiB, whatever the limits of topics add
//! up to. So the deleted part is counted, and when it is half of the family everything is merged at once: what has to
//! be rewritten then is no more than what comes free, so the bytes written per byte of a batch grow by one at most.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// See the module. Lost with the process: every partition is reclaimed once after a start.
#[derive(Debug)]
pub struct Garbage {
    /// Bytes by first key.
    ranges: Mutex<BTreeMap<Vec<u8>, u64>>,
    /// Less than this is not worth a merge, in bytes.
    worth_bytes_min: u64,
}

impl Garbage {
    /// Nothing is known; less than `worth_bytes_min` will not be worth a merge.
    pub fn new(worth_bytes_min: u64) -> Self {
        Self { ranges: Mutex::default(), worth_bytes_min }
    }

    /// So many bytes of the range `from .. to`, all of which is deleted, are still in files. Replaces what was known of
    /// ranges that begin in it.
    pub fn note(&self, from: &[u8], to: &[u8], bytes: u64) {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.retain(|key, _| !(from..to).contains(&key.as_slice()));
        if bytes > 0 {
            ranges.insert(from.to_vec(), bytes);
        }
    }

    /// Whether the family, whose files take `size` bytes, should be merged.
    pub fn is_worth_a_merge(&self, size: u64) -> bool {
        let bytes: u64 = self.ranges.lock().unwrap_or_else(PoisonError::into_inner).values().sum();
        bytes >= self.worth_bytes_min && bytes >= size / 2
    }

    /// All of it is about to be merged away.
    pub fn forget(&self) {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_pays_when_half_of_much_is_deleted() {
        const WORTH: u64 = 1_000;
        let garbage = Garbage::new(WORTH);
        garbage.note(b"a0", b"a5", WORTH - 1);
        assert!(!garbage.is_worth_a_merge(0), "too little");
        garbage.note(b"a0", b"a6", WORTH);
        assert!(garbage.is_worth_a_merge(2 * WORTH + 1), "what is said again is not added");
        garbage.note(b"b0", b"b1", WORTH);
        assert!(garbage.is_worth_a_merge(4 * WORTH) && !garbage.is_worth_a_merge(5 * WORTH));
        garbage.note(b"a", b"c", 0);
        assert!(!garbage.is_worth_a_merge(0), "both ranges begin in this one");
    }
}
