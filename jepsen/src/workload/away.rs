//! A replica is away while the others write more than the log keeps for it; it comes back while writes go on.
//!
//! It must catch up by snapshot, hold little memory while it does, and count for a majority again: another node is
//! killed afterwards, so that nothing is acknowledged without it, and then the third, so that it must lead.

use super::{Moments, Options, acknowledged, conclude, format, recovered, start};
use crate::load::Shape;
use crate::process::{Cluster, Setup};
use crate::producer::Pace;
use crate::report::{Report, Round};
use ackord::client::{Client, ClientOptions};
use ackord::types::COORDINATOR_TOPIC;
use std::io;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The node that is away, by position.
const AWAY: usize = 2;
/// The node that is killed once the other is back.
const FIRST_KILLED: usize = 0;
/// The node that is killed when the first one starts again.
const SECOND_KILLED: usize = 1;
/// What is kept for replicas that are away, in bytes.
const RETAIN_BYTES: u64 = 32 << 20;
/// What is written while one is away, in bytes.
const WRITTEN_BYTES: usize = 200 << 20;
/// How long it may take to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// A replica that lacks no more entries than this, under load, has caught up.
const LAG_MAX: u64 = 200;
/// The most memory that the node may ever hold, in KiB.
const MEMORY_MAX_KIB: u64 = 768 << 10;
/// How long to wait before the nodes are asked again how they stand.
const PAUSE: Duration = Duration::from_millis(100);

/// Large records: some 12 MB a second.
const HEAVY: Shape = Shape {
    partitions: 4,
    producers: 2,
    pace: Pace { interval: Duration::from_millis(40), batch_records_max: 30, value_bytes: 4_000 },
};

/// Runs every round, each on a cluster of its own. `progress` is told of each.
pub async fn run(options: &Options, mut progress: impl FnMut(&Round)) -> io::Result<Report> {
    let mut report = Report::default();
    for number in 1..=options.rounds {
        let folder = options.folder.join(format!("away-{number}"));
        let setup = Setup { retain_bytes: RETAIN_BYTES, ..Setup::new(options.binary.clone()) };
        let (mut cluster, _) = format(&folder, setup)?;
        let mut round = Round::new("away", number, std::iter::once(cluster.nodes[AWAY].id.0));
        one_round(&mut cluster, &mut round).await?;
        progress(&round);
        report.rounds.push(round);
    }
    Ok(report)
}

async fn one_round(cluster: &mut Cluster, round: &mut Round) -> io::Result<()> {
    let mut topic = start(cluster, HEAVY).await?;
    let load = topic.start_load();
    acknowledged(&load, 1_000).await?;
    cluster.kill(AWAY)?;
    acknowledged(&load, load.acknowledged() + WRITTEN_BYTES / HEAVY.pace.value_bytes).await?;
    cluster.start(AWAY)?;
    match catch_up(cluster).await? {
        Some((time, groups)) => {
            round.notes.push(format!("caught up in {} ms, {groups} partitions by snapshot", time.as_millis()));
            if groups == 0 {
                round.failures.push("no partition needed a snapshot: this round has shown nothing".to_owned());
            }
        }
        None => round.failures.push(format!("node {} did not catch up in {CATCH_UP_MAX:?}", cluster.nodes[AWAY].id)),
    }
    let fault = Instant::now();
    cluster.kill(FIRST_KILLED)?;
    recovered(&load, HEAVY, Moments { fault, majority: fault }, round).await;
    // Every partition has been written to without the first; so with the second gone, none but the node that was away
    // can lead, and what is read at the end is what it has.
    let fault = Instant::now();
    cluster.kill(SECOND_KILLED)?;
    cluster.start(FIRST_KILLED)?;
    recovered(&load, HEAVY, Moments { fault, majority: Instant::now() }, round).await;
    let memory = cluster.memory_max_kib(AWAY);
    round.notes.push(format!("it held at most {} MiB", memory.unwrap_or(0) >> 10));
    if memory.is_none_or(|memory| memory > MEMORY_MAX_KIB) {
        round.failures.push(format!("it held more memory than {} MiB, or has ended", MEMORY_MAX_KIB >> 10));
    }
    conclude(&mut topic, load, cluster, round).await;
    Ok(())
}

/// Waits until the node that was away lacks next to nothing of any partition: how long that took, and how many
/// partitions were seen to wait for a snapshot. Nothing if it takes too long.
async fn catch_up(cluster: &Cluster) -> io::Result<Option<(Duration, usize)>> {
    let since = Instant::now();
    let bootstrap = cluster.native_addresses();
    let client = Client::connect(&bootstrap, ClientOptions::default()).await.map_err(io::Error::other)?;
    let admin = client.admin();
    let away = cluster.nodes[AWAY].id.0;
    let mut by_snapshot = std::collections::BTreeSet::new();
    while since.elapsed() < CATCH_UP_MAX {
        let mut following = 0;
        // A node that does not answer now may answer the next time.
        for node in admin.cluster().await.map(|cluster| cluster.nodes).unwrap_or_default() {
            for replica in admin.replicas(&node).await.unwrap_or_default() {
                let follower = replica.followers.iter().find(|follower| follower.node == away);
                let is_clients = !replica.topic.is_empty() && replica.topic != COORDINATOR_TOPIC;
                let Some(follower) = follower.filter(|_| is_clients) else { continue };
                if follower.needs_snapshot {
                    by_snapshot.insert(replica.partition);
                } else if follower.reachable && follower.lag <= LAG_MAX {
                    following += 1;
                }
            }
        }
        if following == HEAVY.partitions {
            return Ok(Some((since.elapsed(), by_snapshot.len())));
        }
        sleep(PAUSE).await;
    }
    Ok(None)
}
