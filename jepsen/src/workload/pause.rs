//! Processes that stand still under load (SIGSTOP) and go on where they were (SIGCONT): one node, and two at once.
//!
//! Longer than an election takes, so that a leader wakes up deposed: with requests in its sockets that it would have
//! accepted, and in the belief that it still leads.

use super::{MODERATE, Moments, start};
use crate::process::{Cluster, Setup};
use crate::report::{Report, Round};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Nodes of the cluster.
const NODES: usize = 3;
/// How long nodes stand still, at least and at most: around what an election takes, and what clients put up with.
const STILL: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(4_000)];
/// How many nodes stand still at once.
const KINDS: [(&str, usize); 2] = [("pause-one", 1), ("pause-two", 2)];

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `ackord` program.
    pub binary: PathBuf,
    /// Rounds of each kind.
    pub rounds: u32,
    /// Records acknowledged in each round, at least.
    pub records: usize,
    /// Where the cluster's files go.
    pub folder: PathBuf,
}

/// Runs every round of every kind, each kind on a cluster of its own. `progress` is told of each round.
pub async fn run(options: &Options, mut progress: impl FnMut(&Round)) -> io::Result<Report> {
    let mut report = Report::default();
    for (fault, count) in KINDS {
        let folder = options.folder.join(fault);
        std::fs::create_dir_all(&folder)?;
        let data_dirs: Vec<_> = (1..=NODES).map(|node| folder.join(format!("node{node}"))).collect();
        let mut cluster = Cluster::format(&folder, &data_dirs, Setup::new(options.binary.clone()))?;
        let mut topic = start(&mut cluster, MODERATE).await?;
        for number in 1..=options.rounds {
            let victims: Vec<usize> = (0..count).map(|place| (number as usize + place) % NODES).collect();
            let mut round = Round::new(fault, number, victims.iter().map(|victim| cluster.nodes[*victim].id.0));
            let strike = async |cluster: &mut Cluster| strike(cluster, &victims).await;
            super::round((&mut cluster, &mut topic), options.records, &mut round, strike).await?;
            progress(&round);
            let clean = round.is_clean();
            report.rounds.push(round);
            if !clean {
                break;
            }
        }
    }
    Ok(report)
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
