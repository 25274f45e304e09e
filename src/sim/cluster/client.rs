//! Who writes and reads in a simulated cluster, and what each was told: the history that the promises are checked
//! against.

use crate::machine::Outcome;
use crate::multiraft::core::effect::{Proposal, Reply, Ticket};
use crate::partition::command::Command;
use crate::record::RecordBatch;
use crate::record::writer::BatchWriter;
use crate::types::{NodeId, Offset, RaftGroupId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What a writer knows of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// No answer yet, or one that leaves it open.
    Unknown,
    /// Acknowledged at this offset.
    Acknowledged(Offset),
    /// Certainly not written.
    Refused,
}

/// One write.
#[derive(Clone, Debug)]
struct Write {
    /// Where it went.
    group: RaftGroupId,
    /// Through whom; no answer comes after that node has crashed.
    node: NodeId,
    /// What became of it.
    fate: Fate,
}

/// One read.
#[derive(Clone, Debug)]
struct Read {
    /// Of which group.
    group: RaftGroupId,
    /// Through whom.
    node: NodeId,
    /// Records acknowledged before it began: it must see at least so many.
    must_see: usize,
    /// Where the log started before it began, as far as anybody knew: it may not start earlier.
    start: usize,
}

/// An order to remove records.
#[derive(Clone, Copy, Debug)]
struct Trim {
    /// Of which group.
    group: RaftGroupId,
    /// The first offset that stays; beyond the end, the end as of then takes its place.
    offset: usize,
    /// Where the log surely starts, once the order is acknowledged: nothing beyond what was acknowledged before it.
    at_least: usize,
}

/// See the module. A write's ticket is its record's payload, so that every record is unique.
#[derive(Debug, Default)]
pub struct Client {
    /// The next ticket.
    next: u64,
    /// Every write by ticket.
    writes: BTreeMap<Ticket, Write>,
    /// Reads not answered yet.
    reads: BTreeMap<Ticket, Read>,
    /// Reads served.
    served: usize,
    /// Writes from this ticket on are made after the faults have stopped.
    probes_from: Option<Ticket>,
    /// Groups that acknowledged one of those.
    probed: BTreeSet<RaftGroupId>,
    /// Per group, one more than the highest acknowledged offset.
    acknowledged_end: BTreeMap<RaftGroupId, usize>,
    /// Every trim by ticket.
    trims: BTreeMap<Ticket, Trim>,
    /// Trims acknowledged.
    trimmed: usize,
    /// Per group, the greatest log start that anybody was told of.
    known_start: BTreeMap<RaftGroupId, usize>,
}

/// The ticket in a batch that `Client::write` made.
#[must_use]
pub fn payload_of(batch: &RecordBatch) -> u64 {
    let records = batch.records(1 << 20).expect("a batch of the client's can be read");
    let record = records.iter().next().expect("it holds a record").expect("which can be read");
    let value = record.value.expect("it has a value");
    u64::from_be_bytes(value.try_into().expect("which is a ticket"))
}

impl Client {
    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// A new record for `group`, written through `node`, with a key of so many bytes.
    pub fn write(&mut self, node: NodeId, group: RaftGroupId, key_bytes: usize) -> Proposal {
        let ticket = self.ticket();
        self.writes.insert(ticket, Write { group, node, fate: Fate::Unknown });
        let key = vec![0; key_bytes];
        let batch = BatchWriter::new(0).record(Some(&key), Some(&ticket.0.to_be_bytes()), 0).finish();
        let context = Command::Produce { proposed_at_ms: 0 }.encode();
        Proposal { ticket, source: None, context, data: batch.into_bytes() }
    }

    /// The faults have stopped: every group must acknowledge a write from now on.
    pub fn begin_probes(&mut self) {
        self.probes_from = Some(Ticket(self.next + 1));
    }

    /// Whether `group` has acknowledged a write since then.
    #[must_use]
    pub fn probed(&self, group: RaftGroupId) -> bool {
        self.probed.contains(&group)
    }

    /// A read of `group` through `node` begins.
    pub fn read(&mut self, node: NodeId, group: RaftGroupId) -> Ticket {
        let ticket = self.ticket();
        let must_see = self.acknowledged_end.get(&group).copied().unwrap_or_default();
        let start = self.known_start.get(&group).copied().unwrap_or_default();
        self.reads.insert(ticket, Read { group, node, must_see, start });
        ticket
    }

    /// The group that a waiting read reads.
    #[must_use]
    pub fn group_of(&self, ticket: Ticket) -> Option<RaftGroupId> {
        self.reads.get(&ticket).map(|read| read.group)
    }

