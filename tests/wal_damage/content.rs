//! Bytes that changed within a file: what they say is lost, and nothing else.

use super::history::*;
use super::wal_common::*;
use ackord::types::{LogId, LogIndex, RaftGroupId};
use ackord::wal::{LogChange, ReadError};

pub fn an_undamaged_log_has_no_findings<P: Place>() {
    let disk = P::new();
    history(&disk);
    let (log, recovery) = open(&disk);
    assert_eq!((damaged_groups(&recovery), recovery.findings), (vec![], vec![]));
    assert_holds(&log, 1, &ONE_TO_SIX, 1_000);
    assert_holds(&log, 2, &ONE_TO_SIX, 1_000);
}

pub fn a_flipped_bit_in_a_payload_damages_that_entry_of_that_group<P: Place>() {
    let disk = P::new();
    history(&disk);
    disk.flip(FIRST, find(&disk, b"1/5@1") + 500, 3);
    let recovery = expect_damage(&disk, &[1]);
    assert_eq!(recovery.groups[&RaftGroupId(1)].hard_state, state(1, 5));
    let (log, _) = open(&disk);
    let read = |low, high| log.entries(RaftGroupId(1), LogIndex(low), LogIndex(high), u64::MAX);
    assert_eq!(read(2, 5).expect("before the damage").len(), 3);
    assert_eq!(read(6, 8).expect("after the damage").len(), 2);
    assert!(matches!(read(2, 8), Err(ReadError::Damaged { first: LogIndex(5), .. })), "never fewer than asked for");
    assert!(matches!(read(5, 6), Err(ReadError::Damaged { .. })));
}

pub fn a_flipped_bit_anywhere_below_the_seal_harms_nothing_beside_its_group<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    let end = *places.last().expect("an end");
    let (mut tried, mut found) = (0, 0);
    for offset in (BLOCK..end).step_by(P::STRIDE) {
        let copy = disk.duplicate();
        copy.flip(FIRST, offset, (offset % 8) as u8);
        let (log, recovery) = open(&copy);
        let damaged = damaged_groups(&recovery);
        assert!(damaged.len() <= 1, "offset {offset}: {damaged:?} {:?}", recovery.findings);
        assert!(!recovery.incomplete, "offset {offset}: {:?}", recovery.findings);
        for group in [1, 2].into_iter().filter(|group| !damaged.contains(group)) {
            assert_holds(&log, group, &ONE_TO_SIX, 1_000);
        }
        assert_eq!(recovery.groups[&RaftGroupId(3)].hard_state, state(9, 1), "offset {offset}");
        assert!(damaged.is_empty() || !recovery.findings.is_empty());
        tried += 1;
        found += u64::from(!recovery.findings.is_empty());
    }
    assert!(tried > 60 && found > tried / 3, "many flips hit something: {found} of {tried}");
}

pub fn a_zeroed_page_is_damage_of_the_groups_in_it<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    disk.zero(FIRST, places[1], BLOCK);
    expect_damage(&disk, &[1]);

    let disk = P::new();
    let places = history(&disk);
    disk.zero(FIRST, places[2], BLOCK); // All headers of a turn of two groups.
    expect_damage(&disk, &[1, 2]);

    let disk = P::new();
    let places = history(&disk);
    disk.zero(FIRST, places[2] + BLOCK, BLOCK); // Its second page: only the second group's payloads.
    expect_damage(&disk, &[1]);
}

pub fn a_damaged_segment_header_alone_harms_no_group<P: Place>() {
    for hit in 0..4 {
        let disk = P::new();
        let last = long_history(&disk);
        disk.zero(&segments(&disk)[hit], 0, BLOCK);
        let recovery = expect_long_damage(&disk, &[], last);
        assert!(!recovery.findings.is_empty(), "it is reported");
    }
}

pub fn damaged_checkpoints_are_replaced_by_what_else_is_known<P: Place>() {
    for hit in 0..4 {
        let disk = P::new();
        let last = long_history(&disk);
        disk.zero(&segments(&disk)[hit], BLOCK, BLOCK);
        let recovery = expect_long_damage(&disk, &[], last);
        assert!(!recovery.findings.is_empty(), "it is reported");
    }
}

pub fn a_snapshot_or_a_tombstone_ends_the_quarantine<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    disk.flip(FIRST, find(&disk, b"1/5@1") + 500, 3);
    disk.flip(FIRST, places[3] + 192 + 2 * 120 + 50, 1);
    disk.flip(FIRST, places[4] + 192 + 50, 1);
    let (mut log, recovery) = open(&disk);
    assert_eq!(damaged_groups(&recovery), [1, 3]);
    let at = LogId::new(20, 2);
    log.append(&turn([change(1, 9, 20, LogChange::Installed { at, generation: 1 })])).expect("append");
    log.append(&turn([only_state(3, 10, 1)])).expect("append");
    let mut last = 1;
    log.append(&turn([born(4)])).expect("append");
    while segments(&disk).iter().any(|name| name == FIRST || name.contains("0003")) {
        log.append(&turn([append(4, last + 1, 2, 1, 20_000)])).expect("append");
        log.release(RaftGroupId(4), LogIndex(last));
        last += 2;
    }
    let kept = disk.list().expect("names").iter().any(|name| *name == format!("{FIRST}.damaged"));
    assert!(kept, "the damaged segment is not written over");
    kill(&disk, log);
    let (mut log, recovery) = open(&disk);
    assert_eq!(damaged_groups(&recovery), [3], "what it writes now proves nothing about what was lost");
    assert_eq!((recovery.groups[&RaftGroupId(1)].start, recovery.groups[&RaftGroupId(1)].last), (at, at));
    log.append(&turn([change(3, 10, 1, LogChange::Tombstone)])).expect("append");
    kill(&disk, log);
    assert_eq!(damaged_groups(&open(&disk).1), Vec::<u64>::new());
}

pub fn a_lost_turn_in_the_middle_is_damage_of_its_groups<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    disk.zero(FIRST, places[2], places[3] - places[2]);
    let recovery = expect_damage(&disk, &[1, 2]);
    assert!(!recovery.incomplete, "the next turn remembers which groups it had");
    assert_eq!(recovery.groups[&RaftGroupId(1)].last, LogId::new(7, 1), "what follows the hole is known");
}

pub fn a_write_in_the_wrong_place_damages_what_it_hit<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    // A whole turn, valid in its own place, over the beginning of the next one.
    disk.misdirect(FIRST, places[1], places[2], BLOCK);
    expect_damage(&disk, &[1, 2]);
}
