//! What the log's bytes mean: segment headers, turn headers, section headers and record headers.
//!
//! All numbers are little-endian and every layout has a fixed size, so decoding is bounds checks and nothing else. Each
//! header carries a CRC-32C of itself. Of all future formats the first 16 bytes of a segment (magic, version, CRC) and
//! the extent of that CRC stay as they are, so that an older program refuses a newer log with a clear sentence.
//!
//! ```text
//! segment  | segment header, one block | turn | turn | … | close turn |          blocks of 4 KiB
//! turn     | turn header | copies of the previous turn's section headers | section | section | … | zeros |
//! section  | section header | record header × n | context, data | context, data | … |
//! ```
//!
//! The copies are the second place of what a turn promised (hard states, first and last entries). They are byte for
//! byte the headers they copy, so one codec serves both. A payload is covered by its record's CRC, which is covered by
//! the section's CRC of its record headers, which is covered by the section header's CRC and the turn's body CRC: every
//! payload byte is checksummed once.

use super::{Identity, TurnNumber};
use crate::types::{EntryKind, HardState, LogEntry, LogId, LogIndex, NodeId, RaftGroupId, ReplicaId, Term};

/// The unit in which turns are placed. No disk tears less than a sector of it, and a turn never shares one.
pub(crate) const BLOCK: u64 = 4096;
/// No segment is longer, so that offsets in it fit 32 bits.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 2 << 30;
/// The only format this program reads and writes.
pub(crate) const FORMAT: u32 = 1;

/// Turns and segments are counted from 1 and never get this far; beyond it, counting on would end in an overflow.
const NUMBER_MAX: u64 = u64::MAX >> 1;

const SEGMENT_MAGIC: [u8; 8] = *b"AckSegmt";
const TURN_MAGIC: [u8; 8] = *b"AckTurn\n";
pub(crate) const SEGMENT_HEADER: usize = 112;
pub(crate) const TURN_HEADER: usize = 192;
pub(crate) const SECTION_HEADER: usize = 120;
pub(crate) const RECORD_HEADER: usize = 24;

/// `bytes` rounded up to whole blocks.
pub(crate) const fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK) * BLOCK
}

/// Takes fixed-size fields off the front of a slice whose length was checked before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk::<N>().expect("the caller checked the length");
        self.0 = rest;
        *head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.take())
    }

    fn log_id(&mut self) -> LogId {
        LogId { index: LogIndex(self.u64()), term: Term(self.u64()) }
    }
}

fn put_log_id(into: &mut Vec<u8>, id: LogId) {
    into.extend_from_slice(&id.index.0.to_le_bytes());
    into.extend_from_slice(&id.term.0.to_le_bytes());
}

/// The CRC of a header whose own CRC field is the four bytes at 12.
fn crc_around_twelve(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// The first block of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Whose log it is.
    pub owner: Identity,
    /// Its place in the log; 1 is the first ever.
    pub number: u64,
    /// A random secret: no producer can forge it, and no stale byte of a recycled file carries it.
    pub identity: u128,
    /// The segment before it; 0 for the first ever.
    pub predecessor: u64,
    /// The secret of the segment before it.
    pub predecessor_identity: u128,
    /// Where the segment before it ends: the place of its close turn.
    pub predecessor_end: u64,
    /// The last turn that was durable when this segment was made.
    pub last_turn: TurnNumber,
    /// How long the file is.
    pub length: u64,
}

