//! A directory in memory that behaves like the worst disk the contract of `wal::disk` allows, and worse on demand.
//!
//! What was written and not synced may be kept, lost or torn by a crash, sector by sector (512 bytes), independently;
//! names that were not synced become durable in order, so that a crash keeps a random prefix of them. The disk can stop
//! before its n-th change, fail, run full, and be damaged. Pages that hold only zeros are not stored, so a disk of many
//! spare segments costs nothing. Same calls and same seed, same bytes.

use super::random::Random;
use crate::wal::disk::{Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PAGE: u64 = 4096;
const SECTOR: usize = 512;
type Page = Box<[u8; PAGE as usize]>;

/// A simulated directory. Clones are handles of the same one.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    /// What all handles share.
    state: Arc<Mutex<State>>,
}

/// What is in a file.
#[derive(Clone, Debug, Default)]
struct Content {
    /// Its length as programs see it.
    length: u64,
    /// The length a crash can't take away.
    durable_length: u64,
    /// Durable pages; one that is absent is zero.
    durable: BTreeMap<u64, Page>,
    /// Pages with writes that are not durable.
    dirty: BTreeMap<u64, Page>,
    /// Pages whose sync failed: programs see them, later syncs skip them, a crash loses what it likes of them.
    forsaken: BTreeMap<u64, Page>,
    /// Pages whose sync said that it was done, and was not.
    lied_about: BTreeMap<u64, Page>,
    /// Something was synced after those: now a power cut takes them.
    lie_stands: bool,
    /// Blocks that can't be read.
    unreadable: BTreeSet<u64>,
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

/// What makes a disk misbehave.
#[derive(Clone, Debug, Default)]
struct Faults {
    /// The change (write, sync, creation, renaming, removal) at which the disk stops for good.
    stop_at: Option<u64>,
    /// The sync, counted from now, that fails.
    failing_sync: Option<u64>,
    /// The sync of a file, counted from now, that says that it is done, and is not.
    losing_sync: Option<u64>,
    /// The write, counted from now, that fails.
    failing_write: Option<u64>,
    /// The total length of all files that it can take.
    capacity: Option<u64>,
    /// Whether syncs say that they are done, and do nothing.
    lying: bool,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Names as programs see them.
    names: BTreeMap<String, u64>,
    /// Names that a crash can't take away.
    durable_names: BTreeMap<String, u64>,
    /// What leads from the one to the other, in order.
    name_changes: Vec<NameChange>,
    /// Files by inode.
    files: BTreeMap<u64, Content>,
    /// The next inode.
    next_inode: u64,
    /// Handles from before the last crash have another one, and are dead.
    life: u64,
    /// Changes so far.
    changes: u64,
    /// Successful syncs of files and directories so far.
    syncs: u64,
    /// Whether it has stopped.
    stopped: bool,
    /// Its faults.
    faults: Faults,
}

/// Counts towards a fault; true, once, when it is due.
fn count_down(counter: &mut Option<u64>) -> bool {
    *counter = counter.map(|left| left.saturating_sub(1));
    counter.take_if(|left| *left == 0).is_some()
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.stopped { Err(io::Error::other("the simulated disk has stopped")) } else { Ok(()) }
    }

    /// Counts a change; true if the disk stops in the middle of it.
    fn change(&mut self) -> io::Result<bool> {
        self.check()?;
        self.changes += 1;
        self.stopped = self.faults.stop_at.is_some_and(|at| self.changes >= at);
        Ok(self.stopped)
    }

    fn inode(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename_or_so(&mut self, change: NameChange) -> io::Result<()> {
        let stopped = self.change()?;
        change.apply(&mut self.names);
        self.name_changes.push(change);
        if stopped { self.check() } else { Ok(()) }
    }

    fn content(&mut self, name: &str) -> &mut Content {
        let inode = self.names.get(name).unwrap_or_else(|| panic!("there is no file {name}"));
        self.files.get_mut(inode).expect("a name has a file")
    }
}

impl Content {
    fn page(&self, number: u64) -> Option<&Page> {
        let unsynced = self.dirty.get(&number).or_else(|| self.forsaken.get(&number));
        unsynced.or_else(|| self.lied_about.get(&number)).or_else(|| self.durable.get(&number))
    }

