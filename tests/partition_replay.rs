//! A crash anywhere, and then the Raft log replays the rest: the state and every later read are as if nothing happened.

use ackord::machine::{Outcome, Refusal, StateMachine};
use ackord::partition::Partition;
use ackord::partition::read::ReadError;
use ackord::record::writer::BatchWriter;
use ackord::sim::engine::SimEngine;
use ackord::storage::rocks::{RocksEngine, RocksOptions};
use ackord::storage::{Engine, Family, WriteBatch};
use ackord::types::{LeaderEpoch, LogEntry, LogId, Offset};

#[path = "support/partition_workload.rs"]
mod workload;
use workload::*;

/// The state after applying everything one by one, without a crash.
fn reference(log: &[LogEntry]) -> (SimEngine, Partition, Vec<Outcome>) {
    let engine = SimEngine::default();
    let mut partition = create(&engine);
    let outcomes = log.iter().flat_map(|entry| apply(&engine, &mut partition, std::slice::from_ref(entry))).collect();
    (engine, partition, outcomes)
}

#[test]
fn a_crash_at_every_batch_replays_to_the_same_state() {
    let log = entries(1, 150);
    let (whole, partition, outcomes) = reference(&log);
    let expected_rows = dump(&whole);
    for crash_at in 0..log.len() {
        let mut rng = fastrand::Rng::with_seed(crash_at as u64);
        let engine = SimEngine::default();
        let mut replayed = create(&engine);
        engine.flush().unwrap();
        let mut applied = 0;
        while applied < crash_at {
            let group = rng.usize(1..8).min(crash_at - applied);
            apply(&engine, &mut replayed, &log[applied..applied + group]);
            applied += group;
            if rng.u32(0..6) == 0 {
                engine.flush().unwrap();
            }
        }
        engine.crash(rng.usize(0..=engine.unflushed()));
        let mut replayed = Partition::open(&engine, GROUP).unwrap().unwrap();
        let from = replayed.applied().index.0 as usize;
        assert!(from <= crash_at);
        let mut again = Vec::new();
        for group in log[from..].chunks(rng.usize(1..9)) {
            again.extend(apply(&engine, &mut replayed, group));
        }
        assert_eq!(again, outcomes[from..], "outcomes after a crash at {crash_at}");
        assert_eq!(dump(&engine), expected_rows, "rows after a crash at {crash_at}");
        assert_eq!(replayed, partition);
        assert_eq!(Partition::open(&engine, GROUP).unwrap().unwrap(), partition);
    }
}

#[test]
fn reads_find_what_the_outcomes_say() {
    for seed in 0..30 {
        let log = entries(seed, 300);
        let (engine, mut partition, outcomes) = reference(&log);
        let mut rng = fastrand::Rng::with_seed(seed);
        let expected = expected(&log, &outcomes);
        check_reads(&engine, &partition, &expected, &mut rng);
        let mut batch = WriteBatch::default();
        let freed = partition.view().trim(&engine, &mut batch).unwrap();
        engine.write(batch).unwrap();
        engine.flush().unwrap();
        freed.iter().for_each(|freed| freed.reclaim(&engine).unwrap());
        check_reads(&engine, &partition, &expected, &mut rng);
        let (index, term) = (log.len() as u64 + 1, partition.applied().term.0);
        apply(&engine, &mut partition, &[set_log_start(index, term, i64::MAX)]);
        check_reads(&engine, &partition, &expected, &mut rng);
        let mut batch = WriteBatch::default();
        let _ = partition.view().trim(&engine, &mut batch).unwrap();
        engine.write(batch).unwrap();
        assert!(!dump(&engine).iter().any(|(family, ..)| *family == Family::Records));
        assert_eq!(Partition::open(&engine, GROUP).unwrap().unwrap(), partition);
    }
}

