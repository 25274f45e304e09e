//! Payloads that look like parts of the log.

use super::history::*;
use super::wal_common::*;
use ackord::types::{LogId, RaftGroupId};
use ackord::wal::LogChange;

/// A log whose last entry has this payload; where the payload is, and where its turn begins.
fn history_with<P: Place>(data: Vec<u8>) -> (P, u64, u64) {
    let disk = P::new();
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

pub fn a_turn_header_inside_a_payload_is_not_a_turn<P: Place>() {
    let (disk, place, begin) = history_with::<P>(vec![0; 3 * BLOCK as usize]);
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
        let (disk, ..) = history_with::<P>(data);
        let (log, recovery) = open(&disk);
        assert_eq!((recovery.findings, recovery.groups[&RaftGroupId(1)].last), (vec![], LogId::new(4, 1)));
        kill(&disk, log);
        // Even when damage has taken the header of the turn around it, so that the start looks for the next one.
        let (disk, ..) = history_with::<P>(all_data(&disk));
        disk.zero(FIRST, begin, 192);
        let (_, recovery) = open(&disk);
        assert_eq!(damaged_groups(&recovery), Vec::<u64>::new(), "{:?}", recovery.findings);
        assert_eq!((recovery.incomplete, recovery.durable_turn.0), (false, 5), "{:?}", recovery.findings);
        assert_eq!(recovery.groups[&RaftGroupId(1)].last, LogId::new(4, 1));
    }
}

/// The payload of the last entry of `history_with`.
fn all_data(disk: &impl Place) -> Vec<u8> {
    all(&open(disk).0, 1)[2].data.to_vec()
}