    fn read(&self, mut buffer: &mut [u8], mut offset: u64) {
        while !buffer.is_empty() {
            let within = (offset % PAGE) as usize;
            let count = buffer.len().min(PAGE as usize - within);
            let (piece, rest) = buffer.split_at_mut(count);
            match self.page(offset / PAGE) {
                Some(page) => piece.copy_from_slice(&page[within..within + count]),
                None => piece.fill(0),
            }
            buffer = rest;
            offset += count as u64;
        }
    }

    fn write(&mut self, mut bytes: &[u8], mut offset: u64) {
        self.length = self.length.max(offset + bytes.len() as u64);
        while !bytes.is_empty() {
            let within = (offset % PAGE) as usize;
            let count = bytes.len().min(PAGE as usize - within);
            let (piece, rest) = bytes.split_at(count);
            let number = offset / PAGE;
            let (durable, lied_about, forsaken) = (&self.durable, &self.lied_about, &mut self.forsaken);
            let page = self.dirty.entry(number).or_insert_with(|| {
                let before = forsaken.remove(&number);
                let before = before.or_else(|| lied_about.get(&number).or_else(|| durable.get(&number)).cloned());
                before.unwrap_or_else(|| Box::new([0; PAGE as usize]))
            });
            page[within..within + count].copy_from_slice(piece);
            bytes = rest;
            offset += count as u64;
        }
    }

    fn sync(&mut self) {
        self.lie_stands |= !self.lied_about.is_empty();
        self.keep_dirty();
    }

    /// A sync that says that it is done, and is not. What it loses shows by what is synced after it, so it is lost only
    /// then; before, it would be a torn tail. One at a time.
    fn lose_sync(&mut self) {
        if self.lied_about.is_empty() {
            self.lied_about = std::mem::take(&mut self.dirty);
        } else {
            self.sync();
        }
    }

    fn keep_dirty(&mut self) {
        self.lied_about.retain(|number, _| !self.dirty.contains_key(number));
        // Not `append`, which builds the whole map anew.
        self.durable.extend(std::mem::take(&mut self.dirty));
        self.durable_length = self.length;
    }

    /// A sync that failed: the kernel takes the pages for clean (Rebello et al., USENIX ATC '20).
    fn forsake(&mut self) {
        self.forsaken.extend(std::mem::take(&mut self.dirty));
    }

    /// What a power cut leaves: of each sector that was not synced, the old or the new.
    fn crash(&mut self, random: &mut Random) {
        let fate = random.below(4); // Often all or nothing, because that is what real power cuts often are.
        let survives = |random: &mut Random| fate == 0 || (fate > 1 && random.one_in(2));
        let lied_about = std::mem::take(&mut self.lied_about);
        if std::mem::take(&mut self.lie_stands) { &mut self.forsaken } else { &mut self.durable }.extend(lied_about);
        self.forsake();
        for (number, new) in std::mem::take(&mut self.forsaken) {
            let page = self.durable.entry(number).or_insert_with(|| Box::new([0; PAGE as usize]));
            for (old, new) in page.chunks_mut(SECTOR).zip(new.chunks(SECTOR)) {
                if old != new && survives(random) {
                    old.copy_from_slice(new);
                }
            }
        }
        if self.length != self.durable_length && !survives(random) {
            self.cut(self.durable_length);
        }
        self.durable_length = self.length;
    }

