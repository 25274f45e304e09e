//! Damage to a node's files, as media, file systems and operators make it. The node does not run meanwhile.

use std::fs::{self, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A block of the log, and of most disks.
const BLOCK: u64 = 4096;
/// What a disk writes whole, in bytes.
const SECTOR: u64 = 512;
/// What the header of a turn begins with. Turns begin at blocks.
const TURN: &[u8] = b"AckTurn\n";
/// Where the header of a segment has its identity. Its turns repeat it, so what is left of the life that a recycled
/// file had before is told from what the log needs.
const IDENTITY: Range<usize> = 48..64;
/// Where the header of a turn has it.
const IDENTITY_IN_TURN: Range<usize> = 56..72;
/// A part of a segment with fewer bytes in it is hardly worth damaging.
const WRITTEN_MIN: u64 = 16 * BLOCK;

/// What is damaged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A few bits of the log turn over.
    LogBits,
    /// Pages of the log hold zeros.
    LogZeros,
    /// One page of the log lies over another.
    LogMisdirected,
    /// A page of the log is what the file had there in an earlier life: its write was lost.
    LogLostPage,
    /// Sectors of the newest turn that another one has followed are zeros.
    LogTornSectors,
    /// The newest segment of the log is cut off.
    LogCut,
    /// The log's oldest segment is gone.
    LogOldestGone,
    /// A segment between others is gone.
    LogMiddleGone,
    /// The log's newest segment is gone.
    LogNewestGone,
    /// Two segments of the log have changed places.
    LogSwapped,
    /// A segment of the log is as it was before.
    LogOlderSegment,
    /// Bits of the database's tables turn over.
    StateBits,
    /// A page of a table holds zeros.
    StateZeros,
    /// One page of a table lies over another.
    StateMisdirected,
    /// Two tables have changed places.
    StateSwapped,
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
    pub const ALL: [Self; 20] = [
        Self::LogBits,
        Self::StateBits,
        Self::LogZeros,
        Self::StateTableGone,
        Self::LogMisdirected,
        Self::StateManifestCut,
        Self::LogCut,
        Self::StateCurrentGone,
        Self::LogLostPage,
        Self::StateZeros,
        Self::LogOldestGone,
        Self::StateGone,
        Self::LogTornSectors,
        Self::StateMisdirected,
        Self::LogNewestGone,
        Self::StateOlder,
        Self::LogMiddleGone,
        Self::StateSwapped,
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
            Self::LogLostPage => "log: lost write of a page",
            Self::LogTornSectors => "log: torn sectors",
            Self::LogCut => "log: cut off",
            Self::LogOldestGone => "log: oldest segment gone",
            Self::LogMiddleGone => "log: middle segment gone",
            Self::LogNewestGone => "log: newest segment gone",
            Self::LogSwapped => "log: segments swapped",
            Self::LogOlderSegment => "log: older segment",
            Self::StateBits => "state: bits",
            Self::StateZeros => "state: zeros",
            Self::StateMisdirected => "state: misdirected page",
            Self::StateSwapped => "state: tables swapped",
            Self::StateTableGone => "state: table gone",
            Self::StateManifestCut => "state: manifest cut off",
            Self::StateCurrentGone => "state: CURRENT gone",
            Self::StateGone => "state: gone",
            Self::StateOlder => "state: older",
        }
    }

    /// Whether it is to the log; otherwise it is to the database.
    #[must_use]
    pub fn is_to_log(self) -> bool {
        self.name().starts_with("log: ")
    }

    /// Why a node may say nothing of it, if it may: the damage can lie where nobody needs anything.
    #[must_use]
    pub const fn excuse(self) -> Option<&'static str> {
        match self {
            Self::StateBits | Self::StateZeros | Self::StateMisdirected => Some("in blocks that nobody has read"),
            Self::StateOlder => Some("the log reaches back far enough to make it new again"),
            _ => None,
        }
    }
}

