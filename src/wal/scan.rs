//! Finds turns in a segment's bytes and verifies them, without believing anything that a checksum does not cover.
//!
//! This room reads; what its findings mean for the groups is decided in `recover`.

use super::Identity;
use super::disk::DiskFile;
use super::index::Place;
use super::layout::{
    BLOCK, DecodedSegment, RECORD_HEADER, RecordHeader, SECTION_HEADER, SEGMENT_BYTES_MAX, SectionHeader, SegmentHeader,
};
use super::layout::{TURN_HEADER, TurnHeader, TurnId};
use crate::types::{LogIndex, Term};
use std::io;
use std::ops::Range;

/// A segment is read in pieces of this size, and block by block where a piece can't be read.
const READ_BYTES: usize = 1 << 20;

/// A segment in memory.
pub(crate) struct Segment {
    /// The number in its name.
    pub number: u64,
    /// Its secret; 0 when neither it nor its neighbours tell.
    pub identity: u128,
    /// Its header, if that is whole.
    pub header: Option<SegmentHeader>,
    /// Its bytes; zeros where the file is too short or can't be read.
    pub bytes: Vec<u8>,
    /// What can't be read, or lies behind the end of a file that was cut; ascending.
    pub missing: Vec<Range<u64>>,
    /// Whether the file is shorter than it was made.
    pub cut: bool,
}

impl Segment {
    /// Reads a segment file. Blocks that fail are left zero: the disk may fail in one place only.
    pub(crate) fn load<F: DiskFile>(file: &F, number: u64, expected_bytes: u64) -> io::Result<(Self, DecodedSegment)> {
        let length = file.length()?;
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        let mut missing = Vec::new();
        for (position, piece) in bytes.chunks_mut(READ_BYTES).enumerate() {
            let offset = (position * READ_BYTES) as u64;
            if file.read_exact_at(piece, offset).is_ok() {
                continue;
            }
            for (position, block) in piece.chunks_mut(BLOCK as usize).enumerate() {
                let offset = offset + position as u64 * BLOCK;
                if file.read_exact_at(block, offset).is_err() {
                    block.fill(0);
                    missing.push(offset..offset + block.len() as u64);
                }
            }
        }
        let decoded = SegmentHeader::decode(&bytes);
        let header = match &decoded {
            DecodedSegment::Valid(header) => Some(header.clone()),
            _ => None,
        };
        let expected = header.as_ref().map_or(expected_bytes, |header| header.length.min(SEGMENT_BYTES_MAX));
        let cut = length < expected;
        if cut {
            missing.push(length..expected);
            bytes.resize(expected as usize, 0);
        }
        let identity = header.as_ref().map_or(0, |header| header.identity);
        Ok((Self { number, identity, header, bytes, missing, cut }, decoded))
    }

    /// Whether something in `range` can't be read.
    pub(crate) fn misses(&self, range: Range<u64>) -> bool {
        self.missing.iter().any(|missing| missing.start < range.end && range.start < missing.end)
    }

    /// The turn header at `offset`, if one is there that belongs there.
    pub(crate) fn turn_at(&self, offset: u64, owner: Identity) -> Option<TurnHeader> {
        let header = TurnHeader::decode(self.bytes.get(usize::try_from(offset).ok()?..)?, owner)?;
        let is_here = header.id.offset == offset && header.segment == self.number;
        let is_ours = header.id.identity == self.identity || self.identity == 0;
        let fits = header.id.end() <= self.bytes.len() as u64;
        (is_here && is_ours && fits).then_some(header)
    }

    /// The first turn header at or after `offset`.
    pub(crate) fn next_turn(&self, offset: u64, owner: Identity) -> Option<TurnHeader> {
        let last = self.bytes.len() as u64 / BLOCK;
        (offset / BLOCK..last).find_map(|block| self.turn_at(block * BLOCK, owner))
    }

    /// A turn's bytes, as far as the segment has them.
    pub(crate) fn turn_bytes(&self, id: &TurnId) -> &[u8] {
        let end = id.end().min(self.bytes.len() as u64) as usize;
        self.bytes.get(id.offset as usize..end).unwrap_or_default()
    }
}

/// A section that was found, in its own place or only as the next turn's copy of its header.
pub(crate) struct FoundSection {
    /// Its header.
    pub header: SectionHeader,
    /// Whether the header in its own place is damaged and this is the copy.
    pub repaired: bool,
    /// Each record's term, or nothing where the payload is damaged. Absent when it can't be read at all.
    pub records: Option<Vec<Option<Term>>>,
}

