//! The disk of production: one directory of real files.
//!
//! The only room of the log that touches files. It promises nothing that the kernel does not: what is written is
//! durable after `sync_data`, a name after `sync_directory`.

use super::disk::{Disk, DiskFile};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most slices that one pwritev takes (IOV_MAX on Linux).
const SLICES_MAX: usize = 1024;
/// Zeros are written in pieces of this size.
const ZERO_BYTES: usize = 1 << 20;

/// A directory. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct RealDisk {
    /// What all clones share.
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Its path.
    path: PathBuf,
    /// The directory itself, to sync it.
    directory: OwnedFd,
    /// Whether syncs happen.
    sync: bool,
}

impl RealDisk {
    /// The directory at `path`, which must exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_sync(path, true)
    }

    /// As `open`, but with `sync` false every sync is left out and acknowledged records are lost in a power cut. Only
    /// for tests that prove that their harness notices.
    #[doc(hidden)]
    pub fn with_sync(path: &Path, sync: bool) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), directory, sync }) })
    }

    /// Keeps everybody else, in this process and in others, from the directory until the last clone is dropped.
    /// `false`: somebody has it. It is the kernel's lock (flock) on the open directory; a process that dies gives it
    /// back.
    pub fn lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.inner.directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        assert!(!name.contains('/'), "names are plain");
        self.inner.path.join(name)
    }

    fn file(&self, file: File) -> RealFile {
        RealFile { file, sync: self.inner.sync }
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.inner.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, length: u64) -> io::Result<RealFile> {
        let path = self.path(name);
        let file = self.file(OpenOptions::new().read(true).write(true).create_new(true).open(&path)?);
        let zeros = vec![0; ZERO_BYTES];
        let mut at = 0;
        while at < length {
            let piece = (length - at).min(ZERO_BYTES as u64);
            if let Err(error) = file.file.write_all_at(&zeros[..piece as usize], at) {
                // A part of a file would take the very space whose lack made this fail.
                let _ = fs::remove_file(&path);
                return Err(error);
            }
            at += piece;
        }
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        Ok(self.file(OpenOptions::new().read(true).write(true).open(self.path(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        if self.inner.sync {
            rustix::fs::fsync(&self.inner.directory)?;
        }
        Ok(())
    }
}

/// A file of a `RealDisk`.
#[derive(Debug)]
pub struct RealFile {
    /// The file.
    file: File,
    /// Whether syncs happen.
    sync: bool,
}

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut parts = parts.to_vec();
        let mut left = &mut parts[..];
        IoSlice::advance_slices(&mut left, 0); // Skips empty slices.
        while !left.is_empty() {
            let count = left.len().min(SLICES_MAX);
            match rustix::io::pwritev(&self.file, &left[..count], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.sync {
            rustix::fs::fdatasync(&self.file)?;
        }
        Ok(())
    }
}
