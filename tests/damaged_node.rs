//! The rows of the damage table that a whole node has to act on, over real files: a damaged state machine under an
//! intact log, and a leader that can't read its log. (The log's own rows are in `tests/wal_damage.rs`.)

#[path = "support/cluster.rs"]
mod cluster;

use ackord::broker::Broker;
use ackord::broker::status::{ReplicaReport, Role};
use ackord::config::Config;
use ackord::server::data;
use ackord::storage::rocks::{RocksEngine, RocksOptions};
use ackord::storage::{Engine, EngineError, Family, WriteBatch};
use ackord::types::RaftGroupId;
use bytes::Bytes;
use cluster::{Member, TestCluster, kcat, wait_until};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const TOPIC: &str = "t";

fn produce(bootstrap: &str, lines: &str) {
    let arguments = ["-P", "-b", bootstrap, "-t", TOPIC, "-X", "message.timeout.ms=30000", "-E"];
    let (done, _, error) = kcat(&arguments, lines);
    assert!(done && !error.contains("Delivery failed"), "{error}");
}

fn consume(bootstrap: &str) -> String {
    let (done, read, error) = kcat(&["-C", "-b", bootstrap, "-t", TOPIC, "-o", "beginning", "-e", "-q"], "");
    assert!(done, "{error}");
    read
}

/// Three nodes, all of them registered, so that a topic has three replicas.
fn start_three() -> TestCluster {
    let cluster = TestCluster::start(3);
    let registered = |member: &Member| kcat(&["-L", "-b", &member.kafka.to_string()], "").1.contains("3 brokers:");
    wait_until(|| cluster.members.iter().all(registered));
    cluster
}

/// How a running member's replica of the topic's one partition stands.
fn replica(cluster: &TestCluster, position: usize) -> Option<ReplicaReport> {
    let broker = cluster.members[position].broker.as_ref()?;
    let replicas = cluster.runtime.block_on(broker.replicas());
    replicas.into_iter().find(|replica| replica.partition.as_ref().is_some_and(|(topic, _)| topic.as_str() == TOPIC))
}

fn quarantine(cluster: &TestCluster, position: usize) -> Option<String> {
    replica(cluster, position)?.quarantine
}

/// All groups that a running member has quarantined.
fn quarantined(cluster: &TestCluster, position: usize) -> Vec<RaftGroupId> {
    let broker = cluster.members[position].broker.as_ref().expect("it runs");
    let replicas = cluster.runtime.block_on(broker.replicas());
    replicas.iter().filter(|replica| replica.quarantine.is_some()).map(|replica| replica.group).collect()
}

/// The member that leads the topic's one partition.
fn leader(cluster: &TestCluster) -> Option<usize> {
    let leads = |replica: ReplicaReport| replica.role == Some(Role::Leader);
    (0..cluster.members.len()).find(|position| replica(cluster, *position).is_some_and(leads))
}

fn wait_for_leader(cluster: &TestCluster) -> usize {
    wait_until(|| leader(cluster).is_some());
    leader(cluster).expect("just seen")
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort_unstable();
    files
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the file is long enough");
    file.write_all_at(&[byte[0] ^ 4], at).expect("the file can be written");
}

#[test]
fn a_leader_that_cannot_read_its_log_steps_down_and_no_record_is_missing() {
    let mut cluster = start_three();
    let bootstrap = cluster.bootstrap();
    produce(&bootstrap, "first\n");
    let led = wait_for_leader(&cluster);
    let away = (led + 1) % 3;
    cluster.stop_node(away);
    // More than a group keeps in memory, so that what the third one lacks has to be read.
    let lines: String = (0..120).map(|number| format!("record {number:03} {}\n", "x".repeat(100_000))).collect();
    produce(&bootstrap, &lines);
    assert_eq!(leader(&cluster), Some(led), "two of three keep their leader");

    let wal = cluster.members[led].config.data_dir.join("wal");
    let mut hit = 0;
    for segment in files(&wal, "wal") {
        let bytes = fs::read(&segment).expect("readable");
        for at in bytes.windows(10).enumerate().filter(|(_, bytes)| bytes == b"record 007").map(|(at, _)| at) {
            flip(&segment, at as u64 + 5_000);
            hit += 1;
        }
    }
    assert_eq!(hit, 1, "the record is in the leader's log once");
    cluster.start_node(away);
    wait_until(|| quarantine(&cluster, led).is_some());
    let reason = quarantine(&cluster, led).expect("just seen");
    assert!(reason.contains("damaged"), "{reason}");
    wait_until(|| leader(&cluster).is_some_and(|position| position != led));
    produce(&bootstrap, "last\n");
    let expected = format!("first\n{lines}last\n");
    assert!(consume(&bootstrap) == expected, "every record, in order");
    // The two others are a majority, and one of them has just been given everything.
    cluster.stop_node(led);
    wait_until(|| leader(&cluster).is_some());
    assert!(consume(&bootstrap) == expected, "every record, in order, without the damaged node");
}

