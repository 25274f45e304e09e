//! The waist between the log and the disk: the few calls the log needs, so that a simulated disk can stand in.
//!
//! Every call may fail, and the log treats any failed write or sync as the end of the process: after a failed fsync
//! the kernel marks the pages clean and a retry reports success without the data (Rebello et al., USENIX ATC '20).

use std::io::{self, IoSlice};

/// One directory of files. Names are plain: no separators. A clone is another handle of the same directory, so that
/// another thread can read and prepare files.
pub trait Disk: Clone {
    /// A file of this disk.
    type File: DiskFile;

    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file of `length` zero bytes that have been *written*, not only allocated: overwriting them later
    /// changes no file system metadata, which is what makes a recycled file's fdatasync twice as fast.
    ///
    /// Neither the content nor the name is durable before `sync_data` and `sync_directory`.
    fn create(&self, name: &str, length: u64) -> io::Result<Self::File>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name. Durable after `sync_directory`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after `sync_directory`.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
}

/// One open file, read and written at explicit offsets.
pub trait DiskFile {
    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`; an end of file before that is an error.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all `parts`, one after another, from `offset`.
    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes everything written to this file durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
}
