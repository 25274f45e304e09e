//! kill -9 under load: of one node, of two at once, of all three at once; and of any of them, again and again, also
//! while they are starting.
//!
//! Nothing acknowledged may be lost, and a cluster whose majority is back must write again within seconds.

use super::{Moments, NODES, Options, each_kind};
use crate::process::Cluster;
use crate::report::{Report, Round};
use std::io;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long dead nodes stay dead at most.
const DOWN_MAX: Duration = Duration::from_millis(1_500);

/// How many nodes are killed at once; 0 stands for a storm.
const KINDS: [(&str, usize); 4] = [("kill-one", 1), ("kill-two", 2), ("kill-all", 3), ("storm", 0)];
/// How often a node is killed in a storm.
const STORM_KILLS: usize = 10;
/// How long a node is left alone, dead or alive, in a storm at most. A node starts within this time.
const STORM_PAUSE_MAX: Duration = Duration::from_millis(300);

/// Runs every round of every kind, each kind on a cluster of its own. `progress` is told of each round.
pub async fn run(options: &Options, progress: impl FnMut(&Round)) -> io::Result<Report> {
    let strike = async |cluster: &mut Cluster, victims: &[usize]| match victims {
        [] => storm(cluster).await,
        _ => strike(cluster, victims).await,
    };
    each_kind(options, &KINDS, progress, strike).await
}

/// Kills these nodes at once, leaves them dead for a while, and starts them again one after the other.
async fn strike(cluster: &mut Cluster, victims: &[usize]) -> io::Result<Moments> {
    let fault = Instant::now();
    for victim in victims {
        cluster.kill(*victim)?;
    }
    let mut alive = cluster.nodes.len() - victims.len();
    let has_majority = |alive: usize| alive * 2 > NODES;
    // A majority that never went away is back at once.
    let mut majority = has_majority(alive).then_some(fault);
    sleep(DOWN_MAX.mul_f64(fastrand::f64())).await;
    for victim in victims {
        cluster.start(*victim)?;
        alive += 1;
        if majority.is_none() && has_majority(alive) {
            majority = Some(Instant::now());
        }
        // Now and then at once, now and then with time to elect a leader in between.
        sleep(DOWN_MAX.mul_f64(fastrand::f64() / 4.0)).await;
    }
    Ok(Moments { fault, majority: majority.expect("every node has been started") })
}

/// Kills any node, and starts it again, time after time. Some die while they start.
async fn storm(cluster: &mut Cluster) -> io::Result<Moments> {
    let pause = || STORM_PAUSE_MAX.mul_f64(fastrand::f64());
    for _ in 0..STORM_KILLS {
        cluster.kill(fastrand::usize(..NODES))?;
        sleep(pause()).await;
        cluster.start(fastrand::usize(..NODES))?;
        sleep(pause()).await;
    }
    let fault = Instant::now();
    cluster.start_all()?;
    Ok(Moments { fault, majority: fault })
}
