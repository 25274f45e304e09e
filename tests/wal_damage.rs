//! What a start does with damage: every row of the table, one test each. Groups that the damage did not touch go on.

mod wal_common;
use ackord::sim::SimDisk;
use ackord::types::{LogId, LogIndex, RaftGroupId};
use ackord::wal::disk::Disk;
use ackord::wal::{LogChange, LogError, ReadError, Recovery};
use wal_common::*;

/// The segment that `history` writes to.
const FIRST: &str = "segment-0000000000000001.wal";

/// Three groups; groups 1 and 2 have entries 2 to 7, group 3 has none. Returns where each turn begins, and the end.
fn history(disk: &SimDisk) -> Vec<u64> {
    let (mut log, _) = open(disk);
    let mut places = Vec::new();
    let mut append = |writes: Vec<_>| {
        places.push(SEGMENT - log.headroom().bytes);
        log.append(&turn(writes)).expect("append");
        SEGMENT - log.headroom().bytes
    };
    append(vec![born(1), born(2), born(3)]);
    append(vec![append_of(1, 2, 2)]);
    append(vec![append_of(2, 2, 3), append_of(1, 4, 2)]);
    append(vec![only_state(3, 9, 1)]);
    append(vec![append_of(1, 6, 2)]);
    let end = append(vec![append_of(2, 5, 3)]);
    log.seal().expect("seal");
    places.extend([end, SEGMENT - log.headroom().bytes]);
    kill(disk, log);
    places
}

fn append_of(group: u64, first: u64, count: u64) -> ackord::wal::GroupWrite {
    append(group, first, count, 1, 1_000)
}

const ONE_TO_SIX: [(u64, u64); 6] = [(2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)];

fn damaged_groups(recovery: &Recovery) -> Vec<u64> {
    let damaged = recovery.groups.iter().filter(|(_, group)| group.damage.is_some());
    damaged.map(|(group, _)| group.0).collect()
}

/// Opens three times; each time exactly `groups` are damaged, and the others hold everything.
fn expect_damage(disk: &SimDisk, groups: &[u64]) -> Recovery {
    let mut first = None;
    for life in 0..3 {
        let (log, recovery) = open(disk);
        assert_eq!(damaged_groups(&recovery), groups, "life {life}: {:#?}", recovery.findings);
        assert!(recovery.findings.iter().any(|finding| finding.contains("damage")), "it is reported");
        for group in [1, 2].into_iter().filter(|group| !groups.contains(group)) {
            assert_holds(&log, group, &ONE_TO_SIX, 1_000);
        }
        kill(disk, log);
        first.get_or_insert(recovery);
    }
    first.expect("three lives")
}

fn find(disk: &SimDisk, what: &[u8]) -> u64 {
    let bytes = disk.contents(FIRST);
    let position = bytes.windows(what.len()).position(|window| window == what);
    position.unwrap_or_else(|| panic!("{:?} is in the segment", String::from_utf8_lossy(what))) as u64
}

#[test]
fn an_undamaged_log_has_no_findings() {
    let disk = SimDisk::new();
    history(&disk);
    let (log, recovery) = open(&disk);
    assert_eq!((damaged_groups(&recovery), recovery.findings), (vec![], vec![]));
    assert_holds(&log, 1, &ONE_TO_SIX, 1_000);
    assert_holds(&log, 2, &ONE_TO_SIX, 1_000);
}

