//! A partition's life from a seed: leaders come and go, producers retry, the log start moves. The expected log is
//! computed from outcomes alone, so that reads are checked against something that knows no database.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use ackord::machine::{Outcome, StateMachine};
use ackord::partition::Partition;
use ackord::partition::command::Command;
use ackord::record::RecordBatch;
use ackord::record::writer::BatchWriter;
use ackord::storage::{Engine, Family, WriteBatch};
use ackord::types::{
    EntryKind, LeaderEpoch, LogEntry, LogId, LogIndex, Membership, NodeId, Offset, RaftGroupId, ReplicaId,
};
use bytes::Bytes;
use std::ops::ControlFlow;

pub const GROUP: RaftGroupId = RaftGroupId(7);

/// One record that must be readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub offset: i64,
    pub timestamp: i64,
    pub epoch: i32,
    pub base_offset: i64,
    pub batch: Bytes,
}

pub fn membership(voters: u32) -> Membership {
    Membership::of_voters((1..=voters).map(|node| ReplicaId::new(NodeId(node), 0)))
}

pub fn produce(index: u64, term: u64, proposed_at_ms: i64, batch: RecordBatch) -> LogEntry {
    LogEntry {
        id: LogId::new(index, term),
        kind: EntryKind::Normal,
        context: Command::Produce { proposed_at_ms }.encode(),
        data: batch.into_bytes(),
    }
}

pub fn set_log_start(index: u64, term: u64, offset: i64) -> LogEntry {
    let context = Command::SetLogStart { offset: Offset(offset) }.encode();
    LogEntry { id: LogId::new(index, term), context, ..LogEntry::default() }
}

/// `count` committed entries.
pub fn entries(seed: u64, count: u64) -> Vec<LogEntry> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut term, mut now_ms, mut written) = (1, 1_000_000, 0i64);
    let mut sequences = [0i32; 3];
    let mut retry: Option<RecordBatch> = None;
    let mut entries: Vec<LogEntry> = vec![LogEntry { id: LogId::new(1, 1), ..LogEntry::default() }];
    for index in 2..=count {
        now_ms += rng.i64(0..5_000);
        let id = LogId::new(index, term);
        entries.push(match rng.u32(0..100) {
            0..6 => {
                term += rng.u64(1..3);
                LogEntry { id: LogId::new(index, term), ..LogEntry::default() }
            }
            6..9 => LogEntry { id, kind: EntryKind::ConfChange, ..LogEntry::default() },
            9..12 => set_log_start(index, term, rng.i64(0..written + 10)),
            12..20 if retry.is_some() => produce(index, term, now_ms, retry.clone().unwrap()),
            _ => {
                let records = rng.i32(1..6);
                let mut writer = BatchWriter::new(now_ms);
                let producer = rng.usize(0..6);
                if producer < 3 {
                    // Now and then a gap, which is refused.
                    let gap = i32::from(rng.u32(0..20) == 0);
                    writer = writer.producer(producer as i64, 0, sequences[producer] + gap);
                    sequences[producer] += if gap == 0 { records } else { 0 };
                }
                for _ in 0..records {
                    let value = vec![rng.u8(..); rng.usize(0..40)];
                    writer = writer.record(None, Some(&value), now_ms + rng.i64(-20_000..20_000));
                }
                let batch = writer.finish();
                retry = (producer < 3).then(|| batch.clone());
                written += i64::from(records);
                produce(index, term, now_ms, batch)
            }
        });
    }
    entries
}

/// The members that result from the changes among `entries`.
pub fn memberships(entries: &[LogEntry]) -> Vec<(LogIndex, Membership)> {
    let changes = entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange);
    changes.map(|entry| (entry.id.index, membership(1 + (entry.id.index.0 % 5) as u32))).collect()
}

pub fn create(engine: &dyn Engine) -> Partition {
    let mut batch = WriteBatch::default();
    let partition = Partition::create(GROUP, LogId::default(), membership(3), &mut batch);
    engine.write(batch).unwrap();
    partition
}

