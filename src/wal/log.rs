//! The log that is written to: appends turns, seals and rotates.
//!
//! Nothing of a turn is written before the fdatasync of the turn before it has returned; the start relies on it. Any
//! failure of the disk ends the log for good: what is durable after it is unknown until the next start has looked.

use super::disk::{Disk, DiskFile};
use super::encode::{Encoder, turn_bytes};
use super::index::{GroupLog, Index, Place};
use super::layout::{BLOCK, SECTION_HEADER, SEGMENT_BYTES_MAX, SectionHeader, SectionKind, SegmentHeader};
use super::layout::{TurnHeader, TurnId, TurnKind};
use super::read::{Budget, Location, Reader, read_location};
use super::recover::{Previous, recover};
use super::space::{RoomMade, Spare, spare_number};
use super::{
    GroupRecovery, GroupWrite, Identity, LogChange, LogError, Options, ReadError, Recovery, Turn, TurnNumber,
    segment_name,
};
use crate::types::{HardState, LogEntry, LogId, LogIndex, RaftGroupId};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};

/// A segment of the log.
pub(super) struct LiveSegment<F> {
    /// Its secret; 0 when unknown.
    pub identity: u128,
    /// Its length.
    pub length: u64,
    /// Whether something in it is damaged, so that its bytes are kept.
    pub flawed: bool,
    /// The file; nothing if it could not be opened.
    pub file: Option<F>,
}

/// The write-ahead log.
pub struct Log<D: Disk> {
    /// Where the files are.
    pub(super) disk: D,
    /// Whose log it is.
    owner: Identity,
    /// How it uses its disk.
    pub(super) options: Options,
    /// Where segments get their secrets from.
    fresh_id: Box<dyn FnMut() -> u128 + Send>,
    /// Where every group's entries are.
    pub(super) index: Index,
    /// Live segments, ascending; the last one is written to.
    pub(super) segments: BTreeMap<u64, LiveSegment<D::File>>,
    /// Where the next turn goes in the last segment; nothing before the first rotation if it can't take one.
    pub(super) end: Option<u64>,
    /// The last turn.
    previous: Previous,
    /// The next turn's number.
    next_turn: u64,
    /// The next segment's number.
    next_segment: u64,
    /// Segments ready to be used.
    pub(super) spares: Vec<Spare<D::File>>,
    /// The next spare's number.
    pub(super) next_spare: u64,
    /// How it has made room since it was asked last.
    pub(super) room_made: RoomMade,
    /// Whether groups may have existed that nobody remembers.
    incomplete: bool,
    /// See `Recovery::losses`.
    losses: u8,
    /// Whether the newest checkpoint would let go of entries that are needed again.
    needs_more: bool,
    /// Builds turns.
    encoder: Encoder,
    /// Whether a call has failed.
    failed: bool,
}

/// How much a turn needs.
pub(super) struct TurnSize {
    /// What its sections take.
    bytes: u64,
    /// How many sections it has.
    sections: usize,
    /// Whether it carries entries, which may be refused, or only promises.
    entries: bool,
}

impl TurnSize {
    /// No turn: only what must fit behind it.
    pub(super) const NOTHING: Self = Self { bytes: 0, sections: 0, entries: false };

    fn of(turn: &Turn) -> Self {
        Self {
            bytes: turn.writes.iter().map(|write| write.log_bytes() as u64).sum(),
            sections: turn.writes.len(),
            entries: turn.writes.iter().any(|write| match &write.change {
                LogChange::Append(entries) | LogChange::Refill(entries) => !entries.is_empty(),
                _ => false,
            }),
        }
    }

    /// The room it takes behind a turn of `copies` sections, together with the close turn that must fit behind it.
    pub(super) fn room(&self, copies: usize) -> u64 {
        turn_bytes(self.bytes, copies) + turn_bytes(0, self.sections)
    }
}

