//! The checker: what a history says against the contract.
//!
//! The names of the anomalies are Jepsen's. It believes nothing but the history, knows nothing of the server, and each
//! of its findings has a test with a history made by hand: a checker that can't fail proves nothing.

use crate::history::{History, Outcome, Read, Send, Value, producer_of};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The most findings of one kind that are told one by one.
const FINDINGS_MAX: usize = 4;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A record that was acknowledged, or read, is not there any more.
    LostWrite,
    /// One offset had two different records, or an acknowledged record lies at another offset.
    InconsistentOffsets,
    /// A record is there more often than its producer can have caused.
    Duplicate,
    /// A record is there though its producer was told that it certainly is not.
    AbortedRead,
    /// An offset without a record.
    Hole,
    /// A record that nobody wrote.
    Phantom,
    /// An idempotent producer's records are not in the order they were sent in.
    Reordered,
    /// A client met what no fault explains.
    Complaint,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Anomaly {
    /// What.
    pub kind: Kind,
    /// How many findings of this kind there are in this partition.
    pub count: usize,
    /// In which partition.
    pub partition: Option<i32>,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::LostWrite => "lost-write",
            Self::InconsistentOffsets => "inconsistent-offsets",
            Self::Duplicate => "duplicate",
            Self::AbortedRead => "aborted-read",
            Self::Hole => "hole",
            Self::Phantom => "phantom",
            Self::Reordered => "reordered",
            Self::Complaint => "complaint",
        })
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.kind)?;
        if let Some(partition) = self.partition {
            write!(formatter, " in partition {partition}")?;
        }
        write!(formatter, ": {} found, such as {}", self.count, self.examples.join("; "))
    }
}

/// Everything that is wrong with a history. Every partition that was written to must have been read whole at its end.
#[must_use]
pub fn check(history: &History) -> Vec<Anomaly> {
    let mut partitions: BTreeMap<i32, (Vec<&Send>, Vec<&Read>)> = BTreeMap::new();
    for send in &history.sends {
        partitions.entry(send.partition).or_default().0.push(send);
    }
    for read in &history.reads {
        partitions.entry(read.partition).or_default().1.push(read);
    }
    let mut anomalies = Vec::new();
    for (partition, (sends, reads)) in partitions {
        let findings = Partition::new(&sends, &reads).check();
        anomalies.extend(findings.into_iter().map(|(kind, (count, examples))| Anomaly {
            kind,
            count,
            partition: Some(partition),
            examples,
        }));
    }
    if !history.complaints.is_empty() {
        let examples = history.complaints.iter().take(FINDINGS_MAX).cloned().collect();
        let count = history.complaints.len();
        anomalies.push(Anomaly { kind: Kind::Complaint, count, partition: None, examples });
    }
    anomalies
}

/// The findings of each kind: how many, and the first of them.
type Findings = BTreeMap<Kind, (usize, Vec<String>)>;

/// One partition's part of a history.
struct Partition<'a> {
    /// What was sent to it.
    sends: &'a [&'a Send],
    /// What was read from it.
    reads: &'a [&'a Read],
    /// Who sent which value.
    sender: BTreeMap<Value, &'a Send>,
    /// Where the last read of the whole partition found each value.
    places: BTreeMap<Value, Vec<i64>>,
    /// That read.
    whole: &'a Read,
    /// What is wrong.
    findings: Findings,
}