#[test]
fn a_flipped_bit_in_a_payload_damages_that_entry_of_that_group() {
    let disk = SimDisk::new();
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

#[test]
fn a_flipped_bit_anywhere_below_the_seal_harms_nothing_beside_its_group() {
    let disk = SimDisk::new();
    let places = history(&disk);
    let end = *places.last().expect("an end");
    // Each byte that means something, in steps coprime to every header's length; a bit flip is found or without effect.
    let mut found = 0;
    for offset in (BLOCK..end).step_by(37) {
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
        found += u64::from(!recovery.findings.is_empty());
    }
    assert!(found > 100, "most flips hit something: {found}");
}

#[test]
fn a_zeroed_page_is_damage_of_the_groups_in_it() {
    let disk = SimDisk::new();
    let places = history(&disk);
    disk.zero(FIRST, places[1], BLOCK);
    expect_damage(&disk, &[1]);

    let disk = SimDisk::new();
    let places = history(&disk);
    disk.zero(FIRST, places[2], BLOCK); // All headers of a turn of two groups.
    expect_damage(&disk, &[1, 2]);

    let disk = SimDisk::new();
    let places = history(&disk);
    disk.zero(FIRST, places[2] + BLOCK, BLOCK); // Its second page: only the second group's payloads.
    expect_damage(&disk, &[1]);
}

#[test]
fn a_zeroed_last_turn_is_damage_because_the_seal_remembers_it() {
    let disk = SimDisk::new();
    let places = history(&disk);
    disk.zero(FIRST, places[5], places[6] - places[5]);
    let recovery = expect_damage(&disk, &[2]);
    assert_eq!(recovery.groups[&RaftGroupId(2)].last, LogId::new(7, 1), "what it promised is known");
    assert_eq!(recovery.groups[&RaftGroupId(2)].hard_state, state(1, 4));
}

#[test]
fn a_lost_seal_loses_nothing() {
    let disk = SimDisk::new();
    let places = history(&disk);
    disk.zero(FIRST, places[6], BLOCK);
    let (log, recovery) = open(&disk);
    assert_eq!(damaged_groups(&recovery), Vec::<u64>::new());
    assert_holds(&log, 2, &ONE_TO_SIX, 1_000);
}

#[test]
fn a_hard_state_is_repaired_from_its_other_copy() {
    for hit in [0, 1] {
        let disk = SimDisk::new();
        let places = history(&disk);
        // The section header of group 3's hard state: in its own turn, behind the copies of the turn before (two
        // sections), or in the next turn, as the first copy.
        let offset = if hit == 0 { places[3] + 192 + 2 * 120 } else { places[4] + 192 };
        disk.flip(FIRST, offset + 50, 1);
        let (_, recovery) = open(&disk);
        assert_eq!(recovery.groups[&RaftGroupId(3)].hard_state, state(9, 1));
        assert_eq!(damaged_groups(&recovery), Vec::<u64>::new());
        assert!(!recovery.findings.is_empty(), "it is reported");
    }
}

#[test]
fn a_hard_state_lost_in_both_places_quarantines_whoever_it_may_be() {
    let disk = SimDisk::new();
    let places = history(&disk);
    disk.flip(FIRST, places[3] + 192 + 2 * 120 + 50, 1);
    disk.flip(FIRST, places[4] + 192 + 50, 1);
    // Groups 1 and 2 wrote later, after the very entries that they have: it was not theirs. Group 3 did not.
    let recovery = expect_damage(&disk, &[3]);
    assert!(recovery.incomplete, "a group may have been born there");
}

#[test]
fn a_lost_beginning_of_a_snapshot_is_not_forgotten() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1), born(2)])).expect("append");
    let begin = SEGMENT - log.headroom().bytes;
    let mark = LogChange::Installing { at: LogId::new(9, 2), generation: 1 };
    log.append(&turn([change(1, 2, 1, mark)])).expect("append");
    log.append(&turn([only_state(1, 3, 1), only_state(2, 3, 1)])).expect("append");
    log.seal().expect("seal");
    let end = SEGMENT - log.headroom().bytes;
    kill(&disk, log);
    disk.zero(FIRST, begin, 2 * BLOCK);
    assert_eq!(end, begin + 3 * BLOCK);
    // Both copies of the mark are gone; the seal's copies of what followed settle it for group 2 alone.
    assert_eq!(damaged_groups(&open(&disk).1), [1]);

    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1), born(2)])).expect("append");
    let mark = LogChange::Installing { at: LogId::new(9, 2), generation: 1 };
    log.append(&turn([change(1, 2, 1, mark)])).expect("append");
    log.append(&turn([only_state(1, 3, 1), only_state(2, 3, 1)])).expect("append");
    log.seal().expect("seal");
    kill(&disk, log);
    disk.flip(FIRST, begin + 192 + 2 * 120 + 50, 1);
    disk.flip(FIRST, begin + BLOCK + 192 + 50, 1);
    assert_eq!(damaged_groups(&open(&disk).1), [1], "its next section says that something was being installed");
}

