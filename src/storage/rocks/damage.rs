//! Databases that can't be opened, or must not be, because files of theirs are damaged or gone.
//!
//! Such a database is set aside under another name and an empty one takes its place: the Raft log has kept every
//! promise, and the states are fetched from peers. Nothing is repaired by guessing.
//!
//! RocksDB itself would not always say so: without its `CURRENT` it creates a new database over the files of the old
//! one, and deletes them.

use super::{RocksEngine, RocksOptions};
use crate::storage::EngineError;
use rocksdb::{DB, LiveFile};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// In a database that is to be set aside when it is opened next; holds the reason.
const CONDEMNED: &str = "CONDEMNED";
/// How many databases that were set aside are kept.
const KEPT_MAX: usize = 3;

/// A database that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Why: a sentence for the operator.
    pub reason: String,
    /// Where it lies now.
    pub path: PathBuf,
    /// An older one, which was deleted for it.
    pub deleted: Option<PathBuf>,
}

/// Writes down that the database in `directory` is to be set aside when it is opened next.
pub(super) fn condemn(directory: &Path, reason: &str) {
    tracing::error!(reason, path = %directory.display(), "the database is damaged: the next start sets it aside");
    let path = directory.join(CONDEMNED);
    let written = fs::write(&path, reason).and_then(|()| fs::File::open(&path)?.sync_all());
    if let Err(error) = written {
        tracing::error!(%error, path = %path.display(), "that could not be written down");
    }
}

/// Whether that was written down.
pub(super) fn is_condemned(directory: &Path) -> bool {
    directory.join(CONDEMNED).exists()
}

/// Opens the database in `directory`. One that is damaged is set aside, and a new one created.
pub fn open_or_set_aside(
    directory: &Path,
    options: RocksOptions,
) -> Result<(RocksEngine, Option<SetAside>), EngineError> {
    let reason = match find_damage(directory) {
        Some(reason) => reason,
        None => match RocksEngine::open(directory, options) {
            Ok(engine) => match find_lost_table(directory, &engine.db) {
                Some(reason) => reason,
                None => return Ok((engine, None)),
            },
            Err(error) if error.damage => error.reason,
            Err(error) => return Err(error),
        },
    };
    let failed = |error: io::Error| EngineError::failed(format!("{}: {error}", directory.display()));
    let set_aside = set_aside(directory, reason).map_err(failed)?;
    Ok((RocksEngine::open(directory, options)?, Some(set_aside)))
}

/// What is wrong with a database that RocksDB would not refuse.
fn find_damage(directory: &Path) -> Option<String> {
    if let Ok(reason) = fs::read_to_string(directory.join(CONDEMNED)) {
        return Some(reason);
    }
    let entries = fs::read_dir(directory).ok()?;
    let names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let has_database = names.iter().any(|name| name.starts_with("MANIFEST-") || name.ends_with(".sst"));
    let has_current = names.iter().any(|name| name == "CURRENT");
    (has_database && !has_current).then(|| "its file CURRENT is gone".to_owned())
}

/// A table that the database needs and that is gone, or has another length. RocksDB looks at a few only when it opens a
/// database whose open files are limited; of the others it would be somebody's read that says so.
fn find_lost_table(directory: &Path, db: &DB) -> Option<String> {
    let is_lost = |file: &LiveFile| {
        let there = fs::metadata(directory.join(file.name.trim_start_matches('/')));
        there.map_or(true, |there| there.len() != file.size as u64)
    };
    let mut lost = db.live_files().ok()?;
    lost.retain(is_lost);
    if lost.is_empty() {
        return None;
    }
    // A merge may have made them superfluous before they were looked for; then they are not listed again.
    let still = db.live_files().ok()?;
    let lost = lost.iter().find(|file| still.iter().any(|still| still.name == file.name))?;
    Some(format!("its table {} is gone, or has another length than {} bytes", lost.name, lost.size))
}

