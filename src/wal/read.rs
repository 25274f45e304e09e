//! Reads entries back, on the log's thread or on any other.
//!
//! A `Location` names where entries are; finding one touches no disk, reading one needs only file handles. Every read
//! verifies the segment's identity, the group, the indexes, the record headers and each payload. A read yields what was
//! asked for or an error, never fewer entries (a leader that serves a short log loses what is missing), except that it
//! stops at a byte limit after at least one.

use super::disk::{Disk, DiskFile};
use super::index::{Place, Run};
use super::layout::{DecodedSegment, RECORD_HEADER, RecordHeader, SECTION_HEADER, SEGMENT_HEADER};
use super::layout::{SectionHeader, SectionKind, SegmentHeader};
use super::{ReadError, segment_name};
use crate::types::{LogEntry, LogId, LogIndex, RaftGroupId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;

/// How many files a reader keeps open.
const OPEN_FILES_MAX: usize = 64;

/// Where consecutive entries of one group lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The group.
    pub group: RaftGroupId,
    /// The first entry wanted.
    pub first: LogIndex,
    /// The last entry wanted.
    pub last: LogIndex,
    /// The section they lie in.
    place: Place,
    /// The identity of its segment.
    identity: u128,
}

impl Location {
    pub(crate) fn new(group: RaftGroupId, run: Run, identity: u128) -> Self {
        Self { group, first: run.first, last: run.last, place: run.place, identity }
    }

    /// The most bytes that reading it can yield.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.place.length)
    }

    /// The number of the segment it lies in.
    pub(crate) fn segment(&self) -> u64 {
        self.place.segment
    }
}

/// Reads locations through file handles of its own, so that another thread than the log's can do it.
pub struct Reader<D: Disk> {
    /// Where the segments are.
    disk: D,
    /// Open files by segment number, with the identity they were opened for.
    files: BTreeMap<u64, (u128, D::File)>,
}

impl<D: Disk> Reader<D> {
    /// A reader of the log on `disk`.
    pub fn new(disk: D) -> Self {
        Self { disk, files: BTreeMap::new() }
    }

    /// The entries at `locations`, in order, until `max_bytes` of payload have been read; at least one.
    pub fn read(&mut self, locations: &[Location], max_bytes: u64) -> Result<Vec<LogEntry>, ReadError> {
        let mut entries = Vec::new();
        let mut budget = Budget { left: max_bytes, any: false };
        for location in locations {
            let file = self.file(location)?;
            if !read_location(file, location, &mut budget, &mut entries)? {
                break;
            }
        }
        Ok(entries)
    }

    fn file(&mut self, location: &Location) -> Result<&D::File, ReadError> {
        let number = location.segment();
        if self.files.get(&number).is_none_or(|(identity, _)| *identity != location.identity) {
            let file = self.disk.open(&segment_name(number)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => ReadError::Released { group: location.group },
                _ => damaged(location, location.first, format!("its segment can't be opened: {error}")),
            })?;
            while self.files.len() >= OPEN_FILES_MAX {
                self.files.pop_first();
            }
            self.files.insert(number, (location.identity, file));
        }
        Ok(&self.files[&number].1)
    }
}

/// What a read may still take.
pub(crate) struct Budget {
    /// Payload bytes.
    pub left: u64,
    /// Whether it has yielded an entry.
    pub any: bool,
}

impl Budget {
    /// Whether an entry of `bytes` may be read; takes them if so.
    fn take(&mut self, bytes: u64) -> bool {
        if self.any && bytes > self.left {
            return false;
        }
        self.any = true;
        self.left = self.left.saturating_sub(bytes);
        true
    }
}

fn damaged(location: &Location, at: LogIndex, reason: String) -> ReadError {
    ReadError::Damaged { group: location.group, first: at, last: location.last, reason }
}

/// Reads one location into `entries`; false when the budget ended it.
pub(crate) fn read_location<F: DiskFile>(
    file: &F,
    location: &Location,
    budget: &mut Budget,
    entries: &mut Vec<LogEntry>,
) -> Result<bool, ReadError> {
    let before = entries.len();
    read_section(file, location, budget, entries).map_err(|(at, reason)| {
        entries.truncate(before);
        match still_the_same(file, location) {
            true => damaged(location, at, reason),
            false => ReadError::Released { group: location.group },
        }
    })
}