#[test]
fn a_snapshot_or_a_tombstone_ends_the_quarantine() {
    let disk = SimDisk::new();
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

#[test]
fn a_torn_last_turn_is_dropped_and_kept_for_inspection() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1)])).expect("append");
    log.append(&turn([append(1, 2, 3, 1, 1_000)])).expect("append");
    let end = SEGMENT - log.headroom().bytes;
    log.append(&turn([change(1, 5, 4, LogChange::Append((5..8).map(|i| entry(1, i, 1, 3_000)).collect()))]))
        .expect("append");
    kill(&disk, log);
    let torn = disk.contents(FIRST)[end as usize..end as usize + 3 * BLOCK as usize].to_vec();
    disk.zero(FIRST, end + BLOCK, 512);
    let kept = disk.contents(FIRST)[end as usize..end as usize + 3 * BLOCK as usize].to_vec();
    assert_ne!(torn, kept);
    for _ in 0..3 {
        let (log, recovery) = open(&disk);
        let group = &recovery.groups[&RaftGroupId(1)];
        assert_eq!((group.last, group.damage.as_ref()), (LogId::new(4, 1), None));
        assert_eq!(group.hard_state, state(1, 1), "neither a vote nor a commit index of a dropped turn survives");
        assert_holds(&log, 1, &[(2, 1), (3, 1), (4, 1)], 1_000);
        let names = disk.list().expect("names");
        let copy = names.iter().find(|name| name.ends_with(".torn")).expect("a copy is kept");
        assert_eq!(disk.contents(copy), kept);
        kill(&disk, log);
    }
}

#[test]
fn a_file_cut_short_is_damage() {
    let disk = SimDisk::new();
    let places = history(&disk);
    disk.cut(FIRST, places[4] + 100);
    let recovery = expect_damage(&disk, &[1, 2, 3]);
    assert!(recovery.incomplete);

    let disk = SimDisk::new();
    let end = *history(&disk).last().expect("an end");
    disk.cut(FIRST, end + BLOCK);
    let (_, recovery) = open(&disk);
    assert_eq!(damaged_groups(&recovery), Vec::<u64>::new(), "what was cut off was empty, as the next block shows");
}

#[test]
fn a_block_that_cannot_be_read_is_damage() {
    let disk = SimDisk::new();
    let places = history(&disk);
    disk.make_unreadable(FIRST, places[1]);
    expect_damage(&disk, &[1]);

    let disk = SimDisk::new();
    let end = *history(&disk).last().expect("an end");
    disk.make_unreadable(FIRST, end);
    let (_, recovery) = open(&disk);
    assert_eq!(damaged_groups(&recovery), [1, 2, 3], "the next turn may be there");
}

#[test]
fn a_read_error_while_running_is_an_error_not_a_short_answer() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1)])).expect("append");
    log.append(&turn([append(1, 2, 3, 1, 1_000)])).expect("append");
    let place = find(&disk, b"1/3@1");
    disk.flip(FIRST, place + 700, 0);
    let read = |low, high| log.entries(RaftGroupId(1), LogIndex(low), LogIndex(high), u64::MAX);
    assert!(matches!(read(2, 5), Err(ReadError::Damaged { first: LogIndex(3), .. })));
    assert!(read(4, 5).is_ok() && read(2, 3).is_ok());
    disk.make_unreadable(FIRST, place);
    assert!(matches!(read(2, 3), Err(ReadError::Damaged { .. })));
}

/// Fills some segments: group 1 writes all along, group 2 only in the beginning, group 3 only in segment 2.
fn long_history(disk: &SimDisk) -> u64 {
    let (mut log, _) = open(disk);
    log.append(&turn([born(1), born(2), born(3)])).expect("append");
    log.append(&turn([append_of(2, 2, 6)])).expect("append");
    let mut last = 1;
    while segments(disk).len() < 4 {
        log.append(&turn([append(1, last + 1, 2, 1, 20_000)])).expect("append");
        last += 2;
        if segments(disk).len() == 2 && log.groups().groups[&RaftGroupId(3)].last.index.0 == 1 {
            log.append(&turn([append_of(3, 2, 2)])).expect("append");
        }
    }
    log.append(&turn([append(1, last + 1, 2, 1, 20_000)])).expect("append");
    log.seal().expect("seal");
    kill(disk, log);
    last + 2
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let names = disk.list().expect("names");
    names.into_iter().filter(|name| name.starts_with("segment-") && name.ends_with(".wal")).collect()
}

