//! Room: segments rotate, are freed and recycled, entries are copied forward, and a full disk refuses in time.

mod wal_common;
use ackord::sim::SimDisk;
use ackord::types::{LogId, LogIndex, RaftGroupId};
use ackord::wal::disk::Disk;
use ackord::wal::real_disk::RealDisk;
use ackord::wal::{GroupWrite, Log, LogChange, LogError, Options, ReadError, RoomMade, prepare_spare};
use wal_common::*;

fn live<D: Disk>(disk: &D) -> Vec<u64> {
    let names = disk.list().expect("names");
    let number = |name: &String| name.strip_prefix("segment-")?.strip_suffix(".wal")?.parse().ok();
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// Appends to group 1 until the log has begun segment `until`. Releases all but the newest 10 entries if `release`.
fn fill<D: Disk>(log: &mut Log<D>, disk: &D, until: u64, release: bool) {
    while live(disk).last().is_none_or(|newest| *newest < until) {
        let last = log.groups().groups[&RaftGroupId(1)].last.index.0;
        log.append(&turn([append(1, last + 1, 3, 1, 15_000)])).expect("append");
        if release {
            log.release(RaftGroupId(1), LogIndex(last.saturating_sub(10)));
        }
    }
}

#[test]
fn released_segments_are_recycled_and_their_entries_are_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = RealDisk::open(directory.path()).expect("a disk");
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1)])).expect("append");
    let mut reader = log.reader();
    log.append(&turn([append(1, 2, 3, 1, 15_000)])).expect("append");
    let early = log.locate(RaftGroupId(1), LogIndex(2), LogIndex(4), u64::MAX).expect("there");
    assert_eq!(reader.read(&early, u64::MAX).expect("readable"), [entry(1, 2, 1, 15_000), entry(1, 3, 1, 15_000)]);
    fill(&mut log, &disk, 12, true);
    let first = log.groups().groups[&RaftGroupId(1)].first_index();
    assert!(first > LogIndex(20), "the start has moved: {first}");
    assert!(live(&disk).len() <= 5, "about as much as is to be retained: {:?}", live(&disk));
    assert!(disk.list().expect("names").len() <= 5 + 2, "freed files are recycled, not piled up");
    assert_eq!(
        log.entries(RaftGroupId(1), LogIndex(2), LogIndex(4), u64::MAX),
        Err(ReadError::Released { group: RaftGroupId(1) })
    );
    let stale = Err(ReadError::Released { group: RaftGroupId(1) });
    assert_eq!(reader.read(&early, u64::MAX), stale, "the file has been recycled under the reader's handle");
    assert_eq!(log.reader().read(&early, u64::MAX), stale, "the file has another name");
    assert!(log.take_room_made().reused_segments >= 4, "and reused");
    assert_eq!(log.take_room_made(), RoomMade::default(), "each is told once");
    let held = all(&log, 1);
    drop(log);
    let (log, recovery) = open(&disk);
    assert_eq!(recovery.findings, Vec::<String>::new(), "stale bytes of recycled files are not found");
    assert!(held.ends_with(&all(&log, 1)), "the start frees as any rotation does; the rest is as it was");
    assert!(all(&log, 1).len() >= 10, "what is not released is there");
}

#[test]
fn nothing_that_a_group_needs_is_freed() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1)])).expect("append");
    fill(&mut log, &disk, 9, false);
    assert_eq!(live(&disk), (1..=9).collect::<Vec<_>>());
    assert_eq!(log.take_room_made(), RoomMade::default(), "nothing was freed, and nothing moved");
    let last = log.groups().groups[&RaftGroupId(1)].last.index.0;
    assert_eq!(all(&log, 1).len() as u64, last - 1);
}

#[test]
fn a_group_that_holds_back_a_segment_has_its_entries_copied_forward() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1), born(2), born(3)])).expect("append");
    log.append(&turn([append(2, 2, 4, 1, 500), append(3, 2, 2, 1, 100)])).expect("append");
    log.append(&turn([append(3, 3, 2, 2, 100)])).expect("append");
    fill(&mut log, &disk, 4, true);
    // Group 2 goes on, cut and with a newer suffix: what is copied later must not cut it off again.
    log.append(&turn([append(2, 5, 3, 3, 500)])).expect("append");
    fill(&mut log, &disk, 20, true);
    assert!(live(&disk)[0] > 10, "{:?}", live(&disk));
    assert!(log.take_room_made().copied_bytes >= 4 * 500 + 3 * 100);
    let two = [(2, 1), (3, 1), (4, 1), (5, 3), (6, 3), (7, 3)];
    for _ in 0..3 {
        assert_holds(&log, 2, &two, 500);
        assert_holds(&log, 3, &[(2, 1), (3, 2), (4, 2)], 100);
        kill(&disk, log);
        let opened = open(&disk);
        assert_eq!(opened.1.findings, Vec::<String>::new());
        assert_eq!(opened.1.groups[&RaftGroupId(2)].terms, [LogId::new(2, 1), LogId::new(5, 3)]);
        log = opened.0;
    }
}

