//! Three nodes in one thread, crashed at every kind of effect, over a thousand seeds: every acknowledged record must be
//! there, at its offset, once. `ACKORD_SEED=n` runs one seed and prints what happened; `ACKORD_SEEDS=n` runs more.

use ackord::sim::cluster::effects::{CrashPoint, Kind};
use ackord::sim::cluster::{Cluster, Report, Sabotage, Scenario};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Runs one seed; a failure says how to repeat it.
fn run(scenario: Scenario) -> Report {
    let (seed, test) = (scenario.seed, if scenario.coordinators > 0 { "consumer_groups" } else { "acknowledged" });
    catch_unwind(AssertUnwindSafe(|| Cluster::new(scenario).run())).unwrap_or_else(|_| {
        panic!("repeat with: ACKORD_SEED={seed} cargo test --test second_driver {test} -- --nocapture")
    })
}

#[test]
fn acknowledged_records_survive_crashes() {
    if let Some(seed) = number("ACKORD_SEED") {
        run(Scenario { trace: Some(|line| println!("{line}")), ..Scenario::of_seed(seed) });
        return;
    }
    let (mut acknowledged, mut reads, mut trims, mut crashes) = (0, 0, 0, BTreeMap::new());
    for seed in 0..number("ACKORD_SEEDS").unwrap_or(1_000) {
        let report = run(Scenario::of_seed(seed));
        acknowledged += report.acknowledged;
        reads += report.reads;
        trims += report.trims;
        for (point, count) in report.crashes {
            *crashes.entry(point).or_insert(0) += count;
        }
    }
    println!("{acknowledged} records acknowledged, {reads} reads served, {trims} trims, crashes: {crashes:?}");
    assert!(trims > 0, "no log start was moved: the test lost its teeth");
    for kind in Kind::ALL {
        for point in [CrashPoint::Before(kind), CrashPoint::After(kind)] {
            assert!(crashes.contains_key(&point), "no node crashed at {point:?}: the test lost its teeth");
        }
    }
    for point in [CrashPoint::During(Kind::Append), CrashPoint::Send, CrashPoint::Reply] {
        assert!(crashes.contains_key(&point), "no node crashed at {point:?}: the test lost its teeth");
    }
}

/// The scenario of a seed with consumer groups: a coordinator beside a partition, and a log so short that whoever was
/// away gets a snapshot.
fn with_consumers(seed: u64) -> Scenario {
    let flush_after_bytes = if seed % 2 == 1 { 120_000 } else { 30_000 };
    Scenario { seed, groups: 1, coordinators: 1, flush_after_bytes, ..Scenario::of_seed(1) }
}

/// Consumer groups under crashes at every kind of effect: one owner of a partition in a generation, generations never
/// go back, and no stored offset is lost. `ACKORD_SEED` and `ACKORD_SEEDS` as above.
#[test]
fn consumer_groups_survive_crashes() {
    if let Some(seed) = number("ACKORD_SEED") {
        run(Scenario { trace: Some(|line| println!("{line}")), ..with_consumers(seed) });
        return;
    }
    let (mut counts, mut crashes) = ([0; 3], BTreeMap::new());
    for seed in 0..number("ACKORD_SEEDS").unwrap_or(1_000) {
        let report = run(with_consumers(seed));
        counts.iter_mut().zip(report.consumers).for_each(|(sum, count)| *sum += count);
        for (point, count) in report.crashes {
            *crashes.entry(point).or_insert(0) += count;
        }
    }
    let [shares, stored, reads] = counts;
    println!("{shares} shares given, {stored} offsets acknowledged, {reads} reads of offsets, crashes: {crashes:?}");
    assert!(shares > 300 && stored > 300 && reads > 300, "the consumers did nothing worth a test");
    for kind in [Kind::Append, Kind::Apply, Kind::Flush, Kind::Install] {
        for point in [CrashPoint::Before(kind), CrashPoint::After(kind)] {
            assert!(crashes.contains_key(&point), "no node crashed at {point:?}: the test lost its teeth");
        }
    }
}

/// A harness that cannot fail proves nothing: each promise broken on purpose must be noticed within a few seeds.
#[test]
fn broken_promises_are_noticed() {
    let controls = [
        ("a disk that does not sync", Sabotage { sync_nothing: true, ..Sabotage::default() }),
        ("votes that are not written", Sabotage { forget_votes: true, ..Sabotage::default() }),
        ("files dropped before a log start is durable", Sabotage { reclaim_unflushed: true, ..Sabotage::default() }),
        ("a trim that takes too much", Sabotage { trim_too_much: true, ..Sabotage::default() }),
        ("a log freed before the state is flushed", Sabotage { release_unflushed: true, ..Sabotage::default() }),
    ];
    for (name, sabotage) in controls {
        let noticed = (0..300).any(|seed| {
            let scenario = Scenario { sabotage, crash_one_in: 60, ..Scenario::of_seed(seed) };
            catch_unwind(AssertUnwindSafe(|| Cluster::new(scenario).run())).is_err()
        });
        assert!(noticed, "{name}: 300 seeds passed, so the harness would not notice the real thing either");
    }
}

#[test]
fn broken_promises_to_consumer_groups_are_noticed() {
    let controls = [
        (
            ["was acknowledged", "the replicas differ"],
            Sabotage { snapshots_without_offsets: true, ..Sabotage::default() },
        ),
        (["has two owners"; 2], Sabotage { assignments_uncommitted: true, ..Sabotage::default() }),
    ];
    for (complaints, sabotage) in controls {
        assert_noticed(&complaints, |seed| Scenario { sabotage, ..with_consumers(seed) });
    }
}

/// Some seed fails with one of these complaints, and none before it with another.
fn assert_noticed(complaints: &[&str], scenario: impl Fn(u64) -> Scenario) {
    let failure = |seed| {
        let failed = catch_unwind(AssertUnwindSafe(|| Cluster::new(scenario(seed)).run())).err()?;
        failed.downcast_ref::<String>().cloned().or_else(|| Some("?".to_owned()))
    };
    match (0..300).find_map(failure) {
        Some(message) => {
            let expected = complaints.iter().any(|complaint| message.contains(complaint));
            assert!(expected, "another complaint than {complaints:?}: {message}");
        }
        None => panic!("{complaints:?}: 300 seeds passed, so the harness would not notice the real thing either"),
    }
}

/// One seed is one history, in any process: nothing depends on addresses, hash seeds or time.
#[test]
fn same_seed_same_trace_in_two_processes() {
    const CHILD: &str = "ACKORD_TRACE_OF_SEED";
    if let Some(seed) = number(CHILD) {
        println!("trace {:016x}", run(Scenario::of_seed(seed)).trace_hash);
        return;
    }
    let trace = |seed: u64| {
        let this = std::env::current_exe().expect("a test knows its own program");
        let output = Command::new(this)
            .args(["--exact", "same_seed_same_trace_in_two_processes", "--nocapture"])
            .env(CHILD, seed.to_string())
            .output()
            .expect("a test can start itself");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find_map(|line| line.find("trace ").map(|at| line[at..].to_owned())).expect("the child prints")
    };
    for seed in [1, 7, 42] {
        assert_eq!(trace(seed), trace(seed), "seed {seed} gave two histories");
    }
    assert_ne!(trace(1), trace(7), "two seeds gave one history: the trace says nothing");
}
