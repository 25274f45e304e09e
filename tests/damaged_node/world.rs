//! A cluster of three that somebody writes to all the time, and hands that damage files.

use crate::cluster::{Member, TestCluster, kcat, wait_for, wait_until};
use ackord::broker::Broker;
use ackord::broker::status::{ReplicaReport, Role};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub const TOPIC: &str = "t";

/// How a node's log begins to say what it has found in its write-ahead log.
const FINDING: &str = "found in the log";

/// Few coordinators, so that a test does not wait for fifty groups.
const LIMITS: &str = "\n[groups]\ncoordinators = 3\n";

pub fn produce(bootstrap: &str, lines: &str) {
    let arguments = ["-P", "-b", bootstrap, "-t", TOPIC, "-X", "message.timeout.ms=60000", "-E"];
    let (done, _, error) = kcat(&[&arguments[..], &["-X", "enable.idempotence=true"]].concat(), lines);
    assert!(done && !error.contains("Delivery failed"), "{error}");
}

pub fn consume(bootstrap: &str) -> String {
    let (done, read, error) = kcat(&["-C", "-b", bootstrap, "-t", TOPIC, "-o", "beginning", "-e", "-q"], "");
    assert!(done, "{error}");
    read
}

/// Three nodes, all of them registered, so that a topic has three replicas.
pub fn start_three() -> TestCluster {
    let cluster = TestCluster::start_with(3, LIMITS);
    let registered = |member: &Member| kcat(&["-L", "-b", &member.kafka.to_string()], "").1.contains("3 brokers:");
    wait_until(|| cluster.members.iter().all(registered));
    cluster
}

/// How all replicas of a running member stand.
pub fn replicas(cluster: &TestCluster, position: usize) -> Vec<ReplicaReport> {
    let Some(broker) = cluster.members[position].broker.as_ref() else { return Vec::new() };
    cluster.runtime.block_on(broker.replicas())
}

/// How a running member's replica of the topic's one partition stands.
pub fn replica(cluster: &TestCluster, position: usize) -> Option<ReplicaReport> {
    let of_topic =
        |replica: &ReplicaReport| replica.partition.as_ref().is_some_and(|(topic, _)| topic.as_str() == TOPIC);
    replicas(cluster, position).into_iter().find(of_topic)
}

/// The member that leads the topic's one partition.
pub fn leader(cluster: &TestCluster) -> Option<usize> {
    let leads = |replica: ReplicaReport| replica.role == Some(Role::Leader);
    (0..cluster.members.len()).find(|position| replica(cluster, *position).is_some_and(leads))
}

pub fn wait_for_leader(cluster: &TestCluster) -> usize {
    wait_for(|| leader(cluster))
}

/// Whether every replica of a running member takes part, and has a leader.
pub fn is_whole(cluster: &TestCluster, position: usize) -> bool {
    let replicas = replicas(cluster, position);
    let takes_part = |replica: &ReplicaReport| replica.quarantine.is_none() && replica.leader.is_some();
    replicas.len() > 4 && replicas.iter().all(takes_part)
}

/// Waits until every replica of a running member takes part; otherwise says how all stand.
pub fn wait_whole(cluster: &TestCluster, position: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_whole(cluster, position) {
        if Instant::now() >= deadline {
            let all: Vec<_> = (0..cluster.members.len()).map(|position| replicas(cluster, position)).collect();
            panic!("node {} does not become whole: {all:#?}", position + 1);
        }
    }
}

/// Replicas of a running member that were repaired since it started.
pub fn repaired(cluster: &TestCluster, position: usize) -> u64 {
    cluster.members[position].metric("ackord_repaired_replicas_total")
}

/// What a member has logged about its damage, after what it had logged `before`: findings of its log that are new, a
/// database that was set aside, quarantines, repairs.
pub fn said_of_damage(cluster: &TestCluster, position: usize, before: &str) -> Vec<String> {
    let log = cluster.members[position].log.text();
    let finding = |line: &str| line.split_once(FINDING).map(|(_, finding)| finding.to_owned());
    let known: BTreeSet<String> = before.lines().filter_map(finding).collect();
    let is_news = |line: &&str| match finding(line) {
        Some(finding) => !known.contains(&finding),
        None => ["was set aside", "replica quarantined", "replica repaired"].iter().any(|what| line.contains(what)),
    };
    log[before.len()..].lines().filter(is_news).map(str::to_owned).collect()
}

