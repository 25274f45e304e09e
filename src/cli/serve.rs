//! `ackord serve`: runs a node until it is told to stop.

use super::Failure;
use super::format::read_config;
use crate::server;
use clap::{Args, ValueEnum};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::io;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Run a node.
///
/// SIGINT and SIGTERM stop it in an orderly way. The data directory must have been made ready by `ackord format`.
/// RUST_LOG filters the log, for example RUST_LOG=ackord=debug.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How the log on the standard error looks
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Stop when the process that started this one ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// An object per line.
    Json,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.with_parent {
            set_parent_process_death_signal(Some(Signal::TERM))
                .map_err(|error| Failure::io("following the parent process", &io::Error::from(error)))?;
        }
        let config = read_config(&self.config)?;
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter);
        match self.log_format {
            LogFormat::Text => log.with_ansi(false).init(),
            LogFormat::Json => log.json().init(),
        }
        server::run(config).map_err(|error| {
            eprintln!("ackord: {error}");
            end_process()
        })
    }
}

/// Ends the process as one that failed, and leaves what its threads use as it is: a node that can't go on is not taken
/// down in order, and RocksDB's threads abort a process whose destructors run beside them.
fn end_process() -> ! {
    // SAFETY: nothing runs after this call, and nothing that this process holds is needed beyond it: what is on the
    // standard error has no buffer, and what is not durable yet was never acknowledged.
    #[expect(unsafe_code, reason = "the standard library ends a process with its destructors, or with a core dump")]
    unsafe {
        libc::_exit(1)
    }
}