    fn cut(&mut self, length: u64) {
        for pages in [&mut self.durable, &mut self.dirty, &mut self.forsaken, &mut self.lied_about] {
            pages.retain(|&number, _| number * PAGE < length);
            if let Some(page) = pages.get_mut(&(length / PAGE)) {
                page[(length % PAGE) as usize..].fill(0);
            }
        }
        self.length = length;
        self.durable_length = self.durable_length.min(length);
    }
}

impl SimDisk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk of its own with the same content, pending writes included.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    /// A power cut: what is not synced is kept, lost or torn. Open handles die, and the disk works again.
    pub fn crash(&self, random: &mut Random) {
        let mut state = self.state();
        let state = &mut *state;
        let survive = random.below(state.name_changes.len() as u64 + 1) as usize;
        for change in state.name_changes.drain(..).take(survive) {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        let living: BTreeSet<u64> = state.names.values().copied().collect();
        state.files.retain(|inode, _| living.contains(inode));
        for content in state.files.values_mut() {
            content.crash(random);
        }
        state.revive();
    }

    /// The process was killed, the machine was not: everything written stays. Open handles die.
    pub fn kill(&self) {
        self.state().revive();
    }

    /// How many changes (writes, syncs, creations, renamings, removals) it has seen.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// How many syncs have succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Stops in the middle of the `count`-th change from now (1 is the next): a write may leave a part, a sync syncs
    /// nothing, and every later call fails until `crash` or `kill`.
    pub fn stop_after(&self, count: u64) {
        let mut state = self.state();
        state.faults.stop_at = Some(state.changes + count);
    }

    /// The `count`-th sync from now (1 is the next) fails. Programs still see what it should have synced, but no later
    /// sync will do it, unless it is written again.
    pub fn fail_sync(&self, count: u64) {
        self.state().faults.failing_sync = Some(count);
    }

    /// The `count`-th sync of a file from now (1 is the next) says that it is done, and is not: once something else of
    /// the file is synced after it, a power cut takes what it should have synced.
    pub fn lose_sync(&self, count: u64) {
        self.state().faults.losing_sync = Some(count);
    }

    /// Whether a power cut may take something that a sync has said to be durable.
    #[must_use]
    pub fn has_lost_writes(&self) -> bool {
        self.state().files.values().any(|content| content.lie_stands && !content.lied_about.is_empty())
    }

    /// The `count`-th write from now (1 is the next) fails after having written everything; what follows works.
    pub fn fail_write(&self, count: u64) {
        self.state().faults.failing_write = Some(count);
    }

    /// Creations that would make all files together longer than this fail for want of space.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state().faults.capacity = capacity;
    }

    /// What was to fail or to run full no longer does.
    pub fn behave(&self) {
        let mut state = self.state();
        state.faults = Faults { lying: state.faults.lying, ..Faults::default() };
    }

    /// The length of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        let state = self.state();
        state.names.values().map(|inode| state.files[inode].length).sum()
    }

    /// From now on every sync says that it is done, and does nothing.
    pub fn lie(&self) {
        self.state().faults.lying = true;
    }

    /// A file's bytes, as programs see them.
    #[must_use]
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let mut state = self.state();
        let content = state.content(name);
        let mut bytes = vec![0; content.length as usize];
        content.read(&mut bytes, 0);
        bytes
    }

    /// Makes `bytes` the durable content of a file, which may be new.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.next_inode;
        state.next_inode += 1;
        let mut content = Content::default();
        content.write(bytes, 0);
        content.sync();
        state.files.insert(inode, content);
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    /// Removes a file for good, as an operator would.
    pub fn lose(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// Bit rot: turns over one bit.
    pub fn flip(&self, name: &str, offset: u64, bit: u8) {
        self.damage(name, offset, 1, |bytes| bytes[0] ^= 1 << (bit % 8));
    }

    /// Overwrites durable bytes with zeros.
    pub fn zero(&self, name: &str, offset: u64, length: u64) {
        self.damage(name, offset, length, |bytes| bytes.fill(0));
    }

    /// Overwrites durable bytes.
    pub fn overwrite(&self, name: &str, offset: u64, with: &[u8]) {
        self.damage(name, offset, with.len() as u64, |bytes| bytes.copy_from_slice(with));
    }

    fn damage(&self, name: &str, offset: u64, length: u64, change: impl FnOnce(&mut [u8])) {
        let mut state = self.state();
        let content = state.content(name);
        let mut bytes = vec![0; length as usize];
        content.read(&mut bytes, offset);
        change(&mut bytes);
        content.write(&bytes, offset);
        content.keep_dirty();
    }

    /// Cuts a file off.
    pub fn cut(&self, name: &str, length: u64) {
        self.state().content(name).cut(length);
    }

    /// Makes the block (of 4 KiB) at `offset` unreadable.
    pub fn make_unreadable(&self, name: &str, offset: u64) {
        self.state().content(name).unreadable.insert(offset / PAGE);
    }
}

