//! Retention's decision: which runs go, by time and by size; what a log of an older version is taken for.

use ackord::partition::Partition;
use ackord::partition::retention::Retention;
use ackord::record::writer::BatchWriter;
use ackord::sim::engine::SimEngine;
use ackord::storage::{Engine, EngineError, Family, Visitor, WriteBatch};
use ackord::types::{LogEntry, LogId, Offset};
use bytes::Bytes;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

#[path = "support/partition_workload.rs"]
mod workload;
use workload::{GROUP, apply, create, produce, set_log_start};

const MIB: u64 = 1 << 20;

/// A partition of batches of one record of a little more than 2 MiB, so that each run is two of them.
struct Log {
    engine: SimEngine,
    partition: Partition,
    next: u64,
}

impl Log {
    /// One batch for each timestamp.
    fn of(timestamps: &[i64]) -> Self {
        let engine = SimEngine::default();
        let partition = create(&engine);
        let mut log = Self { engine, partition, next: 1 };
        timestamps.iter().for_each(|timestamp| log.append(*timestamp));
        log
    }

    fn append(&mut self, timestamp: i64) {
        let value = vec![7; 2 << 20];
        let batch = BatchWriter::new(timestamp).record(None, Some(&value), timestamp).finish();
        self.apply(produce(self.next, 1, 0, batch));
    }

    fn apply(&mut self, entry: LogEntry) {
        self.next += 1;
        apply(&self.engine, &mut self.partition, &[entry]);
    }

    fn set_log_start(&mut self, offset: i64) {
        self.apply(set_log_start(self.next, 1, offset));
    }

    fn by_time(&self, age_max_ms: i64, now_ms: i64) -> Option<i64> {
        self.decide(Retention { age_max_ms: Some(age_max_ms), bytes: None }, now_ms)
    }

    fn by_size(&self, bytes: u64) -> Option<i64> {
        self.decide(Retention { age_max_ms: None, bytes: Some(bytes) }, 0)
    }

    fn decide(&self, retention: Retention, now_ms: i64) -> Option<i64> {
        let start = self.partition.view().retained_start(&self.engine, &retention, now_ms).unwrap();
        start.map(|offset| offset.0)
    }

    fn size(&self) -> u64 {
        self.partition.view().size(&self.engine).unwrap()
    }
}

#[test]
fn nothing_goes_without_a_limit() {
    assert_eq!(Log::of(&[1, 2, 3, 4, 5]).decide(Retention::default(), i64::MAX), None);
    assert_eq!(Log::of(&[]).decide(Retention { age_max_ms: Some(0), bytes: Some(0) }, i64::MAX), None);
}

#[test]
fn a_run_goes_when_its_newest_record_is_too_old() {
    let log = Log::of(&[100, 300, 400, 200, 500, 600, 700]);
    assert_eq!(log.by_time(1_000, 1_300), None, "exactly as old as may be");
    assert_eq!(log.by_time(1_000, 1_301), Some(2));
    assert_eq!(log.by_time(1_000, 1_401), Some(4), "the second run's newest is its first record");
    assert_eq!(log.by_time(1_000, 1_700), Some(6));
    assert_eq!(log.by_time(1_000, 1_701), Some(7), "the run that is not full goes, too: the log is empty then");
}

#[test]
fn the_future_keeps_its_run_and_all_behind_it() {
    let log = Log::of(&[100, 100, 9_000, 100, 100, 100, 100]);
    assert_eq!(log.by_time(1_000, 5_000), Some(2));
    assert_eq!(log.by_time(1_000, 10_001), Some(7), "until it is the past");
    assert_eq!(log.by_time(i64::MAX, i64::MAX), None, "no overflow");
}

#[test]
fn records_without_a_time_are_kept() {
    let log = Log::of(&[-1, -1, 100, 100, 100]);
    assert_eq!(log.by_time(1_000, i64::MAX), None);
    assert_eq!(log.by_size(0), Some(5));
}

#[test]
fn what_remains_is_at_or_above_the_limit() {
    let log = Log::of(&[1; 7]);
    let record = log.size() / 7;
    assert!(record > 2 * MIB && record < 2 * MIB + 200);
    assert_eq!(log.by_size(7 * record), None);
    assert_eq!(log.by_size(5 * record + 1), None, "without the first run it would be below");
    assert_eq!(log.by_size(5 * record), Some(2));
    assert_eq!(log.by_size(record), Some(6));
    assert_eq!(log.by_size(1), Some(6));
    assert_eq!(log.by_size(0), Some(7));
}

