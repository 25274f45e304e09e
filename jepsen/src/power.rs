//! Disks whose power can be cut: ext4 in a file, mounted through a loop device.
//!
//! The cut is `EXT4_IOC_SHUTDOWN` without a flush of the journal: from then on every write fails, and what lies in the
//! page cache only is gone at the next mount. That is what an fsync is for. Needs root and loop devices.

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of a disk, in bytes; its file is sparse.
const DISK_BYTES: u64 = 1 << 30;
/// `EXT4_IOC_SHUTDOWN`, the same as XFS's.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: as a power cut, nothing is written any more.
const WITHOUT_FLUSH: u32 = 2;

/// A file system in a file, mounted until it is dropped.
#[derive(Debug)]
pub struct LoopDisk {
    /// The file.
    image: PathBuf,
    /// Where it is mounted.
    mount: PathBuf,
    /// Whether it is.
    mounted: bool,
}

/// Why this machine can't cut a disk's power, if it can't.
#[must_use]
pub fn obstacle() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective =
        status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1));
    if effective != Some("0") {
        return Some("mounting a disk needs root".to_owned());
    }
    (!Path::new("/dev/loop-control").exists()).then(|| "there are no loop devices".to_owned())
}

/// Whether a test that can't cut a disk's power must fail instead of saying so.
#[must_use]
pub fn is_required() -> bool {
    std::env::var_os("ACKORD_REQUIRE_ROOT").is_some_and(|value| value == "1")
}

fn run(program: &str, arguments: &[&Path]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{program} {arguments:?}: {message}")))
}

impl LoopDisk {
    /// Makes an empty disk called `name` in `folder`, and mounts it there.
    pub fn create(folder: &Path, name: &str) -> io::Result<Self> {
        let image = folder.join(format!("{name}.ext4"));
        File::create_new(&image)?.set_len(DISK_BYTES)?;
        // Without lazy initialisation no kernel thread writes to the disk behind the test's back.
        let options = Path::new("lazy_itable_init=0,lazy_journal_init=0");
        run("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), Path::new("-E"), options, &image])?;
        let mount = folder.join(name);
        fs::create_dir(&mount)?;
        let mut disk = Self { image, mount, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Writes everything back, as time would.
    pub fn settle(&self) -> io::Result<()> {
        run("sync", &[Path::new("-f"), &self.mount])
    }

    /// Cuts the power: from now on nothing reaches the disk.
    pub fn cut(&self) -> io::Result<()> {
        let directory = File::open(&self.mount)?;
        #[expect(unsafe_code, reason = "there is no safe wrapper for this ioctl")]
        // SAFETY: the ioctl reads one u32, which Setter passes the address of, and writes nothing to our memory.
        let done = unsafe { ioctl(&directory, Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH)) };
        Ok(done?)
    }

    /// Mounts it, as after a start of the machine.
    pub fn mount(&mut self) -> io::Result<()> {
        run("mount", &[Path::new("-o"), Path::new("loop"), &self.image, &self.mount])?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it; every process that has used it must have ended.
    pub fn unmount(&mut self) -> io::Result<()> {
        run("umount", &[&self.mount])?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // Somebody still uses it: it goes when they do.
            let _nothing_left_to_try = run("umount", &[Path::new("-l"), &self.mount]);
        }
    }
}
