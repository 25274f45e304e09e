//! Processes that stand still under load (SIGSTOP) and go on where they were (SIGCONT): one node, and two at once.
//!
//! Longer than an election takes, so that a leader wakes up deposed: with requests in its sockets that it would have
//! accepted, and in the belief that it still leads.

use super::{Moments, Options, each_kind};
use crate::process::Cluster;
use crate::report::{Report, Round};
use std::io;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long nodes stand still, at least and at most: around what an election takes, and what clients put up with.
const STILL: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(4_000)];
/// How many nodes stand still at once.
const KINDS: [(&str, usize); 2] = [("pause-one", 1), ("pause-two", 2)];

/// Runs every round of every kind, each kind on a cluster of its own. `progress` is told of each round.
pub async fn run(options: &Options, progress: impl FnMut(&Round)) -> io::Result<Report> {
    each_kind(options, &KINDS, progress, strike).await
}

async fn strike(cluster: &mut Cluster, victims: &[usize]) -> io::Result<Moments> {
    for victim in victims {
        cluster.pause(*victim)?;
    }
    sleep(STILL[0] + (STILL[1] - STILL[0]).mul_f64(fastrand::f64())).await;
    for victim in victims {
        cluster.resume(*victim)?;
    }
    // What clients had sent to a node that stood still counts for nothing: it answers that at once.
    let awake = Instant::now();
    Ok(Moments { fault: awake, majority: awake })
}
