//! Real files under the log, through the disk of production, in a directory that forgets.
//!
//! Every call goes through to `RealDisk`. What this adds is the memory of what is not durable: the old bytes of each
//! sector written since its file's last sync, the changes of names since the directory's last sync. A power cut puts
//! back what the machine would have lost, in the files themselves; whatever opens the directory then finds them so. It
//! can also stop at its n-th change, and refuse to read a block, which no file system does on demand.

use super::place::Place;
use ackord::sim::Random;
use ackord::wal::disk::{Disk, DiskFile};
use ackord::wal::real_disk::{RealDisk, RealFile};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

const PAGE: u64 = 4096;
const SECTOR: u64 = 512;

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Lost,
    /// Everything.
    Kept,
    /// Of each file the first half of its sectors, and the first half of the changed names.
    Torn,
    /// The data without the names' last change.
    Nameless,
    /// Of each file any sectors, and a prefix of the changed names.
    Any(u64),
}

/// A directory of real files. Clones are handles of the same one; the last one removes it.
#[derive(Clone)]
pub struct Files {
    inner: Arc<Inner>,
}

struct Inner {
    directory: TempDir,
    /// Names taken away and not durably so, as links.
    graveyard: TempDir,
    real: RealDisk,
    state: Mutex<State>,
}

/// What a crash may take back of one file.
struct Unsynced {
    file: Arc<File>,
    /// The old bytes of the sectors written to, by their number.
    before: BTreeMap<u64, [u8; SECTOR as usize]>,
    /// Its old length, if a change of it is not durable.
    length: Option<u64>,
}

enum NameChange {
    Create(String),
    Rename(String, String),
    /// Which name, and its link in the graveyard.
    Remove(String, PathBuf),
}

#[derive(Default)]
struct State {
    /// By inode.
    unsynced: BTreeMap<u64, Unsynced>,
    name_changes: Vec<NameChange>,
    /// Inodes and blocks.
    unreadable: BTreeSet<(u64, u64)>,
    /// Handles of an earlier one are dead.
    life: u64,
    changes: u64,
    buried: u64,
    stop_at: Option<u64>,
    stopped: bool,
    lying: bool,
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.stopped { Err(io::Error::other("the disk has stopped")) } else { Ok(()) }
    }

    /// Counts a change; true if the disk stops in the middle of it.
    fn change(&mut self) -> io::Result<bool> {
        self.check()?;
        self.changes += 1;
        self.stopped = self.stop_at.is_some_and(|at| self.changes >= at);
        Ok(self.stopped)
    }

    fn revive(&mut self) {
        self.life += 1;
        (self.stopped, self.stop_at) = (false, None);
    }
}

impl Unsynced {
    fn of(file: &Arc<File>) -> Self {
        Self { file: Arc::clone(file), before: BTreeMap::new(), length: None }
    }

    /// Remembers what a write to these bytes is about to destroy.
    fn remember(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        if offset + length > end {
            self.length.get_or_insert(end);
        }
        for sector in offset / SECTOR..(offset + length).min(end).div_ceil(SECTOR) {
            let mut bytes = [0; SECTOR as usize];
            self.file.read_at(&mut bytes, sector * SECTOR)?; // fewer bytes at the file's end
            self.before.entry(sector).or_insert(bytes);
        }
        Ok(())
    }

    fn crash(self, fate: Fate, random: &mut Random) {
        let half = self.before.len() / 2;
        for (position, (sector, bytes)) in self.before.iter().enumerate() {
            let survives = match fate {
                Fate::Lost => false,
                Fate::Kept | Fate::Nameless => true,
                Fate::Torn => position < half,
                Fate::Any(_) => random.one_in(2),
            };
            if !survives {
                self.file.write_all_at(bytes, sector * SECTOR).expect("the file can be written");
            }
        }
        if let Some(length) = self.length
            && (fate == Fate::Lost || matches!(fate, Fate::Any(_)) && random.one_in(2))
        {
            self.file.set_len(length).expect("the file can be cut off");
        }
    }
}

impl Files {
    /// The disk of production over the same directory.
    pub fn real(&self) -> RealDisk {
        self.inner.real.clone()
    }

    /// How many files it has removed.
    pub fn removals(&self) -> u64 {
        self.state().buried
    }

    /// A power cut with this outcome. Open handles die, and the disk works again.
    pub fn crash_with(&self, fate: Fate) {
        let mut random = Random::new(if let Fate::Any(seed) = fate { seed } else { 0 });
        let mut state = self.state();
        for (_, unsynced) in std::mem::take(&mut state.unsynced) {
            unsynced.crash(fate, &mut random);
        }
        let count = state.name_changes.len();
        let survive = match fate {
            Fate::Lost => 0,
            Fate::Kept => count,
            Fate::Torn => count / 2,
            Fate::Nameless => count.saturating_sub(1),
            Fate::Any(_) => random.below(count as u64 + 1) as usize,
        };
        for change in state.name_changes.drain(..).skip(survive).rev() {
            match change {
                NameChange::Create(name) => fs::remove_file(self.path(&name)),
                NameChange::Rename(from, to) => fs::rename(self.path(&to), self.path(&from)),
                NameChange::Remove(name, link) => fs::rename(link, self.path(&name)),
            }
            .expect("a name can be put back");
        }
        state.revive();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.inner.directory.path().join(name)
    }

