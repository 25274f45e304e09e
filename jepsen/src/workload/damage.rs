//! One node's files are damaged while it is down, in every way there is, under load. It must say what happened, be
//! repaired by the others, and count for a majority again: another node is killed afterwards, so that nothing is
//! acknowledged without it.

use super::{MODERATE, Moments, NODES, Options, format, start};
use crate::damage::{Damage, Earlier, inflict};
use crate::process::{Cluster, Setup};
use crate::report::{Report, Round};
use ackord::client::{Client, ClientOptions};
use std::io;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a node may take until nothing of it is quarantined any more.
const HEALED_MAX: Duration = Duration::from_secs(60);
/// How long to wait before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long another node stays dead afterwards.
const DOWN: Duration = Duration::from_millis(1_500);

/// Runs every round, all of them on one cluster, each node in its turn. `progress` is told of each.
pub async fn run(options: &Options, mut progress: impl FnMut(&Round)) -> io::Result<Report> {
    let folder = options.folder.join("damage");
    let (mut cluster, data_dirs) = format(&folder, Setup::new(options.binary.clone()))?;
    let mut topic = start(&mut cluster, MODERATE).await?;
    let mut report = Report::default();
    let mut repairs = 0;
    let mut earlier: [Option<Earlier>; NODES] = [const { None }; NODES];
    for number in 1..=options.rounds {
        let place = number as usize - 1;
        let (damage, victim) = (Damage::ALL[place % Damage::ALL.len()], place % NODES);
        let mut round = Round::new("damage", number, std::iter::once(cluster.nodes[victim].id.0));
        let kept = folder.join(format!("earlier{}", victim + 1));
        let (mut notes, mut failures) = (Vec::new(), Vec::new());
        let strike = async |cluster: &mut Cluster| {
            cluster.kill(victim)?;
            let said_before = cluster.log(victim).len();
            let data_dir = &data_dirs[victim];
            let old = earlier[victim].take();
            let what = inflict(damage, data_dir, old.as_ref())?;
            notes.push(format!("{} ({})", damage.name(), what.as_deref().unwrap_or("nothing to damage yet")));
            if what.is_none() {
                earlier[victim] = Some(Earlier::keep(data_dir, &kept)?);
            }
            cluster.start(victim)?;
            match healed(cluster, victim).await? {
                Some(time) => notes.push(format!("whole after {} ms", time.as_millis())),
                None => failures.push(format!("node {} was not healed in {HEALED_MAX:?}", cluster.nodes[victim].id)),
            }
            let log = cluster.log(victim);
            let said = log.get(said_before..).unwrap_or_default();
            let count = |what: &str| said.lines().filter(|line| line.contains(what)).count();
            let (quarantined, repaired) = (count("replica quarantined"), count("replica repaired"));
            repairs += repaired;
            notes.push(format!("{quarantined} quarantined, {repaired} repaired"));
            // What comes back is in the majority that acknowledges from now on.
            let other = (victim + 1) % NODES;
            let fault = Instant::now();
            cluster.kill(other)?;
            sleep(DOWN).await;
            earlier[other] = Some(Earlier::keep(&data_dirs[other], &folder.join(format!("earlier{}", other + 1)))?);
            cluster.start(other)?;
            Ok(Moments { fault, majority: fault })
        };
        super::round((&mut cluster, &mut topic), options.records, &mut round, strike).await?;
        round.notes.append(&mut notes);
        round.failures.append(&mut failures);
        if number == options.rounds && repairs == 0 {
            round.failures.push("no replica was repaired in any round: the damage has shown nothing".to_owned());
        }
        if !report.goes_on_after(round, &mut progress) {
            break;
        }
    }
    Ok(report)
}

/// Waits until a node answers and has no quarantined replica; how long that took.
async fn healed(cluster: &Cluster, victim: usize) -> io::Result<Option<Duration>> {
    let since = Instant::now();
    let own = cluster.native_addresses().swap_remove(victim);
    while since.elapsed() < HEALED_MAX {
        sleep(PAUSE).await;
        let Ok(client) = Client::connect(std::slice::from_ref(&own), ClientOptions::default()).await else { continue };
        let admin = client.admin();
        let Ok(known) = admin.cluster().await else { continue };
        let Some(node) = known.nodes.iter().find(|node| node.node == cluster.nodes[victim].id.0) else { continue };
        let Ok(replicas) = admin.replicas(node).await else { continue };
        if !replicas.is_empty() && replicas.iter().all(|replica| replica.quarantine.is_empty()) {
            return Ok(Some(since.elapsed()));
        }
    }
    Ok(None)
}