impl<'a> Partition<'a> {
    fn new(sends: &'a [&'a Send], reads: &'a [&'a Read]) -> Self {
        let whole = reads.iter().rfind(|read| read.whole.is_some()).expect("every partition is read whole at the end");
        let mut places: BTreeMap<Value, Vec<i64>> = BTreeMap::new();
        for (offset, value) in &whole.records {
            places.entry(*value).or_default().push(*offset);
        }
        let values = sends.iter().flat_map(|send| send.values.iter().map(|value| (*value, *send)));
        Self { sends, reads, sender: values.collect(), places, whole, findings: Findings::new() }
    }

    fn check(mut self) -> Findings {
        self.check_holes();
        self.check_offsets();
        self.check_writers();
        self.check_acknowledged();
        self.check_vanished();
        self.check_order();
        self.findings
    }

    fn found(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        let (count, examples) = self.findings.entry(kind).or_default();
        *count += 1;
        if examples.len() < FINDINGS_MAX {
            examples.push(example());
        }
    }

    /// Offsets begin where the reader asked, follow each other, and go as far as the leader said.
    fn check_holes(&mut self) {
        for read in self.reads {
            let mut expected = read.from;
            for (offset, _) in &read.records {
                if *offset != expected {
                    self.found(Kind::Hole, || format!("offset {offset} follows where {expected} should"));
                }
                expected = offset + 1;
            }
            if let Some(end) = read.whole.filter(|end| *end > expected) {
                self.found(Kind::Hole, || format!("nothing from {expected} to the end offset {end}"));
            }
        }
    }

    /// Every reader and every acknowledgement agree on what an offset holds.
    fn check_offsets(&mut self) {
        let mut known: BTreeMap<i64, Value> = BTreeMap::new();
        let read = self.reads.iter().flat_map(|read| read.records.iter().copied());
        let acknowledged = self.sends.iter().filter_map(|send| match send.outcome {
            Outcome::Ok { base_offset } => Some((base_offset..).zip(send.values.iter().copied())),
            Outcome::Fail | Outcome::Info => None,
        });
        for (offset, value) in read.chain(acknowledged.flatten()).collect::<Vec<_>>() {
            let first = *known.entry(offset).or_insert(value);
            if first != value {
                self.found(Kind::InconsistentOffsets, || format!("offset {offset} was {first:#x} and {value:#x}"));
            }
        }
    }

    /// Every record that was read has a writer, was not refused, and is there no more often than its attempts explain.
    fn check_writers(&mut self) {
        let mut read: Vec<_> =
            self.reads.iter().flat_map(|read| read.records.iter().map(|(_, value)| *value)).collect();
        read.sort_unstable();
        read.dedup();
        for value in read {
            match self.sender.get(&value).copied() {
                None => self.found(Kind::Phantom, || format!("{value:#x} was never written")),
                Some(send) if send.outcome == Outcome::Fail => {
                    self.found(Kind::AbortedRead, || format!("{value:#x} was refused for certain, and read"));
                }
                Some(_) => {}
            }
        }
        for (value, places) in std::mem::take(&mut self.places) {
            let most = self.sender.get(&value).map_or(1, |send| copies_allowed(send));
            if places.len() > most {
                self.found(Kind::Duplicate, || format!("{value:#x} is at {places:?}; at most {most} can be"));
            }
            self.places.insert(value, places);
        }
    }

    fn check_acknowledged(&mut self) {
        for send in self.sends {
            let Outcome::Ok { base_offset } = send.outcome else { continue };
            for (offset, value) in (base_offset..).zip(&send.values) {
                match self.places.get(value) {
                    Some(places) if places.contains(&offset) => {}
                    Some(places) => {
                        let example = format!("{value:#x} was acknowledged at {offset}, and is at {places:?}");
                        self.found(Kind::InconsistentOffsets, || example);
                    }
                    None => self.found(Kind::LostWrite, || format!("{value:#x} was acknowledged at {offset}")),
                }
            }
        }
    }

    /// What one reader has seen, no later reader is denied.
    fn check_vanished(&mut self) {
        for read in self.reads.iter().filter(|read| !std::ptr::eq(**read, self.whole)) {
            for (offset, value) in &read.records {
                if !self.places.contains_key(value) {
                    self.found(Kind::LostWrite, || format!("{value:#x} was read at {offset}"));
                }
            }
        }
    }

    fn check_order(&mut self) {
        let mut last: BTreeMap<u32, usize> = BTreeMap::new();
        for (offset, value) in &self.whole.records {
            let Some((send, first)) = self.sender.get(value).and_then(|send| Some((*send, send.sequence?))) else {
                continue;
            };
            let place = send.values.iter().position(|known| known == value).expect("it is the value's sender");
            let sequence = first as usize + place;
            let before = last.insert(producer_of(*value), sequence).unwrap_or(0);
            if before > sequence {
                self.found(Kind::Reordered, || format!("{value:#x} at {offset} lies after sequence {before}"));
            }
        }
    }
}

/// An idempotent producer's record is there at most once. Any other may be there once for each attempt that ended in
/// doubt, and once for the one that was acknowledged.
fn copies_allowed(send: &Send) -> usize {
    match send.outcome {
        _ if send.sequence.is_some() => 1,
        Outcome::Ok { .. } => 1 + send.doubts as usize,
        Outcome::Fail | Outcome::Info => send.doubts as usize,
    }
}

#[cfg(test)]
#[path = "check/tests.rs"]
mod tests;
