//! Room for the log: spare segments made ahead, old segments freed, entries that hold one back copied forward.
//!
//! A segment is freed only after a checkpoint is durable that no longer needs it, and its file becomes a spare: a file
//! whose blocks have all been written once takes half as long to fdatasync as a fresh one. A segment in which damage
//! was found is never written to again; it leaves the log under the name `.damaged`.

use super::disk::{Disk, DiskFile};
use super::encode::{section_bytes, turn_bytes};
use super::layout::{SectionHeader, SectionKind, TurnKind};
use super::log::{Log, TurnSize};
use super::read::{Budget, Location, read_location};
use super::{LogError, segment_name};
use crate::types::{LogEntry, LogId, LogIndex, RaftGroupId, Term};
use std::collections::BTreeMap;
use std::io;

/// A segment file that is ready to be used.
pub struct Spare<F> {
    /// Its name.
    pub(super) name: String,
    /// Its length.
    pub(super) length: u64,
    /// The file.
    pub(super) file: F,
    /// Whether this process has freed it: old turns lie in it.
    pub(super) was_freed: bool,
}

/// A spare that the log would like to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpareOrder {
    /// The name to create it under.
    name: String,
    /// How long it is to be.
    length: u64,
}

/// What the log can still take without more space. With fewer than two spares it may soon refuse turns that carry
/// entries (the last spare is left to promises), so that is when new writes are to be refused at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// Bytes left in the current segment.
    pub bytes: u64,
    /// How many spares are ready.
    pub spares: usize,
}

impl Headroom {
    /// Whether new entries are to be taken: one spare is kept for promises and for the next start, so there is another
    /// one, or `bytes_min` in the current segment.
    #[must_use]
    pub fn takes_entries(&self, bytes_min: u64) -> bool {
        self.spares >= 2 || self.bytes >= bytes_min
    }
}

/// How the log has made room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomMade {
    /// Segments that were begun in the file of one that was freed.
    pub reused_segments: u64,
    /// Bytes of live entries that were copied forward.
    pub copied_bytes: u64,
}

/// Makes a spare, durable, on whatever thread. Takes as long as writing the whole file. An error (no space, say) is not
/// the log's end; whoever drives the log looks at its headroom and refuses new work in time.
pub fn prepare_spare<D: Disk>(disk: &D, order: SpareOrder) -> io::Result<Spare<D::File>> {
    let SpareOrder { name, length } = order;
    let file = disk.create(&name, length)?;
    file.sync_data()?;
    disk.sync_directory()?;
    Ok(Spare { name, length, file, was_freed: false })
}

fn spare_name(number: u64) -> String {
    format!("spare-{number:016}.wal")
}

/// The number of a spare's file name.
pub(super) fn spare_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("spare-")?.strip_suffix(".wal")?.parse().ok()?;
    (spare_name(number) == name).then_some(number)
}

impl<D: Disk> Log<D> {
    /// What the log can still take without more space.
    #[must_use]
    pub fn headroom(&self) -> Headroom {
        let length = self.segments.last_key_value().map_or(0, |(_, segment)| segment.length);
        let bytes = length.saturating_sub(self.end.unwrap_or(length));
        Headroom { bytes, spares: self.spares.len() }
    }

    /// How it has made room since it was asked last.
    pub fn take_room_made(&mut self) -> RoomMade {
        std::mem::take(&mut self.room_made)
    }

    /// A spare to prepare, unless there are enough. Each order is for another file, so an order that failed is dropped.
    pub fn order_spare(&mut self) -> Option<SpareOrder> {
        (self.spares.len() < self.options.spares).then(|| self.next_order())
    }

    fn next_order(&mut self) -> SpareOrder {
        let name = spare_name(self.next_spare);
        self.next_spare += 1;
        SpareOrder { name, length: self.options.segment_bytes }
    }

    /// Takes a spare that `prepare_spare` has made.
    pub fn add_spare(&mut self, spare: Spare<D::File>) {
        self.spares.push(spare);
    }

    /// Makes a spare now, because there is none. Without space that is a refusal, not a failure.
    pub(super) fn make_spare(&mut self) -> Result<(), LogError> {
        let order = self.next_order();
        match prepare_spare(&self.disk, order) {
            Ok(spare) => self.spares.push(spare),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(LogError::Full),
            Err(error) => return self.fatal("making a spare segment", Err(error)),
        }
        Ok(())
    }