#[test]
fn a_damaged_state_machine_is_quarantined_and_the_others_go_on() {
    let mut cluster = start_three();
    let bootstrap = cluster.bootstrap();
    let lines: String = (0..100).map(|number| format!("record {number}\n")).collect();
    produce(&bootstrap, &lines);
    let led = wait_for_leader(&cluster);
    let group = replica(&cluster, led).expect("it leads").group;
    let position_row = [&group.0.to_be_bytes()[..], &[0]].concat();
    for (damaged, value) in [(0, None), (1, Some(Bytes::from_static(b"no row of ours")))] {
        cluster.stop_node(damaged);
        let [state, wal] = ["state", "wal"].map(|folder| cluster.members[damaged].config.data_dir.join(folder));
        let segments = files(&wal, "wal").len();
        let whole = exchange(&state, &position_row, value);
        assert!(whole.is_some(), "the partition has a position");
        cluster.start_node(damaged);
        wait_until(|| quarantine(&cluster, damaged).is_some());
        assert_eq!(quarantined(&cluster, damaged), [group], "other groups take part");
        produce(&bootstrap, &format!("with {damaged} damaged\n"));
        assert!(leader(&cluster).is_some_and(|position| position != damaged));
        assert!(consume(&bootstrap).ends_with(&format!("with {damaged} damaged\n")), "the others serve it");
        cluster.stop_node(damaged);
        assert!(files(&wal, "wal").len() >= segments, "nothing of the log is given up");
        exchange(&state, &position_row, whole);
        cluster.start_node(damaged);
        wait_until(|| leader(&cluster).is_some());
        assert_eq!(quarantine(&cluster, damaged), None, "with its row back it is whole");
    }
    assert!(consume(&bootstrap).starts_with(&lines));
}

/// Puts another value into a row of a stopped node's database, or none. Returns the old one.
fn exchange(state: &Path, key: &[u8], value: Option<Bytes>) -> Option<Bytes> {
    let engine = RocksEngine::open(state, RocksOptions::default()).expect("the database opens");
    let before = engine.get(Family::Meta, key).expect("readable");
    let mut batch = WriteBatch::default();
    match value {
        Some(value) => batch.put(Family::Meta, key.to_vec(), value),
        None => batch.delete(Family::Meta, key.to_vec()),
    }
    engine.write(batch).and_then(|()| engine.flush()).expect("written");
    before
}

/// All rows of the families that partitions use.
type Rows = BTreeMap<(String, Vec<u8>), Vec<u8>>;

fn rows(engine: &impl Engine) -> Result<Rows, EngineError> {
    let mut rows = Rows::new();
    for family in [Family::Records, Family::Times, Family::Producers, Family::Meta] {
        engine.scan(family, &[], &[0xff; 32], &mut |key, value| {
            rows.insert((format!("{family:?}"), key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        })?;
    }
    Ok(rows)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).expect("a file can be copied")),
        }
    }
}

#[test]
fn a_flipped_bit_in_the_database_is_never_served() {
    let mut cluster = TestCluster::start(1);
    let lines: String = (0..400).map(|number| format!("record {number} {}\n", "y".repeat(100))).collect();
    produce(&cluster.bootstrap(), &lines);
    cluster.stop_node(0);
    let config = &cluster.members[0].config;
    let whole = rows(&data::open(config).expect("it opens").engine).expect("readable");
    let (mut refused, mut quarantined, mut unreadable, mut harmless) = (0, 0, 0, 0);
    for table in files(&config.data_dir.join("state"), "sst") {
        let length = fs::metadata(&table).expect("there").len();
        for eighth in 0..8 {
            let here = tempfile::tempdir().expect("a directory");
            copy(&config.data_dir, here.path());
            let at = (length * eighth / 8 + 11).min(length - 1);
            flip(&here.path().join("state").join(table.file_name().expect("a name")), at);
            let damaged = Config { data_dir: here.path().to_owned(), ..config.clone() };
            match data::open(&damaged) {
                Err(_) => refused += 1,
                Ok(opened) if opened.starts.iter().any(|start| start.recovery.damage.is_some()) => quarantined += 1,
                Ok(opened) => match rows(&opened.engine) {
                    Err(_) => unreadable += 1,
                    Ok(found) => {
                        assert!(found == whole, "{} at {at}: other rows than were written", table.display());
                        harmless += 1;
                    }
                },
            }
        }
    }
    let noticed = refused + quarantined + unreadable;
    assert!(
        noticed > harmless,
        "{refused} refused, {quarantined} quarantined, {unreadable} unreadable, {harmless} not"
    );
}
