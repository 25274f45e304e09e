//! Damage that a running node finds when somebody reads.

use crate::cluster::{TestCluster, kcat, wait_until};
use crate::world::*;
use ackord::types::{NodeId, ReplicaId};
use std::fs;

/// Whoever leads hands the leadership to `position`.
fn make_leader(cluster: &TestCluster, position: usize) {
    let to = ReplicaId::new(NodeId(position as u32 + 1), 0);
    wait_until(|| {
        let led = wait_for_leader(cluster);
        let group = replica(cluster, led).expect("it leads").group;
        let handle = cluster.members[led].handle.as_ref().expect("it runs");
        // Asked again if it comes to nothing.
        led == position || handle.transfer_leader(group, to).is_err()
    });
}

#[test]
fn records_that_a_leader_finds_damaged_are_fetched_from_its_peers() {
    let mut cluster = start_three();
    let bootstrap = cluster.bootstrap();
    let lines: String = (0..200).map(|number| format!("record {number:03} {}\n", "x".repeat(5_000))).collect();
    produce(&bootstrap, &lines);
    wait_until(|| is_whole(&cluster, 0));
    cluster.stop_node(0);
    let state = cluster.members[0].config.data_dir.join("state");
    let mut hit = 0;
    for table in files(&state, "sst") {
        let bytes = fs::read(&table).expect("readable");
        let needle = b"record 007";
        for at in bytes.windows(needle.len()).enumerate().filter(|(_, bytes)| bytes == needle).map(|(at, _)| at) {
            flip(&table, at as u64 + 200);
            hit += 1;
        }
    }
    assert!(hit > 0, "the record is in a table");
    cluster.start_node(0);
    wait_until(|| is_whole(&cluster, 0));
    assert_eq!(repaired(&cluster, 0), 0, "nobody has read it yet");
    make_leader(&cluster, 0);
    // Whoever reads meets it; the answer comes from another leader, or from this one when it is whole.
    wait_until(|| {
        let (done, read, _) = kcat(&["-C", "-b", &bootstrap, "-t", TOPIC, "-o", "beginning", "-e", "-q"], "");
        assert!(lines.starts_with(&read) || !done, "nothing but what was written");
        done && read == lines
    });
    wait_until(|| repaired(&cluster, 0) == 1 && is_whole(&cluster, 0));
    cluster.stop_node(1);
    wait_for_leader(&cluster);
    assert!(consume(&bootstrap) == lines, "every record, in order");
}