impl State {
    fn revive(&mut self) {
        self.life += 1;
        self.stopped = false;
        self.faults = Faults { capacity: self.faults.capacity, ..Faults::default() };
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, length: u64) -> io::Result<SimFile> {
        let mut state = self.state();
        state.check()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let used: u64 = state.names.values().map(|inode| state.files[inode].length).sum();
        if state.faults.capacity.is_some_and(|capacity| used + length > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.files.insert(inode, Content { length, ..Content::default() });
        state.rename_or_so(NameChange::Create(name.to_owned(), inode))?;
        Ok(SimFile { disk: self.clone(), inode, life: state.life })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let state = self.state();
        state.check()?;
        Ok(SimFile { disk: self.clone(), inode: state.inode(name)?, life: state.life })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.inode(from)?;
        state.rename_or_so(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.inode(name)?;
        state.rename_or_so(NameChange::Remove(name.to_owned()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        if state.change()? || count_down(&mut state.faults.failing_sync) {
            return Err(io::Error::other("the simulated disk failed to sync its directory"));
        }
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        state.syncs += 1;
        Ok(())
    }
}

/// An open file of a `SimDisk`.
#[derive(Debug)]
pub struct SimFile {
    /// Its directory.
    disk: SimDisk,
    /// The file.
    inode: u64,
    /// The life in which it was opened.
    life: u64,
}

impl SimFile {
    fn with<T>(&self, work: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        state.check()?;
        if state.life != self.life {
            return Err(io::Error::other("a handle from before a crash was used"));
        }
        work(&mut state, self.inode)
    }
}

fn content_of(state: &mut State, inode: u64) -> &mut Content {
    state.files.get_mut(&inode).expect("files outlive their handles' life")
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|state, inode| Ok(content_of(state, inode).length))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|state, inode| {
            let content = content_of(state, inode);
            if offset + buffer.len() as u64 > content.length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let blocks = offset / PAGE..(offset + buffer.len() as u64).div_ceil(PAGE);
            if content.unreadable.range(blocks).next().is_some() {
                return Err(io::Error::other("the simulated disk can't read this block"));
            }
            content.read(buffer, offset);
            Ok(())
        })
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        self.with(|state, inode| {
            let failed = state.change()? | count_down(&mut state.faults.failing_write);
            for part in parts {
                content_of(state, inode).write(part, offset);
                offset += part.len() as u64;
            }
            if failed { Err(io::Error::other("the simulated disk failed to write")) } else { Ok(()) }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, inode| {
            if state.change()? {
                return Err(io::Error::other("the simulated disk has stopped"));
            }
            if count_down(&mut state.faults.failing_sync) {
                content_of(state, inode).forsake();
                return Err(io::Error::other("the simulated disk failed to sync"));
            }
            let loses = !content_of(state, inode).dirty.is_empty() && count_down(&mut state.faults.losing_sync);
            let lying = state.faults.lying;
            match content_of(state, inode) {
                _ if lying => {}
                content if loses => content.lose_sync(),
                content => content.sync(),
            }
            state.syncs += 1;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in a file of one page, written before and after the sync that is lost, once the power was cut.
    fn after_power_cut(seed: u64, synced_later: bool) -> (u8, bool) {
        let disk = SimDisk::new();
        let file = disk.create("file", 2 * PAGE).unwrap();
        file.sync_data().and_then(|()| disk.sync_directory()).unwrap();
        let write = |at: u64| file.write_all_at(&[IoSlice::new(&[7])], at).and_then(|()| file.sync_data()).unwrap();
        disk.lose_sync(1);
        write(0);
        if synced_later {
            write(PAGE);
        }
        assert_eq!(disk.contents("file")[0], 7, "programs see it");
        let lost = disk.has_lost_writes();
        disk.crash(&mut Random::new(seed));
        assert!(!disk.has_lost_writes(), "a power cut decides");
        (disk.contents("file")[0], lost)
    }

    #[test]
    fn a_sync_that_lies_is_lost_only_behind_one_that_does_not() {
        assert!((0..50).all(|seed| after_power_cut(seed, false) == (7, false)));
        let later: BTreeSet<_> = (0..50).map(|seed| after_power_cut(seed, true)).collect();
        assert_eq!(later, BTreeSet::from([(0, true), (7, true)]), "lost in some power cuts");
    }
}
