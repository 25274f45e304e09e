//! Damage to the log.

use crate::cluster::{TestCluster, kcat, wait_for, wait_until};
use crate::world::*;
use ackord::broker::status::ReplicaReport;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The segments that hold something, oldest first.
fn segments(log: &Path) -> Vec<PathBuf> {
    let is_used = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0));
    let mut segments = files(log, "wal");
    segments.retain(is_used);
    assert!(segments.len() >= 3, "a log of {} segments", segments.len());
    segments
}

/// Where in a segment bytes are written, about this many eighths of the way.
fn within(segment: &Path, eighths: usize) -> u64 {
    let bytes = fs::read(segment).expect("readable");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    (end * eighths / 8) as u64
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("the file is there");
    file.write_all_at(bytes, at).expect("the file can be written");
}

const CASES: &[Case] = &[
    Case {
        name: "flipped bits in entries of every segment",
        always: true,
        needs_earlier: false,
        excuse: None,
        damage: |log, _| {
            for segment in segments(log) {
                [2, 3, 6].into_iter().for_each(|eighths| flip(&segment, within(&segment, eighths)));
            }
        },
    },
    Case {
        name: "a zeroed page in the middle",
        always: false,
        needs_earlier: false,
        excuse: None,
        damage: |log, _| {
            let segment = &segments(log)[1];
            overwrite(segment, within(segment, 4) / 4096 * 4096, &[0; 4096]);
        },
    },
    Case {
        name: "a truncated segment",
        always: false,
        needs_earlier: false,
        excuse: None,
        damage: |log, _| {
            let segment = &segments(log)[1];
            let file = OpenOptions::new().write(true).open(segment).expect("the file is there");
            file.set_len(within(segment, 4)).expect("it can be cut");
        },
    },
    Case {
        name: "the newest segment cut in the middle",
        always: true,
        needs_earlier: false,
        excuse: None,
        damage: |log, _| {
            let segments = segments(log);
            let segment = segments.last().expect("there are some");
            let file = OpenOptions::new().write(true).open(segment).expect("the file is there");
            file.set_len(within(segment, 4)).expect("it can be cut");
        },
    },
    Case {
        name: "the oldest segment deleted",
        always: true,
        needs_earlier: false,
        excuse: None,
        damage: |log, _| fs::remove_file(&segments(log)[0]).expect("it can be deleted"),
    },
    Case {
        name: "a segment in the middle deleted",
        always: false,
        needs_earlier: false,
        excuse: None,
        damage: |log, _| fs::remove_file(&segments(log)[1]).expect("it can be deleted"),
    },
    Case {
        name: "the newest segment deleted",
        always: false,
        needs_earlier: false,
        excuse: None,
        damage: |log, _| fs::remove_file(segments(log).last().expect("there are some")).expect("it can be deleted"),
    },
    Case {
        name: "two segments swapped",
        always: false,
        needs_earlier: false,
        excuse: None,
        damage: |log, _| {
            let segments = segments(log);
            let aside = log.join("aside");
            for (from, to) in [(&segments[0], &aside), (&segments[1], &segments[0]), (&aside, &segments[1])] {
                fs::rename(from, to).expect("it can be renamed");
            }
        },
    },
    Case {
        name: "an older copy of the newest segment",
        always: false,
        needs_earlier: true,
        excuse: None,
        damage: |log, earlier| {
            let segments = segments(log);
            let newest = segments.iter().rev().find_map(|segment| {
                let older = earlier.join(segment.file_name().expect("a name"));
                older.exists().then_some((older, segment))
            });
            let (older, segment) = newest.expect("a segment that was there before");
            fs::copy(older, segment).expect("it can be copied");
        },
    },
    Case {
        name: "newest turns zeroed, but for the last",
        always: false,
        needs_earlier: false,
        excuse: None,
        damage: |log, _| {
            let segments = segments(log);
            let segment = segments.last().expect("there are some");
            let end = within(segment, 8);
            let from = end.saturating_sub(64 << 10) / 4096 * 4096;
            // The very last one stays: without it the log would be an older one that is whole, a disk that was rolled
            // back, and that is for the peers to refuse (`transport::admission`).
            overwrite(segment, from, &vec![0; 48 << 10]);
        },
    },
];

#[test]
fn a_damaged_log_is_repaired_while_the_others_go_on() {
    survive(CASES, "wal");
}

/// Flips a bit in the entry that holds `text`, wherever a segment of the node has it.
pub fn flip_entry(cluster: &TestCluster, position: usize, text: &str) {
    let log = cluster.members[position].config.data_dir.join("wal");
    let mut hit = 0;
    for segment in files(&log, "wal") {
        let bytes = fs::read(&segment).expect("readable");
        for at in bytes.windows(text.len()).enumerate().filter(|(_, bytes)| *bytes == text.as_bytes()).map(|(at, _)| at)
        {
            flip(&segment, at as u64 + 5_000);
            hit += 1;
        }
    }
    assert_eq!(hit, 1, "{text} is in the log once");
}