#[test]
fn either_limit_frees_a_run() {
    let log = Log::of(&[100, 100, 9_000, 100, 100, 100, 100]);
    let record = log.size() / 7;
    let both = Retention { age_max_ms: Some(1_000), bytes: Some(3 * record) };
    assert_eq!(log.decide(both, 5_000), Some(7), "time, size, and time again");
    assert_eq!(log.decide(Retention { bytes: Some(3 * record + 1), ..both }, 5_000), Some(2), "neither");
}

#[test]
fn what_is_gone_already_does_not_count() {
    let mut log = Log::of(&[1; 9]);
    let record = log.size() / 9;
    log.set_log_start(3);
    assert_eq!(log.size(), 7 * record, "the run around the log start counts whole");
    assert_eq!(log.by_size(5 * record), Some(4));
    assert_eq!(log.by_size(5 * record + 1), None);
    let mut batch = WriteBatch::default();
    let freed = log.partition.view().trim(&log.engine, &mut batch).unwrap().unwrap();
    log.engine.write(batch).unwrap();
    log.engine.flush().unwrap();
    freed.reclaim(&log.engine).unwrap();
    assert_eq!((log.size(), log.by_size(5 * record)), (7 * record, Some(4)), "trimming changes nothing");
    log.set_log_start(9);
    assert_eq!((log.size(), log.by_size(0)), (0, None));
    log.append(1);
    assert_eq!(log.by_size(0), Some(10));
    assert_eq!(Partition::open(&log.engine, GROUP).unwrap().unwrap(), log.partition);
}

/// A decision that keeps all looks at the first run and the one after it, however many follow.
#[test]
fn the_cost_does_not_grow_with_the_log() {
    let log = Log::of(&[1; 200]);
    let counting = Counting { inner: log.engine.clone(), visited: AtomicUsize::new(0) };
    let record = log.size() / 200;
    counting.visited.store(0, Relaxed);
    let keep = Retention { age_max_ms: None, bytes: Some(195 * record) };
    let start = log.partition.view().retained_start(&counting, &keep, 0).unwrap();
    assert_eq!(start, Some(Offset(4)));
    let visited = counting.visited.load(Relaxed);
    assert!(visited <= 5, "{visited} rows were looked at to free two runs");
}

/// Counts the rows that scans visit.
struct Counting {
    inner: SimEngine,
    visited: AtomicUsize,
}

impl Engine for Counting {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.inner.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        self.inner.scan(family, from, to, &mut |key, value| {
            self.visited.fetch_add(1, Relaxed);
            visit(key, value)
        })
    }

    fn last_at_or_before(
        &self,
        family: Family,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Vec<u8>, Bytes)>, EngineError> {
        self.inner.last_at_or_before(family, from, at)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.inner.write(batch)
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.inner.flush()
    }

    fn reclaim(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), EngineError> {
        self.inner.reclaim(family, from, to)
    }
}

/// A database whose runs did not count bytes is opened, and its runs are taken to be as large as runs are.
#[test]
fn runs_of_an_older_version_are_counted_when_it_is_opened() {
    let log = Log::of(&[100, 200, 300, 400, 500]);
    let record = log.size() / 5;
    let place = |place: u64| [GROUP.0, 1, place].into_iter().flat_map(u64::to_be_bytes).collect::<Vec<u8>>();
    let mut batch = WriteBatch::default();
    for (first, max_timestamp) in [(0, 200_i64), (2, 400)] {
        batch.put(Family::Times, place(first), older(&max_timestamp));
    }
    // Applied, generation, log start, next offset, and the run: first offset, bytes, greatest timestamp.
    let position = (LogId::new(5, 1), 1_u64, Offset(0), Offset(5), (Offset(4), record, 500_i64));
    batch.put(Family::Meta, [&GROUP.0.to_be_bytes()[..], &[0]].concat(), older(&position));
    log.engine.write(batch).unwrap();
    let opened = Partition::open(&log.engine, GROUP).unwrap().unwrap();
    let view = opened.view();
    assert_eq!(view.size(&log.engine).unwrap(), 8 * MIB + record);
    let start = |bytes| {
        let keep = Retention { age_max_ms: None, bytes: Some(bytes) };
        view.retained_start(&log.engine, &keep, 0).unwrap()
    };
    assert_eq!((start(4 * MIB), start(4 * MIB + record + 1)), (Some(Offset(2)), None));
    assert_eq!(view.offset_for_timestamp(&log.engine, 350).unwrap().unwrap().offset, Offset(3));
    assert_eq!(Partition::open(&log.engine, GROUP).unwrap().unwrap(), opened, "and it is so from then on");
}

/// A value as version 1 wrote it.
fn older<T: bincode::Encode>(value: &T) -> Vec<u8> {
    [vec![1], bincode::encode_to_vec(value, bincode::config::standard()).unwrap()].concat()
}
