//! Damage to a node's files, as media, file systems and operators make it. The node does not run meanwhile.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A block of the log, and of most disks.
const BLOCK: u64 = 4096;

/// What is damaged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A few bits of the log turn over.
    LogBits,
    /// Pages of the log hold zeros.
    LogZeros,
    /// One page of the log lies over another.
    LogMisdirected,
    /// The newest segment of the log is cut off.
    LogCut,
    /// The log's oldest segment is gone.
    LogOldestGone,
    /// The log's newest segment is gone.
    LogNewestGone,
    /// Two segments of the log have changed places.
    LogSwapped,
    /// A segment of the log is as it was before.
    LogOlderSegment,
    /// Bits of the database's tables turn over.
    StateBits,
    /// A table of the database is gone.
    StateTableGone,
    /// The database's manifest is cut off.
    StateManifestCut,
    /// The database does not know its manifest.
    StateCurrentGone,
    /// The whole database is gone.
    StateGone,
    /// The whole database is as it was before.
    StateOlder,
}

impl Damage {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::LogBits,
        Self::StateBits,
        Self::LogZeros,
        Self::StateTableGone,
        Self::LogMisdirected,
        Self::StateManifestCut,
        Self::LogCut,
        Self::StateCurrentGone,
        Self::LogOldestGone,
        Self::StateGone,
        Self::LogNewestGone,
        Self::StateOlder,
        Self::LogSwapped,
        Self::LogOlderSegment,
    ];

    /// Its name in a report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogBits => "log: bits",
            Self::LogZeros => "log: zeros",
            Self::LogMisdirected => "log: misdirected page",
            Self::LogCut => "log: cut off",
            Self::LogOldestGone => "log: oldest segment gone",
            Self::LogNewestGone => "log: newest segment gone",
            Self::LogSwapped => "log: segments swapped",
            Self::LogOlderSegment => "log: older segment",
            Self::StateBits => "state: bits",
            Self::StateTableGone => "state: table gone",
            Self::StateManifestCut => "state: manifest cut off",
            Self::StateCurrentGone => "state: CURRENT gone",
            Self::StateGone => "state: gone",
            Self::StateOlder => "state: older",
        }
    }
}

/// What a node's files were before, to put older ones back.
#[derive(Debug)]
pub struct Earlier {
    /// Where copies are kept.
    folder: PathBuf,
}

impl Earlier {
    /// Copies a stopped node's files.
    pub fn keep(data_dir: &Path, folder: &Path) -> io::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        for part in ["wal", "state"] {
            copy(&data_dir.join(part), &folder.join(part))?;
        }
        Ok(Self { folder: folder.to_owned() })
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Files of a folder whose names match, in order.
fn files(folder: &Path, matches: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(&matches) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Damages the files of a stopped node; a sentence about what was done, or nothing if there was nothing to damage.
pub fn inflict(damage: Damage, data_dir: &Path, earlier: Option<&Earlier>) -> io::Result<Option<String>> {
    let (wal, state) = (data_dir.join("wal"), data_dir.join("state"));
    let segments = files(&wal, |name| name.starts_with("segment-") && name.ends_with(".wal"))?;
    let tables = files(&state, |name| name.ends_with(".sst"))?;
    let any = |files: &[PathBuf]| fastrand::choice(files.to_vec());
    match damage {
        Damage::LogBits => some(newest_written(&segments)?, |path| flip(path, 1..written(path)? / BLOCK)),
        Damage::LogZeros => some(newest_written(&segments)?, |path| {
            let page = fastrand::u64(1..(written(path)? / BLOCK).max(2));
            write(path, page * BLOCK, &[0; BLOCK as usize])
        }),
        Damage::LogMisdirected => some(newest_written(&segments)?, |path| {
            let pages = (written(path)? / BLOCK).max(3);
            let (from, to) = (fastrand::u64(1..pages), fastrand::u64(1..pages));
            let mut page = [0; BLOCK as usize];
            OpenOptions::new().read(true).open(path)?.read_exact_at(&mut page, from * BLOCK)?;
            write(path, to * BLOCK, &page)
        }),
        Damage::LogCut => some(newest_written(&segments)?, |path| {
            let length = fastrand::u64(BLOCK..written(path)?.max(BLOCK + 1));
            OpenOptions::new().write(true).open(path)?.set_len(length)
        }),
        Damage::LogOldestGone => some(segments.first().cloned(), |path| fs::remove_file(path)),
        Damage::LogNewestGone => {
            some(segments.last().filter(|_| segments.len() > 1).cloned(), |path| fs::remove_file(path))
        }
        Damage::LogSwapped => swap(&segments),
        Damage::LogOlderSegment => older_segment(&segments, earlier),
        Damage::StateBits => some(any(&tables), |path| flip(path, 0..fs::metadata(path)?.len() / BLOCK + 1)),
        Damage::StateTableGone => some(any(&tables), |path| fs::remove_file(path)),
        Damage::StateManifestCut => {
            let manifest = files(&state, |name| name.starts_with("MANIFEST"))?.pop();
            some(manifest, |path| {
                let length = fs::metadata(path)?.len() / 2;
                OpenOptions::new().write(true).open(path)?.set_len(length)
            })
        }
        Damage::StateCurrentGone => some(Some(state.join("CURRENT")), |path| fs::remove_file(path)),
        Damage::StateGone => some(Some(state), |path| fs::remove_dir_all(path)),
        Damage::StateOlder => match earlier {
            Some(earlier) => {
                fs::remove_dir_all(&state)?;
                copy(&earlier.folder.join("state"), &state)?;
                Ok(Some("the whole database".to_owned()))
            }
            None => Ok(None),
        },
    }
}

fn some(path: Option<PathBuf>, act: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    act(&path)?;
    Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()))
}

/// The newest segment with more than a few turns in it.
fn newest_written(segments: &[PathBuf]) -> io::Result<Option<PathBuf>> {
    for path in segments.iter().rev() {
        if written(path)? > 16 * BLOCK {
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}

/// How far a segment has been written: the end of its last page that is not all zeros.
fn written(path: &Path) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    let last = bytes.chunks(BLOCK as usize).rposition(|page| page.iter().any(|byte| *byte != 0));
    Ok(last.map_or(0, |page| (page as u64 + 1) * BLOCK))
}

/// Turns over one bit in each of a few pages.
fn flip(path: &Path, pages: std::ops::Range<u64>) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    for _ in 0..3 {
        let page = if pages.is_empty() { 0 } else { fastrand::u64(pages.clone()) };
        let at = (page * BLOCK + fastrand::u64(..BLOCK)).min(length.saturating_sub(1));
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ (1 << fastrand::u8(..8))], at)?;
    }
    file.sync_all()
}

fn write(path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, at)?;
    file.sync_all()
}

fn swap(segments: &[PathBuf]) -> io::Result<Option<String>> {
    let [.., first, second] = segments else { return Ok(None) };
    let aside = first.with_extension("aside");
    fs::rename(first, &aside)?;
    fs::rename(second, first)?;
    fs::rename(&aside, second)?;
    Ok(Some("the two newest segments".to_owned()))
}

/// Puts an older copy of a segment that has changed since in its place.
fn older_segment(segments: &[PathBuf], earlier: Option<&Earlier>) -> io::Result<Option<String>> {
    let Some(earlier) = earlier else { return Ok(None) };
    for path in segments.iter().rev() {
        let Some(name) = path.file_name() else { continue };
        let old = earlier.folder.join("wal").join(name);
        if old.exists() && fs::read(&old)? != fs::read(path)? {
            fs::copy(&old, path)?;
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}
