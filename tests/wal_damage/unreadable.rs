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
