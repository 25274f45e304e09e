//! Power cuts under load: of one node, and of all three at once. What was not synced is gone.
//!
//! Its control runs the same with the log's syncs left out, and must find records lost: otherwise the cut cuts nothing.

use super::{MODERATE, Moments, NODES, Options, start, victims};
use crate::power::LoopDisk;
use crate::process::{Cluster, Setup};
use crate::report::{Report, Round};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a node without power stays away at most.
const DARK_MAX: Duration = Duration::from_millis(1_000);
/// How many nodes lose their power at once.
const KINDS: [(&str, usize); 2] = [("cut-one", 1), ("cut-all", 3)];

/// A cluster on disks of its own. Fields are dropped in their order: processes first, then what they use.
struct Machines {
    /// The nodes.
    cluster: Cluster,
    /// Their disks.
    disks: Vec<LoopDisk>,
}

impl Machines {
    fn set_up(folder: &Path, setup: Setup) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut disks = Vec::new();
        for node in 1..=NODES {
            disks.push(LoopDisk::create(folder, &format!("node{node}"))?);
        }
        let data_dirs: Vec<_> = disks.iter().map(|disk| disk.path().join("data")).collect();
        Ok(Self { cluster: Cluster::format(folder, &data_dirs, setup)?, disks })
    }
}

/// Runs every round of every kind. `progress` is told of each round.
pub async fn run(options: &Options, mut progress: impl FnMut(&Round)) -> io::Result<Report> {
    let mut report = Report::default();
    for (fault, count) in KINDS {
        let mut machines = Machines::set_up(&options.folder.join(fault), Setup::new(options.binary.clone()))?;
        let mut topic = start(&mut machines.cluster, MODERATE).await?;
        for number in 1..=options.rounds {
            let victims = victims(number, count);
            let Machines { cluster, disks } = &mut machines;
            let mut round = Round::new(fault, number, victims.iter().map(|victim| cluster.nodes[*victim].id.0));
            let strike = async |cluster: &mut Cluster| strike(cluster, disks, &victims).await;
            super::round((cluster, &mut topic), options.records, &mut round, strike).await?;
            if !report.goes_on_after(round, &mut progress) {
                break;
            }
        }
    }
    Ok(report)
}

/// The control: the log is not synced, and all nodes lose their power. The report must have lost records.
pub async fn control(options: &Options, mut progress: impl FnMut(&Round)) -> io::Result<Report> {
    let mut report = Report::default();
    for number in 1..=options.rounds {
        let environment = vec![("ACKORD_UNSAFE_NO_SYNC".to_owned(), "1".to_owned())];
        let setup = Setup { environment, ..Setup::new(options.binary.clone()) };
        let mut machines = Machines::set_up(&options.folder.join(format!("control-{number}")), setup)?;
        let mut topic = start(&mut machines.cluster, MODERATE).await?;
        // The topic outlives the cut: what is to be lost are records.
        machines.disks.iter().try_for_each(LoopDisk::settle)?;
        let victims: Vec<usize> = (0..NODES).collect();
        let Machines { cluster, disks } = &mut machines;
        let mut round = Round::new("control", number, cluster.nodes.iter().map(|node| node.id.0));
        let strike = async |cluster: &mut Cluster| strike(cluster, disks, &victims).await;
        super::round((cluster, &mut topic), options.records, &mut round, strike).await?;
        progress(&round);
        report.rounds.push(round);
    }
    Ok(report)
}

/// Cuts the power of these nodes at once, and gives it back to one after the other.
async fn strike(cluster: &mut Cluster, disks: &mut [LoopDisk], victims: &[usize]) -> io::Result<Moments> {
    let fault = Instant::now();
    for victim in victims {
        disks[*victim].cut()?;
    }
    for victim in victims {
        cluster.kill(*victim)?;
    }
    let mut alive = NODES - victims.len();
    let mut majority = (alive * 2 > NODES).then_some(fault);
    sleep(DARK_MAX.mul_f64(fastrand::f64())).await;
    for victim in victims {
        disks[*victim].unmount()?;
        disks[*victim].mount()?;
    }
    for victim in victims {
        cluster.start(*victim)?;
        alive += 1;
        if majority.is_none() && alive * 2 > NODES {
            majority = Some(Instant::now());
        }
        sleep(DARK_MAX.mul_f64(fastrand::f64() / 4.0)).await;
    }
    Ok(Moments { fault, majority: majority.expect("every node has been started") })
}
