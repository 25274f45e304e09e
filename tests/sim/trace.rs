//! What happened, in order: always hashed, so that two runs can be compared; written out only when somebody reads it.

use std::collections::VecDeque;

/// Lines that are kept for the report of a failure.
const TAIL_LINES: usize = 250;

/// What becomes of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Only their hash.
    Hash,
    /// The last ones, too.
    Tail,
    /// All are printed.
    Print,
}

/// See the module.
pub struct Trace {
    /// Of everything so far.
    hash: u64,
    /// How many lines there were.
    count: u64,
    /// What becomes of the lines.
    keep: Keep,
    /// The last lines.
    tail: VecDeque<String>,
}

/// Mixes a number into a hash.
pub fn mix(hash: u64, number: u64) -> u64 {
    (hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// Mixes bytes into a hash.
pub fn mix_bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    let chunks = bytes.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        hash = mix(hash, u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(hash, u64::from_le_bytes(last)), bytes.len() as u64)
}

impl Trace {
    /// Nothing has happened yet.
    pub fn new(keep: Keep) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, count: 0, keep, tail: VecDeque::new() }
    }

    /// Something has happened: `numbers` tell it apart from what could have happened instead, `line` is for people.
    pub fn note(&mut self, now: u64, kind: &'static str, numbers: &[u64], line: impl FnOnce() -> String) {
        self.hash = mix_bytes(mix(self.hash, now), kind.as_bytes());
        for number in numbers {
            self.hash = mix(self.hash, *number);
        }
        self.count += 1;
        if self.keep == Keep::Hash {
            return;
        }
        let line = format!("{:>3}.{:06} {kind:<10} {}", now / 1_000_000, now % 1_000_000, line());
        if self.keep == Keep::Print {
            println!("{line}");
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        mix(self.hash, self.count)
    }

    /// The last lines.
    pub fn into_tail(self) -> Vec<String> {
        self.tail.into()
    }
}
