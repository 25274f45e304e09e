//! Damage to the database of state machines, under a log that is whole.

use crate::cluster::{TestCluster, wait_until};
use crate::world::*;
use ackord::config::Config;
use ackord::server::data;
use ackord::storage::rocks::{RocksEngine, RocksOptions};
use ackord::storage::{Engine, EngineError, Family, WriteBatch};
use ackord::types::{CONTROLLER_GROUP, RaftGroupId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn manifest(state: &Path) -> PathBuf {
    let paths = fs::read_dir(state).expect("a directory").map(|entry| entry.expect("an entry").path());
    let is_manifest =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("MANIFEST-"));
    paths.filter(is_manifest).max().expect("a database has one")
}

fn tables(state: &Path) -> Vec<PathBuf> {
    let tables = files(state, "sst");
    assert!(!tables.is_empty(), "a stopped node has written its tables");
    tables
}

const CASES: &[Case] = &[
    Case {
        name: "flipped bits in the middle of every table",
        always: true,
        needs_earlier: false,
        excuse: None,
        damage: |state, _| {
            for table in tables(state) {
                flip(&table, fs::metadata(&table).expect("there").len() / 2);
            }
        },
    },
    Case {
        name: "flipped bits at the end of every table",
        always: false,
        needs_earlier: false,
        excuse: None,
        damage: |state, _| {
            for table in tables(state) {
                flip(&table, fs::metadata(&table).expect("there").len() - 30);
            }
        },
    },
    Case {
        name: "the first table deleted",
        always: false,
        needs_earlier: false,
        excuse: None,
        damage: |state, _| fs::remove_file(&tables(state)[0]).expect("it can be deleted"),
    },
    Case {
        name: "a truncated manifest",
        always: false,
        needs_earlier: false,
        excuse: None,
        damage: |state, _| {
            let path = manifest(state);
            let file = OpenOptions::new().write(true).open(&path).expect("the file is there");
            file.set_len(fs::metadata(&path).expect("there").len() / 2).expect("it can be cut");
        },
    },
    Case {
        name: "no CURRENT",
        always: false,
        needs_earlier: false,
        excuse: None,
        damage: |state, _| fs::remove_file(state.join("CURRENT")).expect("it can be deleted"),
    },
    Case {
        name: "no database",
        always: true,
        needs_earlier: false,
        excuse: None,
        damage: |state, _| fs::remove_dir_all(state).expect("it can be deleted"),
    },
    Case {
        name: "an older database",
        always: false,
        needs_earlier: true,
        excuse: Some("the log reaches back far enough to make it new again"),
        damage: |state, earlier| {
            fs::remove_dir_all(state).expect("it can be deleted");
            copy(earlier, state);
        },
    },
];

#[test]
fn a_damaged_database_is_repaired_while_the_others_go_on() {
    survive(CASES, "state");
}

/// Puts another value into a row of a stopped node's database, or none.
fn exchange(state: &Path, family: Family, key: &[u8], value: Option<Bytes>) {
    let engine = RocksEngine::open(state, RocksOptions::default()).expect("the database opens");
    assert!(engine.get(family, key).expect("readable").is_some(), "there is such a row");
    let mut batch = WriteBatch::default();
    match value {
        Some(value) => batch.put(family, key.to_vec(), value),
        None => batch.delete(family, key.to_vec()),
    }
    engine.write(batch).and_then(|()| engine.flush()).expect("written");
}

/// The newest row of a group in a family.
fn last_row(state: &Path, family: Family, group: RaftGroupId) -> Vec<u8> {
    let engine = RocksEngine::open(state, RocksOptions::default()).expect("the database opens");
    let (from, to) = (group.0.to_be_bytes(), RaftGroupId(group.0 + 1).0.to_be_bytes());
    engine.last_at_or_before(family, &from, &to).expect("readable").expect("a row").0
}

/// Damages a row of a stopped node, and waits until the node is whole again and takes part.
fn survive_row(cluster: &mut TestCluster, position: usize, family: Family, key: &[u8], value: Option<Bytes>) {
    let state = cluster.members[position].config.data_dir.join("state");
    exchange(&state, family, key, value);
    let name = format!("node {}, {family:?} {key:02x?}", position + 1);
    println!("{name}");
    cluster.start_node(position);
    wait_until(|| is_whole(cluster, position));
    assert_eq!(repaired(cluster, position), 1, "{name}: its group, and no other");
    let bootstrap = cluster.bootstrap();
    let other = (position + 1) % 3;
    cluster.stop_node(other);
    wait_for_leader(cluster);
    produce(&bootstrap, &format!("{name}\n"));
    assert!(consume(&bootstrap).ends_with(&format!("{name}\n")), "two of three serve it");
    cluster.start_node(other);
    wait_until(|| is_whole(cluster, other));
}

