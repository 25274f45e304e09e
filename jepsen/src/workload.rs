//! Workloads: a load, faults, and what is reported about them.

pub mod away;
pub mod damage;
pub mod kill;
pub mod pause;
pub mod power_cut;
pub mod retention;

use crate::client::{Client, PAUSE};
use crate::history::{Outcome, Send};
use crate::load::{Load, Shape, Topic};
use crate::process::{Cluster, Setup};
use crate::producer::Pace;
use crate::report::{Report, Round};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Nodes of a cluster.
const NODES: usize = 3;
/// How long a cluster may take until it has its topic, and a load until it has written its records.
const START_MAX: Duration = Duration::from_secs(60);
/// How long it may take until every partition acknowledges writes again. The contract is far below; this is where a
/// round is given up.
pub const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// From a majority being back until the first acknowledgement, at most, in milliseconds.
pub const FIRST_ACK_MAX_MS: u64 = 3_000;

/// The load of most workloads: eight producers, half of them idempotent, that write some 12,000 records a second.
pub const MODERATE: Shape = Shape {
    partitions: 4,
    producers: 2,
    pace: Pace { interval: Duration::from_millis(10), batch_records_max: 30, value_bytes: 100 },
};

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `ackord` program.
    pub binary: PathBuf,
    /// Rounds of each kind.
    pub rounds: u32,
    /// Records acknowledged in each round, at least.
    pub records: usize,
    /// Where the nodes' files go.
    pub folder: PathBuf,
}

/// Which nodes are back when.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// When the fault began.
    pub fault: Instant,
    /// When a majority had processes again.
    pub majority: Instant,
}

/// Starts a formatted cluster and gives it a topic.
pub async fn start(cluster: &mut Cluster, shape: Shape) -> io::Result<Topic> {
    cluster.start_all()?;
    let client = Client::new(cluster.addresses(), "events");
    let replicas = i16::try_from(cluster.nodes.len()).expect("few");
    client.create_topic(shape.partitions, replicas, tokio::time::Instant::now() + START_MAX).await?;
    Ok(Topic::new(client, shape))
}

/// A cluster in a folder that is made for it, and where its nodes' data is.
fn format(folder: &Path, setup: Setup) -> io::Result<(Cluster, Vec<PathBuf>)> {
    std::fs::create_dir_all(folder)?;
    let data_dirs: Vec<_> = (1..=NODES).map(|node| folder.join(format!("node{node}"))).collect();
    Ok((Cluster::format(folder, &data_dirs, setup)?, data_dirs))
}

/// The nodes that a round hits: so many at once, each in its turn.
fn victims(number: u32, count: usize) -> Vec<usize> {
    (0..count).map(|place| (number as usize + place) % NODES).collect()
}

/// Runs every round of every kind, each kind on a cluster of its own: its name, and how many nodes it hits at once.
/// `progress` is told of each round.
async fn each_kind(
    options: &Options,
    kinds: &[(&'static str, usize)],
    mut progress: impl FnMut(&Round),
    strike: impl AsyncFn(&mut Cluster, &[usize]) -> io::Result<Moments>,
) -> io::Result<Report> {
    let mut report = Report::default();
    for &(fault, count) in kinds {
        let (mut cluster, _) = format(&options.folder.join(fault), Setup::new(options.binary.clone()))?;
        let mut topic = start(&mut cluster, MODERATE).await?;
        for number in 1..=options.rounds {
            let victims = victims(number, count);
            let mut round = Round::new(fault, number, victims.iter().map(|victim| cluster.nodes[*victim].id.0));
            let strike = async |cluster: &mut Cluster| strike(cluster, &victims).await;
            self::round((&mut cluster, &mut topic), options.records, &mut round, strike).await?;
            if !report.goes_on_after(round, &mut progress) {
                break;
            }
        }
    }
    Ok(report)
}

/// One round: under load, `strike` does its worst and undoes it; then every partition must write again, the round's
/// records be acknowledged, and everything seen so far be right.
pub async fn round(
    (cluster, topic): (&mut Cluster, &mut Topic),
    records: usize,
    round: &mut Round,
    strike: impl AsyncFnOnce(&mut Cluster) -> io::Result<Moments>,
) -> io::Result<()> {
    let load = topic.start_load();
    let begun = acknowledged(&load, records / 2).await;
    if begun.is_ok() {
        let moments = strike(cluster).await?;
        recovered(&load, topic.shape(), moments, round).await;
    }
    let written = match begun {
        Ok(()) if round.failures.is_empty() => acknowledged(&load, records).await,
        other => other,
    };
    round.failures.extend(written.err().map(|error| error.to_string()));
    conclude(topic, load, cluster, round).await;
    Ok(())
}

/// Waits until the load has had this many records acknowledged.
pub async fn acknowledged(load: &Load, records: usize) -> io::Result<()> {
    let deadline = Instant::now() + START_MAX;
    while load.acknowledged() < records {
        if Instant::now() > deadline {
            let so_far = load.acknowledged();
            return Err(io::Error::other(format!("only {so_far} of {records} records acknowledged in {START_MAX:?}")));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Waits until every partition acknowledges writes again, and fills in how long that took.
async fn recovered(load: &Load, shape: Shape, moments: Moments, round: &mut Round) {
    let deadline = Instant::now() + RECOVERY_MAX;
    loop {
        let times = load.recovery(moments.fault, moments.majority);
        let milliseconds = |time: &Duration| u64::try_from(time.as_millis()).expect("seconds");
        round.first_ack_ms = times.values().min().map(milliseconds);
        if times.len() == shape.partitions as usize {
            round.every_partition_ms = times.values().max().map(milliseconds);
            return;
        }
        if Instant::now() > deadline {
            let back: Vec<_> = times.keys().collect();
            round.failures.push(format!("after {RECOVERY_MAX:?} only partitions {back:?} acknowledge writes"));
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Ends a round: the load stops, everything is read and checked, and what happened is counted.
async fn conclude(topic: &mut Topic, load: Load, cluster: &mut Cluster, round: &mut Round) {
    let before = topic.history.sends.len();
    match topic.end_load(load).await {
        Ok(anomalies) => round.anomalies = anomalies,
        Err(error) => round.failures.push(format!("the end of the load: {error}")),
    }
    let sends: &[Send] = &topic.history.sends[before..];
    let acknowledged = sends.iter().filter(|send| matches!(send.outcome, Outcome::Ok { .. }));
    round.acknowledged = acknowledged.map(|send| send.values.len()).sum();
    round.in_doubt = sends.iter().filter(|send| send.outcome == Outcome::Info).count();
    round.failed = sends.iter().filter(|send| send.outcome == Outcome::Fail).count();
    round.failures.extend(cluster.ended());
}
