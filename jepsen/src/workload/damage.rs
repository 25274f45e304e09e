//! One node's files are damaged while it is down, in every way there is, under load. It must say what happened, be
//! repaired by the others, and count for a majority again: another node is killed afterwards, so that nothing is
//! acknowledged without it.

use super::{MODERATE, Moments, NODES, Options, format, start};
use crate::damage::{Damage, Earlier, inflict};
use crate::process::{Cluster, Setup};
use crate::report::{Report, Round};
use ackord::client::{Client, ClientOptions};
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fmt, io};
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
    // The next kind is the first that there is something for: those that there was nothing for come first next time.
    let mut kinds = VecDeque::from(Damage::ALL);
    let mut never: BTreeSet<&str> = Damage::ALL.map(Damage::name).into();
    let mut earlier: [Option<Earlier>; NODES] = [const { None }; NODES];
    for number in 1..=options.rounds {
        let victim = (number as usize - 1) % NODES;
        let mut round = Round::new("damage", number, std::iter::once(cluster.nodes[victim].id.0));
        let (mut notes, mut failures) = (Vec::new(), Vec::new());
        let strike = async |cluster: &mut Cluster| {
            cluster.kill(victim)?;
            let before = cluster.log(victim);
            let id = cluster.nodes[victim].id;
            let struck = inflict_next(&mut kinds, &data_dirs[victim], earlier[victim].take().as_ref())?;
            cluster.start(victim)?;
            match healed(cluster, victim).await? {
                Some(time) => notes.push(format!("whole after {} ms", time.as_millis())),
                None => failures.push(format!("node {id} was not healed in {HEALED_MAX:?}")),
            }
            let log = cluster.log(victim);
            let said = Said::of(&before, log.get(before.len()..).unwrap_or_default());
            repairs += said.repaired;
            match struck {
                Some((damage, what)) => {
                    never.remove(damage.name());
                    notes.push(format!("{} ({what}): {said}", damage.name()));
                    match damage.excuse() {
                        Some(excuse) if !said.tells_of(damage) => notes.push(format!("nobody met it: {excuse}")),
                        None if !said.tells_of(damage) => {
                            failures.push(format!("node {id} has not said what happened: {}", damage.name()));
                        }
                        _ => {}
                    }
                }
                None => failures.push(format!("there was nothing that could be damaged on node {id}")),
            }
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
        if number == options.rounds && options.rounds as usize >= Damage::ALL.len() && !never.is_empty() {
            round.failures.push(format!("kinds of damage that no round has had: {never:?}"));
        }
        if !report.goes_on_after(round, &mut progress) {
            break;
        }
    }
    Ok(report)
}

/// Inflicts the first of these kinds that there is something for, and puts it last; which, and what was done.
fn inflict_next(
    kinds: &mut VecDeque<Damage>,
    data_dir: &Path,
    earlier: Option<&Earlier>,
) -> io::Result<Option<(Damage, String)>> {
    for place in 0..kinds.len() {
        if let Some(what) = inflict(kinds[place], data_dir, earlier)? {
            let damage = kinds.remove(place).expect("it is one of them");
            kinds.push_back(damage);
            return Ok(Some((damage, what)));
        }
    }
    Ok(None)
}

/// What a node has said of its damage.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Findings of its log that it had not had before.
    findings: usize,
    /// Databases that it has set aside.
    set_aside: usize,
    /// Replicas that it has quarantined.
    quarantined: usize,
    /// Replicas that were repaired.
    repaired: usize,
}

impl Said {
    /// Sorts what a node's log says; what it said `before` is known. A torn turn is no damage: killing a process makes
    /// one.
    fn of(before: &str, log: &str) -> Self {
        let findings = |text: &str| -> BTreeSet<String> {
            let found = text.lines().filter_map(|line| line.split_once("found in the log").map(|(_, finding)| finding));
            found.filter(|finding| !finding.contains(" torn")).map(str::to_owned).collect()
        };
        let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        Self {
            findings: findings(log).difference(&findings(before)).count(),
            set_aside: count("the database is damaged and was set aside"),
            quarantined: count("replica quarantined"),
            repaired: count("replica repaired"),
        }
    }

    /// Whether that can be about this damage: a log has findings, and what is found by and by in a database is no sign
    /// of them.
    fn tells_of(&self, damage: Damage) -> bool {
        if damage.is_to_log() { self.findings > 0 } else { self.set_aside + self.quarantined + self.repaired > 0 }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { findings, set_aside, quarantined, repaired } = self;
        write!(
            formatter,
            "{findings} findings, {set_aside} databases set aside, {quarantined} quarantined, {repaired} repaired"
        )
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_and_what_a_kill_leaves_is_not_said_of_the_damage() {
        let old = "WARN found in the log finding=\"damage: segment 3 is missing\"\n";
        let torn = "WARN found in the log finding=\"turn 9 in segment 4 is torn; it is dropped\"\n";
        assert_eq!(Said::of(old, &format!("{old}{torn}INFO node started\n")), Said::default());
        let new = "WARN found in the log finding=\"damage: segment 5 is missing\"\nINFO replica repaired: it votes\n";
        assert_eq!(Said::of(old, &format!("{old}{new}")), Said { findings: 1, repaired: 1, ..Said::default() });
        let of_database = Said::of("", "INFO replica repaired: it votes\n");
        assert!(of_database.tells_of(Damage::StateGone) && !of_database.tells_of(Damage::LogBits));
    }
}