#[test]
fn a_conflict_among_entries_that_are_copied_forward_later_survives_the_freeing() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1), born(2)])).expect("append");
    log.append(&turn([append(2, 2, 4, 1, 500)])).expect("append");
    fill(&mut log, &disk, 2, true);
    log.append(&turn([append(2, 6, 4, 1, 500)])).expect("append");
    for until in 3..16 {
        fill(&mut log, &disk, until, true);
        // Cuts after entry 7. When 2 to 5 have been copied forward and 6 and 7 not yet, a later replay meets this cut
        // between the two copies, when the place of entry 7 is not known.
        log.append(&turn([append(2, 8, 2, until, 500)])).expect("append");
        let copy = disk.duplicate();
        copy.kill();
        let (opened, recovery) = open(&copy);
        assert_eq!((damage_of(&recovery, 2), recovery.findings.as_slice()), (None, &[][..]), "segment {until}");
        let ids: Vec<_> = (2..8).map(|index| (index, 1)).chain([(8, until), (9, until)]).collect();
        assert_holds(&opened, 2, &ids, 500);
    }
}

/// Group 2 has entries 2 to 11, of which 4 to 6 are lost.
fn with_hole() -> (SimDisk, Log<SimDisk>) {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1), born(2)])).expect("append");
    log.append(&turn([append(2, 2, 10, 1, 500)])).expect("append");
    log.mark_lost(RaftGroupId(2), LogIndex(4), LogIndex(6), "it rotted");
    (disk, log)
}

fn what_was_lost() -> GroupWrite {
    change(2, 1, 1, LogChange::Refill((4..7).map(|index| entry(2, index, 1, 500)).collect()))
}

/// What it lacks may be away for as long as its peers are; the log is all groups'.
#[test]
fn a_group_that_has_lost_entries_holds_back_no_segment() {
    let (disk, mut log) = with_hole();
    fill(&mut log, &disk, 20, true);
    assert!(live(&disk)[0] > 10, "{:?}", live(&disk));
    for _ in 0..2 {
        let left = |from, until| log.entries(RaftGroupId(2), LogIndex(from), LogIndex(until), u64::MAX);
        assert_eq!((left(2, 4).expect("readable").len(), left(7, 12).expect("readable").len()), (2, 5));
        assert!(matches!(left(2, 12), Err(ReadError::Damaged { first: LogIndex(4), last: LogIndex(11), .. })));
        kill(&disk, log);
        log = open(&disk).0;
    }
    log.append(&turn([what_was_lost()])).expect("append");
    assert_holds(&log, 2, &(2..12).map(|index| (index, 1)).collect::<Vec<_>>(), 500);
}

/// A flush has made them needless while a peer was asked, and the room for them was made by letting go of the rest.
#[test]
fn lost_entries_that_come_too_late_change_nothing() {
    let (disk, mut log) = with_hole();
    log.release(RaftGroupId(2), LogIndex(12));
    fill(&mut log, &disk, 20, true);
    let before = log.groups().groups[&RaftGroupId(2)].clone();
    assert_eq!(before.start, LogId::new(11, 1));
    log.append(&turn([what_was_lost()])).expect("append");
    assert_eq!(log.groups().groups[&RaftGroupId(2)], before);
}

/// Somebody had asked for them before they were cut off.
#[test]
fn entries_that_are_not_there_any_more_are_not_looked_for() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1)])).expect("append");
    log.append(&turn([append(1, 2, 10, 1, 500)])).expect("append");
    log.append(&turn([append(1, 4, 1, 2, 500)])).expect("append");
    let found = log.locate(RaftGroupId(1), LogIndex(3), LogIndex(8), u64::MAX);
    assert_eq!(found, Err(ReadError::Released { group: RaftGroupId(1) }));
}

