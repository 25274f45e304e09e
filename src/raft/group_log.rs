//! One group's Raft log as raft-rs sees it: bounds, terms, and the newest entries in memory.
//!
//! The log thread owns the disk; this is the worker's side of it. Entries enter here *before* they are durable (that
//! is what lets a leader replicate while its own fsync runs), and stay at least until they are durable and handed to
//! the state machine. Older ones may be evicted at any time: raft-rs then learns "temporarily unavailable", the missing
//! range is noted in `wanted`, and the caller reads it from disk without blocking.
//!
//! Invariant: `tail` is contiguous and ends at `last`.

use super::SnapshotMeta;
use super::message::{entry_to_raft, membership_to_raft, snapshot_to_raft};
use crate::types::{HardState, LogEntry, LogId, LogIndex, Membership, ReplicaId, Term};
use raft_rs::{GetEntriesContext, RaftState, StorageError, eraftpb};
use std::cell::RefCell;
use std::collections::VecDeque;

/// A range of entries that must be read from the disk before raft-rs can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The first index.
    pub low: LogIndex,
    /// The index after the last.
    pub high: LogIndex,
    /// No more payload than this, but at least one entry.
    pub max_bytes: u64,
}

/// What raft-rs asked for while it could only read (its `Storage` methods take `&self`).
#[derive(Debug, Default)]
struct Requests {
    /// Reads that missed the tail, with raft-rs's context to resume them.
    entries: Vec<(Wanted, GetEntriesContext)>,
    /// A snapshot at or above this index is wanted for a follower.
    snapshot: Option<(ReplicaId, LogIndex)>,
}

/// See the module.
#[derive(Debug)]
pub struct GroupLog {
    /// The hard state the replica starts from; raft-rs asks for it once.
    initial_hard_state: HardState,
    /// The members it starts from; raft-rs asks once.
    initial_membership: Membership,
    /// The entry just before the first that can still be read, from memory or disk.
    start: LogId,
    /// The newest entry.
    last: LogId,
    /// Where each term begins, ascending by index, for every entry after `start`.
    terms: VecDeque<LogId>,
    /// The newest entries, contiguous up to `last`.
    tail: VecDeque<LogEntry>,
    /// Payload bytes in `tail`.
    tail_bytes: usize,
    /// A range read back from disk for a follower that lags behind the tail; kept for one attempt.
    fetched: Vec<LogEntry>,
    /// A snapshot offered to raft-rs for followers that need one.
    snapshot: Option<SnapshotMeta>,
    /// See the type.
    requests: RefCell<Requests>,
}

impl GroupLog {
    /// The log as it was recovered: nothing in memory yet.
    #[must_use]
    pub fn new(hard_state: HardState, membership: Membership, start: LogId, last: LogId, terms: &[LogId]) -> Self {
        assert!(start.index <= last.index, "a log ends at or after its start");
        Self {
            initial_hard_state: hard_state,
            initial_membership: membership,
            start,
            last,
            terms: terms.iter().copied().collect(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            fetched: Vec::new(),
            snapshot: None,
            requests: RefCell::default(),
        }
    }

    /// The entry before the first one.
    #[must_use]
    pub fn start(&self) -> LogId {
        self.start
    }

    /// The newest entry.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.last
    }

    /// Payload bytes held in memory.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// The first index held in memory; after the last, if none is.
    #[must_use]
    pub fn tail_first(&self) -> LogIndex {
        LogIndex(self.last.index.0 + 1 - self.tail.len() as u64)
    }

    /// Whether the entry at `index` is held in memory.
    #[must_use]
    pub fn in_tail(&self, index: LogIndex) -> bool {
        index >= self.tail_first() && index <= self.last.index
    }

    /// Appends consecutive entries, cutting off whatever stood from the first one's index on.
    pub fn append(&mut self, entries: &[LogEntry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.id.index > self.start.index, "entry {} lies before the log's start {}", first.id, self.start);
        assert!(first.id.index <= self.last.index.next(), "entry {} leaves a hole after {}", first.id, self.last);
        self.truncate(first.id.index);
        for entry in entries {
            assert_eq!(entry.id.index, self.last.index.next(), "appended entries are consecutive");
            if self.terms.back().is_none_or(|newest| newest.term != entry.id.term) {
                self.terms.push_back(entry.id);
            }
            self.tail_bytes += entry.payload_bytes();
            self.last = entry.id;
            self.tail.push_back(entry.clone());
        }
    }