/// What the first bytes of a segment turned out to be.
#[derive(Debug)]
pub(crate) enum DecodedSegment {
    /// A header of our format.
    Valid(SegmentHeader),
    /// A header of another format.
    Unknown(u32),
    /// No header.
    Invalid,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BLOCK as usize);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.owner.cluster.to_le_bytes());
        bytes.extend_from_slice(&u64::from(self.owner.node.0).to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.identity.to_le_bytes());
        bytes.extend_from_slice(&self.predecessor.to_le_bytes());
        bytes.extend_from_slice(&self.predecessor_identity.to_le_bytes());
        bytes.extend_from_slice(&self.predecessor_end.to_le_bytes());
        bytes.extend_from_slice(&self.last_turn.0.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        assert_eq!(bytes.len(), SEGMENT_HEADER, "the layout is fixed");
        let crc = crc_around_twelve(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes.resize(BLOCK as usize, 0);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> DecodedSegment {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER) else { return DecodedSegment::Invalid };
        let mut fields = Fields(bytes);
        let magic = fields.take::<8>();
        let format = fields.u32();
        let crc = fields.u32();
        if magic != SEGMENT_MAGIC || crc != crc_around_twelve(bytes) {
            return DecodedSegment::Invalid;
        }
        if format != FORMAT {
            return DecodedSegment::Unknown(format);
        }
        let cluster = fields.u128();
        let node = NodeId(fields.u64() as u32);
        DecodedSegment::Valid(Self {
            owner: Identity { cluster, node },
            number: fields.u64(),
            identity: fields.u128(),
            predecessor: fields.u64(),
            predecessor_identity: fields.u128(),
            predecessor_end: fields.u64(),
            last_turn: TurnNumber(fields.u64()),
            length: fields.u64(),
        })
    }
}

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnKind {
    /// Writes of groups, or entries copied forward.
    Data = 1,
    /// Empty: it only proves that the turn before it was durable.
    Seal = 2,
    /// The state of all groups, at the head of a segment. `link` is the oldest live segment.
    Checkpoint = 3,
    /// The segment's last. `link` and `link_identity` name its successor.
    Close = 4,
}

/// Which turn a turn follows, in enough detail to recognise it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TurnId {
    /// Its number; 0 when there is none.
    pub number: TurnNumber,
    /// The identity of the segment it lies in.
    pub identity: u128,
    /// Its place in that segment.
    pub offset: u64,
    /// Its length, padding included.
    pub length: u64,
    /// The CRC of everything in it but headers of its own and payloads.
    pub body_crc: u32,
}

impl TurnId {
    /// Where the next turn begins, if it lies in the same segment.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// The first bytes of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TurnHeader {
    /// What it is for.
    pub kind: TurnKind,
    /// Its own identifier, as the next turn will repeat it.
    pub id: TurnId,
    /// The number of the segment it lies in.
    pub segment: u64,
    /// The whole turn before it.
    pub previous: TurnId,
    /// How many copies of the previous turn's section headers it carries.
    pub copies: u32,
    /// How many sections it has.
    pub sections: u32,
    /// A segment: see `TurnKind`.
    pub link: u64,
    /// The identity of that segment.
    pub link_identity: u128,
    /// Groups that nobody remembers may have existed. Every turn says so: a checkpoint's header may be lost, too.
    pub incomplete: bool,
    /// See `Recovery::losses`.
    pub losses: u8,
}

impl TurnHeader {
    pub(crate) fn encode(&self, owner: Identity) -> [u8; TURN_HEADER] {
        let mut bytes = Vec::with_capacity(TURN_HEADER);
        bytes.extend_from_slice(&TURN_MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&owner.cluster.to_le_bytes());
        bytes.extend_from_slice(&owner.node.0.to_le_bytes());
        bytes.extend_from_slice(&[self.kind as u8, u8::from(self.incomplete), self.losses, 0]);
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        for id in [&self.id, &self.previous] {
            bytes.extend_from_slice(&id.number.0.to_le_bytes());
            bytes.extend_from_slice(&id.identity.to_le_bytes());
            bytes.extend_from_slice(&id.offset.to_le_bytes());
            bytes.extend_from_slice(&id.length.to_le_bytes());
            bytes.extend_from_slice(&id.body_crc.to_le_bytes());
        }
        bytes.extend_from_slice(&self.copies.to_le_bytes());
        bytes.extend_from_slice(&self.sections.to_le_bytes());
        bytes.extend_from_slice(&self.link.to_le_bytes());
        bytes.extend_from_slice(&self.link_identity.to_le_bytes());
        bytes.resize(TURN_HEADER, 0);
        let crc = crc_around_twelve(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes.try_into().expect("resized to this length")
    }

    /// The header at the front of `bytes`, if it is one and `owner` wrote it.
    pub(crate) fn decode(bytes: &[u8], owner: Identity) -> Option<Self> {
        let bytes = bytes.get(..TURN_HEADER)?;
        if bytes[..8] != TURN_MAGIC {
            return None;
        }
        let mut fields = Fields(&bytes[8..]);
        let (format, crc) = (fields.u32(), fields.u32());
        if crc != crc_around_twelve(bytes) || format != FORMAT {
            return None;
        }
        let written_by = Identity { cluster: fields.u128(), node: NodeId(fields.u32()) };
        let [kind, incomplete, losses, _] = fields.take::<4>();
        let segment = fields.u64();
        let mut turn_id = || TurnId {
            number: TurnNumber(fields.u64()),
            identity: fields.u128(),
            offset: fields.u64(),
            length: fields.u64(),
            body_crc: fields.u32(),
        };
        let (id, previous) = (turn_id(), turn_id());
        let header = Self {
            kind: match kind {
                1 => TurnKind::Data,
                2 => TurnKind::Seal,
                3 => TurnKind::Checkpoint,
                4 => TurnKind::Close,
                _ => return None,
            },
            id,
            segment,
            previous,
            copies: fields.u32(),
            sections: fields.u32(),
            link: fields.u64(),
            link_identity: fields.u128(),
            incomplete: incomplete == 1,
            losses,
        };
        let numbers = [id.number.0, header.previous.number.0, header.segment, header.link];
        let counted = numbers.into_iter().all(|number| number <= NUMBER_MAX);
        (written_by == owner && counted && id.length > 0 && id.length.is_multiple_of(BLOCK)).then_some(header)
    }
}

/// What a section does to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectionKind {
    /// Only the hard state. `base` and `last` are the group's last entry.
    HardState = 1,
    /// Entries after `base`, up to `last`; the log is cut after `base` first.
    Append = 2,
    /// Live entries after `base`, up to `last`, in a new place; nothing is cut.
    Moved = 3,
    /// The group begins, empty after `base`.
    Born = 4,
    /// A snapshot at `last` is being installed under generation `number`; `base` is the group's last entry.
    Installing = 5,
    /// The log is empty after `base`; `number` is the generation.
    Installed = 6,
    /// The group is gone for good.
    Tombstone = 7,
    /// The group's log is what lies in `base` .. `last`; entries below `number` are released.
    Checkpoint = 8,
}

