//! The command line: one file per command.
//!
//! Answers go to the standard output, everything else to the standard error, so that output can be piped. Exit codes:
//! 0 done; 1 failed, and certainly without effect or reported in full; 2 the command line is wrong; 3 the outcome is
//! unknown: it may have been done.

mod bench;
mod consume;
mod dev;
mod format;
mod group;
mod node;
mod output;
mod produce;
mod serve;
mod status;
mod stop;
mod topic;
mod values;

use crate::client::{self, Client, ClientOptions};
use clap::{Args, Parser, Subcommand};
use std::fmt;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// A message log for people who cannot lose a message.
#[derive(Debug, Parser)]
#[command(name = "ackord", version, propagate_version = true, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Dev),
    Format(format::Format),
    Serve(serve::Serve),
    #[command(subcommand)]
    Topic(topic::Topic),
    #[command(subcommand)]
    Group(group::Group),
    #[command(subcommand)]
    Node(node::Node),
    Produce(produce::Produce),
    Consume(consume::Consume),
    Status(status::Status),
    #[command(subcommand)]
    Bench(bench::Bench),
}

/// Where the cluster is.
#[derive(Debug, Args)]
struct Connect {
    /// Native listeners of some nodes, separated by commas; the first that answers is asked. The default tries a node
    /// on this machine, then `ackord dev`
    #[arg(long, short = 'b', alias = "bootstrap-server", value_name = "HOST:PORT", value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:9093,127.0.0.1:19093")]
    bootstrap: Vec<String>,
    /// How long a request may take, retries included
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    timeout: Duration,
}

impl Connect {
    async fn client(&self) -> Result<Client, Failure> {
        let options = ClientOptions { timeout: self.timeout, ..ClientOptions::default() };
        // Whether anybody is there is known at once; patience is for elections.
        let first = ClientOptions { timeout: self.timeout.min(Duration::from_secs(2)), ..options.clone() };
        Client::connect(&self.bootstrap, first).await.map_err(|error| {
            let advice = "`ackord dev` starts a cluster on this machine; --bootstrap names another.";
            Failure::new(format!("{error}\nIs a node running there? {advice}"))
        })?;
        Ok(Client::connect(&self.bootstrap, options).await?)
    }
}

/// Why a command failed: what is shown, and how the process ends.
#[derive(Debug)]
struct Failure {
    /// For people; empty if it was shown already.
    message: String,
    /// Whether it may have been done all the same.
    indefinite: bool,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), indefinite: false }
    }

    /// Something with a file or a stream.
    fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(format!("{what}: {error}"))
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let indefinite = !error.is_definite();
        let advice = if indefinite { "\nIt may have been done all the same; look before you repeat it." } else { "" };
        Self { message: format!("{error}{advice}"), indefinite }
    }
}

/// Runs the command of this process.
#[must_use]
pub fn run() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, indefinite }) => {
            if !message.is_empty() {
                eprintln!("ackord: {message}");
            }
            ExitCode::from(if indefinite { 3 } else { 1 })
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Format(format) => format.run(),
        Command::Serve(serve) => serve.run(),
        Command::Dev(dev) => block_on(dev.run()),
        Command::Topic(topic) => block_on(topic.run()),
        Command::Group(group) => block_on(group.run()),
        Command::Node(node) => block_on(node.run()),
        Command::Produce(produce) => block_on(produce.run()),
        Command::Consume(consume) => block_on(consume.run()),
        Command::Status(status) => block_on(status.run()),
        Command::Bench(bench) => block_on(bench.run()),
    }
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("starting the runtime", &error))?;
    let result = runtime.block_on(command);
    runtime.shutdown_background(); // a read of the standard input can't be cancelled
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_is_explained() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
