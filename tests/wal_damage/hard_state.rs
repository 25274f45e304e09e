//! Hard states: each is in two places, and what was in both is not guessed.

use super::history::*;
use super::wal_common::*;
use ackord::types::{LogId, RaftGroupId};
use ackord::wal::LogChange;

pub fn a_hard_state_is_repaired_from_its_other_copy<P: Place>() {
    for hit in [0, 1] {
        let disk = P::new();
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

pub fn a_hard_state_lost_in_both_places_quarantines_whoever_it_may_be<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    disk.flip(FIRST, places[3] + 192 + 2 * 120 + 50, 1);
    disk.flip(FIRST, places[4] + 192 + 50, 1);
    // Groups 1 and 2 wrote later, after the very entries that they have: it was not theirs. Group 3 did not.
    let recovery = expect_damage(&disk, &[3]);
    assert!(recovery.incomplete, "a group may have been born there");
}

pub fn a_lost_beginning_of_a_snapshot_is_not_forgotten<P: Place>() {
    let disk = P::new();
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

    let disk = P::new();
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
