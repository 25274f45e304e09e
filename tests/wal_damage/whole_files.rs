//! Files that are missing, short, swapped, older, or of another use.

use super::history::*;
use super::wal_common::*;
use ackord::types::RaftGroupId;
use ackord::wal::LogError;

pub fn a_file_cut_short_is_damage<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    disk.cut(FIRST, places[4] + 100);
    let recovery = expect_damage(&disk, &[1, 2, 3]);
    assert!(recovery.incomplete);

    // Nothing proves that what was cut off was empty.
    let disk = P::new();
    let end = *history(&disk).last().expect("an end");
    disk.cut(FIRST, end + BLOCK);
    assert!(expect_damage(&disk, &[1, 2, 3]).incomplete);
}

/// Where the first turn that was cut off began, a page that belongs elsewhere looks like what an earlier use of the
/// file has left.
pub fn a_page_of_elsewhere_before_the_cut_is_not_the_logs_end<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    let page = disk.contents(FIRST)[places[0] as usize..][..BLOCK as usize].to_vec();
    disk.overwrite(FIRST, places[4], &page);
    disk.cut(FIRST, places[4] + BLOCK);
    assert!(expect_damage(&disk, &[1, 2, 3]).incomplete);
}

pub fn a_missing_segment_is_damage_of_the_groups_in_it<P: Place>() {
    for (missing, groups) in [(0, vec![1, 2]), (1, vec![1, 3]), (2, vec![1])] {
        let disk = P::new();
        let last = long_history(&disk);
        disk.lose(&segments(&disk)[missing]);
        let recovery = expect_long_damage(&disk, &groups, last);
        assert!(!recovery.incomplete, "the next checkpoint names all groups");
        assert_eq!(recovery.losses, 0, "the newest turns are there");
        assert_eq!(recovery.groups[&RaftGroupId(1)].last.index.0, last);
    }
}

pub fn a_missing_newest_segment_may_have_touched_every_group<P: Place>() {
    let disk = P::new();
    let last = long_history(&disk);
    disk.lose(&segments(&disk)[3]);
    let recovery = expect_long_damage(&disk, &[1, 2, 3], last);
    assert!(recovery.incomplete, "a group may have been born there");
    assert_eq!(recovery.losses, 1);
}

/// It stays so from start to start, until it is said that all groups are known again, and a checkpoint says so, too.
pub fn what_is_forgotten_is_forgotten_until_it_is_settled<P: Place>() {
    let disk = P::new();
    long_history(&disk);
    disk.lose(&segments(&disk)[3]);
    for settles in [false, true, true] {
        let (mut log, recovery) = open(&disk);
        assert!(recovery.incomplete);
        if settles {
            log.settle();
        }
        if !log.groups().groups.contains_key(&RaftGroupId(4)) {
            log.append(&turn([born(4)])).expect("append");
        }
        kill(&disk, log);
    }
    let (mut log, _) = open(&disk);
    log.settle();
    let (before, mut last) = (segments(&disk).last().cloned(), 1);
    while segments(&disk).last() == before.as_ref() {
        log.append(&turn([append(4, last + 1, 2, 1, 20_000)])).expect("append");
        last += 2;
    }
    kill(&disk, log);
    let (_, recovery) = open(&disk);
    assert!(!recovery.incomplete);
    assert_eq!(damaged_groups(&recovery), [1, 2, 3], "of what they promised it says nothing");
}

pub fn a_log_without_its_beginning_is_not_taken_for_an_empty_one<P: Place>() {
    let disk = P::new();
    history(&disk);
    // A start that is cut short after the old segment was closed, and a second one: the second segment is empty.
    let mut found = false;
    for stop in 1..20 {
        let disk = disk.duplicate();
        for stop in [stop, stop, stop + 1] {
            disk.stop_after(stop);
            drop(try_open(&disk, options(), stop));
            disk.kill();
        }
        assert_eq!(damaged_groups(&open(&disk.duplicate()).1), Vec::<u64>::new());
        disk.lose(FIRST);
        if segments(&disk).is_empty() {
            continue;
        }
        found = true;
        match try_open(&disk, options(), 7) {
            Ok((_, recovery)) if recovery.incomplete => assert!(!recovery.findings.is_empty()),
            Ok((_, recovery)) => assert_eq!(damaged_groups(&recovery), [1, 2], "a checkpoint names all groups"),
            Err(error) => assert!(matches!(error, LogError::Unreadable(_)), "{error}"),
        }
    }
    assert!(found, "some stop leaves a second segment");
}

pub fn swapped_segments_are_damage<P: Place>() {
    let disk = P::new();
    let last = long_history(&disk);
    let names = segments(&disk);
    disk.swap(&names[1], &names[2]);
    expect_long_damage(&disk, &[1, 3], last);
}

pub fn an_older_state_of_a_segment_is_damage<P: Place>() {
    let disk = P::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1), born(2), born(3)])).expect("append");
    log.append(&turn([append_of(2, 2, 6), append_of(3, 2, 2)])).expect("append");
    let older = disk.contents(FIRST);
    let mut last = 1;
    while segments(&disk).len() < 3 {
        log.append(&turn([append(1, last + 1, 2, 1, 20_000)])).expect("append");
        last += 2;
    }
    kill(&disk, log);
    disk.put(FIRST, &older);
    let recovery = expect_long_damage(&disk, &[1], last);
    assert!(!recovery.incomplete);
}

pub fn a_segment_of_an_earlier_use_of_the_file_is_damage<P: Place>() {
    let disk = P::new();
    let last = long_history(&disk);
    // The same owner, the same number, another identity: what a misdirected or lost write leaves of a recycled file.
    let stale = P::new();
    let (mut log, _) = try_open(&stale, options(), 99).expect("open");
    log.append(&turn([born(1)])).expect("append");
    kill(&stale, log);
    let (_log, _) = try_open(&stale, options(), 98).expect("open");
    disk.put(&segments(&disk)[1], &stale.contents(&segments(&stale)[1]));
    expect_long_damage(&disk, &[1, 3], last);
}

pub fn a_zeroed_newest_segment_may_have_touched_every_group<P: Place>() {
    let disk = P::new();
    let last = long_history(&disk);
    disk.zero(&segments(&disk)[3], 0, SEGMENT);
    expect_long_damage(&disk, &[1, 2, 3], last);
}