    /// An order to remove the records of `group` below `offset`.
    pub fn trim(&mut self, group: RaftGroupId, offset: Offset) -> Proposal {
        let ticket = self.ticket();
        let end = self.acknowledged_end.get(&group).copied().unwrap_or_default();
        let wanted = offset.0 as usize;
        self.trims.insert(ticket, Trim { group, offset: wanted, at_least: wanted.min(end) });
        Proposal { ticket, source: None, context: Command::SetLogStart { offset }.encode(), data: Bytes::new() }
    }

    /// Trims acknowledged.
    #[must_use]
    pub fn trims(&self) -> usize {
        self.trimmed
    }

    /// A read may be served by a state whose records begin at `start` and end at `seen`.
    pub fn read_served(&mut self, ticket: Ticket, start: usize, seen: usize, seed: u64) {
        let Some(read) = self.reads.remove(&ticket) else { return };
        assert!(
            start >= read.start,
            "seed {seed}: a read found the log to start at {start}, after one had found it to start at {}",
            read.start
        );
        let known = self.known_start.entry(read.group).or_default();
        *known = (*known).max(start);
        assert!(
            seen >= read.must_see,
            "seed {seed}: a read saw {seen} records where {} were acknowledged",
            read.must_see
        );
        self.served += 1;
    }

    /// A write was answered.
    pub fn answered(&mut self, ticket: Ticket, reply: &Reply) {
        if let Some(Trim { group, at_least, .. }) = self.trims.get(&ticket) {
            if let Reply::Applied { .. } = reply {
                self.trimmed += 1;
                let known = self.known_start.entry(*group).or_default();
                *known = (*known).max(*at_least);
            }
            return;
        }
        let Some(write) = self.writes.get_mut(&ticket) else {
            self.reads.remove(&ticket);
            return;
        };
        assert_eq!(write.fate, Fate::Unknown, "a write is answered once");
        match reply {
            Reply::Applied { outcome: Outcome::Appended { base_offset, .. }, .. } => {
                write.fate = Fate::Acknowledged(*base_offset);
                let end = self.acknowledged_end.entry(write.group).or_default();
                *end = (*end).max(base_offset.0 as usize + 1);
                if self.probes_from.is_some_and(|first| ticket >= first) {
                    self.probed.insert(write.group);
                }
            }
            Reply::Refused(_) => write.fate = Fate::Refused,
            Reply::Undecided => {}
            other => panic!("a write was answered with {other:?}"),
        }
    }

    /// Whoever waited for this node waits in vain.
    pub fn lost_node(&mut self, node: NodeId) {
        self.reads.retain(|_, read| read.node != node);
        for write in self.writes.values_mut().filter(|write| write.node == node) {
            write.node = NodeId(0);
        }
    }

    /// Writes acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.writes.values().filter(|write| matches!(write.fate, Fate::Acknowledged(_))).count()
    }

    /// Reads served.
    #[must_use]
    pub fn reads_served(&self) -> usize {
        self.served
    }

    /// Holds the final records of a group, which begin at `start`, against the history.
    pub fn check(&self, group: RaftGroupId, start: Offset, records: &[u64], seed: u64) {
        let mut places: BTreeMap<Ticket, usize> = BTreeMap::new();
        let start = start.0 as usize;
        let wanted = self.trims.values().filter(|trim| trim.group == group).map(|trim| trim.offset).max();
        let known = self.known_start.get(&group).copied().unwrap_or_default();
        assert!(known <= start, "seed {seed}: group {group} starts at {start}, and has started at {known}");
        assert!(start <= wanted.unwrap_or(0), "seed {seed}: nobody wanted group {group} to start at {start}");
        for (offset, record) in (start..).zip(records) {
            let earlier = places.insert(Ticket(*record), offset);
            assert_eq!(earlier, None, "seed {seed}: a record of group {group} is there twice");
        }
        for (ticket, write) in self.writes.iter().filter(|(_, write)| write.group == group) {
            let found = places.remove(ticket);
            match write.fate {
                Fate::Unknown => {}
                Fate::Refused => assert_eq!(found, None, "seed {seed}: refused write {ticket:?} is there"),
                Fate::Acknowledged(offset) if (offset.0 as usize) < start => {
                    assert_eq!(found, None, "seed {seed}: removed write {ticket:?} of group {group} is there");
                }
                Fate::Acknowledged(offset) => {
                    assert_eq!(
                        found,
                        Some(offset.0 as usize),
                        "seed {seed}: acknowledged write {ticket:?} of group {group}"
                    );
                }
            }
        }
        assert!(places.is_empty(), "seed {seed}: records nobody wrote: {places:?}");
    }
}