/// Every kind, a line each, for the command's help.
#[must_use]
pub fn help() -> String {
    let line = |damage: Damage| match damage.excuse() {
        Some(excuse) => format!("\n  {:<26}may show nothing: {excuse}", damage.name()),
        None => format!("\n  {}", damage.name()),
    };
    format!("Kinds of damage:{}", Damage::ALL.map(line).concat())
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
    match inflict_on_log(damage, &segments, earlier) {
        Some(done) => done,
        None => inflict_on_state(damage, &state, earlier),
    }
}

/// The kinds that concern the log; nothing for the others.
fn inflict_on_log(
    damage: Damage,
    segments: &[PathBuf],
    earlier: Option<&Earlier>,
) -> Option<io::Result<Option<String>>> {
    let newest = |act: fn(&Path, u64) -> io::Result<()>| {
        let Some((path, end)) = newest_written(segments)? else { return Ok(None) };
        some(Some(path), |path| act(path, end))
    };
    let inner = segments.get(1..segments.len().saturating_sub(1)).unwrap_or_default();
    let remove = |path: Option<&PathBuf>| some(path.cloned(), |path| fs::remove_file(path));
    Some(match damage {
        Damage::LogBits => newest(|path, end| flip(path, BLOCK..end)),
        Damage::LogZeros => newest(|path, end| zero(path, BLOCK..end)),
        Damage::LogMisdirected => newest(|path, end| misdirect(path, BLOCK..end)),
        Damage::LogLostPage => match (segments.first(), newest_written(segments)) {
            (Some(before), Ok(Some((path, end)))) if *before != path => some(Some(path), |path| {
                let page = used_page(path, BLOCK..end)?;
                let mut stale = fs::read(before)?.split_off(page as usize);
                stale.resize(BLOCK as usize, 0);
                write(path, page, &stale)
            }),
            (_, newest) => newest.map(|_| None),
        },
        Damage::LogTornSectors => newest(tear),
        Damage::LogCut => {
            newest(|path, end| OpenOptions::new().write(true).open(path)?.set_len(fastrand::u64(BLOCK..end)))
        }
        Damage::LogOldestGone => remove(segments.first()),
        Damage::LogMiddleGone => remove(fastrand::choice(inner)),
        Damage::LogNewestGone => remove(segments.last().filter(|_| segments.len() > 1)),
        Damage::LogSwapped => swap(segments),
        Damage::LogOlderSegment => older_segment(segments, earlier),
        _ => return None,
    })
}

/// The kinds that concern the database.
fn inflict_on_state(damage: Damage, state: &Path, earlier: Option<&Earlier>) -> io::Result<Option<String>> {
    let tables = files(state, |name| name.ends_with(".sst"))?;
    let any = fastrand::choice(&tables).cloned();
    let whole = |path: &Path| fs::metadata(path).map(|metadata| 0..metadata.len());
    match damage {
        Damage::StateBits => some(any, |path| flip(path, whole(path)?)),
        Damage::StateZeros => some(any, |path| zero(path, whole(path)?)),
        Damage::StateMisdirected => {
            let mut large = Vec::new();
            for table in tables {
                if whole(&table)?.end >= 2 * BLOCK {
                    large.push(table);
                }
            }
            some(fastrand::choice(large), |path| misdirect(path, whole(path)?))
        }
        Damage::StateSwapped => swap(&tables),
        Damage::StateTableGone => some(any, |path| fs::remove_file(path)),
        Damage::StateManifestCut => {
            let manifest = files(state, |name| name.starts_with("MANIFEST"))?.pop();
            some(manifest, |path| OpenOptions::new().write(true).open(path)?.set_len(whole(path)?.end / 2))
        }
        Damage::StateCurrentGone => some(Some(state.join("CURRENT")), |path| fs::remove_file(path)),
        Damage::StateGone => some(Some(state.to_owned()), |path| fs::remove_dir_all(path)),
        Damage::StateOlder => match earlier {
            Some(earlier) => {
                fs::remove_dir_all(state)?;
                copy(&earlier.folder.join("state"), state)?;
                Ok(Some("the whole database".to_owned()))
            }
            None => Ok(None),
        },
        _ => unreachable!("{} is damage to the log", damage.name()),
    }
}

