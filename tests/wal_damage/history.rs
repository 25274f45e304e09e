//! Logs to be damaged, and what is expected of them afterwards.

use super::wal_common::*;
use ackord::types::RaftGroupId;
use ackord::wal::Recovery;

/// The segment that `history` writes to.
pub const FIRST: &str = "segment-0000000000000001.wal";

/// Three groups; groups 1 and 2 have entries 2 to 7, group 3 has none. Returns where each turn begins, and the end.
pub fn history(disk: &impl Place) -> Vec<u64> {
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

pub fn append_of(group: u64, first: u64, count: u64) -> ackord::wal::GroupWrite {
    append(group, first, count, 1, 1_000)
}

pub const ONE_TO_SIX: [(u64, u64); 6] = [(2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)];

pub fn damaged_groups(recovery: &Recovery) -> Vec<u64> {
    let damaged = recovery.groups.iter().filter(|(_, group)| group.damage.is_some());
    damaged.map(|(group, _)| group.0).collect()
}

/// Opens three times; each time exactly `groups` are damaged, and the others hold everything.
pub fn expect_damage(disk: &impl Place, groups: &[u64]) -> Recovery {
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

pub fn find(disk: &impl Place, what: &[u8]) -> u64 {
    let bytes = disk.contents(FIRST);
    let position = bytes.windows(what.len()).position(|window| window == what);
    position.unwrap_or_else(|| panic!("{:?} is in the segment", String::from_utf8_lossy(what))) as u64
}

/// Fills some segments: group 1 writes all along, group 2 only in the beginning, group 3 only in segment 2.
pub fn long_history(disk: &impl Place) -> u64 {
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

/// The segment files, oldest first.
pub fn segments(disk: &impl Place) -> Vec<String> {
    let names = disk.list().expect("names");
    let is_segment = |name: &String| name.starts_with("segment-") && name.ends_with(".wal");
    let mut names: Vec<_> = names.into_iter().filter(is_segment).collect();
    names.sort_unstable();
    names
}

pub fn expect_long_damage(disk: &impl Place, groups: &[u64], last: u64) -> Recovery {
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
