//! Directories in which no log is opened at all.

use super::history::*;
use super::wal_common::*;
use ackord::wal::LogError;

pub fn an_empty_directory_under_a_known_identity_is_refused<P: Place>() {
    let known = ackord::wal::Options { create: false, ..options() };
    let opened = try_open(&P::new(), known.clone(), 1);
    assert!(matches!(opened, Err(LogError::Empty)));
    let disk = P::new();
    history(&disk);
    assert!(try_open(&disk, known.clone(), 1).is_ok());
    for name in segments(&disk) {
        disk.zero(&name, BLOCK, SEGMENT - BLOCK);
    }
    assert!(matches!(try_open(&disk, known, 1), Err(LogError::Unreadable(_))));
    assert!(matches!(try_open(&disk, options(), 1), Err(LogError::Unreadable(_))), "not even when one may be created");
}

pub fn another_nodes_log_is_refused<P: Place>() {
    let disk = P::new();
    history(&disk);
    let stranger = ackord::wal::Identity { node: ackord::types::NodeId(4), ..OWNER };
    let opened = ackord::wal::Log::open(disk.clone(), stranger, options(), || 7);
    assert!(matches!(opened, Err(LogError::Foreign { owner }) if owner == OWNER));
}

pub fn a_newer_format_is_refused<P: Place>() {
    let disk = P::new();
    history(&disk);
    let mut header = disk.contents(FIRST)[..112].to_vec();
    header[8] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..]);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(FIRST, 0, &header);
    assert!(matches!(try_open(&disk, options(), 1), Err(LogError::UnknownFormat(2))));
}