/// Timestamps searched across many runs of the index, with one far in the future among them.
#[test]
fn searches_by_time_are_right_across_runs_and_after_trimming() {
    let value = vec![1u8; 900 << 10];
    let times = [100, 500, 90, 80, 9_000, 70, 60, 50, 40, 300, 310, 305, 10, 320, 5, 6, 7, 8];
    let log: Vec<_> = (1u64..)
        .zip(times)
        .map(|(index, time)| {
            let batch = BatchWriter::new(time).record(None, Some(b""), time - 1).record(None, Some(&value), time);
            produce(index, 1, 0, batch.finish())
        })
        .collect();
    let (engine, mut partition, outcomes) = reference(&log);
    let expected = expected(&log, &outcomes);
    assert!(dump(&engine).iter().filter(|(family, ..)| *family == Family::Times).count() >= 3, "several runs");
    let at_once = SimEngine::default();
    apply(&at_once, &mut create(&at_once), &log);
    assert!(dump(&engine) == dump(&at_once), "rows do not depend on how many entries one apply takes");
    let mut rng = fastrand::Rng::with_seed(1);
    for log_start in [0, 3, 7, 9, 10, 11, 13, 17, 18, 19, 24, 28, 29, 31, 35, 36] {
        let index = partition.applied().index.0 + 1;
        apply(&engine, &mut partition, &[set_log_start(index, 1, log_start)]);
        for trimmed in [false, true] {
            check_reads(&engine, &partition, &expected, &mut rng);
            if !trimmed {
                let mut batch = WriteBatch::default();
                let _ = partition.view().trim(&engine, &mut batch).unwrap();
                engine.write(batch).unwrap();
            }
        }
    }
}

#[test]
fn an_older_view_reads_nothing_of_what_came_later() {
    let log = entries(3, 200);
    let engine = SimEngine::default();
    let mut partition = create(&engine);
    let mut outcomes = apply(&engine, &mut partition, &log[..120]);
    let (before, old_view) = (partition.clone(), partition.view());
    outcomes.extend(apply(&engine, &mut partition, &log[120..]));
    let expected = expected(&log, &outcomes);
    let seen: Vec<_> = expected.into_iter().filter(|record| record.offset < old_view.high_watermark.0).collect();
    check_reads(&engine, &before, &seen, &mut fastrand::Rng::with_seed(3));
    let beyond = old_view.fetch(&engine, Offset(old_view.high_watermark.0 + 1), 1, true);
    assert!(matches!(beyond, Err(ReadError::OutOfRange { .. })));
    assert_eq!(old_view.fetch(&engine, old_view.high_watermark, 1, true).unwrap(), []);
}

#[test]
fn a_retry_is_recognised_after_a_crash_and_by_the_next_leader() {
    let engine = SimEngine::default();
    let mut partition = create(&engine);
    let batch = |sequence| BatchWriter::new(0).producer(9, 0, sequence).record(None, Some(b"once"), 0).finish();
    apply(&engine, &mut partition, &[produce(1, 1, 0, batch(0)), produce(2, 1, 0, batch(1))]);
    engine.crash(2);
    let mut partition = Partition::open(&engine, GROUP).unwrap().unwrap();
    let retried = apply(
        &engine,
        &mut partition,
        &[produce(3, 5, 10, batch(1)), produce(4, 5, 10, batch(3)), produce(5, 5, 10, batch(2))],
    );
    assert_eq!(
        retried,
        [
            Outcome::Appended { base_offset: Offset(1), duplicate: true },
            Outcome::Refused(Refusal::OutOfOrderSequence),
            Outcome::Appended { base_offset: Offset(2), duplicate: false },
        ]
    );
    assert_eq!(partition.view().high_watermark, Offset(3), "refused and repeated batches take no offset");
    assert_eq!(partition.view().end_offset_for_epoch(LeaderEpoch(1)), Some((LeaderEpoch(1), Offset(2))));
}

#[test]
fn a_leader_that_has_written_nothing_yet_has_its_epoch() {
    let engine = SimEngine::default();
    let mut partition = create(&engine);
    let batch = BatchWriter::new(0).record(None, None, 0).finish();
    apply(
        &engine,
        &mut partition,
        &[produce(1, 1, 0, batch), LogEntry { id: LogId::new(2, 4), ..LogEntry::default() }],
    );
    assert_eq!(partition.view().end_offset_for_epoch(LeaderEpoch(4)), Some((LeaderEpoch(4), Offset(1))));
    assert_eq!(partition.view().end_offset_for_epoch(LeaderEpoch(3)), Some((LeaderEpoch(1), Offset(1))));
}

