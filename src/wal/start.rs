//! What a start does with what it has found: makes it durable and final, and continues in a new segment.

use super::disk::{Disk, DiskFile};
use super::layout::BLOCK;
use super::log::{LiveSegment, Log, TurnSize};
use super::recover::{Excerpt, Recovered};
use super::{LogError, Recovery, segment_name};
use std::io::{self, IoSlice};

/// No more torn turns than this are kept for inspection.
const TORN_FILES_MAX: usize = 8;

impl<D: Disk> Log<D> {
    /// Makes what was found durable and final. Killed at any step, the next start finds the same, but for a torn turn
    /// that is erased by then. (Names that a killed process has made visible become durable with the rotation, before
    /// anything is built on them.)
    pub(super) fn take_over(&mut self, mut recovered: Recovered, names: &[String]) -> Result<Recovery, LogError> {
        for (&number, found) in &recovered.segments {
            let file = self.disk.open(&segment_name(number)).ok();
            let (identity, length, flawed) = (found.identity, found.length, found.flawed);
            self.segments.insert(number, LiveSegment { identity, length, flawed, file });
        }
        if let Some(torn) = &recovered.torn {
            if let Err(error) = self.keep_torn(torn, names) {
                recovered.findings.push(format!("no copy of the torn turn was kept: {error}"));
            }
            if recovered.end == Some(torn.id.offset) {
                self.erase(torn)?;
            }
        }
        if let Some(last) = &recovered.unproven {
            let file = self.segments.get(&last.segment).and_then(|segment| segment.file.as_ref());
            let file = file.ok_or_else(|| io::Error::other("a segment that was read can't be opened"));
            let written = file.and_then(|file| {
                file.write_all_at(&[IoSlice::new(&last.bytes)], last.id.offset)?;
                file.sync_data()
            });
            self.fatal("rewriting its last turn", written)?;
        }
        self.adopt_spares(names)?;
        self.give_up(&recovered.stale)?;
        self.rotate(&TurnSize::NOTHING)?;
        let mut recovery = self.index.recovery();
        recovery.durable_turn = recovered.previous.id.number;
        (recovery.incomplete, recovery.losses) = (recovered.incomplete, recovered.losses);
        recovery.findings = recovered.findings;
        Ok(recovery)
    }

    /// Keeps a copy of a torn turn before it is written over.
    fn keep_torn(&self, torn: &Excerpt, names: &[String]) -> io::Result<()> {
        let mut kept: Vec<&String> = names.iter().filter(|name| name.ends_with(".torn")).collect();
        kept.sort_unstable();
        let name = format!("segment-{:016}-turn-{:020}.torn", torn.segment, torn.id.number.0);
        let surplus = (kept.len() + 1).saturating_sub(TORN_FILES_MAX);
        for old in kept.iter().enumerate().filter(|(position, old)| *position < surplus || ***old == name) {
            self.disk.remove(old.1)?;
        }
        let file = self.disk.create(&name, torn.bytes.len() as u64)?;
        file.write_all_at(&[IoSlice::new(&torn.bytes)], 0)?;
        file.sync_data()?;
        self.disk.sync_directory()
    }

    /// Makes sure that a torn turn stays what it is: what is written in its place repeats the same section headers, and
    /// torn in its turn it could make the old one whole, which names a segment that is another one by now.
    fn erase(&mut self, torn: &Excerpt) -> Result<(), LogError> {
        let Some(file) = self.segments.get(&torn.segment).and_then(|segment| segment.file.as_ref()) else {
            return Ok(());
        };
        let zeros = vec![0; torn.bytes.len().min(BLOCK as usize)];
        let erased = file.write_all_at(&[IoSlice::new(&zeros)], torn.id.offset).and_then(|()| file.sync_data());
        self.fatal("erasing a torn turn", erased)
    }
}
