//! The `ackord-jepsen` program: whole workloads, as long as one likes.

use ackord_jepsen::report::{Report, Round};
use ackord_jepsen::workload::retention::Sizes;
use ackord_jepsen::workload::{FIRST_ACK_MAX_MS, Options, away, damage, kill, pause, power_cut, retention};
use ackord_jepsen::{power, process};
use clap::{Parser, Subcommand};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Real Ackord processes under real faults, and a checker of what their clients saw.
///
/// Tests the program that ACKORD_BIN names, or the one beside this one. Ends with 0 if nothing was wrong.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// What to do to the cluster.
    #[command(subcommand)]
    workload: Workload,
    /// Rounds of each kind of fault. The default is 20, and 1 of retention, which writes --total in each.
    #[arg(long, global = true, value_name = "N")]
    rounds: Option<u32>,
    /// Records to be acknowledged in each round, at least.
    #[arg(long, global = true, default_value_t = 10_000)]
    records: usize,
    /// Where the nodes' files go, and stay [default: a temporary folder, kept if something is wrong].
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    /// Where to write the results, as JSON.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
}

#[derive(Subcommand, Clone, Copy, Debug)]
enum Workload {
    /// kill -9 of one node, of two at once, of all three at once, of any again and again.
    Kill,
    /// One node, and two at once, stand still for a while.
    Pause,
    /// One node away while the others write more than the log keeps; ignores --records.
    Away,
    /// One node's files are damaged in every way there is, one after another; it must say so, and be repaired by the
    /// others. As many rounds as there are kinds, or more, must have every kind.
    #[command(after_help = ackord_jepsen::damage::help())]
    Damage,
    /// A topic that keeps little is written far more; ignores --records.
    Retention {
        /// What the topic keeps, all partitions together (64MiB, 1GiB, or bytes).
        #[arg(long, value_parser = size, default_value = "1GiB")]
        limit: u64,
        /// What is written.
        #[arg(long, value_parser = size, default_value = "20GiB")]
        total: u64,
    },
    /// A power cut of one node, of all three at once; needs root and loop devices.
    PowerCut,
    /// A power cut of all nodes with their logs' syncs left out: must lose records, or the harness is no good.
    PowerCutControl,
}

/// A number of bytes, or of MiB or GiB.
fn size(text: &str) -> Result<u64, String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("", 0)];
    let (number, shift) =
        units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift))).expect("\"\"");
    let number: u64 = number.trim().parse().map_err(|_| format!("{text:?} is not a size such as 64MiB"))?;
    number.checked_shl(shift).filter(|bytes| bytes >> shift == number).ok_or_else(|| format!("{text} is too much"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the workload; whether all was as it must be.
fn run(arguments: &Arguments) -> io::Result<bool> {
    let mut temporary = arguments.folder.is_none().then(tempfile::tempdir).transpose()?;
    let folder = arguments.folder.clone().or_else(|| temporary.as_ref().map(|folder| folder.path().to_owned()));
    let folder = folder.expect("given, or temporary");
    let binary = process::binary()?;
    println!("testing {}, in {}", binary.display(), folder.display());
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = work(arguments, binary, folder) => report,
            // What has been begun is dropped: processes end, disks are unmounted.
            _ = tokio::signal::ctrl_c() => Err(io::Error::other("interrupted")),
        }
    })?;
    println!("\n{}", report.table());
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    let is_control = matches!(arguments.workload, Workload::PowerCutControl);
    let good = if is_control { report.rounds.iter().all(|round| round.lost() > 0) } else { report.is_clean() };
    if let (false, Some(folder)) = (good, temporary.take()) {
        println!("the nodes' files are kept in {}", folder.keep().display());
    }
    let fast = is_control || report.is_within(FIRST_ACK_MAX_MS);
    if !fast {
        println!("a first acknowledgement took longer than {FIRST_ACK_MAX_MS} ms");
    }
    Ok(good && fast)
}

async fn work(arguments: &Arguments, binary: PathBuf, folder: PathBuf) -> io::Result<Report> {
    let progress = |round: &Round| println!("{}", round.line());
    let rounds =
        arguments.rounds.unwrap_or(if matches!(arguments.workload, Workload::Retention { .. }) { 1 } else { 20 });
    let records = arguments.records;
    let cuts_power = matches!(arguments.workload, Workload::PowerCut | Workload::PowerCutControl);
    if let Some(obstacle) = power::obstacle().filter(|_| cuts_power) {
        return Err(io::Error::other(obstacle));
    }
    let options = Options { binary, rounds, records, folder };
    match arguments.workload {
        Workload::Kill => kill::run(&options, progress).await,
        Workload::Pause => pause::run(&options, progress).await,
        Workload::Damage => damage::run(&options, progress).await,
        Workload::Away => away::run(&options, progress).await,
        Workload::Retention { limit, total } => {
            retention::run(&options, Sizes { limit_bytes: limit, total_bytes: total }, progress).await
        }
        Workload::PowerCut => power_cut::run(&options, progress).await,
        Workload::PowerCutControl => power_cut::control(&options, progress).await,
    }
}