fn expect_long_damage(disk: &SimDisk, groups: &[u64], last: u64) -> Recovery {
    let (log, recovery) = open(disk);
    assert_eq!(damaged_groups(&recovery), groups, "{:#?}", recovery.findings);
    if !groups.contains(&2) {
        assert_holds(&log, 2, &ONE_TO_SIX, 1_000);
    }
    if !groups.contains(&3) {
        assert_holds(&log, 3, &[(2, 1), (3, 1)], 1_000);
    }
    assert!(groups.contains(&1) || recovery.groups[&RaftGroupId(1)].last.index.0 == last);
    kill(disk, log);
    assert_eq!(damaged_groups(&open(disk).1), groups, "the next start says the same");
    recovery
}

#[test]
fn a_missing_segment_is_damage_of_the_groups_in_it() {
    for (missing, groups) in [(0, vec![1, 2]), (1, vec![1, 3]), (2, vec![1])] {
        let disk = SimDisk::new();
        let last = long_history(&disk);
        disk.lose(&segments(&disk)[missing]);
        let recovery = expect_long_damage(&disk, &groups, last);
        assert!(!recovery.incomplete, "the next checkpoint names all groups");
        assert_eq!(recovery.groups[&RaftGroupId(1)].last.index.0, last);
    }
}

#[test]
fn a_missing_newest_segment_may_have_touched_every_group() {
    let disk = SimDisk::new();
    let last = long_history(&disk);
    disk.lose(&segments(&disk)[3]);
    let recovery = expect_long_damage(&disk, &[1, 2, 3], last);
    assert!(recovery.incomplete, "a group may have been born there");
}

#[test]
fn a_log_without_its_beginning_is_not_taken_for_an_empty_one() {
    let disk = SimDisk::new();
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

#[test]
fn swapped_segments_are_damage() {
    let disk = SimDisk::new();
    let last = long_history(&disk);
    let names = segments(&disk);
    let (second, third) = (disk.contents(&names[1]), disk.contents(&names[2]));
    disk.put(&names[1], &third);
    disk.put(&names[2], &second);
    expect_long_damage(&disk, &[1, 3], last);
}

#[test]
fn an_older_state_of_a_segment_is_damage() {
    let disk = SimDisk::new();
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

#[test]
fn a_segment_of_an_earlier_use_of_the_file_is_damage() {
    let disk = SimDisk::new();
    let foreign = SimDisk::new();
    let last = long_history(&disk);
    long_history(&foreign);
    // The same owner, the same number, another identity: what a misdirected or lost write leaves of a recycled file.
    let stale = SimDisk::new();
    let (mut log, _) = try_open(&stale, options(), 99).expect("open");
    log.append(&turn([born(1)])).expect("append");
    kill(&stale, log);
    let (_log, _) = try_open(&stale, options(), 98).expect("open");
    disk.put(&segments(&disk)[1], &stale.contents(&segments(&stale)[1]));
    expect_long_damage(&disk, &[1, 3], last);
}

#[test]
fn a_damaged_segment_header_alone_harms_no_group() {
    for hit in 0..4 {
        let disk = SimDisk::new();
        let last = long_history(&disk);
        disk.zero(&segments(&disk)[hit], 0, BLOCK);
        let recovery = expect_long_damage(&disk, &[], last);
        assert!(!recovery.findings.is_empty(), "it is reported");
    }
}

#[test]
fn a_zeroed_newest_segment_may_have_touched_every_group() {
    let disk = SimDisk::new();
    let last = long_history(&disk);
    disk.zero(&segments(&disk)[3], 0, SEGMENT);
    expect_long_damage(&disk, &[1, 2, 3], last);
}

#[test]
fn damaged_checkpoints_are_replaced_by_what_else_is_known() {
    for hit in 0..4 {
        let disk = SimDisk::new();
        let last = long_history(&disk);
        disk.zero(&segments(&disk)[hit], BLOCK, BLOCK);
        let recovery = expect_long_damage(&disk, &[], last);
        assert!(!recovery.findings.is_empty(), "it is reported");
    }
}

#[test]
fn an_empty_directory_under_a_known_identity_is_refused() {
    let known = ackord::wal::Options { create: false, ..options() };
    let opened = try_open(&SimDisk::new(), known.clone(), 1);
    assert!(matches!(opened, Err(LogError::Empty)));
    let disk = SimDisk::new();
    history(&disk);
    assert!(try_open(&disk, known.clone(), 1).is_ok());
    for name in segments(&disk) {
        disk.zero(&name, BLOCK, SEGMENT - BLOCK);
    }
    assert!(matches!(try_open(&disk, known, 1), Err(LogError::Unreadable(_))));
    assert!(matches!(try_open(&disk, options(), 1), Err(LogError::Unreadable(_))), "not even when one may be created");
}

#[test]
fn another_nodes_log_is_refused() {
    let disk = SimDisk::new();
    history(&disk);
    let stranger = ackord::wal::Identity { node: ackord::types::NodeId(4), ..OWNER };
    let opened = ackord::wal::Log::open(disk.clone(), stranger, options(), || 7);
    assert!(matches!(opened, Err(LogError::Foreign { owner }) if owner == OWNER));
}

#[test]
fn a_newer_format_is_refused() {
    let disk = SimDisk::new();
    history(&disk);
    let mut header = disk.contents(FIRST)[..112].to_vec();
    header[8] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..]);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(FIRST, 0, &header);
    assert!(matches!(try_open(&disk, options(), 1), Err(LogError::UnknownFormat(2))));
}