/// Gives the directory another name: the first that is free. Beyond some the oldest is deleted.
fn set_aside(directory: &Path, reason: String) -> io::Result<SetAside> {
    let named = |number: u32| {
        let mut name = directory.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    let taken: Vec<u32> = (1..1_000).filter(|number| named(*number).exists()).collect();
    let number = taken.last().map_or(1, |last| last + 1);
    let deleted = taken.first().filter(|_| taken.len() >= KEPT_MAX).map(|oldest| named(*oldest));
    if let Some(oldest) = &deleted {
        fs::remove_dir_all(oldest)?;
    }
    let path = named(number);
    fs::rename(directory, &path)?;
    if let Some(parent) = directory.parent() {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(SetAside { reason, path, deleted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Engine, Family, WriteBatch};

    fn filled(directory: &Path) {
        let engine = RocksEngine::open(directory, RocksOptions::default()).unwrap();
        let mut batch = WriteBatch::default();
        batch.put(Family::Meta, vec![0; 9], vec![7; 1000]);
        engine.write(batch).and_then(|()| engine.flush()).unwrap();
    }

    fn open(directory: &Path) -> (bool, Option<SetAside>) {
        let (engine, set_aside) = open_or_set_aside(directory, RocksOptions::default()).unwrap();
        (engine.get(Family::Meta, &[0; 9]).unwrap().is_some(), set_aside)
    }

    /// The file of the database whose name fits.
    fn file(directory: &Path, fits: impl Fn(&str) -> bool) -> PathBuf {
        let mut paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        paths.find(|path| fits(path.file_name().unwrap().to_str().unwrap())).unwrap()
    }

    #[test]
    fn a_database_that_lost_a_file_is_set_aside_and_a_whole_one_is_not() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("state");
        type Fits = fn(&str) -> bool;
        let files: [Fits; 3] =
            [|name| name == "CURRENT", |name| name.starts_with("MANIFEST-"), |name| name.ends_with(".sst")];
        for (number, fits) in (1..).zip(files) {
            filled(&directory);
            assert_eq!(open(&directory), (true, None), "a whole one");
            fs::remove_file(file(&directory, fits)).unwrap();
            let (found, set_aside) = open(&directory);
            let path = place.path().join(format!("state.damaged-{number}"));
            assert!(!found && set_aside.is_some_and(|aside| aside.path == path && aside.deleted.is_none()));
            assert!(path.exists());
        }
        // Only the last few are kept.
        filled(&directory);
        assert!(!is_condemned(&directory));
        condemn(&directory, "on purpose");
        assert!(is_condemned(&directory));
        let (found, set_aside) = open(&directory);
        let [path, deleted] = [4, 1].map(|number| place.path().join(format!("state.damaged-{number}")));
        assert!(!found && !deleted.exists() && path.exists());
        assert_eq!(set_aside, Some(SetAside { reason: "on purpose".to_owned(), path, deleted: Some(deleted) }));
        assert_eq!(open(&directory), (false, None), "the new one is whole");
    }

    #[test]
    fn a_database_that_somebody_has_open_stays_where_it_is() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("state");
        let _open = RocksEngine::open(&directory, RocksOptions::default()).unwrap();
        let refused = open_or_set_aside(&directory, RocksOptions::default()).err().unwrap();
        assert!(!refused.damage && directory.exists(), "{refused}");
    }

    #[test]
    fn no_table_is_missed_however_few_files_may_be_open() {
        let place = tempfile::tempdir().unwrap();
        // RocksDB itself would not look at all of the tables.
        let options = RocksOptions { open_files_max: 20, ..RocksOptions::default() };
        let tables = |directory: &Path| {
            let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
            let mut tables: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "sst")).collect();
            tables.sort();
            tables
        };
        for (number, cut) in (0..Family::ALL.len()).flat_map(|number| [(number, false), (number, true)]) {
            let directory = place.path().join(format!("state-{number}-{cut}"));
            let engine = RocksEngine::open(&directory, options).unwrap();
            let mut batch = WriteBatch::default();
            Family::ALL.into_iter().for_each(|family| batch.put(family, vec![0; 16], vec![7; 1000]));
            engine.write(batch).and_then(|()| engine.flush()).unwrap();
            drop(engine);
            let tables = tables(&directory);
            assert_eq!(tables.len(), Family::ALL.len());
            assert_eq!(open_or_set_aside(&directory, options).unwrap().1, None, "a whole one");
            match cut {
                true => fs::OpenOptions::new().write(true).open(&tables[number]).unwrap().set_len(900).unwrap(),
                false => fs::remove_file(&tables[number]).unwrap(),
            }
            let (_, set_aside) = open_or_set_aside(&directory, options).unwrap();
            assert!(set_aside.is_some(), "{} of {}, cut: {cut}", number + 1, tables.len());
        }
    }
}