    /// Drops every entry from `from` on.
    fn truncate(&mut self, from: LogIndex) {
        if from > self.last.index {
            return;
        }
        while self.tail.back().is_some_and(|entry| entry.id.index >= from) {
            let dropped = self.tail.pop_back().expect("the tail was just seen not to be empty");
            self.tail_bytes -= dropped.payload_bytes();
        }
        self.fetched.clear();
        let term = self.term_of(from.previous()).expect("the entry before a truncation is known");
        self.last = LogId { index: from.previous(), term };
        while self.terms.back().is_some_and(|newest| newest.index >= from) {
            self.terms.pop_back();
        }
    }

    /// Forgets payloads of entries below `below`, oldest first, until at most `limit` bytes are held.
    pub fn evict(&mut self, below: LogIndex, limit: usize) {
        while self.tail_bytes > limit && self.tail.front().is_some_and(|entry| entry.id.index < below) {
            let dropped = self.tail.pop_front().expect("the tail was just seen not to be empty");
            self.tail_bytes -= dropped.payload_bytes();
        }
    }

    /// The segments below were freed: the log now begins after `index`.
    pub fn advance_start(&mut self, index: LogIndex) {
        if index <= self.start.index {
            return;
        }
        assert!(index <= self.last.index, "a log is never freed beyond its last entry");
        let term = self.term_of(index).expect("a held entry's term is known");
        self.start = LogId { index, term };
        while self.terms.get(1).is_some_and(|next| next.index.0 <= index.0 + 1) {
            self.terms.pop_front();
        }
        if index == self.last.index {
            self.terms.clear();
        } else if let Some(first) = self.terms.front_mut() {
            first.index = LogIndex(first.index.0.max(index.0 + 1));
        }
        self.evict(index.next(), 0);
    }

    /// A snapshot replaced everything: the log is empty and continues after `at`.
    pub fn reset(&mut self, at: LogId) {
        self.start = at;
        self.last = at;
        self.terms.clear();
        self.tail.clear();
        self.tail_bytes = 0;
        self.fetched.clear();
        self.snapshot = None;
    }

    /// The term of the entry at `index`, from `start` to `last`.
    #[must_use]
    pub fn term_of(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index < self.start.index || index > self.last.index {
            return None;
        }
        let after = self.terms.partition_point(|begin| begin.index <= index);
        self.terms.get(after.checked_sub(1)?).map(|begin| begin.term)
    }

    /// Takes the reads that missed the tail; the caller fetches each and resumes raft-rs with its context.
    pub fn take_wanted(&mut self) -> Vec<(Wanted, GetEntriesContext)> {
        std::mem::take(&mut self.requests.get_mut().entries)
    }

    /// Takes the wish for a snapshot, if raft-rs has one.
    pub fn take_snapshot_request(&mut self) -> Option<(ReplicaId, LogIndex)> {
        self.requests.get_mut().snapshot.take()
    }

    /// Entries read back from disk, held until `release_fetched`.
    pub fn hold_fetched(&mut self, entries: Vec<LogEntry>) {
        self.fetched = entries;
    }

    /// Whether `index` is among the entries read back.
    #[must_use]
    pub fn holds_fetched(&self, index: LogIndex) -> bool {
        self.fetched.first().is_some_and(|entry| entry.id.index <= index)
            && self.fetched.last().is_some_and(|entry| entry.id.index >= index)
    }

    /// Lets go of what `hold_fetched` held.
    pub fn release_fetched(&mut self) {
        self.fetched = Vec::new();
    }

    /// Offers a snapshot to followers that need one.
    pub fn offer_snapshot(&mut self, meta: SnapshotMeta) {
        self.snapshot = Some(meta);
    }