#[test]
fn groups_that_the_log_has_forgotten_are_adopted_and_new_ones_are_born() {
    let mut cluster = start_three();
    let bootstrap = cluster.bootstrap();
    let lines: String = (0..400).map(|number| format!("{number} {}\n", "x".repeat(90_000))).collect();
    produce(&bootstrap, &lines);
    let write = |topic: &str, lines: &str| {
        let (done, _, error) = kcat(&["-P", "-b", &bootstrap, "-t", topic, "-E"], lines);
        assert!(done, "{error}");
    };
    let has = |cluster: &TestCluster, topic: &str| {
        let of = |replica: &ReplicaReport| replica.partition.as_ref().is_some_and(|(name, _)| name.as_str() == topic);
        replicas(cluster, 0).iter().any(of) && is_whole(cluster, 0)
    };
    write("forgotten", "first\n");
    wait_until(|| has(&cluster, "forgotten"));
    cluster.stop_node(0);
    let log = cluster.members[0].config.data_dir.join("wal");
    fs::remove_file(segments(&log).last().expect("there are some")).expect("it can be deleted");
    cluster.start_node(0);
    wait_until(|| has(&cluster, "forgotten"));
    assert!(repaired(&cluster, 0) >= 1, "it was repaired, not born");
    // The controller's state here soon shows that it knows of all that may have been forgotten.
    let born = (1..=20).map(|number| format!("new-{number}")).find(|topic| {
        let before = repaired(&cluster, 0);
        write(topic, "first\n");
        wait_until(|| has(&cluster, topic));
        repaired(&cluster, 0) == before
    });
    let born = born.expect("one is born");
    // Both are served by a majority that has this node in it.
    cluster.stop_node(1);
    for topic in ["forgotten", &born] {
        write(topic, "second\n");
        let (done, read, error) = kcat(&["-C", "-b", &bootstrap, "-t", topic, "-o", "beginning", "-e", "-q"], "");
        assert!(done && read == "first\nsecond\n", "{topic}: {read} {error}");
    }
}

#[test]
fn a_majority_that_is_damaged_in_different_places_repairs_itself() {
    let mut cluster = start_three();
    let bootstrap = cluster.bootstrap();
    let lines: String = (0..60).map(|number| format!("record {number:03} {}\n", "x".repeat(100_000))).collect();
    produce(&bootstrap, &lines);
    (0..3).for_each(|position| cluster.stop_node(position));
    flip_entry(&cluster, 0, "record 007");
    flip_entry(&cluster, 1, "record 033");

    // Alone it can't be helped: it says what it waits for.
    cluster.start_node(0);
    let waits =
        |cluster: &TestCluster| replica(cluster, 0).and_then(|replica| Some((replica.quarantine?, replica.repair?)));
    let (reason, _) = wait_for(|| waits(&cluster).filter(|(_, step)| step.starts_with("asking for ")));
    assert!(reason.contains("damaged") || reason.contains("lost"), "{reason}");
    assert_eq!(repaired(&cluster, 0), 0);
    // The log has a line for that step, and a metric counts it.
    let logs = |what: &str, of: &str| {
        let log = cluster.members[0].log.text();
        log.lines().any(|line| line.contains(what) && line.contains(of))
    };
    assert!(logs("replica quarantined", &reason), "{reason}");
    wait_until(|| logs("repairing a quarantined replica", "asking for "));
    wait_until(|| cluster.members[0].metric("ackord_repair_steps_total") >= 1);

    // With the other damaged one each has what the other lacks.
    cluster.start_node(1);
    wait_until(|| is_whole(&cluster, 0) && is_whole(&cluster, 1));
    assert!(repaired(&cluster, 0) >= 1 && repaired(&cluster, 1) >= 1);
    assert!(cluster.members[0].metric("ackord_refilled_entries_total") >= 1);
    wait_until(|| cluster.members[0].log.text().contains("replica repaired"));
    produce(&bootstrap, "last\n");
    assert!(consume(&bootstrap) == format!("{lines}last\n"), "every record, in order, by two that were damaged");
    cluster.start_node(2);
    cluster.stop_node(0);
    wait_until(|| is_whole(&cluster, 2));
    assert!(consume(&bootstrap) == format!("{lines}last\n"), "every record, in order");
}

#[test]
fn what_everybody_has_lost_is_not_made_up() {
    let mut cluster = start_three();
    let bootstrap = cluster.bootstrap();
    let lines: String = (0..20).map(|number| format!("record {number:03} {}\n", "x".repeat(100_000))).collect();
    produce(&bootstrap, &lines);
    (0..3).for_each(|position| cluster.stop_node(position));
    for position in 0..3 {
        flip_entry(&cluster, position, "record 007");
        // The databases, too, so that nobody has its effect.
        fs::remove_dir_all(cluster.members[position].config.data_dir.join("state")).expect("it can be deleted");
    }
    (0..3).for_each(|position| cluster.start_node(position));
    let has_lost = |replica: ReplicaReport| replica.repair.is_some_and(|step| step.contains("has lost them, too"));
    wait_until(|| replica(&cluster, 0).is_some_and(has_lost));
    for position in 0..3 {
        let replica = replica(&cluster, position).expect("it is hosted");
        assert!(replica.quarantine.is_some() && replica.role.is_none(), "{replica:?}");
    }
}

#[test]
fn a_leader_that_cannot_read_its_log_steps_down_and_is_repaired() {
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

    flip_entry(&cluster, led, "record 007");
    cluster.start_node(away);
    wait_until(|| repaired(&cluster, led) == 1 && is_whole(&cluster, led));
    assert!(cluster.members[led].metric("ackord_refilled_entries_total") >= 1);
    wait_for_leader(&cluster);
    produce(&bootstrap, "last\n");
    let expected = format!("first\n{lines}last\n");
    assert!(consume(&bootstrap) == expected, "every record, in order");
    // The damaged one is part of the majority again, and has been given everything.
    wait_until(|| is_whole(&cluster, away));
    cluster.stop_node((led + 2) % 3);
    wait_for_leader(&cluster);
    produce(&bootstrap, "more\n");
    assert!(consume(&bootstrap) == format!("{expected}more\n"), "every record, in order");
}
