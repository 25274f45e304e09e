//! The log on a disk that does what it should: what is appended is there, after any number of starts.

mod wal_common;
use ackord::sim::SimDisk;
use ackord::types::{LogId, RaftGroupId};
use ackord::wal::real_disk::RealDisk;
use ackord::wal::{LogChange, Options};
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

/// A replica has found that promises of its are lost. What it writes afterwards tells nothing of them.
#[test]
fn a_doubt_stays_until_a_state_is_installed() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1), born(2)])).expect("append");
    log.append(&turn([append(1, 2, 3, 1, 100)])).expect("append");
    log.append(&turn([change(1, 5, 0, LogChange::Doubt), change(3, 5, 0, LogChange::Doubt)])).expect("append");
    for life in 1..4 {
        kill(&disk, log);
        let recovery;
        (log, recovery) = open(&disk);
        let one = &recovery.groups[&RaftGroupId(1)];
        assert!(one.damage.as_ref().is_some_and(|damage| damage.doubt && damage.holes.is_empty()), "{one:?}");
        assert_eq!((one.hard_state, one.last), (state(4 + life, 1), LogId::new(4, 1)), "and nothing else of it");
        assert_eq!(recovery.groups[&RaftGroupId(2)].damage, None, "and nobody else");
        assert!(!recovery.groups.contains_key(&RaftGroupId(3)), "who was never born has promised nothing");
        log.append(&turn([only_state(1, 5 + life, 1)])).expect("append");
    }
    let at = LogId::new(9, 3);
    log.append(&turn([change(1, 9, 9, LogChange::Installed { at, generation: 1 })])).expect("append");
    kill(&disk, log);
    let (_, recovery) = open(&disk);
    assert_eq!(recovery.groups[&RaftGroupId(1)].damage, None);
}

/// Two processes that write one log tear what the other one has acknowledged.
#[test]
fn a_directory_has_one_user() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = RealDisk::open(directory.path()).expect("a disk");
    let clone = first.clone();
    let second = RealDisk::open(directory.path()).expect("a disk");
    assert!(first.lock().expect("a lock") && !second.lock().expect("an answer"));
    drop(first);
    assert!(!second.lock().expect("an answer"), "a clone still uses it");
    drop(clone);
    assert!(second.lock().expect("a lock"));
}