    /// Entries `low .. high` from memory: the longest prefix held, empty if the first is not.
    fn held(&self, low: LogIndex, high: LogIndex) -> Vec<&LogEntry> {
        let count = (high.0 - low.0) as usize;
        if self.in_tail(low) {
            let skip = (low.0 - self.tail_first().0) as usize;
            return self.tail.iter().skip(skip).take(count).collect();
        }
        let fetched_first = self.fetched.first().map_or(LogIndex(u64::MAX), |entry| entry.id.index);
        if low >= fetched_first {
            return self.fetched.iter().skip((low.0 - fetched_first.0) as usize).take(count).collect();
        }
        Vec::new()
    }

    /// The entries from `first`, which is held in memory, to `last`, until `max_bytes` of payload; at least one.
    #[must_use]
    pub fn from_tail(&self, first: LogIndex, last: LogIndex, max_bytes: u64) -> Vec<LogEntry> {
        let mut bytes = 0;
        let held = self.held(first, last.min(self.last.index).next()).into_iter().enumerate();
        let fits = held.take_while(|(position, entry)| {
            bytes += entry.payload_bytes() as u64;
            *position == 0 || bytes <= max_bytes
        });
        fits.map(|(_, entry)| entry.clone()).collect()
    }

    /// The committed entries `low .. high`, all of them; only for ranges that are pinned in the tail.
    #[must_use]
    pub fn pinned(&self, low: LogIndex, high: LogIndex) -> Vec<LogEntry> {
        let entries: Vec<_> = self.held(low, high).into_iter().cloned().collect();
        assert_eq!(entries.len() as u64, high.0 - low.0, "entries {low}..{high} are pinned in memory");
        entries
    }
}

