//! What the disk can do: appends to a file that was written before, each followed by fdatasync.
//!
//! The file is recycled, as the log's segments are: its blocks are allocated and its length does not change, so that a
//! sync writes data only. Two sizes: 4 KiB, a small turn of the log, and 1 MiB, a large one.

use super::report::Latencies;
use crate::cli::output::bytes;
use crate::cli::{Failure, output};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The scratch file's size in bytes.
const FILE_BYTES: u64 = 64 << 20;
/// What is appended at a time, in bytes.
const SIZES: [usize; 2] = [4 << 10, 1 << 20];
/// How long each size is measured.
const EACH: Duration = Duration::from_millis(1500);

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

/// Bytes that processes have caused to be written to disks, from `/proc/<pid>/io`; none if one can't be read.
pub(super) fn written_bytes(pids: &[u32]) -> Option<u64> {
    let of_one = |pid: &u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<u64>().ok())
    };
    if pids.is_empty() { None } else { pids.iter().map(of_one).sum() }
}

/// The processes of `ackord dev` in its default directory.
pub(super) fn dev_pids(directory: &Path) -> Vec<u32> {
    let pid = |node: u32| std::fs::read_to_string(directory.join(format!("node-{node}/pid"))).ok()?.trim().parse().ok();
    (1..=9).map_while(pid).collect()
}
