//! What processes have used, as Linux counts it.

use crate::cli::Failure;
use std::fs;
use std::time::Duration;

/// Ticks per second in `/proc/<pid>/stat`: USER_HZ, which is 100 wherever this program runs (proc(5)).
const TICKS_PER_SECOND: u64 = 100;

/// What one process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processor time since it began, of all its threads.
    pub processor: Duration,
    /// Memory that it occupies now, in bytes.
    pub resident_bytes: u64,
}

impl Usage {
    /// Of a process that runs.
    pub fn of(pid: u32) -> Result<Self, Failure> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).map_err(|error| Failure::io(path, &error))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        let parsed = processor(&stat).zip(resident_bytes(&status));
        let (processor, resident_bytes) =
            parsed.ok_or_else(|| Failure::new(format!("/proc/{pid} is not as Linux writes it")))?;
        Ok(Self { processor, resident_bytes })
    }
}

/// The 14th and 15th figure of a process's `stat`. The second is the program's name, which may hold anything.
fn processor(stat: &str) -> Option<Duration> {
    let mut after_name = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || after_name.next()?.parse::<u64>().ok();
    let ticks = ticks()?.checked_add(ticks()?)?;
    Some(Duration::from_millis(ticks.checked_mul(1000)? / TICKS_PER_SECOND))
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_behind_the_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 500 0 3 0 150 25 7 8 20 0 9 0 1234 1000000 300\n";
        assert_eq!(processor(stat), Some(Duration::from_millis(1750)));
        let status = "Name:\ta\nVmPeak:\t  9 kB\nVmRSS:\t   2048 kB\nThreads:\t9\n";
        assert_eq!(resident_bytes(status), Some(2 << 20));
        for nothing in ["", "42 (a", "42 (a) S 1 2", "42 (a) S 1 42 42 0 -1 4194304 500 0 3 0 x 25 7"] {
            assert_eq!(processor(nothing), None, "{nothing:?}");
        }
        assert_eq!(resident_bytes("VmRSS: many"), None);
    }

    #[test]
    fn this_process_occupies_memory_and_one_that_is_not_there_is_an_error() {
        assert!(Usage::of(std::process::id()).expect("it runs").resident_bytes > 1 << 20);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
