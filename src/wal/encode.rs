//! Builds the bytes of one turn as a short vector of slices: headers and small payloads in one buffer, large payloads
//! where they are.
//!
//! A payload of more than `COPY_MAX` bytes is never copied: it goes to the disk as the slice it arrived in. Smaller
//! ones are, because a vector of thousands of tiny slices costs more than copying them.

use super::layout::{BLOCK, RecordHeader, SECTION_HEADER, SectionHeader, TURN_HEADER, TurnHeader, blocks};
use super::{Identity, layout::RECORD_HEADER};
use crate::types::LogEntry;
use bytes::Bytes;
use std::io::IoSlice;
use std::ops::Range;

/// Payloads up to this many bytes are copied into the turn's buffer.
const COPY_MAX: usize = 4096;
/// A buffer that has grown beyond this is given back after its turn.
const KEEP_MAX: usize = 1 << 20;

/// One slice of a turn.
enum Part {
    /// A range of the buffer.
    Buffered(Range<usize>),
    /// A payload that was not copied.
    Payload(Bytes),
}

/// The bytes of a section with these entries.
pub(crate) fn section_bytes(entries: &[LogEntry]) -> usize {
    SECTION_HEADER + entries.iter().map(entry_bytes).sum::<usize>()
}

/// What an entry takes of its section, in bytes.
#[must_use]
pub fn entry_bytes(entry: &LogEntry) -> usize {
    RECORD_HEADER + entry.payload_bytes()
}

/// The length of a turn whose sections take `sections` bytes and that repeats `copies` section headers.
pub(crate) fn turn_bytes(sections: u64, copies: usize) -> u64 {
    blocks((TURN_HEADER + copies * SECTION_HEADER) as u64 + sections)
}

/// A turn under construction.
#[derive(Default)]
pub(crate) struct Encoder {
    /// Headers, copied payloads and padding, in order.
    buffer: Vec<u8>,
    /// The slices before `sliced`, in order.
    parts: Vec<Part>,
    /// Up to where `buffer` is covered by `parts`.
    sliced: usize,
    /// The bytes of all payloads that were not copied.
    beside: u64,
    /// The CRC of copies, section headers and record headers so far.
    body_crc: u32,
    /// How many copies the turn carries.
    copies: u32,
    /// The sections so far.
    sections: Vec<SectionHeader>,
}

impl Encoder {
    /// Begins a turn that repeats these headers of the turn before it. One that was lost leaves its place empty.
    pub(crate) fn begin(&mut self, copies: &[Option<SectionHeader>]) {
        self.parts.clear();
        self.sections.clear();
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_MAX);
        (self.sliced, self.beside) = (0, 0);
        self.buffer.resize(TURN_HEADER, 0);
        for copy in copies {
            match copy {
                Some(copy) => copy.encode_into(&mut self.buffer),
                None => self.buffer.resize(self.buffer.len() + SECTION_HEADER, 0),
            }
        }
        self.copies = copies.len().try_into().expect("a turn is smaller than 4 GiB");
        self.body_crc = crc32c::crc32c(&self.buffer[TURN_HEADER..]);
    }

    fn length(&self) -> u64 {
        self.buffer.len() as u64 + self.beside
    }

    /// Adds a section; fills in what only the layout knows.
    pub(crate) fn section(&mut self, mut header: SectionHeader, entries: &[LogEntry]) -> SectionHeader {
        let at = self.length();
        let from = self.buffer.len();
        self.buffer.resize(from + SECTION_HEADER, 0);
        for entry in entries {
            RecordHeader::of(entry, header.group).encode_into(&mut self.buffer);
        }
        header.records = entries.len().try_into().expect("a turn is smaller than 4 GiB");
        header.records_crc = crc32c::crc32c(&self.buffer[from + SECTION_HEADER..]);
        header.offset = at.try_into().expect("a turn is smaller than 4 GiB");
        header.length = section_bytes(entries).try_into().expect("a turn is smaller than 4 GiB");
        let mut encoded = Vec::with_capacity(SECTION_HEADER);
        header.encode_into(&mut encoded);
        self.buffer[from..from + SECTION_HEADER].copy_from_slice(&encoded);
        self.body_crc = crc32c::crc32c_append(self.body_crc, &self.buffer[from..]);
        for entry in entries {
            self.payload(&entry.context);
            self.payload(&entry.data);
        }
        assert_eq!(self.length(), at + u64::from(header.length), "the length is computed as it is written");
        self.sections.push(header.clone());
        header
    }

    fn payload(&mut self, payload: &Bytes) {
        if payload.len() <= COPY_MAX {
            self.buffer.extend_from_slice(payload);
            return;
        }
        if self.sliced < self.buffer.len() {
            self.parts.push(Part::Buffered(self.sliced..self.buffer.len()));
            self.sliced = self.buffer.len();
        }
        self.beside += payload.len() as u64;
        self.parts.push(Part::Payload(payload.clone()));
    }

    /// Pads the turn and writes its header, whose length, counts and CRC are filled in.
    pub(crate) fn finish(&mut self, header: &mut TurnHeader, owner: Identity) {
        let length = blocks(self.length());
        assert!(length > 0 && length.is_multiple_of(BLOCK), "a turn is whole blocks");
        self.buffer.resize(self.buffer.len() + (length - self.length()) as usize, 0);
        self.parts.push(Part::Buffered(self.sliced..self.buffer.len()));
        header.id.length = length;
        header.id.body_crc = self.body_crc;
        header.copies = self.copies;
        header.sections = self.sections.len().try_into().expect("a turn is smaller than 4 GiB");
        self.buffer[..TURN_HEADER].copy_from_slice(&header.encode(owner));
    }

    /// The finished turn.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            slices.push(match part {
                Part::Buffered(range) => IoSlice::new(&self.buffer[range.clone()]),
                Part::Payload(payload) => IoSlice::new(payload),
            });
        }
        slices
    }

    /// The headers of the finished turn's sections, for the next turn to repeat. Lets go of the payloads.
    pub(crate) fn take_sections(&mut self) -> Vec<Option<SectionHeader>> {
        self.parts.clear();
        self.sections.drain(..).map(Some).collect()
    }
}
