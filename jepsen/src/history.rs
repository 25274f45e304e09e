//! What clients did and saw: the one thing the checker believes.
//!
//! A history is exact about doubt: a batch that certainly was not written and one that may have been are told apart as
//! the protocol tells them apart, and every attempt to send a batch again is counted.

use std::time::Instant;

/// What a record holds: unique in a whole run. The producer's number is in the upper half, its count in the lower.
pub type Value = u64;

/// The value that producer `producer` writes as its `count`-th.
#[must_use]
pub fn value(producer: u32, count: u32) -> Value {
    u64::from(producer) << 32 | u64::from(count)
}

/// The number of the producer that wrote a value.
#[must_use]
pub fn producer_of(value: Value) -> u32 {
    (value >> 32) as u32
}

/// What became of a batch, as far as its producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged: its first record has this offset.
    Ok { base_offset: i64 },
    /// Certainly not written.
    Fail,
    /// Perhaps written.
    Info,
}

/// One batch that a producer sent, perhaps several times, until it knew or gave up.
#[derive(Clone, Debug)]
pub struct Send {
    /// Where to.
    pub partition: i32,
    /// The batch's records, in order.
    pub values: Vec<Value>,
    /// Its first record's sequence number, from an idempotent producer.
    pub sequence: Option<i32>,
    /// How many of its attempts ended in doubt.
    pub doubts: u32,
    /// When it was last sent.
    pub sent: Instant,
    /// When its producer knew or gave up.
    pub completed: Instant,
    /// What became of it.
    pub outcome: Outcome,
}

/// Records that one reader read one after another.
#[derive(Clone, Debug)]
pub struct Read {
    /// Of which partition.
    pub partition: i32,
    /// The offset it asked for first.
    pub from: i64,
    /// Offsets and values, as they came.
    pub records: Vec<(i64, Value)>,
    /// For a read of the whole partition after the load: the end offset that its leader named.
    pub whole: Option<i64>,
}

/// Everything that clients did and saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Batches whose fate is settled, or given up.
    pub sends: Vec<Send>,
    /// Reads during the load, and at the end one of every whole partition.
    pub reads: Vec<Read>,
    /// What clients met that no fault explains: a sequence refused to a producer that kept to the rules.
    pub complaints: Vec<String>,
}

impl History {
    /// The records acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let acknowledged = self.sends.iter().filter(|send| matches!(send.outcome, Outcome::Ok { .. }));
        acknowledged.map(|send| send.values.len()).sum()
    }
}
