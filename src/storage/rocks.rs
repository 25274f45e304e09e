//! The engine of production: one RocksDB without a write-ahead log, flushed for all families at once.
//!
//! * `atomic_flush` with the log disabled: after a crash the database opens at one batch, the same for all families,
//!   at or after the last `flush`. RocksDB also flushes by itself when a memtable is full.
//! * The first failed write or flush is final, here and in RocksDB (`max_bgerror_resume_count = 0`; by default it
//!   resumes silently after ENOSPC): what a failed flush left on the disk is unknown until the database is reopened.
//! * The records family is written once in ascending keys per group and hardly ever merged: `options` has the reasons.

pub mod damage;
mod garbage;
mod options;

use super::{Change, Engine, EngineError, Family, Visitor, WriteBatch};
use bytes::Bytes;
use garbage::Garbage;
use options::Tuning;
use rocksdb::properties::LIVE_SST_FILES_SIZE;
use rocksdb::{
    ColumnFamilyDescriptor, CompactOptions, DB, DBRawIterator, FlushOptions, Range, ReadOptions, WriteOptions,
};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// How much memory and how many files the database may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Memory for batches that are not yet in files, all families together, in bytes. It is taken as it is needed.
    pub write_buffer_bytes: usize,
    /// Memory for blocks, indexes and filters that were read, in bytes.
    pub block_cache_bytes: usize,
    /// How many files may be open at once.
    pub open_files_max: u32,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { write_buffer_bytes: 384 << 20, block_cache_bytes: 64 << 20, open_files_max: 512 }
    }
}

/// A RocksDB database in a directory of its own.
pub struct RocksEngine {
    /// The database; holds the directory's lock.
    db: DB,
    /// Where it lies.
    directory: PathBuf,
    /// Why every further write and flush fails, once one has.
    failed: OnceLock<String>,
    /// What was deleted and is still in files.
    garbage: Garbage,
}

impl RocksEngine {
    /// Opens the database in `directory`, or creates it.
    pub fn open(directory: &Path, options: RocksOptions) -> Result<Self, EngineError> {
        std::fs::create_dir_all(directory).map_err(|error| {
            let reason = format!("{}: {error}", directory.display());
            EngineError::failed(reason)
        })?;
        let tuning = Tuning::new(options, directory)?;
        let families = Family::ALL.map(|family| ColumnFamilyDescriptor::new(name(family), tuning.family(family)));
        let db = DB::open_cf_descriptors(&tuning.database(), directory, families).map_err(engine_error)?;
        // Two files of what a flush writes.
        let garbage = Garbage::new(2 * options::records_memtable_bytes(options) as u64);
        Ok(Self { db, directory: directory.to_owned(), failed: OnceLock::new(), garbage })
    }

    /// A figure that RocksDB keeps, summed over all families; for metrics.
    #[must_use]
    pub fn property(&self, property: &str) -> u64 {
        let value = |family| self.db.property_int_value_cf(self.family(family), property).ok().flatten();
        Family::ALL.into_iter().filter_map(value).sum()
    }

    fn family(&self, family: Family) -> &rocksdb::ColumnFamily {
        self.db.cf_handle(name(family)).expect("every family is opened with the database")
    }

    fn check(&self) -> Result<(), EngineError> {
        self.failed.get().map_or(Ok(()), |reason| Err(EngineError::failed(reason.clone())))
    }

    /// Whether the database is damaged, so that it is set aside when it is opened next.
    #[must_use]
    pub fn is_condemned(&self) -> bool {
        damage::is_condemned(&self.directory)
    }

    /// Remembers the first error for good.
    fn fail(&self, error: rocksdb::Error) -> EngineError {
        let error = engine_error(error);
        if error.damage {
            self.condemn(&error.reason);
        }
        EngineError::failed(self.failed.get_or_init(|| error.reason).clone())
    }

    /// An iterator over `from ..= to` of a family, with the filters consulted where they can be.
    fn iterator(&self, family: Family, from: &[u8], to: &[u8]) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound([to, &[0]].concat());
        // Large scans must not push indexes and filters out of the cache; the page cache holds the records.
        options.fill_cache(family != Family::Records);
        options.set_total_order_seek(!options::same_prefix(from, to));
        self.db.raw_iterator_cf_opt(self.family(family), options)
    }
}