#[test]
fn damaged_rows_concern_their_group_and_are_replaced() {
    let mut cluster = start_three();
    let bootstrap = cluster.bootstrap();
    let lines: String = (0..100).map(|number| format!("record {number}\n")).collect();
    produce(&bootstrap, &lines);
    let led = wait_for_leader(&cluster);
    let group = replica(&cluster, led).expect("it leads").group;
    let row = |kind: u8| [&group.0.to_be_bytes()[..], &[kind]].concat();
    let nonsense = || Some(Bytes::from_static(b"no row of ours"));
    cluster.stop_node(0);
    survive_row(&mut cluster, 0, Family::Meta, &row(0), nonsense());
    cluster.stop_node(1);
    survive_row(&mut cluster, 1, Family::Meta, &row(1), None);
    cluster.stop_node(2);
    let last = last_row(&cluster.members[2].config.data_dir.join("state"), Family::Records, group);
    survive_row(&mut cluster, 2, Family::Records, &last, None);
    assert!(consume(&bootstrap).starts_with(&lines));
}

#[test]
fn a_damaged_controller_is_repaired_by_its_peers() {
    let mut cluster = start_three();
    let bootstrap = cluster.bootstrap();
    produce(&bootstrap, "first\n");
    (0..3).for_each(|position| cluster.stop_node(position));
    let state = cluster.members[0].config.data_dir.join("state");
    exchange(&state, Family::Meta, &CONTROLLER_GROUP.0.to_be_bytes(), Some(Bytes::from_static(b"no row of ours")));
    cluster.start_node(0);
    let controller = |cluster: &TestCluster| {
        replicas(cluster, 0).into_iter().find(|replica| replica.group == CONTROLLER_GROUP).expect("it is hosted")
    };
    wait_until(|| controller(&cluster).repair.is_some_and(|step| step.starts_with("asking for a state")));
    assert!(controller(&cluster).quarantine.is_some());
    cluster.start_node(1);
    cluster.start_node(2);
    wait_until(|| is_whole(&cluster, 0));
    assert_eq!(repaired(&cluster, 0), 1);
    cluster.stop_node(1);
    wait_for_leader(&cluster);
    produce(&bootstrap, "second\n");
    assert_eq!(consume(&bootstrap), "first\nsecond\n");
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

#[test]
fn a_flipped_bit_in_the_database_is_never_served() {
    let mut cluster = TestCluster::start(1);
    let lines: String = (0..400).map(|number| format!("record {number} {}\n", "y".repeat(100))).collect();
    produce(&cluster.bootstrap(), &lines);
    cluster.stop_node(0);
    let config = &cluster.members[0].config;
    let whole = rows(&data::open(config).expect("it opens").engine).expect("readable");
    let (mut set_aside, mut quarantined, mut unreadable, mut harmless) = (0, 0, 0, 0);
    for table in files(&config.data_dir.join("state"), "sst") {
        let length = fs::metadata(&table).expect("there").len();
        for eighth in 0..8 {
            let here = tempfile::tempdir().expect("a directory");
            copy(&config.data_dir, here.path());
            let at = (length * eighth / 8 + 11).min(length - 1);
            flip(&here.path().join("state").join(table.file_name().expect("a name")), at);
            let damaged = Config { data_dir: here.path().to_owned(), ..config.clone() };
            let opened = data::open(&damaged).expect("damage is no reason not to start");
            if here.path().join("state.damaged-1").exists() {
                set_aside += 1;
            } else if opened.starts.iter().any(|start| start.state_damage.is_some()) {
                quarantined += 1;
            } else {
                match rows(&opened.engine) {
                    Err(error) => {
                        assert!(error.damage, "{error}");
                        unreadable += 1;
                    }
                    Ok(found) => {
                        assert!(found == whole, "{} at {at}: other rows than were written", table.display());
                        harmless += 1;
                    }
                }
            }
        }
    }
    let noticed = set_aside + quarantined + unreadable;
    assert!(
        noticed > harmless,
        "{set_aside} set aside, {quarantined} quarantined, {unreadable} unreadable, {harmless} not"
    );
}
