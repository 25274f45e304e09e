//! RocksDB's settings, each with its reason.

use super::super::{EngineError, Family};
use super::RocksOptions;
use rocksdb::{
    BlockBasedOptions, Cache, DBCompactionStyle, DBCompressionType, Options, SliceTransform, UniversalCompactOptions,
    WriteBufferManager,
};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The part of a key that filters know: group and generation.
const PREFIX_BYTES: usize = 16;

/// One memtable of the records family. Three make the default budget; a file on the disk is about as large, and the
/// fewer files there are, the less is merged.
const RECORDS_MEMTABLE_BYTES: usize = 128 << 20;

/// One memtable of a family of small rows.
const ROWS_MEMTABLE_BYTES: usize = 16 << 20;

/// Settings that the crate has no typed setter for. The crate's parser makes *new* options of them, so they come first
/// and the typed setters after.
///
/// * `max_bgerror_resume_count`: never go on by itself after a failed flush.
/// * `*_protection_bytes_per_key`: a bit that flips in memory is found before it reaches the disk.
/// * `paranoid_file_checks` stays off: reading every file back halves the rate of writing (266 instead of 513 MB/s,
///   measured). Blocks have checksums, batches their producer's; reads and scrubs check both.
const UNTYPED: &str = "max_bgerror_resume_count=0;memtable_protection_bytes_per_key=8;block_protection_bytes_per_key=8;\
                       paranoid_file_checks=false";

/// The table format of the records family, which the crate can't describe either.
///
/// * `kBinarySearchWithFirstKey`: a seek reads a block only of the file that has the key, not of every file. With 25
///   unmerged files: 3,000 random batches a second instead of 340, 1.2 GB/s of catch-up instead of 0.75 (measured).
/// * `whole_key_filtering`: a record is never looked up by its whole key; only the prefix is worth a filter.
const RECORDS_TABLE: &str = "index_type=kBinarySearchWithFirstKey;index_shortening=kNoShortening;\
                             filter_policy=bloomfilter:10:false;whole_key_filtering=false;\
                             cache_index_and_filter_blocks=true;block_size=32768;format_version=6";

/// What the settings of the database and of its families share.
pub struct Tuning {
    /// The bounds that the caller gave.
    limits: RocksOptions,
    /// Blocks, indexes and filters of all families but records, which have as much for themselves.
    cache: Cache,
    /// The memory of all memtables together.
    memory: WriteBufferManager,
    /// Whether the directory's file system can write around the page cache.
    direct_io: bool,
}

impl Tuning {
    pub fn new(limits: RocksOptions, directory: &Path) -> Result<Self, EngineError> {
        Ok(Self {
            limits,
            cache: Cache::new_lru_cache(limits.block_cache_bytes / 2),
            memory: WriteBufferManager::new_write_buffer_manager(limits.write_buffer_bytes, false),
            direct_io: supports_direct_io(directory)?,
        })
    }

    pub fn database(&self) -> Options {
        let mut options = base("");
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_write_buffer_manager(&self.memory);
        options.set_max_open_files(i32::try_from(self.limits.open_files_max).unwrap_or(i32::MAX));
        // A third less CPU, p99 of a write 24 → 14 ms (measured): flushed records don't pass through the page cache.
        options.set_use_direct_io_for_flush_and_compaction(self.direct_io);
        // One flush and one merge at a time: both compete with the log for the same disk.
        // No rate limiter: flushes pass through it too, fall behind, and the apply thread waits for them. 3 GiB into 16
        // partitions with one or two merges per node, beside other load, so that only ratios count: at 150 MB/s or
        // tuned by itself below 300, throughput was 31 to 44 % less, and the longest stall 1.7 to 4.0 s instead of
        // 0.4 to 1.3 (three pairs). Merges that read and write 256 KiB at a time did not shorten it (two pairs).
        options.set_max_background_jobs(2);
        options.set_max_log_file_size(4 << 20);
        options.set_keep_log_file_num(4);
        options
    }

    pub fn family(&self, family: Family) -> Options {
        if family == Family::Records { self.records() } else { self.rows() }
    }

    /// Small rows, overwritten often: RocksDB's own ways.
    fn rows(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_bloom_filter(10.0, false);
        table.set_format_version(6);
        let mut options = base("");
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_size(ROWS_MEMTABLE_BYTES.min(self.limits.write_buffer_bytes / 4));
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_level_compaction_dynamic_level_bytes(true);
        options
    }

    /// Records are written once, in ascending keys per group, never overwritten, and leave by whole ranges. Merging
    /// gains fewer files to look into, so it is rare: universal, 16 and more runs of similar size at once. Bytes
    /// written per byte of a batch, 3 GiB in 100 groups: leveled 4.0, universal with 8 runs 2.3, this 1.6, no merging
    /// at all 1.0 but reads ever slower (measured).
    ///
    /// Merging also gives the space of deleted ranges back where partitions share files, so that these can't be dropped
    /// whole: when half of the family is deleted (`garbage`), or by itself once the newer of 32 runs come to twice the
    /// oldest.
    fn records(&self) -> Options {
        let cache = self.limits.block_cache_bytes / 2;
        let mut options = base(&format!("block_based_table_factory={{block_cache={cache};{RECORDS_TABLE}}}"));
        options.set_write_buffer_size(records_memtable_bytes(self.limits));
        options.set_max_write_buffer_number(4);
        options.set_compression_type(DBCompressionType::None);
        options.set_prefix_extractor(SliceTransform::create_fixed_prefix(PREFIX_BYTES));
        options.set_compaction_style(DBCompactionStyle::Universal);
        let mut merges = UniversalCompactOptions::default();
        merges.set_min_merge_width(16);
        merges.set_max_merge_width(64);
        merges.set_size_ratio(10);
        merges.set_max_size_amplification_percent(200);
        options.set_universal_compaction_options(&merges);
        // Several levels let merged runs be cut into files, which can be dropped whole.
        options.set_num_levels(32);
        options.set_target_file_size_base(64 << 20);
        options.set_level_zero_file_num_compaction_trigger(32);
        // Far above what merging keeps up with: a stall is the last resort, and only the apply thread waits in it.
        options.set_level_zero_slowdown_writes_trigger(256);
        options.set_level_zero_stop_writes_trigger(512);
        options.set_soft_pending_compaction_bytes_limit(0);
        options.set_hard_pending_compaction_bytes_limit(0);
        options
    }
}

/// The size of one memtable of the records family.
pub fn records_memtable_bytes(limits: RocksOptions) -> usize {
    RECORDS_MEMTABLE_BYTES.min(limits.write_buffer_bytes / 3)
}

/// Whether two keys have the same group and generation, so that filters may be consulted between them.
pub fn same_prefix(from: &[u8], to: &[u8]) -> bool {
    from.len() >= PREFIX_BYTES && to.len() >= PREFIX_BYTES && from[..PREFIX_BYTES] == to[..PREFIX_BYTES]
}

/// New options with what only a string can say.
fn base(more: &str) -> Options {
    let text = format!("{UNTYPED};{more}");
    Options::default().get_options_from_string(text).expect("the settings are RocksDB's own and constant")
}

/// tmpfs, for one, has no direct I/O, and RocksDB fails on the first flush instead of doing without.
fn supports_direct_io(directory: &Path) -> Result<bool, EngineError> {
    let probe = directory.join("direct-io.probe");
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(true).custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
    let supported = open.open(&probe).is_ok();
    match std::fs::remove_file(&probe) {
        Ok(()) => Ok(supported),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(supported),
        Err(error) => Err(EngineError::failed(format!("{}: {error}", probe.display()))),
    }
}