/// A log whose last entry has this payload; where the payload is, and where its turn begins.
fn history_with(data: Vec<u8>) -> (SimDisk, u64, u64) {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn([born(1), born(2)])).expect("append");
    log.append(&turn([append(1, 2, 2, 1, 100), append(2, 2, 2, 1, 100)])).expect("append");
    let begin = SEGMENT - log.headroom().bytes;
    let marked = ackord::types::LogEntry { data: data.into(), ..entry(1, 4, 1, 0) };
    log.append(&turn([change(1, 1, 1, LogChange::Append(vec![marked]))])).expect("append");
    log.seal().expect("seal");
    kill(&disk, log);
    let place = find(&disk, b"1/4@1") + 5;
    (disk, place, begin)
}

/// A true turn header with another number, in another place, perhaps of another identity.
fn forge(mut header: Vec<u8>, number: u64, offset: u64, identity: Option<u128>) -> Vec<u8> {
    header[48..56].copy_from_slice(&number.to_le_bytes());
    header[72..80].copy_from_slice(&offset.to_le_bytes());
    if let Some(identity) = identity {
        header[56..72].copy_from_slice(&identity.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..]);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

#[test]
fn a_turn_header_inside_a_payload_is_not_a_turn() {
    let (disk, place, begin) = history_with(vec![0; 3 * BLOCK as usize]);
    let original = disk.contents(FIRST)[begin as usize..begin as usize + 192].to_vec();
    let block = place.next_multiple_of(BLOCK);
    // Guessed without the segment's secret; and copied from a disk that the producer could read.
    for (offset, identity) in [(block, Some(7)), (begin + BLOCK, None)] {
        let mut data = vec![0; 3 * BLOCK as usize];
        let from = (block - place) as usize;
        data[from..from + 192].copy_from_slice(&forge(original.clone(), 1_000, offset, identity));
        if identity.is_none() {
            data[from..from + 192].copy_from_slice(&original);
        }
        let (disk, ..) = history_with(data);
        let (log, recovery) = open(&disk);
        assert_eq!((recovery.findings, recovery.groups[&RaftGroupId(1)].last), (vec![], LogId::new(4, 1)));
        kill(&disk, log);
        // Even when damage has taken the header of the turn around it, so that the start looks for the next one.
        let (disk, ..) = history_with(all_data(&disk));
        disk.zero(FIRST, begin, 192);
        let (_, recovery) = open(&disk);
        assert_eq!(damaged_groups(&recovery), Vec::<u64>::new(), "{:?}", recovery.findings);
        assert_eq!((recovery.incomplete, recovery.durable_turn.0), (false, 5), "{:?}", recovery.findings);
        assert_eq!(recovery.groups[&RaftGroupId(1)].last, LogId::new(4, 1));
    }
}

/// The payload of the last entry of `history_with`.
fn all_data(disk: &SimDisk) -> Vec<u8> {
    all(&open(disk).0, 1)[2].data.to_vec()
}
