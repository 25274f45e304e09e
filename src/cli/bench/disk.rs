//! What the disk can do: appends to a file that was written before, each followed by fdatasync.
//!
//! The file is recycled, as the log's segments are: its blocks are allocated and its length does not change, so that a
//! sync writes data only. Two sizes: 4 KiB, a small turn of the log, and 1 MiB, a large one. And how much the disk has
//! written, as its device counts it.

use super::report::Latencies;
use crate::cli::output::bytes;
use crate::cli::{Failure, output};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The scratch file's size in bytes.
const FILE_BYTES: u64 = 64 << 20;
/// What is appended at a time, in bytes.
const SIZES: [usize; 2] = [4 << 10, 1 << 20];
/// How long each size is measured.
const EACH: Duration = Duration::from_millis(1500);
/// Bytes in a sector as the kernel counts them, whatever the device's own are (Linux, Documentation/block/stat.rst).
const COUNTED_SECTOR_BYTES: u64 = 512;

/// What was measured.
pub(super) struct Measured {
    /// For each size: bytes per append, latencies of an append with its sync, bytes per second.
    sizes: Vec<(usize, Latencies, f64)>,
}

/// A scratch file, removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Measures the disk that `directory` is on.
pub(super) fn measure(directory: &Path) -> Result<Measured, Failure> {
    let scratch = Scratch(directory.join(format!(".ackord-bench-{}", std::process::id())));
    let failed = |error: io::Error| Failure::io(format!("measuring the disk of {}", directory.display()), &error);
    let file = OpenOptions::new().write(true).create_new(true).open(&scratch.0).map_err(failed)?;
    let block = vec![0xa5; 1 << 20];
    for at in (0..FILE_BYTES).step_by(block.len()) {
        file.write_all_at(&block, at).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    let sizes = SIZES.iter().map(|size| measure_size(&file, &block[..*size]).map_err(failed));
    Ok(Measured { sizes: sizes.collect::<Result<_, _>>()? })
}

fn measure_size(file: &File, block: &[u8]) -> io::Result<(usize, Latencies, f64)> {
    let (mut latencies, begun, mut at) = (Latencies::new(), Instant::now(), 0);
    while begun.elapsed() < EACH {
        let before = Instant::now();
        file.write_all_at(block, at)?;
        file.sync_data()?;
        latencies.record(before.elapsed());
        at = (at + block.len() as u64) % FILE_BYTES;
    }
    let rate = latencies.count() as f64 * block.len() as f64 / begun.elapsed().as_secs_f64();
    Ok((block.len(), latencies, rate))
}

impl Measured {
    pub(super) fn print(&self, when: &str) -> Result<(), Failure> {
        for (size, latencies, rate) in &self.sizes {
            let (size, rate) = (bytes(*size as f64), bytes(*rate));
            output::line(&format!("disk {when}, {size} + fdatasync:  {rate}/s, {}", latencies.text()))?;
        }
        Ok(())
    }

    pub(super) fn json(&self) -> Value {
        let one = |(size, latencies, rate): &(usize, Latencies, f64)| {
            let latency = latencies.json();
            json!({"append_bytes": size, "bytes_per_second": rate, "latency": latency})
        };
        self.sizes.iter().map(one).collect()
    }
}

/// What a block device has written, for whomever. The device is asked and not the nodes' processes: `/proc/<pid>/io`
/// counts a small write into a large folio of the page cache as the whole folio.
pub(super) struct WriteCounter {
    /// The kernel's figures for the device, or for the one partition of it.
    stat: PathBuf,
}

impl WriteCounter {
    /// Of the device that `directory` is on; none if that is not one block device: tmpfs, overlayfs, btrfs.
    pub(super) fn of(directory: &Path) -> Option<Self> {
        let device = std::fs::metadata(directory).ok()?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let counter = Self { stat: format!("/sys/dev/block/{major}:{minor}/stat").into() };
        counter.bytes().map(|_| counter)
    }

    /// Bytes written since the device is there.
    pub(super) fn bytes(&self) -> Option<u64> {
        sectors_written(&std::fs::read_to_string(&self.stat).ok()?)?.checked_mul(COUNTED_SECTOR_BYTES)
    }
}

/// The seventh figure of a device's `stat`.
fn sectors_written(stat: &str) -> Option<u64> {
    stat.split_ascii_whitespace().nth(6)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sectors_written_are_the_seventh_figure() {
        let whole = " 2237317    61226 515161498  2695215  5433899   510257 1784943536  3116498        0   837732\n";
        assert_eq!(sectors_written(whole), Some(1_784_943_536));
        let loop_device = "       0        0        0        0        0        0        0        0        0        0\n";
        assert_eq!(sectors_written(loop_device), Some(0));
        for nothing in ["", "1 2 3 4 5 6", "1 2 3 4 5 6 seven 8", "1 2 3 4 5 6 -7 8"] {
            assert_eq!(sectors_written(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_directory_without_a_block_device_has_no_counter() {
        assert!(WriteCounter::of(Path::new("/proc/self")).is_none(), "no device is behind proc");
        assert!(WriteCounter::of(Path::new("/no/such/directory")).is_none());
    }

    #[test]
    fn what_is_written_and_synced_is_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let Some(counter) = WriteCounter::of(directory.path()) else { return }; // tmpfs, say
        let before = counter.bytes().expect("it was there");
        let file = File::create(directory.path().join("file")).expect("a file");
        file.write_all_at(&vec![0xa5; 4 << 20], 0).expect("space");
        file.sync_all().expect("synced");
        let written = counter.bytes().expect("it was there") - before;
        assert!(written >= 4 << 20, "{written}");
    }
}
