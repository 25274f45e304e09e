//! The last turn: torn, or lost and remembered by the seal.

use super::history::*;
use super::wal_common::*;
use ackord::types::{LogId, RaftGroupId};
use ackord::wal::LogChange;

pub fn a_torn_last_turn_is_dropped_and_kept_for_inspection<P: Place>() {
    let disk = P::new();
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

pub fn a_zeroed_last_turn_is_damage_because_the_seal_remembers_it<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    disk.zero(FIRST, places[5], places[6] - places[5]);
    let recovery = expect_damage(&disk, &[2]);
    assert_eq!(recovery.groups[&RaftGroupId(2)].last, LogId::new(7, 1), "what it promised is known");
    assert_eq!(recovery.groups[&RaftGroupId(2)].hard_state, state(1, 4));
}

pub fn a_lost_seal_loses_nothing<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    disk.zero(FIRST, places[6], BLOCK);
    let (log, recovery) = open(&disk);
    assert_eq!(damaged_groups(&recovery), Vec::<u64>::new());
    assert_holds(&log, 2, &ONE_TO_SIX, 1_000);
}