impl<D: Disk> Log<D> {
    /// Opens the log on `disk`: reads it all, drops a torn tail, finds damage, and continues in a new segment.
    ///
    /// `fresh_id` supplies the segments' secrets, at every rotation; they must be random where clients are not trusted.
    pub fn open(
        disk: D,
        owner: Identity,
        options: Options,
        fresh_id: impl FnMut() -> u128 + Send + 'static,
    ) -> Result<(Self, Recovery), LogError> {
        let is_valid = options.segment_bytes.is_multiple_of(BLOCK) && options.segment_bytes <= SEGMENT_BYTES_MAX;
        assert!(is_valid && options.segment_bytes >= 64 * BLOCK, "a segment is 256 KiB to 2 GiB, in whole blocks");
        let names = disk.list().map_err(|error| LogError::Disk { doing: "listing its files", error })?;
        let numbers = names.iter().filter_map(|name| segment_number(name)).collect::<BTreeSet<_>>();
        let recovered = recover(&disk, owner, &options, &numbers)?;
        let mut log = Self {
            disk,
            owner,
            options,
            fresh_id: Box::new(fresh_id),
            index: recovered.index.clone(),
            segments: BTreeMap::new(),
            end: recovered.end,
            previous: recovered.previous.clone(),
            next_turn: recovered.next_turn,
            next_segment: recovered.next_segment,
            spares: Vec::new(),
            next_spare: names.iter().filter_map(|name| spare_number(name)).max().map_or(1, |highest| highest + 1),
            room_made: RoomMade::default(),
            incomplete: recovered.incomplete,
            losses: recovered.losses,
            needs_more: false,
            encoder: Encoder::default(),
            failed: false,
        };
        let recovery = log.take_over(recovered, &names)?;
        Ok((log, recovery))
    }

    /// Passes a result on; a failure ends the log.
    pub(super) fn fatal<T>(&mut self, doing: &'static str, result: io::Result<T>) -> Result<T, LogError> {
        self.failed |= result.is_err();
        result.map_err(|error| LogError::Disk { doing, error })
    }

    /// Makes `turn` durable: one write, one fdatasync, unless a new segment must be begun first.
    ///
    /// Fails with `Full` or `TooLarge` before anything is written; after any other failure the log refuses every call.
    ///
    /// # Panics
    /// If a write contradicts what the log knows of its group: entries with a gap, of a lower term or at or before its
    /// start, or the birth of a group that exists or has existed.
    pub fn append(&mut self, turn: &Turn) -> Result<TurnNumber, LogError> {
        if self.failed {
            return Err(LogError::Failed);
        }
        self.make_room(&TurnSize::of(turn))?;
        self.encoder.begin(&self.previous.sections);
        for write in &turn.writes {
            self.add_write(write);
        }
        self.commit(TurnKind::Data, 0, 0)
    }

    /// Proves the last turn durable, by an empty turn that repeats its identifiers. Does nothing if that is proven.
    pub fn seal(&mut self) -> Result<(), LogError> {
        if self.failed {
            return Err(LogError::Failed);
        }
        if !self.previous.sections.is_empty() {
            self.make_room(&TurnSize::NOTHING)?;
        }
        if !self.previous.sections.is_empty() {
            self.encoder.begin(&self.previous.sections);
            self.commit(TurnKind::Seal, 0, 0)?;
        }
        Ok(())
    }

    /// Whether the last turn is not proven durable yet.
    #[must_use]
    pub fn is_unsealed(&self) -> bool {
        !self.previous.sections.is_empty()
    }

    /// The segment that is written to, and where in it the newest turn begins: that one proves all before it durable.
    #[must_use]
    pub fn proven(&self) -> (u64, u64) {
        let is_here = |segment: &LiveSegment<_>| segment.identity == self.previous.id.identity;
        let (number, segment) = self.segments.last_key_value().expect("an open log has a segment");
        (*number, if is_here(segment) { self.previous.id.offset } else { 0 })
    }