fn some(path: Option<PathBuf>, act: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    act(&path)?;
    Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()))
}

/// The newest segment with more than a few turns in it, and how far they are proven.
fn newest_written(segments: &[PathBuf]) -> io::Result<Option<(PathBuf, u64)>> {
    for path in segments.iter().rev() {
        let end = proven(&fs::read(path)?);
        if end > WRITTEN_MIN {
            return Ok(Some((path.clone(), end)));
        }
    }
    Ok(None)
}

/// Where a segment's last turn begins: it proves that everything before it was durable, and must be noticed when it is
/// damaged. What is damaged in the last one itself looks like a torn write, which was promised to nobody.
fn proven(segment: &[u8]) -> u64 {
    let Some(identity) = segment.get(IDENTITY) else { return 0 };
    let begins = |block: &[u8]| block.starts_with(TURN) && block.get(IDENTITY_IN_TURN) == Some(identity);
    segment.chunks(BLOCK as usize).rposition(begins).map_or(0, |block| block as u64 * BLOCK)
}

/// The beginning of a page within these bytes of a file that holds something.
fn used_page(path: &Path, within: Range<u64>) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    let is_used = |at: &u64| bytes[*at as usize..].iter().take(BLOCK as usize).any(|byte| *byte != 0);
    let pages = within.step_by(BLOCK as usize).filter(is_used);
    fastrand::choice(pages.collect::<Vec<_>>()).ok_or_else(|| io::Error::other("a file of zeros"))
}

/// Turns over one bit in each of a few pages, where there is something.
fn flip(path: &Path, within: Range<u64>) -> io::Result<()> {
    let bytes = fs::read(path)?;
    for _ in 0..3 {
        let page = used_page(path, within.clone())?;
        let end = (page + BLOCK).min(within.end);
        let used: Vec<u64> = (page..end).filter(|at| bytes[*at as usize] != 0).collect();
        let at = fastrand::choice(used).ok_or_else(|| io::Error::other("the page was used"))?;
        write(path, at, &[bytes[at as usize] ^ (1 << fastrand::u8(..8))])?;
    }
    Ok(())
}

/// A page is zeros.
fn zero(path: &Path, within: Range<u64>) -> io::Result<()> {
    let page = used_page(path, within.clone())?;
    write(path, page, &vec![0; (within.end - page).min(BLOCK) as usize])
}

/// Writes one page over another that differs.
fn misdirect(path: &Path, within: Range<u64>) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let from = used_page(path, within.start..within.end - BLOCK + 1)?;
    let page = &bytes[from as usize..(from + BLOCK) as usize];
    let differs = |at: &u64| !bytes[*at as usize..].starts_with(page);
    let others = within.step_by(BLOCK as usize).filter(differs).collect::<Vec<_>>();
    let to = fastrand::choice(others).ok_or_else(|| io::Error::other("all pages are alike"))?;
    // The last page of a table is shorter; the file keeps its length.
    write(path, to, &page[..page.len().min(bytes.len() - to as usize)])
}

/// Some sectors just before the last turn are zeros.
fn tear(path: &Path, end: u64) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let is_used = |at: &u64| bytes[*at as usize..(*at + SECTOR) as usize].iter().any(|byte| *byte != 0);
    let mut sectors: Vec<u64> = (BLOCK..end).step_by(SECTOR as usize).filter(is_used).collect();
    let mut newest = sectors.split_off(sectors.len().saturating_sub(16));
    fastrand::shuffle(&mut newest);
    let torn = newest.len().div_ceil(2);
    newest.iter().take(torn).try_for_each(|at| write(path, *at, &[0; SECTOR as usize]))
}

fn write(path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, at)?;
    file.sync_all()
}

/// The two newest files change places.
fn swap(files: &[PathBuf]) -> io::Result<Option<String>> {
    let [.., first, second] = files else { return Ok(None) };
    let aside = first.with_extension("aside");
    fs::rename(first, &aside)?;
    fs::rename(second, first)?;
    fs::rename(&aside, second)?;
    Ok(Some("the two newest files".to_owned()))
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