/// Whether the file still is the segment that the location names: a recycled one gets a new header before anything
/// else in it changes. A header that can't be read counts as the same, so that damage is not taken for recycling.
fn still_the_same<F: DiskFile>(file: &F, location: &Location) -> bool {
    let mut bytes = [0; SEGMENT_HEADER];
    match file.read_exact_at(&mut bytes, 0).map(|()| SegmentHeader::decode(&bytes)) {
        Ok(DecodedSegment::Valid(header)) => header.identity == location.identity,
        _ => true,
    }
}

type Flaw = (LogIndex, String);

fn read_section<F: DiskFile>(
    file: &F,
    location: &Location,
    budget: &mut Budget,
    entries: &mut Vec<LogEntry>,
) -> Result<bool, Flaw> {
    let at_first = |reason: &str| (location.first, reason.to_owned());
    let place = location.place;
    let mut head = [0; SECTION_HEADER];
    read(file, &mut head, u64::from(place.offset), location.first)?;
    let header = SectionHeader::decode(&head).ok_or_else(|| at_first("the section header is damaged"))?;
    let is_right = header.identity == location.identity
        && header.group == location.group
        && header.length == place.length
        && matches!(header.kind, SectionKind::Append | SectionKind::Moved)
        && header.first() <= location.first
        && header.last.index >= location.last;
    if !is_right {
        return Err(at_first("another section is in its place"));
    }
    let mut table = vec![0; header.records as usize * RECORD_HEADER];
    read(file, &mut table, u64::from(place.offset) + SECTION_HEADER as u64, location.first)?;
    if crc32c::crc32c(&table) != header.records_crc {
        return Err(at_first("the record headers are damaged"));
    }
    let (wanted, from) = wanted_records(&header, &table, location, budget)
        .ok_or_else(|| at_first("the record headers contradict the section header"))?;
    let bytes: u64 = wanted.iter().map(RecordHeader::payload).sum();
    let mut payload = vec![0; bytes as usize];
    read(file, &mut payload, u64::from(place.offset) + from, location.first)?;
    entries.reserve(wanted.len());
    let mut payload = Bytes::from(payload);
    for (position, record) in wanted.iter().enumerate() {
        let index = LogIndex(location.first.0 + position as u64);
        let context = payload.split_to(record.context as usize);
        let data = payload.split_to(record.data as usize);
        if record.payload_crc(location.group, index, &[&context, &data]) != record.crc {
            return Err((index, "the payload is damaged".to_owned()));
        }
        entries.push(LogEntry { id: LogId { index, term: record.term }, kind: record.kind, context, data });
    }
    Ok(wanted.len() as u64 == location.last.0 - location.first.0 + 1)
}

/// The records that the location wants and the budget allows, and where in the section the first one's payload begins.
fn wanted_records(
    header: &SectionHeader,
    table: &[u8],
    location: &Location,
    budget: &mut Budget,
) -> Option<(Vec<RecordHeader>, u64)> {
    let skip = (location.first.0 - header.first().0) as usize;
    let count = (location.last.0 - location.first.0 + 1) as usize;
    let mut at = u64::from(header.table_end()?);
    let mut from = at;
    let mut wanted = Vec::new();
    for (position, bytes) in table.chunks_exact(RECORD_HEADER).enumerate() {
        let record = RecordHeader::decode(bytes)?;
        if position == skip {
            from = at;
        }
        at += record.payload();
        if position >= skip && wanted.len() < count {
            if !budget.take(record.payload()) {
                break;
            }
            wanted.push(record);
        }
    }
    (at <= u64::from(header.length)).then_some((wanted, from))
}

fn read<F: DiskFile>(file: &F, buffer: &mut [u8], offset: u64, at: LogIndex) -> Result<(), Flaw> {
    file.read_exact_at(buffer, offset).map_err(|error| (at, format!("it can't be read: {error}")))
}