    /// Takes the spares that an earlier life has left, and removes what is none.
    pub(super) fn adopt_spares(&mut self, names: &[String]) -> Result<(), LogError> {
        let doing = "looking for spare segments";
        for name in names.iter().filter(|name| spare_number(name).is_some()) {
            let opened = self.disk.open(name).and_then(|file| Ok((file.length()?, file)));
            let (length, file) = self.fatal(doing, opened)?;
            if length == self.options.segment_bytes
                && self.spares.len() < self.options.spares + self.options.recycled_max
            {
                self.spares.push(Spare { name: name.clone(), length, file, was_freed: false });
            } else {
                let removed = self.disk.remove(name);
                self.fatal(doing, removed)?;
            }
        }
        Ok(())
    }

    /// The oldest segments that are beyond what is to be kept and that no group needs. Forgets their entries, so that
    /// the checkpoint written next says so.
    pub(super) fn choose_freed(&mut self) -> BTreeMap<u64, bool> {
        let mut freed = BTreeMap::new();
        while self.live_bytes() > self.options.retain_bytes && self.segments.len() > 1 {
            let Some(oldest) = self.segments.first_entry() else { break };
            let number = *oldest.key();
            if self.index.needs(number) {
                break;
            }
            freed.insert(number, oldest.remove().flawed);
            self.index.forget(number);
        }
        freed
    }

    fn live_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.length).sum()
    }

    /// Takes segments that the durable checkpoint does not need out of the log: damaged ones are kept under another
    /// name, the others become spares or are removed.
    pub(super) fn give_up(&mut self, segments: &BTreeMap<u64, bool>) -> Result<(), LogError> {
        for (&number, &flawed) in segments {
            let result = self.give_up_one(number, flawed);
            self.fatal("freeing a segment", result)?;
        }
        if !segments.is_empty() {
            let synced = self.disk.sync_directory();
            self.fatal("freeing a segment", synced)?;
        }
        Ok(())
    }

    fn give_up_one(&mut self, number: u64, flawed: bool) -> io::Result<()> {
        let name = segment_name(number);
        if flawed {
            return self.disk.rename(&name, &format!("{name}.damaged"));
        }
        let file = self.disk.open(&name)?;
        let length = file.length()?;
        if length != self.options.segment_bytes || self.spares.len() >= self.options.spares + self.options.recycled_max
        {
            return self.disk.remove(&name);
        }
        let spare = self.next_order().name;
        self.disk.rename(&name, &spare)?;
        self.spares.push(Spare { name: spare, length, file, was_freed: true });
        Ok(())
    }

    /// Copies the few entries that hold back the oldest segment into the newest, so that the next rotation can free it.
    /// Leaves them where they are if they are many, can't be read, or would take the room that `next` needs.
    pub(super) fn copy_forward(&mut self, next: &TurnSize) -> Result<(), LogError> {
        if self.live_bytes() <= self.options.retain_bytes.saturating_add(self.options.slack_bytes) {
            return Ok(());
        }
        let Some((&oldest, segment)) = self.segments.first_key_value() else { return Ok(()) };
        let Some(file) = segment.file.as_ref() else { return Ok(()) };
        let (mut moved, mut bytes): (Vec<(RaftGroupId, Vec<LogEntry>)>, u64) = (Vec::new(), 0);
        for (group, run) in self.index.needed_in(oldest) {
            let mut entries = Vec::new();
            let mut budget = Budget { left: u64::MAX, any: false };
            let location = Location::new(group, run, segment.identity);
            bytes += location.bytes();
            if bytes > self.options.segment_bytes / 8
                || read_location(file, &location, &mut budget, &mut entries).is_err()
            {
                return Ok(());
            }
            moved.push((group, entries));
        }
        let bytes: u64 = moved.iter().map(|(_, entries)| section_bytes(entries) as u64).sum();
        let needed = turn_bytes(bytes, self.previous_sections()) + next.room(moved.len());
        if moved.is_empty() || !self.has_room(needed) {
            return Ok(());
        }
        self.begin_turn();
        for (group, entries) in &moved {
            let log = &self.index.groups[group];
            let index = LogIndex(entries[0].id.index.0 - 1);
            // A lost one's term is not known, and nobody asks a moved section for it.
            let base = log.id_at(index).unwrap_or(LogId { index, term: Term(0) });
            let blank = self.blank(SectionKind::Moved, *group, log.hard_state);
            let last = entries[entries.len() - 1].id;
            self.add_section(SectionHeader { base, last, ..blank }, entries);
            self.room_made.copied_bytes += section_bytes(entries) as u64;
        }
        self.commit(TurnKind::Data, 0, 0).map(|_| ())
    }
}