/// Somebody who writes numbered lines until told to stop.
pub struct Writer {
    /// Told to stop.
    stop: Arc<AtomicBool>,
    /// What was acknowledged.
    written: Arc<Mutex<String>>,
    /// Writes.
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Writes to whoever leads.
    pub fn start(bootstrap: &str) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(String::new())));
        let (stopped, all, bootstrap) = (Arc::clone(&stop), Arc::clone(&written), bootstrap.to_owned());
        let thread = thread::spawn(move || {
            for batch in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let line = |number: u32| format!("{batch} {number} {}\n", "z".repeat(1_000));
                let lines: String = (0..100).map(line).collect();
                produce(&bootstrap, &lines);
                all.lock().expect("the writer is alive").push_str(&lines);
            }
        });
        Self { stop, written, thread: Some(thread) }
    }

    /// Waits until something more was acknowledged.
    pub fn wait_for_more(&self) {
        let length = || self.written.lock().expect("the writer is alive").len();
        let before = length();
        wait_until(|| length() > before);
    }

    /// What was acknowledged, all of it.
    pub fn finish(mut self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is finished once").join().expect("everything was acknowledged");
        std::mem::take(&mut *self.written.lock().expect("the writer has ended"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A kind of damage.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Whether it is always tried, not only with `ACKORD_ALL_DAMAGE`.
    pub always: bool,
    /// Whether it needs the folder as it was some time before.
    pub needs_earlier: bool,
    /// Why a node may say nothing of it, if it may.
    pub excuse: Option<&'static str>,
    /// Does it, to the folder of the log or the database, and that folder as it was.
    pub damage: fn(&Path, &Path),
}

/// Those that are to be tried.
pub fn chosen(cases: &[Case]) -> impl Iterator<Item = &Case> {
    let all = std::env::var_os("ACKORD_ALL_DAMAGE").is_some_and(|value| value == "1");
    cases.iter().filter(move |case| all || case.always)
}

/// One node after the other is stopped, its folder damaged, and started again, while somebody writes. Each becomes
/// whole, and then takes part: another one is stopped, so that nothing can be acknowledged without it.
pub fn survive(cases: &[Case], folder: &str) {
    let mut cluster = start_three();
    let bootstrap = cluster.bootstrap();
    let padding = "x".repeat(90_000);
    let lines: String = (0..400).map(|number| format!("first {number} {padding}\n")).collect();
    produce(&bootstrap, &lines);
    let writer = Writer::start(&bootstrap);
    for (position, case) in (0..3).cycle().zip(chosen(cases)) {
        println!("{}, node {}", case.name, position + 1);
        let path = cluster.members[position].config.data_dir.join(folder);
        let earlier = tempfile::tempdir().expect("a directory");
        if case.needs_earlier {
            cluster.stop_node(position);
            copy(&path, earlier.path());
            cluster.start_node(position);
            wait_whole(&cluster, position);
            writer.wait_for_more();
        }
        cluster.stop_node(position);
        (case.damage)(&path, earlier.path());
        writer.wait_for_more();
        let before = cluster.members[position].log.text();
        cluster.start_node(position);
        wait_whole(&cluster, position);
        let mut said = said_of_damage(&cluster, position, &before);
        // What is found by and by in a database is no sign of damage to the log, nor the other way round.
        said.retain(|line| line.contains(FINDING) == (folder == "wal"));
        println!(
            "    {} replicas repaired; {} lines, such as {:?}",
            repaired(&cluster, position),
            said.len(),
            said.first()
        );
        match case.excuse {
            Some(excuse) if said.is_empty() => println!("    it said nothing: {excuse}"),
            _ => assert!(!said.is_empty(), "node {} has not said what happened: {}", position + 1, case.name),
        }
        let other = leader(&cluster).filter(|leader| *leader != position).unwrap_or((position + 1) % 3);
        cluster.stop_node(other);
        writer.wait_for_more();
        cluster.start_node(other);
        wait_whole(&cluster, other);
    }
    let expected = lines + &writer.finish();
    for position in 0..3 {
        cluster.stop_node(position);
        wait_for_leader(&cluster);
        assert!(consume(&bootstrap) == expected, "every record, in order, once, without node {}", position + 1);
        cluster.start_node(position);
        wait_whole(&cluster, position);
    }
}

pub fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort_unstable();
    files
}

pub fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the file is long enough");
    file.write_all_at(&[byte[0] ^ 4], at).expect("the file can be written");
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).expect("a file can be copied")),
        }
    }
}
