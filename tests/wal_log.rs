//! The log on a disk that does what it should: what is appended is there, after any number of starts.

mod wal_common;
use ackord::sim::SimDisk;
use ackord::types::{LogId, RaftGroupId};
use ackord::wal::Options;
use ackord::wal::real_disk::RealDisk;
use wal_common::*;

#[test]
fn entries_and_promises_survive_starts_on_real_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = RealDisk::open(directory.path()).expect("a disk");
    let (mut log, recovery) = open(&disk);
    assert!(recovery.groups.is_empty());
    log.append(&turn([born(1), born(2)])).expect("append");
    log.append(&turn([append(1, 2, 3, 1, 100), append(2, 2, 1, 1, 10_000)])).expect("append");
    log.append(&turn([append(1, 5, 1, 2, 0), only_state(2, 7, 2)])).expect("append");
    drop(log);
    for _ in 0..3 {
        let (log, recovery) = open(&disk);
        assert_eq!(recovery.findings, Vec::<String>::new());
        let one = &recovery.groups[&RaftGroupId(1)];
        assert_eq!((one.start, one.last, one.hard_state), (LogId::new(1, 1), LogId::new(5, 2), state(2, 4)));
        assert_eq!(one.terms, [LogId::new(2, 1), LogId::new(5, 2)]);
        assert_eq!(recovery.groups[&RaftGroupId(2)].hard_state, state(7, 2));
        assert_eq!(recovery, ackord::wal::Recovery { durable_turn: recovery.durable_turn, ..recovery.clone() });
        assert_eq!(all(&log, 1)[..3], [entry(1, 2, 1, 100), entry(1, 3, 1, 100), entry(1, 4, 1, 100)]);
        assert_eq!(all(&log, 1)[3], entry(1, 5, 2, 0));
        assert_holds(&log, 2, &[(2, 1)], 10_000);
    }
}

#[test]
fn a_turn_of_more_slices_than_one_write_takes_arrives_whole_on_real_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = RealDisk::open(directory.path()).expect("a disk");
    let options = Options { segment_bytes: 16 << 20, ..options() };
    let (mut log, _) = try_open(&disk, options.clone(), 1).expect("open");
    log.append(&turn([born(1)])).expect("append");
    log.append(&turn([append(1, 2, 1_300, 1, 5_000)])).expect("append");
    drop(log);
    let (log, recovery) = try_open(&disk, options, 2).expect("open");
    assert_eq!(recovery.findings, Vec::<String>::new());
    let expected: Vec<_> = (2..1_302).map(|index| (index, 1)).collect();
    assert_holds(&log, 1, &expected, 5_000);
}

#[test]
fn a_conflict_cuts_off_the_old_suffix() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1)])).expect("append");
    log.append(&turn([append(1, 2, 5, 1, 50)])).expect("append");
    log.append(&turn([append(1, 4, 1, 2, 50)])).expect("append");
    assert_holds(&log, 1, &[(2, 1), (3, 1), (4, 2)], 50);
    kill(&disk, log);
    let (log, recovery) = open(&disk);
    assert_eq!(recovery.groups[&RaftGroupId(1)].last, LogId::new(4, 2));
    assert_holds(&log, 1, &[(2, 1), (3, 1), (4, 2)], 50);
}