impl raft_rs::Storage for GroupLog {
    fn initial_state(&self) -> raft_rs::Result<RaftState> {
        let hard_state = eraftpb::HardState {
            term: self.initial_hard_state.term.0,
            vote: self.initial_hard_state.vote.map_or(0, |replica| replica.0),
            commit: self.initial_hard_state.commit.0,
            ..eraftpb::HardState::default()
        };
        Ok(RaftState::new(hard_state, membership_to_raft(&self.initial_membership)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft_rs::Result<Vec<eraftpb::Entry>> {
        let (low, high) = (LogIndex(low), LogIndex(high));
        assert!(high.0 <= self.last.index.0 + 1, "raft-rs asks for entries up to the last one");
        if low <= self.start.index {
            return Err(StorageError::Compacted.into());
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let held = self.held(low, high);
        if held.is_empty() && low < high {
            assert!(context.can_async(), "entries {low}..{high} of a synchronous read are pinned in memory");
            // What is still in memory need not be on the disk yet.
            let wanted = Wanted { low, high: high.min(self.tail_first()), max_bytes: limit };
            self.requests.borrow_mut().entries.push((wanted, context));
            return Err(StorageError::LogTemporarilyUnavailable.into());
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in held {
            bytes += entry.payload_bytes() as u64;
            if !entries.is_empty() && bytes > limit {
                break;
            }
            entries.push(entry_to_raft(entry));
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft_rs::Result<u64> {
        let index = LogIndex(index);
        match self.term_of(index) {
            Some(term) => Ok(term.0),
            None if index < self.start.index => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft_rs::Result<u64> {
        Ok(self.start.index.0 + 1)
    }

    fn last_index(&self) -> raft_rs::Result<u64> {
        Ok(self.last.index.0)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft_rs::Result<eraftpb::Snapshot> {
        match &self.snapshot {
            // A receiver refuses a state whose members it is not among: it was added later.
            Some(meta)
                if meta.at.index.0 >= request_index
                    && meta.at.index >= self.start.index
                    && meta.membership.contains(ReplicaId(to)) =>
            {
                Ok(snapshot_to_raft(meta))
            }
            _ => {
                self.requests.borrow_mut().snapshot = Some((ReplicaId(to), LogIndex(request_index)));
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use raft_rs::Storage;

    fn entry(index: u64, term: u64) -> LogEntry {
        LogEntry { id: LogId::new(index, term), data: Bytes::from_static(b"12345678"), ..LogEntry::default() }
    }

    /// Starts after 1@1 and holds 2@1, 3@2, 4@2, 5@4.
    fn log() -> GroupLog {
        let start = LogId::new(1, 1);
        let mut log = GroupLog::new(HardState::default(), Membership::default(), start, start, &[]);
        log.append(&[entry(2, 1), entry(3, 2), entry(4, 2), entry(5, 4)]);
        log
    }

    #[test]
    fn a_new_leaders_entries_cut_off_what_conflicts() {
        let mut log = log();
        log.append(&[entry(4, 5)]);
        assert_eq!(log.last(), LogId::new(4, 5));
        assert_eq!(log.term_of(LogIndex(3)), Some(Term(2)));
        assert_eq!(log.term_of(LogIndex(4)), Some(Term(5)));
        assert_eq!(log.term_of(LogIndex(5)), None, "it was cut off");
        assert_eq!(log.tail_bytes(), 24);
    }

    #[test]
    fn terms_outlive_entries_that_were_evicted() {
        let mut log = log();
        log.evict(LogIndex(5), 0);
        assert_eq!(log.tail_bytes(), 8, "what is not durable or not handed over stays");
        assert!(!log.in_tail(LogIndex(4)) && log.in_tail(LogIndex(5)));
        assert_eq!(log.term(4).ok(), Some(2));
        log.append(&[entry(3, 6)]);
        assert_eq!((log.last(), log.term_of(LogIndex(2))), (LogId::new(3, 6), Some(Term(1))), "cut below the tail");
    }

    #[test]
    fn a_read_below_the_tail_is_asked_for_up_to_the_tail() {
        let mut log = log();
        log.evict(LogIndex(4), 0);
        let read = log.entries(2, 6, None, GetEntriesContext::empty(true));
        assert!(matches!(read, Err(raft_rs::Error::Store(StorageError::LogTemporarilyUnavailable))));
        let wanted: Vec<_> = log.take_wanted().into_iter().map(|(wanted, _)| (wanted.low.0, wanted.high.0)).collect();
        assert_eq!(wanted, [(2, 4)], "entries from 4 on are in memory and need not be on the disk yet");
        log.hold_fetched(vec![entry(2, 1), entry(3, 2)]);
        let read = log.entries(2, 6, None, GetEntriesContext::empty(true)).unwrap();
        assert_eq!(read.iter().map(|entry| entry.index).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn freed_segments_move_the_start_and_keep_its_term() {
        let mut log = log();
        log.advance_start(LogIndex(3));
        assert_eq!((log.start(), log.first_index().ok()), (LogId::new(3, 2), Some(4)));
        assert!(matches!(log.term(2), Err(raft_rs::Error::Store(StorageError::Compacted))));
        assert_eq!(log.term_of(LogIndex(4)), Some(Term(2)));
        log.advance_start(LogIndex(5));
        assert_eq!((log.start(), log.term_of(LogIndex(5))), (LogId::new(5, 4), Some(Term(4))));
        log.append(&[entry(6, 4)]);
        assert_eq!(log.term_of(LogIndex(6)), Some(Term(4)), "a term goes on behind the start");
    }

    #[test]
    fn a_snapshot_is_wanted_until_one_that_is_new_enough_is_offered() {
        let mut log = log();
        assert!(log.snapshot(4, 7).is_err());
        assert_eq!(log.take_snapshot_request(), Some((ReplicaId(7), LogIndex(4))));
        log.offer_snapshot(SnapshotMeta { at: LogId::new(3, 2), membership: Membership::default() });
        assert!(log.snapshot(4, 7).is_err(), "too old");
        log.offer_snapshot(SnapshotMeta { at: LogId::new(5, 4), membership: Membership::default() });
        assert!(log.snapshot(4, 7).is_err(), "from before the follower was a member");
        let membership = Membership { learners: vec![ReplicaId(7)], ..Membership::default() };
        log.offer_snapshot(SnapshotMeta { at: LogId::new(5, 4), membership });
        assert_eq!(log.snapshot(4, 7).unwrap().get_metadata().index, 5);
    }
}