/// The Raft log is the database's log, too.
fn unlogged() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

impl Engine for RocksEngine {
    /// Looks at what happens in the background, too.
    fn failure(&self) -> Option<String> {
        let errors = self.db.property_int_value(rocksdb::properties::BACKGROUND_ERRORS).ok().flatten();
        if errors.is_some_and(|count| count > 0) && self.failed.get().is_none() {
            // An empty write is told what it was, unless RocksDB has got over it.
            if let Err(error) = self.db.write_opt(rocksdb::WriteBatch::default(), &unlogged()) {
                self.fail(error);
            }
            let _ = self.failed.set("a flush or merge in the background failed; its outcome is unknown".to_owned());
        }
        self.failed.get().cloned()
    }

    fn condemn(&self, reason: &str) {
        damage::condemn(&self.directory, reason);
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = self.db.get_pinned_cf(self.family(family), key).map_err(engine_error)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        if from >= to {
            return Ok(());
        }
        let mut rows = self.iterator(family, from, to);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if key >= to || visit(key, value).is_break() {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(engine_error)
    }

    fn last_at_or_before(
        &self,
        family: Family,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Vec<u8>, Bytes)>, EngineError> {
        if from > at {
            return Ok(None);
        }
        let mut rows = self.iterator(family, from, at);
        rows.seek_for_prev(at);
        let row = rows.item().map(|(key, value)| (key.to_vec(), Bytes::copy_from_slice(value)));
        rows.status().map_err(engine_error)?;
        Ok(row)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.check()?;
        let mut changes = rocksdb::WriteBatch::default();
        for change in &batch.changes {
            match change {
                Change::Put { family, key, value } => changes.put_cf(self.family(*family), key, value),
                Change::Delete { family, key } => changes.delete_cf(self.family(*family), key),
                Change::DeleteRange { family, from, to } => changes.delete_range_cf(self.family(*family), from, to),
            }
        }
        self.db.write_opt(changes, &unlogged()).map_err(|error| self.fail(error))
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.check()?;
        let families = Family::ALL.map(|family| self.family(family));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families.each_ref(), &options).map_err(|error| self.fail(error))
    }

    fn reclaim(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), EngineError> {
        self.check()?;
        if from >= to {
            return Ok(());
        }
        self.db.delete_file_in_range_cf(self.family(family), from, to).map_err(|error| self.fail(error))?;
        if family == Family::Records {
            let left = self.db.get_approximate_sizes_cf(self.family(family), &[Range::new(from, to)]);
            self.garbage.note(from, to, left.iter().sum());
        }
        Ok(())
    }

    fn merge_deleted(&self) -> Result<(), EngineError> {
        self.check()?;
        let records = self.family(Family::Records);
        let size = self.db.property_int_value_cf(records, LIVE_SST_FILES_SIZE).map_err(engine_error)?;
        if !self.garbage.is_worth_a_merge(size.unwrap_or(0)) {
            return Ok(());
        }
        self.garbage.forget();
        let mut options = CompactOptions::default();
        // Merging by itself goes on beside it.
        options.set_exclusive_manual_compaction(false);
        self.db.compact_range_cf_opt(records, None::<&[u8]>, None::<&[u8]>, &options);
        self.failure().map_or(Ok(()), |reason| Err(EngineError::failed(reason)))
    }
}

/// The family's name in the database's directory. Part of the format: never changed.
const fn name(family: Family) -> &'static str {
    match family {
        Family::Records => "records",
        Family::Times => "times",
        Family::Producers => "producers",
        Family::Groups => "groups",
        Family::Meta => "meta",
        Family::Controller => "controller",
    }
}

/// A checksum that does not match, a file that is gone, a sector that can't be read: damage. The rest (no descriptors
/// left, no permission, a lock that somebody holds) may pass.
fn engine_error(error: rocksdb::Error) -> EngineError {
    let kind = error.kind();
    let reason = error.into_string();
    let gone = || reason.contains("No such file or directory") || reason.contains("Input/output error");
    let damage = match kind {
        rocksdb::ErrorKind::Corruption | rocksdb::ErrorKind::NotFound => true,
        rocksdb::ErrorKind::IOError => gone(),
        _ => false,
    };
    EngineError { reason, damage }
}
