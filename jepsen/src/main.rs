//! The `ackord-jepsen` program: whole workloads, as long as one likes.

use ackord_jepsen::report::{Report, Round};
use ackord_jepsen::workload::{away, kill, power_cut};
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
    /// Rounds of each kind of fault.
    #[arg(long, global = true, default_value_t = 20)]
    rounds: u32,
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
    /// kill -9 of one node, of two at once, of all three at once.
    Kill,
    /// One node away while the others write more than the log keeps; ignores --records.
    Away,
    /// A power cut of one node, of all three at once; needs root and loop devices.
    PowerCut,
    /// A power cut of all nodes with their logs' syncs left out: must lose records, or the harness is no good.
    PowerCutControl,
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
    let (rounds, records) = (arguments.rounds, arguments.records);
    let progress = |round: &Round| println!("{}", round.line());
    let runtime = tokio::runtime::Runtime::new()?;
    let report: Report = match arguments.workload {
        Workload::Kill => runtime.block_on(kill::run(&kill::Options { binary, rounds, records, folder }, progress))?,
        Workload::Away => runtime.block_on(away::run(&away::Options { binary, rounds, folder }, progress))?,
        Workload::PowerCut | Workload::PowerCutControl => {
            if let Some(obstacle) = power::obstacle() {
                return Err(io::Error::other(obstacle));
            }
            let options = power_cut::Options { binary, rounds, records, folder };
            match arguments.workload {
                Workload::PowerCutControl => runtime.block_on(power_cut::control(&options, progress))?,
                _ => runtime.block_on(power_cut::run(&options, progress))?,
            }
        }
    };
    println!("\n{}", report.table());
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    let is_control = matches!(arguments.workload, Workload::PowerCutControl);
    let good = if is_control { report.rounds.iter().all(|round| round.lost() > 0) } else { report.is_clean() };
    if let (false, Some(folder)) = (good, temporary.take()) {
        println!("the nodes' files are kept in {}", folder.keep().display());
    }
    Ok(good)
}