    fn inode(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path(name))?.ino())
    }

    /// Whatever was remembered of a file that a test replaces or takes away.
    fn forget(&self, name: &str) {
        if let Ok(inode) = self.inode(name) {
            let mut state = self.state();
            state.unsynced.remove(&inode);
            state.unreadable.retain(|(of, _)| *of != inode);
        }
    }

    fn handle(&self, name: &str, real: RealFile, life: u64) -> io::Result<OpenFile> {
        let raw = Arc::new(OpenOptions::new().read(true).write(true).open(self.path(name))?);
        Ok(OpenFile { disk: self.clone(), real, inode: raw.metadata()?.ino(), raw, life })
    }

    fn rename_or_so(&self, change: NameChange, real: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        let stopped = state.change()?;
        real()?;
        state.name_changes.push(change);
        if stopped { state.check() } else { Ok(()) }
    }
}

impl Place for Files {
    const STRIDE: usize = 359;

    fn new() -> Self {
        let folder = || tempfile::tempdir().expect("a directory");
        let directory = folder();
        // What is durable is this disk's to say; to make it so in the kernel, too, would only take time.
        let real = RealDisk::with_sync(directory.path(), false).expect("the directory opens");
        Self { inner: Arc::new(Inner { directory, graveyard: folder(), real, state: Mutex::default() }) }
    }

    /// What is not synced counts as durable in the copy, and what can't be read can be read there.
    fn duplicate(&self) -> Self {
        let copy = <Self as Place>::new();
        for name in self.inner.real.list().expect("names") {
            fs::copy(self.path(&name), copy.path(&name)).expect("files can be copied");
        }
        copy
    }

    fn kill(&self) {
        self.state().revive();
    }

    fn crash(&self, random: &mut Random) {
        let fate = match random.below(4) {
            0 => Fate::Kept,
            1 => Fate::Lost,
            _ => Fate::Any(random.next_u64()),
        };
        self.crash_with(fate);
    }

    fn stop_after(&self, count: u64) {
        let mut state = self.state();
        state.stop_at = Some(state.changes + count);
    }

    fn changes(&self) -> u64 {
        self.state().changes
    }

    fn lie(&self) {
        self.state().lying = true;
    }

    fn contents(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("the file can be read")
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        self.forget(name);
        fs::write(self.path("put"), bytes).expect("a file can be written");
        fs::rename(self.path("put"), self.path(name)).expect("a file can be replaced");
    }

    fn lose(&self, name: &str) {
        self.forget(name);
        fs::remove_file(self.path(name)).expect("the file is there");
    }

    fn overwrite(&self, name: &str, offset: u64, with: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.path(name)).expect("the file is there");
        file.write_all_at(with, offset).expect("the file can be written");
    }

    fn cut(&self, name: &str, length: u64) {
        let file = OpenOptions::new().write(true).open(self.path(name)).expect("the file is there");
        file.set_len(length).expect("the file can be cut off");
    }

    fn make_unreadable(&self, name: &str, offset: u64) {
        let inode = self.inode(name).expect("the file is there");
        self.state().unreadable.insert((inode, offset / PAGE));
    }
}

impl Disk for Files {
    type File = OpenFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.state().check()?;
        self.inner.real.list()
    }

    fn create(&self, name: &str, length: u64) -> io::Result<OpenFile> {
        let mut state = self.state();
        let stopped = state.change()?;
        let real = self.inner.real.create(name, length)?;
        let file = self.handle(name, real, state.life)?;
        let unsynced = Unsynced { length: Some(0), ..Unsynced::of(&file.raw) };
        state.unsynced.insert(file.inode, unsynced);
        state.name_changes.push(NameChange::Create(name.to_owned()));
        if stopped { state.check().map(|()| file) } else { Ok(file) }
    }

    fn open(&self, name: &str) -> io::Result<OpenFile> {
        let state = self.state();
        state.check()?;
        self.handle(name, self.inner.real.open(name)?, state.life)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        assert!(!self.path(to).exists(), "no file of the log is renamed over another");
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        self.rename_or_so(change, || self.inner.real.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let link = {
            let mut state = self.state();
            state.buried += 1;
            self.inner.graveyard.path().join(state.buried.to_string())
        };
        fs::hard_link(self.path(name), &link)?;
        self.rename_or_so(NameChange::Remove(name.to_owned(), link), || self.inner.real.remove(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.change()? {
            return state.check();
        }
        if state.lying {
            return Ok(());
        }
        self.inner.real.sync_directory()?;
        for change in state.name_changes.split_off(0) {
            if let NameChange::Remove(_, link) = change {
                state.unsynced.remove(&fs::metadata(&link)?.ino());
                fs::remove_file(link)?;
            }
        }
        Ok(())
    }
}

/// A file of `Files`.
pub struct OpenFile {
    disk: Files,
    real: RealFile,
    /// The same file, to put back what a crash takes.
    raw: Arc<File>,
    inode: u64,
    /// The life in which it was opened.
    life: u64,
}

impl OpenFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        state.check()?;
        if state.life != self.life {
            return Err(io::Error::other("a handle from before a crash was used"));
        }
        Ok(state)
    }
}

impl DiskFile for OpenFile {
    fn length(&self) -> io::Result<u64> {
        drop(self.state()?);
        self.real.length()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.state()?;
        let blocks = offset / PAGE..(offset + buffer.len() as u64).div_ceil(PAGE);
        if state.unreadable.range((self.inode, blocks.start)..(self.inode, blocks.end)).next().is_some() {
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        self.real.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let stopped = state.change()?;
        let length = parts.iter().map(|part| part.len() as u64).sum();
        let unsynced = state.unsynced.entry(self.inode).or_insert_with(|| Unsynced::of(&self.raw));
        unsynced.remember(offset, length)?;
        self.real.write_all_at(parts, offset)?;
        if stopped { state.check() } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        if state.change()? {
            return state.check();
        }
        if !state.lying {
            self.real.sync_data()?;
            state.unsynced.remove(&self.inode);
        }
        Ok(())
    }
}