/// The first bytes of a section; the next turn repeats them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SectionHeader {
    /// What it does.
    pub kind: SectionKind,
    /// What is said about the group is not certain: turns were lost, or the replica has found so while it took part.
    pub doubt: bool,
    /// Whether a snapshot is being installed, before this section: a lost `Installing` shows in the next section.
    pub installing: bool,
    /// Whose it is.
    pub group: RaftGroupId,
    /// The turn it lies in.
    pub turn: TurnNumber,
    /// The identity of the segment it lies in.
    pub identity: u128,
    /// The group's complete hard state.
    pub hard_state: HardState,
    /// See `SectionKind`.
    pub base: LogId,
    /// See `SectionKind`.
    pub last: LogId,
    /// A generation or an index: see `SectionKind`.
    pub number: u64,
    /// How many records follow.
    pub records: u32,
    /// The CRC of their headers.
    pub records_crc: u32,
    /// Where the section begins, counted from the turn's first byte.
    pub offset: u32,
    /// Its length, from this header to its last payload byte.
    pub length: u32,
}

impl SectionHeader {
    pub(crate) fn encode_into(&self, into: &mut Vec<u8>) {
        let from = into.len();
        let vote = self.hard_state.vote;
        into.extend_from_slice(&[0; 4]);
        let flags = u8::from(vote.is_some()) | u8::from(self.doubt) << 1 | u8::from(self.installing) << 2;
        into.extend_from_slice(&[self.kind as u8, flags, 0, 0]);
        into.extend_from_slice(&self.group.0.to_le_bytes());
        into.extend_from_slice(&self.turn.0.to_le_bytes());
        into.extend_from_slice(&self.identity.to_le_bytes());
        into.extend_from_slice(&self.hard_state.term.0.to_le_bytes());
        into.extend_from_slice(&vote.map_or(0, |replica| replica.0).to_le_bytes());
        into.extend_from_slice(&self.hard_state.commit.0.to_le_bytes());
        put_log_id(into, self.base);
        put_log_id(into, self.last);
        into.extend_from_slice(&self.number.to_le_bytes());
        for word in [self.records, self.records_crc, self.offset, self.length] {
            into.extend_from_slice(&word.to_le_bytes());
        }
        assert_eq!(into.len() - from, SECTION_HEADER, "the layout is fixed");
        let crc = crc32c::crc32c(&into[from + 4..]);
        into[from..from + 4].copy_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SECTION_HEADER)?;
        let mut fields = Fields(bytes);
        if fields.u32() != crc32c::crc32c(&bytes[4..]) {
            return None;
        }
        let [kind, flags, _, _] = fields.take::<4>();
        let kind = match kind {
            1 => SectionKind::HardState,
            2 => SectionKind::Append,
            3 => SectionKind::Moved,
            4 => SectionKind::Born,
            5 => SectionKind::Installing,
            6 => SectionKind::Installed,
            7 => SectionKind::Tombstone,
            8 => SectionKind::Checkpoint,
            _ => return None,
        };
        let (group, turn, identity) = (RaftGroupId(fields.u64()), TurnNumber(fields.u64()), fields.u128());
        let (term, vote, commit) = (Term(fields.u64()), ReplicaId(fields.u64()), LogIndex(fields.u64()));
        let header = Self {
            kind,
            doubt: flags & 2 != 0,
            installing: flags & 4 != 0,
            group,
            turn,
            identity,
            hard_state: HardState { term, vote: (flags & 1 != 0).then_some(vote), commit },
            base: fields.log_id(),
            last: fields.log_id(),
            number: fields.u64(),
            records: fields.u32(),
            records_crc: fields.u32(),
            offset: fields.u32(),
            length: fields.u32(),
        };
        header.is_consistent().then_some(header)
    }

    /// Whether the numbers fit each other, so that later code may do arithmetic with them.
    fn is_consistent(&self) -> bool {
        let carries_entries = matches!(self.kind, SectionKind::Append | SectionKind::Moved);
        let entries = self.last.index.0.checked_sub(self.base.index.0);
        let fits = self.table_end().is_some_and(|end| end <= self.length);
        fits && if carries_entries {
            self.records > 0 && entries == Some(u64::from(self.records))
        } else {
            self.records == 0 && (self.kind != SectionKind::Checkpoint || entries.is_some())
        }
    }

    /// The length of this header and the record headers.
    pub(crate) fn table_end(&self) -> Option<u32> {
        self.records.checked_mul(RECORD_HEADER as u32)?.checked_add(SECTION_HEADER as u32)
    }

    /// The index of the first record.
    pub(crate) fn first(&self) -> LogIndex {
        self.base.index.next()
    }
}

