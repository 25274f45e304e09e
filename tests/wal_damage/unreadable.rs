//! Blocks that the disk does not give back, on start and on reads.

use super::history::*;
use super::wal_common::*;
use ackord::types::{LogIndex, RaftGroupId};
use ackord::wal::ReadError;

pub fn a_block_that_cannot_be_read_is_damage<P: Place>() {
    let disk = P::new();
    let places = history(&disk);
    disk.make_unreadable(FIRST, places[1]);
    expect_damage(&disk, &[1]);

    let disk = P::new();
    let end = *history(&disk).last().expect("an end");
    disk.make_unreadable(FIRST, end);
    let (_, recovery) = open(&disk);
    assert_eq!(damaged_groups(&recovery), [1, 2, 3], "the next turn may be there");
}

pub fn a_read_error_while_running_is_an_error_not_a_short_answer<P: Place>() {
    let disk = P::new();
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

/// Whatever the group has promised since it was named may have been among what was lost then.
pub fn a_group_that_can_be_read_again_is_in_doubt<P: Place>() {
    let disk = P::new();
    let (mut log, _) = open(&disk);
    let mut append = |write| {
        let place = SEGMENT - log.headroom().bytes;
        log.append(&turn([write])).expect("append");
        place
    };
    append(born(1));
    append(append_of(1, 2, 2));
    let both_copies = [append(born(2)), append(append_of(1, 4, 2))];
    append(append_of(1, 6, 2));
    log.seal().expect("seal");
    kill(&disk, log);
    let whole = disk.contents(FIRST);
    both_copies.iter().for_each(|place| disk.make_unreadable(FIRST, *place));
    let (log, recovery) = open(&disk);
    assert!(recovery.incomplete && !recovery.groups.contains_key(&RaftGroupId(2)), "{recovery:#?}");
    kill(&disk, log);
    disk.put(FIRST, &whole);
    for life in 0..2 {
        let (log, recovery) = open(&disk);
        let doubtful = |group| recovery.groups[&RaftGroupId(group)].damage.as_ref().is_some_and(|damage| damage.doubt);
        assert!(recovery.incomplete && doubtful(2), "life {life}: {recovery:#?}");
        kill(&disk, log);
    }
}
