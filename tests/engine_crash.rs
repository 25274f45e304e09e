//! A process killed while it writes, or whose disk takes no more: the database reopens at one batch, whole, at or after
//! the last flush.

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
        println!("wrote {n}");
        if n % 300 == 0 {
            engine.flush().unwrap();
            println!("flushed {n}");
        }
    }
}

#[test]
fn a_killed_process_leaves_a_whole_prefix_that_holds_what_was_flushed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut newest, mut beyond_flush) = (0, 0);
    for round in 1..=8u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Die at another moment of the work in every round, mostly when RocksDB has flushed something by itself.
        let dies_at = newest + round * 170;
        let (mut flushed, mut killed) = (newest, false);
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("flushed", n)) => flushed = n.parse().unwrap(),
                Some(("wrote", n)) if !killed && n.parse::<u64>().unwrap() >= dies_at => {
                    child.kill().unwrap();
                    killed = true;
                }
                _ => {}
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        newest = newest_batch(&open(directory.path()));
        assert!(newest >= flushed, "batch {flushed} was flushed, {newest} is the newest found");
        beyond_flush += u64::from(newest > flushed);
    }
    assert!(beyond_flush > 0, "RocksDB never flushed by itself: the test looks at nothing");
}

/// Not a test: runs with a limit on the size of files, which to RocksDB is a disk that fails.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child_meets_a_failing_disk() {
    let directory = std::env::var_os(DIRECTORY).expect("the parent names the directory");
    let engine = open(Path::new(&directory));
    let mut batches = (1u64..).map(|n| {
        let mut batch = WriteBatch::default();
        for family in [Family::Records, Family::Times, Family::Producers] {
            batch.put(family, key(n), vec![n as u8; length(family, n)]);
        }
        batch.put(Family::Meta, key(0), n.to_be_bytes().to_vec());
        batch
    });
    for batch in batches.by_ref().take(20) {
        engine.write(batch).unwrap();
    }
    engine.flush().unwrap();
    assert_eq!(engine.failure(), None);
    // No file may reach the size of this.
    for batch in batches.by_ref().take(80) {
        engine.write(batch).unwrap();
    }
    let first = engine.flush().unwrap_err().to_string();
    assert!(engine.failure().is_some());
    for _ in 0..3 {
        assert_eq!(engine.write(batches.next().unwrap()).unwrap_err().to_string(), first, "the first failure is final");
        assert_eq!(engine.flush().unwrap_err().to_string(), first);
    }
    assert_eq!(newest_batch(&engine), 100, "reads go on");
    println!("failed as it should");
    std::process::abort();
}

#[test]
fn a_failed_flush_is_final_until_the_database_is_reopened() {
    let directory = tempfile::tempdir().unwrap();
    // An ignored signal stays ignored in the program that the shell becomes: writes then fail instead of killing it.
    let output = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 600; exec \"$0\" --exact child_meets_a_failing_disk --ignored --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("failed as it should"), "{text}");
    let engine = open(directory.path());
    assert_eq!(newest_batch(&engine), 20, "exactly what was flushed");
    assert_eq!(engine.failure(), None);
}
