//! `ackord bench`: what the cluster does, beside what the machine's disk can do in the same minutes.
//!
//! Latency counts from the moment at which a record was *to be* sent: with a rate, the schedule's, whether or not the
//! client was held up. A stall is then seen by every record it delayed, and not only by the one that waited for it
//! (Tene, "How not to measure latency").

mod consume;
mod disk;
mod groups;
mod produce;
mod report;

use super::Failure;
use clap::Subcommand;

/// Measure throughput and latency, beside what the disk can do
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Bench {
    Produce(produce::Produce),
    Consume(consume::Consume),
    Groups(groups::Groups),
}

impl Bench {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Produce(produce) => produce.run().await,
            Self::Consume(consume) => consume.run().await,
            Self::Groups(groups) => groups.run().await,
        }
    }
}