#[test]
fn a_full_disk_refuses_entries_and_still_takes_promises() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1)])).expect("append");
    disk.set_capacity(Some(4 * SEGMENT));
    let mut last = 1;
    let refused = loop {
        match log.append(&turn([append(1, last + 1, 1, 1, 20_000)])) {
            Ok(_) => last += 1,
            Err(error) => break error,
        }
        assert!(last < 100, "the disk is full at some time");
    };
    assert!(matches!(refused, LogError::Full));
    let order = log.order_spare().expect("one is wanted");
    assert_eq!(prepare_spare(&disk, order).map(|_| ()).expect_err("full").kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(log.headroom().spares, 1, "one spare is in reserve");
    let unspent = disk.duplicate();
    log.append(&turn([only_state(1, 5, 2)])).expect("a vote is still taken");
    log.seal().expect("a seal, too");
    assert_eq!(log.headroom().spares, 0, "this took the reserve");
    assert!(matches!(log.append(&turn([append(1, last + 1, 1, 5, 20_000)])), Err(LogError::Full)));
    assert_eq!(all(&log, 1).len() as u64, last - 1, "a refused turn leaves no trace");
    kill(&disk, log);
    assert!(matches!(try_open(&disk, options(), 5), Err(LogError::Full)), "a start needs a segment");
    disk.set_capacity(None);
    let (mut log, recovery) = open(&disk);
    assert_eq!(recovery.groups[&RaftGroupId(1)].last, LogId::new(last, 1));
    assert_eq!(recovery.groups[&RaftGroupId(1)].hard_state, state(5, last - 1));
    log.append(&turn([append(1, last + 1, 1, 5, 20_000)])).expect("space is back");

    unspent.kill();
    let (log, _) = open(&unspent);
    assert_eq!(all(&log, 1).len() as u64, last - 1, "with the reserve unspent, it starts on the full disk");
}

#[test]
fn a_turn_that_fits_no_segment_is_refused_before_anything_is_written() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1)])).expect("append");
    let before = disk.changes();
    let refused = log.append(&turn([append(1, 2, 20, 1, 15_000)]));
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
    assert_eq!(disk.changes(), before);
    log.append(&turn([append(1, 2, 10, 1, 15_000)])).expect("half of it fits");
}

#[test]
fn one_turn_is_one_write_and_one_sync() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn((1..50).map(born))).expect("append");
    log.append(&turn([append(1, 2, 1, 1, 100)])).expect("the first entries, which make the log keep a spare");
    let before = (disk.changes(), disk.syncs());
    log.append(&turn((2..50).map(|group| append(group, 2, 1, 1, 100)))).expect("append");
    assert_eq!((disk.changes() - before.0, disk.syncs() - before.1), (2, 1));
    log.seal().expect("seal");
    assert_eq!((disk.changes() - before.0, disk.syncs() - before.1), (4, 2));
    log.seal().expect("nothing to seal");
    assert_eq!(disk.changes() - before.0, 4);
}

#[test]
fn a_thousand_groups_fit_into_a_checkpoint() {
    let disk = SimDisk::new();
    let options = || Options { segment_bytes: 1 << 20, retain_bytes: 2 << 20, ..options() };
    let (mut log, _) = try_open(&disk, options(), 1).expect("open");
    for first in [1, 501] {
        log.append(&turn((first..first + 500).map(born))).expect("append");
    }
    for first in [1, 501] {
        log.append(&turn((first..first + 500).map(|group| append(group, 2, 1, 1, 30)))).expect("append");
    }
    log.append(&turn((1..=10).map(|group| change(group, 1, 1, LogChange::Tombstone)))).expect("append");
    let at = LogId::new(9, 1);
    log.append(&turn([change(11, 1, 1, LogChange::Installing { at, generation: 4 })])).expect("append");
    for life in 2..8 {
        kill(&disk, log);
        let (opened, recovery) = try_open(&disk, options(), life).expect("open");
        assert_eq!((recovery.groups.len(), recovery.tombstones.len()), (990, 10));
        assert!(recovery.groups.values().all(|group| group.damage.is_none() && group.last == LogId::new(2, 1)));
        assert_eq!(recovery.groups[&RaftGroupId(11)].installing, Some((at, 4)));
        assert_holds(&opened, 777, &[(2, 1)], 30);
        log = opened;
    }
}

#[test]
fn reads_stop_at_the_byte_limit_after_at_least_one_entry() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1)])).expect("append");
    for first in [2, 7] {
        log.append(&turn([append(1, first, 5, 1, 1_000)])).expect("append");
    }
    let count =
        |low, high, bytes| log.entries(RaftGroupId(1), LogIndex(low), LogIndex(high), bytes).expect("readable").len();
    // The third stops because the first section alone, of which it wants a part, is as long as the limit.
    assert_eq!((count(2, 12, 0), count(2, 12, 2_500), count(5, 12, 5_000), count(2, 12, u64::MAX)), (1, 2, 2, 10));
    assert_eq!((count(4, 4, 100), count(12, 12, 100)), (0, 0));
    assert_eq!(
        log.entries(RaftGroupId(1), LogIndex(6), LogIndex(8), u64::MAX).expect("readable")[1],
        entry(1, 7, 1, 1_000)
    );
}