impl FoundSection {
    /// Whether every byte of it is as it was written.
    pub(crate) fn is_whole(&self) -> bool {
        !self.repaired && self.records.as_ref().is_some_and(|records| records.iter().all(Option::is_some))
    }

    /// Where it lies.
    pub(crate) fn place(&self, segment: u64, turn: &TurnId) -> Option<Place> {
        let offset = u32::try_from(turn.offset).ok()?.checked_add(self.header.offset)?;
        Some(Place { segment, offset, length: self.header.length })
    }
}

/// The copies of the previous turn's section headers in `turn`, each if it is whole and belongs there.
pub(crate) fn copies(turn: &[u8], header: &TurnHeader) -> Vec<Option<SectionHeader>> {
    let table = turn.get(TURN_HEADER..).unwrap_or_default();
    let copy_at = |position: usize| {
        let copy = SectionHeader::decode(table.get(position * SECTION_HEADER..)?)?;
        let is_right = copy.turn == header.previous.number && copy.identity == header.previous.identity;
        is_right.then_some(copy)
    };
    // A header that passed its CRC is believed, but not with an allocation that its turn could not fill.
    let count = (header.copies as usize).min(table.len() / SECTION_HEADER);
    (0..count).map(copy_at).collect()
}

/// The sections of the turn `id`: each found in its own place, where the copies in the next turn help to find it, or in
/// the copy alone, or not at all. `first` is where the first section begins, if the turn's own header is known.
pub(crate) fn sections(
    turn: &[u8],
    id: &TurnId,
    first: Option<usize>,
    count: usize,
    copies: &[Option<SectionHeader>],
) -> Vec<Option<FoundSection>> {
    let mut next = first;
    let mut found = Vec::new();
    let plausible = (turn.len() / SECTION_HEADER).max(copies.len());
    for position in 0..count.min(plausible) {
        let copy = copies.get(position).and_then(Option::as_ref);
        let at = copy.map(|copy| copy.offset as usize).or(next);
        let own = at.and_then(|at| {
            let header = SectionHeader::decode(turn.get(at..)?)?;
            let is_right = header.turn == id.number && header.identity == id.identity && header.offset as usize == at;
            is_right.then_some(header)
        });
        let repaired = own.is_none();
        let section = own.or_else(|| copy.cloned()).map(|header| {
            // A read begins at the section's own header: without it, its entries are lost even if they are whole.
            let records = if repaired && header.records > 0 { None } else { records(turn, &header) };
            FoundSection { header, repaired, records }
        });
        next = section.as_ref().map(|section| (section.header.offset as usize) + section.header.length as usize);
        found.push(section);
    }
    if count > plausible {
        found.push(None);
    }
    found
}

/// The terms of a section's records, as `FoundSection::records`.
fn records(turn: &[u8], header: &SectionHeader) -> Option<Vec<Option<Term>>> {
    let section = turn.get(header.offset as usize..)?.get(..header.length as usize)?;
    let table_end = header.table_end()? as usize;
    let table = section.get(SECTION_HEADER..table_end)?;
    if crc32c::crc32c(table) != header.records_crc {
        return None;
    }
    let mut at = table_end;
    let mut index = header.first();
    let mut terms = Vec::with_capacity(header.records as usize);
    for record in table.chunks_exact(RECORD_HEADER) {
        let record = RecordHeader::decode(record)?;
        let end = at.checked_add(record.payload() as usize)?;
        let payload = section.get(at..end)?;
        terms.push((record.payload_crc(header.group, index, &[payload]) == record.crc).then_some(record.term));
        at = end;
        index = LogIndex(index.0.checked_add(1)?);
    }
    Some(terms)
}

/// Whether a turn is as it was written, every byte that means something.
pub(crate) fn is_whole(turn: &[u8], header: &TurnHeader, sections: &[Option<FoundSection>]) -> bool {
    let copies_end = TURN_HEADER + header.copies as usize * SECTION_HEADER;
    let Some(copies) = turn.get(TURN_HEADER..copies_end) else { return false };
    let mut crc = crc32c::crc32c(copies);
    for section in sections {
        let Some(section) = section.as_ref().filter(|section| section.is_whole()) else { return false };
        let from = section.header.offset as usize;
        let table = section.header.table_end().and_then(|end| turn.get(from..from + end as usize));
        let Some(table) = table else { return false };
        crc = crc32c::crc32c_append(crc, table);
    }
    sections.len() == header.sections as usize && crc == header.id.body_crc
}