    /// Says that `group` needs no entry below `below` to rebuild its state machine, and every one from there on: all
    /// that are left may be needed again once a state is lost. A start goes by what the newest checkpoint says, so
    /// there is another one before the next turn if that says less.
    pub fn release(&mut self, group: RaftGroupId, below: LogIndex) {
        self.needs_more |= self.index.release(group, below);
    }

    fn add_write(&mut self, write: &GroupWrite) {
        let group = write.group;
        let log = self.index.groups.get(&group);
        let last = log.map_or(LogId::default(), |log| log.last);
        if write.change == LogChange::Doubt && log.is_none() {
            return; // it was never born, and has promised nothing
        }
        let was_in_doubt = log.is_some_and(|log| log.doubt.is_some());
        let (kind, base, end, number, entries): (_, _, _, _, &[LogEntry]) = match &write.change {
            LogChange::Append(entries) if !entries.is_empty() => {
                let base = self.check_append(group, entries);
                (SectionKind::Append, base, entries[entries.len() - 1].id, 0, entries)
            }
            LogChange::None | LogChange::Doubt | LogChange::Append(_) => (SectionKind::HardState, last, last, 0, &[]),
            LogChange::Born { start } => {
                assert!(log.is_none() && !self.index.tombstones.contains(&group), "group {group} is born only once");
                (SectionKind::Born, *start, *start, 0, &[])
            }
            &LogChange::Installing { at, generation } => (SectionKind::Installing, last, at, generation, &[]),
            &LogChange::Installed { at, generation } => (SectionKind::Installed, at, at, generation, &[]),
            LogChange::Refill(entries) => match self.still_lost(group, entries) {
                [] => (SectionKind::HardState, last, last, 0, &[]),
                entries => {
                    (SectionKind::Moved, self.check_refill(group, entries), entries[entries.len() - 1].id, 0, entries)
                }
            },
            LogChange::Tombstone => (SectionKind::Tombstone, last, last, 0, &[]),
        };
        let is_first = matches!(kind, SectionKind::Born | SectionKind::Installed | SectionKind::Tombstone);
        assert!(log.is_some() || is_first, "group {group} was never born, or is gone");
        // What the first one begins settles all that was before it. What else is written in doubt settles nothing.
        let doubt = !is_first && (was_in_doubt || write.change == LogChange::Doubt);
        let header = SectionHeader { doubt, base, last: end, number, ..self.blank(kind, group, write.hard_state) };
        self.add_section(header, entries);
    }

    /// The entry before the first of `entries`, after checking that they continue this log.
    fn check_append(&self, group: RaftGroupId, entries: &[LogEntry]) -> LogId {
        let log = self.index.groups.get(&group).unwrap_or_else(|| panic!("group {group} was never born, or is gone"));
        let base = LogIndex(entries[0].id.index.0 - 1);
        assert!(base >= log.start.index && base <= log.last.index, "group {group}: entries leave a gap");
        let base = log.id_at(base).unwrap_or_else(|| panic!("group {group} is damaged, and was written to"));
        entries.iter().fold(base, |before, entry| {
            assert_eq!(entry.id.index, before.index.next(), "group {group}: entries are consecutive");
            assert!(entry.id.term >= before.term, "group {group}: terms never fall along a log (Raft §5.3)");
            entry.id
        });
        base
    }