/// What stands before an entry's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// The entry's term.
    pub term: Term,
    /// The entry's kind.
    pub kind: EntryKind,
    /// The length of its context.
    pub context: u32,
    /// The length of its data.
    pub data: u32,
    /// The CRC of group, index, this header's other fields, context and data.
    pub crc: u32,
}

impl RecordHeader {
    pub(crate) fn of(entry: &LogEntry, group: RaftGroupId) -> Self {
        let mut header = Self {
            term: entry.id.term,
            kind: entry.kind,
            context: entry.context.len().try_into().expect("a turn is smaller than 4 GiB"),
            data: entry.data.len().try_into().expect("a turn is smaller than 4 GiB"),
            crc: 0,
        };
        header.crc = header.payload_crc(group, entry.id.index, &[&entry.context, &entry.data]);
        header
    }

    /// The CRC this record should have in this place with this payload.
    pub(crate) fn payload_crc(&self, group: RaftGroupId, index: LogIndex, payload: &[&[u8]]) -> u32 {
        let mut place = [0; 16 + RECORD_HEADER - 4];
        place[..8].copy_from_slice(&group.0.to_le_bytes());
        place[8..16].copy_from_slice(&index.0.to_le_bytes());
        place[16..].copy_from_slice(&self.fields());
        payload.iter().fold(crc32c::crc32c(&place), |crc, part| crc32c::crc32c_append(crc, part))
    }

    fn fields(&self) -> [u8; RECORD_HEADER - 4] {
        let mut bytes = [0; RECORD_HEADER - 4];
        bytes[..8].copy_from_slice(&self.term.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.context.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.data.to_le_bytes());
        bytes[16] = match self.kind {
            EntryKind::Normal => 0,
            EntryKind::ConfChange => 1,
        };
        bytes
    }

    pub(crate) fn encode_into(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.fields());
        into.extend_from_slice(&self.crc.to_le_bytes());
    }

    /// The header at the front of `bytes`; the caller has verified the table it comes from.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes.get(..RECORD_HEADER)?);
        let (term, context, data) = (Term(fields.u64()), fields.u32(), fields.u32());
        let kind = match fields.u32() {
            0 => EntryKind::Normal,
            1 => EntryKind::ConfChange,
            _ => return None,
        };
        Some(Self { term, kind, context, data, crc: fields.u32() })
    }

    /// The length of context and data.
    pub(crate) fn payload(&self) -> u64 {
        u64::from(self.context) + u64::from(self.data)
    }
}