#[test]
fn what_cannot_be_applied_is_damage() {
    let good = BatchWriter::new(0).record(None, None, 0).finish();
    let mut flipped = good.bytes().to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let with = |change: &dyn Fn(&mut LogEntry)| {
        let mut entry = produce(1, 1, 0, good.clone());
        change(&mut entry);
        create(&SimEngine::default()).apply(&[entry], &[], &mut WriteBatch::default()).is_err()
    };
    assert!(!with(&|_| {}));
    assert!(with(&|entry| entry.data = flipped.clone().into()), "the checksum does not match");
    assert!(with(&|entry| entry.context = vec![200].into()), "a version of the future");
    assert!(with(&|entry| entry.context = vec![].into()), "data without a command");
    assert!(with(&|entry| entry.id = LogId::new(2, 1)), "a gap in the log");
    assert!(with(&|entry| entry.id = LogId::new(1, 1 << 31)), "a term beyond Kafka's epochs");
    assert!(with(&|entry| entry.kind = ackord::types::EntryKind::ConfChange), "members not known");
}

#[test]
fn lost_records_are_found_on_opening_and_on_reading() {
    let engine = SimEngine::default();
    let mut partition = create(&engine);
    let batch = || BatchWriter::new(0).record(None, Some(b"v"), 0).finish();
    apply(&engine, &mut partition, &[produce(1, 1, 0, batch()), produce(2, 1, 0, batch()), produce(3, 1, 0, batch())]);
    let rows = dump(&engine);
    let records: Vec<_> = rows.iter().filter(|(family, ..)| *family == Family::Records).collect();
    let remove = |n: usize| {
        let mut batch = WriteBatch::default();
        batch.delete(Family::Records, records[n].1.clone());
        engine.write(batch).unwrap();
    };
    remove(1);
    let view = partition.view();
    assert!(matches!(view.fetch(&engine, Offset(1), 1, true), Err(ReadError::Missing(Offset(1)))));
    assert!(matches!(view.fetch(&engine, Offset(0), 1_000, true), Err(ReadError::Missing(Offset(1)))));
    remove(2);
    assert!(Partition::open(&engine, GROUP).is_err());
}

/// What `directory` takes on the disk, in MiB.
fn disk_mib(directory: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().metadata().map_or(0, |data| data.len()));
    files.sum::<u64>() >> 20
}

#[test]
fn the_disk_of_a_destroyed_partition_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let options = RocksOptions { write_buffer_bytes: 8 << 20, ..RocksOptions::default() };
    let engine = RocksEngine::open(directory.path(), options).unwrap();
    let mut partition = create(&engine);
    let value = vec![3u8; 1 << 20];
    for index in 1..=200 {
        let batch = BatchWriter::new(0).record(None, Some(&value), 0).finish();
        apply(&engine, &mut partition, &[produce(index, 1, 0, batch)]);
    }
    engine.flush().unwrap();
    let is_merging = || {
        let properties = ["rocksdb.num-running-compactions", "rocksdb.compaction-pending"];
        properties.iter().any(|property| engine.property(property) > 0)
    };
    while is_merging() {
        std::thread::yield_now();
    }
    assert!(disk_mib(directory.path()) >= 200);
    let mut batch = WriteBatch::default();
    let freed = Partition::destroy(GROUP, &mut batch);
    engine.write(batch).unwrap();
    engine.flush().unwrap();
    freed.reclaim(&engine).unwrap();
    // Files that were never merged are not dropped; a merge, or their number, bounds them.
    drop(engine);
    let left = disk_mib(directory.path());
    assert!(left < 80, "{left} MiB are left");
}

#[test]
fn a_destroyed_partition_leaves_no_row_and_its_neighbours_stay() {
    let directory = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(directory.path(), RocksOptions::default()).unwrap();
    let log = entries(5, 100);
    let mut partition = create(&engine);
    apply(&engine, &mut partition, &log);
    let mut batch = WriteBatch::default();
    let other = Partition::create(ackord::types::RaftGroupId(GROUP.0 + 1), LogId::default(), membership(1), &mut batch);
    let freed = Partition::destroy(GROUP, &mut batch);
    engine.write(batch).unwrap();
    engine.flush().unwrap();
    freed.reclaim(&engine).unwrap();
    assert!(Partition::open(&engine, GROUP).unwrap().is_none());
    assert_eq!(dump(&engine).len(), 2, "the neighbour's two rows");
    assert!(Partition::open(&engine, ackord::types::RaftGroupId(GROUP.0 + 1)).unwrap().unwrap() == other);
}