    /// Without those that the log does not hold any more: room for the turn that brings them back is made by letting go
    /// of the oldest segment, and of what was lost before it.
    fn still_lost<'a>(&self, group: RaftGroupId, entries: &'a [LogEntry]) -> &'a [LogEntry] {
        let start = self.index.groups.get(&group).map_or(LogIndex(0), |log| log.start.index);
        &entries[entries.partition_point(|entry| entry.id.index <= start)..]
    }

    /// The entry before the first of `entries`, after checking that all of them are lost here.
    fn check_refill(&self, group: RaftGroupId, entries: &[LogEntry]) -> LogId {
        let log = self.index.groups.get(&group).unwrap_or_else(|| panic!("group {group} was never born, or is gone"));
        let (first, last) = (entries[0].id.index, entries[entries.len() - 1].id.index);
        let is_lost = log.holes().iter().any(|hole| hole.0 <= first && last <= hole.1);
        assert!(is_lost, "group {group}: entries {first} to {last} are not lost, and must not be replaced");
        log.id_at(first.previous()).unwrap_or_else(|| panic!("group {group}: a hole is filled from its beginning"))
    }

    /// What the log knows of one group. If a flushed state machine covers entries that are damaged, the group's log
    /// begins behind them from now on, as after a start.
    pub fn examine(&mut self, group: RaftGroupId) -> Option<GroupRecovery> {
        // Of this group alone: what another one lost may be on its way back.
        self.index.skip_released_holes_of(group);
        self.group(group)
    }

    /// Says that entries which the log should be able to read are damaged. Their bytes are kept.
    pub fn mark_lost(&mut self, group: RaftGroupId, first: LogIndex, last: LogIndex, flaw: &str) {
        for number in self.index.lose(group, first, last, flaw) {
            if let Some(segment) = self.segments.get_mut(&number) {
                segment.flawed = true;
            }
        }
    }

    /// Says that the log knows every group that was ever here: what it had forgotten has been repaired, or is not there
    /// any more. Durable with the next segment; a start before that finds what this one has found.
    pub fn settle(&mut self) {
        self.incomplete = false;
    }

    pub(super) fn blank(&self, kind: SectionKind, group: RaftGroupId, hard_state: HardState) -> SectionHeader {
        let identity = self.segments.last_key_value().map_or(0, |(_, segment)| segment.identity);
        SectionHeader {
            kind,
            doubt: false,
            installing: self.index.groups.get(&group).is_some_and(|log| log.installing.is_some()),
            group,
            turn: TurnNumber(self.next_turn),
            identity,
            hard_state,
            base: LogId::default(),
            last: LogId::default(),
            number: 0,
            records: 0,
            records_crc: 0,
            offset: 0,
            length: 0,
        }
    }

    /// Adds a section to the turn under construction, and takes it into the index.
    pub(super) fn add_section(&mut self, header: SectionHeader, entries: &[LogEntry]) {
        let header = self.encoder.section(header, entries);
        let (&segment, _) = self.segments.last_key_value().expect("an open log has a segment");
        let turn = self.end.expect("an open log has an end");
        let offset = u32::try_from(turn + u64::from(header.offset)).expect("a segment is smaller than 4 GiB");
        let place = Place { segment, offset, length: header.length };
        self.index.apply(&header, place, entries.iter().map(|entry| Some(entry.id.term)));
    }

    pub(super) fn previous_sections(&self) -> usize {
        self.previous.sections.len()
    }

    pub(super) fn begin_turn(&mut self) {
        self.encoder.begin(&self.previous.sections);
    }

    /// Writes the turn under construction and makes it durable.
    pub(super) fn commit(&mut self, kind: TurnKind, link: u64, link_identity: u128) -> Result<TurnNumber, LogError> {
        let (&number, segment) = self.segments.last_key_value().expect("an open log has a segment");
        let end = self.end.expect("an open log has an end");
        let mut header = TurnHeader {
            kind,
            id: TurnId {
                number: TurnNumber(self.next_turn),
                identity: segment.identity,
                offset: end,
                length: 0,
                body_crc: 0,
            },
            segment: number,
            previous: self.previous.id,
            copies: 0,
            sections: 0,
            link,
            link_identity,
            incomplete: self.incomplete,
            losses: self.losses,
        };
        self.encoder.finish(&mut header, self.owner);
        assert!(header.id.end() <= segment.length, "room was made for this turn");
        let file = segment.file.as_ref().expect("the segment that is written to is open");
        let written = file.write_all_at(&self.encoder.slices(), end).and_then(|()| file.sync_data());
        self.fatal("writing a turn", written)?;
        self.end = Some(header.id.end());
        self.next_turn += 1;
        self.previous = Previous { id: header.id, sections: self.encoder.take_sections() };
        Ok(header.id.number)
    }

    /// Makes sure that a turn fits, beginning a new segment if it must. Refuses before anything is written.
    fn make_room(&mut self, size: &TurnSize) -> Result<(), LogError> {
        let checkpoint = self.checkpoint_sections();
        let at_head = BLOCK + turn_bytes((checkpoint * SECTION_HEADER) as u64, 0) + size.room(checkpoint);
        if at_head > self.options.segment_bytes {
            return Err(LogError::TooLarge { bytes: size.bytes });
        }
        // Turns that carry entries leave one spare alone, so that promises, or the next start, find room on a full
        // disk.
        let reserve = usize::from(size.entries);
        let rotates = self.needs_more || !self.has_room(size.room(self.previous.sections.len()));
        while self.spares.len() < reserve + usize::from(rotates) {
            self.make_spare()?;
        }
        if rotates {
            self.rotate(size)?;
        }
        assert!(self.has_room(size.room(self.previous.sections.len())), "a new segment takes what was checked to fit");
        Ok(())
    }

    pub(super) fn has_room(&self, needed: u64) -> bool {
        let length = self.segments.last_key_value().map_or(0, |(_, segment)| segment.length);
        self.end.is_some_and(|end| end + needed <= length)
    }

    fn checkpoint_sections(&self) -> usize {
        let installing = self.index.groups.values().filter(|log| log.installing.is_some()).count();
        self.index.groups.len() + installing + self.index.tombstones.len()
    }

    /// Continues in a new segment: its header and name durable, then the old one's close turn, then the checkpoint,
    /// then what the checkpoint allows: old segments freed, entries copied forward. `next` is the turn that is to fit.
    pub(super) fn rotate(&mut self, next: &TurnSize) -> Result<(), LogError> {
        if self.spares.is_empty() {
            self.make_spare()?;
        }
        let spare = self.spares.pop().expect("one was made");
        let (number, identity) = (self.next_segment, (self.fresh_id)());
        assert_ne!(identity, 0, "a segment's identity is random");
        let before = self.segments.last_key_value();
        let header = SegmentHeader {
            owner: self.owner,
            number,
            identity,
            predecessor: before.map_or(0, |(&number, _)| number),
            predecessor_identity: before.map_or(0, |(_, segment)| segment.identity),
            predecessor_end: self.end.unwrap_or_default(),
            last_turn: self.previous.id.number,
            length: spare.length,
        };
        let begun = (|| {
            spare.file.write_all_at(&[IoSlice::new(&header.encode())], 0)?;
            spare.file.sync_data()?;
            self.disk.rename(&spare.name, &segment_name(number))?;
            self.disk.sync_directory()
        })();
        self.fatal("beginning a segment", begun)?;
        self.room_made.reused_segments += u64::from(spare.was_freed);
        let closing = turn_bytes(0, self.previous.sections.len());
        if self.has_room(closing) && self.segments.last_key_value().is_some_and(|(_, last)| last.file.is_some()) {
            self.encoder.begin(&self.previous.sections);
            self.commit(TurnKind::Close, number, identity)?;
        }
        let segment = LiveSegment { identity, length: spare.length, flawed: false, file: Some(spare.file) };
        self.segments.insert(number, segment);
        self.next_segment += 1;
        self.end = Some(BLOCK);
        let freed = self.choose_freed();
        self.write_checkpoint()?;
        self.give_up(&freed)?;
        self.copy_forward(next)
    }

    /// All groups' promises and bounds, at the head of a segment.
    fn write_checkpoint(&mut self) -> Result<(), LogError> {
        let mut headers = Vec::with_capacity(self.checkpoint_sections());
        for (&group, log) in &self.index.groups {
            let blank = |kind| self.blank(kind, group, log.hard_state);
            let (doubt, number) = (log.doubt.is_some(), log.released.0);
            let bounds = blank(SectionKind::Checkpoint);
            headers.push(SectionHeader { doubt, base: log.start, last: log.last, number, ..bounds });
            if let Some((at, generation)) = log.installing {
                let mark = blank(SectionKind::Installing);
                headers.push(SectionHeader { doubt, base: log.last, last: at, number: generation, ..mark });
            }
        }
        for &group in &self.index.tombstones {
            headers.push(self.blank(SectionKind::Tombstone, group, HardState::default()));
        }
        self.encoder.begin(&self.previous.sections);
        for header in headers {
            self.encoder.section(header, &[]);
        }
        let oldest = self.segments.first_key_value().map_or(0, |(&number, _)| number);
        self.needs_more = false;
        self.commit(TurnKind::Checkpoint, oldest, 0).map(|_| ())
    }

    /// What the log knows of every group, as after a start.
    #[must_use]
    pub fn groups(&self) -> Recovery {
        let (durable_turn, incomplete, losses) = (self.previous.id.number, self.incomplete, self.losses);
        Recovery { durable_turn, incomplete, losses, ..self.index.recovery() }
    }

    /// Where the entries `low .. high` of a group are, in order; touches no disk. Stops after the location with which
    /// the sections that hold them reach `max_bytes` (entries' own lengths are not kept in memory); at least one. Those
    /// beyond the last entry were cut off since somebody asked for them, and are not here any more either.
    pub fn locate(
        &self,
        group: RaftGroupId,
        low: LogIndex,
        high: LogIndex,
        max_bytes: u64,
    ) -> Result<Vec<Location>, ReadError> {
        let log = self.index.groups.get(&group).ok_or(ReadError::Released { group })?;
        if low <= log.start.index || high > log.last.index.next() {
            return Err(ReadError::Released { group });
        }
        let mut locations: Vec<Location> = Vec::new();
        let (mut next, mut bytes) = (low, 0);
        for run in log.runs_between(low, high.previous()) {
            if next >= high || run.first > next || (bytes >= max_bytes && !locations.is_empty()) {
                break;
            }
            let segment = &self.segments[&run.place.segment];
            let mut wanted = *run;
            (wanted.first, wanted.last) = (next, run.last.min(high.previous()));
            let location = Location::new(group, wanted, segment.identity);
            bytes += location.bytes();
            next = wanted.last.next();
            locations.push(location);
        }
        if next < high && (locations.is_empty() || bytes < max_bytes) {
            let reason = log.damage().unwrap_or_default().reason;
            return Err(ReadError::Damaged { group, first: next, last: high.previous(), reason });
        }
        Ok(locations)
    }

    /// The entries `low .. high` of a group, until `max_bytes` of payload, or of the sections that hold it, have been
    /// read; at least one.
    pub fn entries(
        &self,
        group: RaftGroupId,
        low: LogIndex,
        high: LogIndex,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, ReadError> {
        let mut entries = Vec::new();
        let mut budget = Budget { left: max_bytes, any: false };
        for location in self.locate(group, low, high, max_bytes)? {
            let file = self.segments.get(&location.segment()).and_then(|segment| segment.file.as_ref());
            let file = file.ok_or(ReadError::Released { group })?;
            if !read_location(file, &location, &mut budget, &mut entries)? {
                break;
            }
        }
        Ok(entries)
    }

    /// What the log knows of one group, as after a start; nothing if it does not exist.
    #[must_use]
    pub fn group(&self, group: RaftGroupId) -> Option<GroupRecovery> {
        self.index.groups.get(&group).map(GroupLog::recovery)
    }

    /// The entry before the first that the log holds of a group, and the last. The first moves when a segment is freed,
    /// which only an append or a start does.
    #[must_use]
    pub fn bounds(&self, group: RaftGroupId) -> Option<(LogId, LogId)> {
        self.index.groups.get(&group).map(|log| (log.start, log.last))
    }

    /// A reader for another thread.
    #[must_use]
    pub fn reader(&self) -> Reader<D> {
        Reader::new(self.disk.clone())
    }
}

fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("segment-")?.strip_suffix(".wal")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}