/// Applies and writes; returns the outcomes.
pub fn apply(engine: &dyn Engine, partition: &mut Partition, entries: &[LogEntry]) -> Vec<Outcome> {
    let mut batch = WriteBatch::default();
    let outcomes = partition.apply(entries, &memberships(entries), &mut batch).unwrap();
    engine.write(batch).unwrap();
    outcomes
}

/// What the outcomes say is in the log.
pub fn expected(entries: &[LogEntry], outcomes: &[Outcome]) -> Vec<Expected> {
    let mut expected = Vec::new();
    for (entry, outcome) in entries.iter().zip(outcomes) {
        let Outcome::Appended { base_offset, duplicate: false } = outcome else { continue };
        let batch = RecordBatch::parse(entry.data.clone()).unwrap();
        for record in batch.records(0).unwrap().iter() {
            let record = record.unwrap();
            expected.push(Expected {
                offset: base_offset.0 + i64::from(record.offset_delta),
                timestamp: record.timestamp,
                epoch: entry.id.term.0 as i32,
                base_offset: base_offset.0,
                batch: entry.data.clone(),
            });
        }
    }
    expected
}

/// Every row of every family.
pub fn dump(engine: &dyn Engine) -> Vec<(Family, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    for family in Family::ALL {
        engine
            .scan(family, &[], &[0xff; 32], &mut |key, value| {
                rows.push((family, key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    rows
}

/// Checks every read that the view allows against the expected log.
pub fn check_reads(engine: &dyn Engine, partition: &Partition, expected: &[Expected], rng: &mut fastrand::Rng) {
    let view = partition.view();
    assert_eq!(view.high_watermark.0, expected.last().map_or(0, |last| last.offset + 1));
    let live: Vec<&Expected> = expected.iter().filter(|record| record.offset >= view.log_start.0).collect();
    for record in &live {
        let bytes_max = rng.usize(0..2_000);
        let fetched = view.fetch(engine, Offset(record.offset), bytes_max, true).unwrap();
        let first = &fetched[0];
        assert_eq!((first.base_offset.0, first.leader_epoch), (record.base_offset, LeaderEpoch(record.epoch)));
        assert_eq!(first.batch.bytes(), &record.batch, "as it came");
        assert!(fetched.windows(2).all(|pair| pair[0].next_offset() == pair[1].base_offset));
        let size: usize = fetched.iter().map(|batch| batch.batch.bytes().len()).sum();
        assert!(fetched.len() == 1 || size <= bytes_max);
        let next = fetched.last().unwrap().next_offset();
        let following = live.iter().find(|other| other.offset == next.0);
        assert!(following.is_none_or(|other| size + other.batch.len() > bytes_max), "stopped before it had to");
        let end = view.end_offset_for_epoch(LeaderEpoch(record.epoch)).unwrap();
        let last = live.iter().rev().find(|other| other.epoch == record.epoch).unwrap();
        assert_eq!((end.0.0, end.1.0), (record.epoch, last.offset + 1));
    }
    for _ in 0..20 {
        let Some(record) = live.get(rng.usize(0..live.len().max(1))) else { break };
        let wanted = record.timestamp + rng.i64(-3..4);
        let found = view.offset_for_timestamp(engine, wanted).unwrap().map(|found| (found.offset.0, found.timestamp));
        let first = live.iter().find(|record| record.timestamp >= wanted);
        assert_eq!(found, first.map(|record| (record.offset, record.timestamp)), "first at or after {wanted}");
    }
    let greatest = live.iter().map(|record| record.timestamp).max();
    let first = live.iter().find(|record| Some(record.timestamp) == greatest);
    let found = view.offset_of_max_timestamp(engine).unwrap();
    assert_eq!(found.map(|found| found.offset.0), first.map(|record| record.offset), "greatest timestamp");
}
