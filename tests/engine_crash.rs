//! A process killed while it writes: the database reopens at one batch, whole, at or after the last flush.

use ackord::storage::rocks::{RocksEngine, RocksOptions};
use ackord::storage::{Engine, Family, WriteBatch};
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};

const DIRECTORY: &str = "ACKORD_TEST_ENGINE_DIRECTORY";

/// Small memtables, so that RocksDB also flushes by itself, in the middle of everything.
fn open(directory: &Path) -> RocksEngine {
    RocksEngine::open(directory, RocksOptions { write_buffer_bytes: 4 << 20, ..RocksOptions::default() }).unwrap()
}

fn key(n: u64) -> Vec<u8> {
    [1, 1, n].into_iter().flat_map(u64::to_be_bytes).collect()
}

/// The newest batch, after checking that all before it are there, whole, and nothing of a later one.
fn newest_batch(engine: &RocksEngine) -> u64 {
    let newest = engine.get(Family::Meta, &key(0)).unwrap();
    let newest = newest.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()));
    for family in [Family::Records, Family::Times, Family::Producers] {
        let mut expected = 0;
        engine
            .scan(family, &key(0), &key(u64::MAX), &mut |found, value| {
                expected += 1;
                assert_eq!((found, value.len()), (&key(expected)[..], length(family, expected)));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(expected, newest, "{family:?} disagrees with the batch that was written with it");
    }
    newest
}

fn length(family: Family, n: u64) -> usize {
    if family == Family::Records { 1_000 + (n % 7) as usize * 3_000 } else { 40 }
}

/// Not a test: what the killed process runs.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child_writes_until_it_is_killed() {
    let directory = std::env::var_os(DIRECTORY).expect("the parent names the directory");
    let engine = open(Path::new(&directory));
    let from = newest_batch(&engine);
    for n in from + 1.. {
        let mut batch = WriteBatch::default();
        for family in [Family::Records, Family::Times, Family::Producers] {
            batch.put(family, key(n), vec![n as u8; length(family, n)]);
        }
        batch.put(Family::Meta, key(0), n.to_be_bytes().to_vec());
        engine.write(batch).unwrap();
        if n % 300 == 0 {
            engine.flush().unwrap();
            println!("flushed {n}");
        }
    }
}

#[test]
fn a_killed_process_leaves_a_whole_prefix_that_holds_what_was_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let mut beyond_flush = 0;
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut flushed =
            lines.map_while(|line| line.ok()?.strip_prefix("flushed ").map_or(Some(0), |n| n.parse().ok()));
        // Die at another moment of the work in every round.
        let at_death: u64 = flushed.by_ref().filter(|n| *n > 0).nth(round as usize * 2).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let last_flush = flushed.max().unwrap_or(0).max(at_death);
        let newest = newest_batch(&open(directory.path()));
        assert!(newest >= last_flush, "batch {last_flush} was flushed, {newest} is the newest found");
        beyond_flush += u64::from(newest > last_flush);
    }
    println!("{beyond_flush} of 6 rounds kept more than the last flush");
}
