//! Every control, and the shape in which it shows.

use super::Control;
use crate::chance::{MILLISECOND, SECOND};
use crate::faults::Fault;
use crate::sabotage::Sabotage;
use crate::swarm::Shape;
use ackord::raft::{Omissions, ReplicaOptions};
use ackord::types::NodeId;

const NONE: &[&str] = &[];

/// All of them.
pub const ALL: &[Control] = &[
    Control { name: "fsync skipped", shape: fsync_skipped, found_by: &["no_hole", "no_silent_stop"], unwatched: NONE },
    Control { name: "vote not persisted", shape: vote_forgotten, found_by: &["said_is_durable"], unwatched: NONE },
    Control {
        name: "vote not persisted: its effect",
        shape: vote_forgotten,
        found_by: &["election_safety", "leader_completeness", "committed_immutable", "log_matching", "no_hole"],
        unwatched: &["said_is_durable"],
    },
    Control { name: "quorum one short", shape: quorum_one_short, found_by: &["durable_at_ack"], unwatched: NONE },
    Control {
        name: "ack before commit",
        shape: ack_uncommitted,
        found_by: &["durable_at_ack", "leader_completeness"],
        unwatched: NONE,
    },
    Control {
        name: "ack when taken",
        shape: ack_taken,
        found_by: &["committed_immutable", "durable_at_ack"],
        unwatched: NONE,
    },
    Control {
        name: "ack when taken: its effect",
        shape: ack_taken,
        found_by: &["acked_stays", "linearizable_end", "offsets_dense"],
        unwatched: &["committed_immutable", "durable_at_ack"],
    },
    Control {
        name: "apply before commit",
        shape: apply_uncommitted,
        found_by: &["leader_completeness", "committed_immutable", "no_hole"],
        unwatched: NONE,
    },
    Control {
        name: "truncate on damage",
        shape: damage_cut,
        found_by: &["leader_completeness", "committed_immutable", "acked_stays", "log_matching", "durable_at_ack"],
        unwatched: NONE,
    },
    Control {
        name: "damage in the newest segment taken for torn",
        shape: newest_damage_cut,
        found_by: &["leader_completeness", "committed_immutable", "acked_stays", "log_matching", "durable_at_ack"],
        unwatched: NONE,
    },
    Control {
        name: "damaged rows taken for none",
        shape: rows_trusted,
        found_by: &["state_digests", "stored_offsets", "idempotent_once", "committed_immutable"],
        unwatched: NONE,
    },
    Control {
        name: "hard state lost silently",
        shape: old_promises,
        found_by: &["election_safety", "leader_completeness", "committed_immutable", "durable_at_ack"],
        unwatched: NONE,
    },
    Control {
        name: "producers left out of snapshots",
        shape: snapshots_without_producers,
        found_by: &["state_digests"],
        unwatched: NONE,
    },
    Control {
        name: "producers left out of snapshots: its effect",
        shape: snapshots_without_producers,
        found_by: &["idempotent_once", "committed_immutable"],
        unwatched: &["state_digests", "liveness"],
    },
    Control {
        name: "votes in quarantine",
        shape: votes_in_quarantine,
        found_by: &["quarantined_stay_silent"],
        unwatched: NONE,
    },
    Control {
        name: "repairs unanswered",
        shape: repairs_lost,
        found_by: &["that are not repaired or do not catch up"],
        unwatched: &[
            "liveness: after everybody has come back, group 0",
            "liveness: after everybody has come back, group 1",
        ],
    },
    Control {
        name: "wiped disk started",
        shape: wiped_disk_started,
        found_by: &["starts on a disk that is wiped"],
        unwatched: NONE,
    },
    Control {
        name: "rolled-back disk let in",
        shape: rolled_back_lies,
        found_by: &["whose disk was rolled back to turn"],
        unwatched: NONE,
    },
    Control { name: "next_idx not restored", shape: next_idx, found_by: &["next_after_matched"], unwatched: NONE },
    Control {
        name: "reads without ReadIndex",
        shape: reads_unconfirmed,
        found_by: &["linearizable_end"],
        unwatched: NONE,
    },
    Control { name: "one voter's term not durable", shape: one_voter, found_by: &["said_is_durable"], unwatched: NONE },
    Control {
        name: "one voter's term not durable: its effect",
        shape: one_voter,
        found_by: &["log_matching", "committed_immutable", "state_digests"],
        unwatched: &["said_is_durable"],
    },
    Control { name: "out of turn order", shape: out_of_turn, found_by: &["said_is_durable"], unwatched: NONE },
    Control {
        name: "out of turn order: its effect",
        shape: out_of_turn,
        found_by: &["durable_at_ack"],
        unwatched: &["said_is_durable"],
    },
    Control {
        name: "entries without their commit",
        shape: commits_unwritten,
        found_by: &["commit_with_entries"],
        unwatched: NONE,
    },
    Control { name: "torn turn's commit kept", shape: torn_commit, found_by: &["no_hole"], unwatched: NONE },
    Control {
        name: "moved entries replayed as appends",
        shape: moved_as_appended,
        found_by: &["no_hole"],
        unwatched: NONE,
    },
    Control {
        name: "log released unflushed",
        shape: release_unflushed,
        found_by: &["applied_in_order"],
        unwatched: NONE,
    },
    Control {
        name: "offsets left out of snapshots",
        shape: snapshots_without_offsets,
        found_by: &["state_digests"],
        unwatched: NONE,
    },
    Control {
        name: "offsets left out of snapshots: its effect",
        shape: snapshots_without_offsets,
        found_by: &["stored_offsets"],
        unwatched: &["state_digests", "liveness"],
    },
    Control {
        name: "assignments told uncommitted",
        shape: assignments_uncommitted,
        found_by: &["group_owners"],
        unwatched: NONE,
    },
    Control {
        name: "files dropped unflushed",
        shape: reclaim_unflushed,
        found_by: &["space of Records is reclaimed although its keys are not durably deleted"],
        unwatched: NONE,
    },
    Control {
        name: "trim too much",
        shape: trim_too_much,
        found_by: &["offsets_dense", "no batch holds offset"],
        unwatched: NONE,
    },
    Control {
        name: "acknowledged, and not taken",
        shape: acknowledge_lost,
        found_by: &["committed_immutable"],
        unwatched: NONE,
    },
    Control { name: "refused, and done", shape: refuse_what_is_done, found_by: &["only_written"], unwatched: NONE },
    Control {
        name: "reads cut short",
        shape: read_short,
        found_by: &["linearizable_end", "monotone_reads"],
        unwatched: NONE,
    },
    Control {
        name: "topics without ReadIndex",
        shape: topics_unconfirmed,
        found_by: &["topics_kept"],
        unwatched: NONE,
    },
    Control { name: "tails unbounded", shape: tails_unbounded, found_by: &["bounded_memory"], unwatched: NONE },
    Control { name: "twice the limits", shape: twice_the_limits, found_by: &["bounded_memory"], unwatched: NONE },
];

/// Only these faults, with these weights, and no other trouble.
fn only(shape: &mut Shape, every: u64, faults: &[(Fault, u64)]) {
    let weight = |fault| faults.iter().find(|(other, _)| *other == fault).map_or(0, |(_, weight)| *weight);
    shape.faults.weights = Fault::ALL.into_iter().map(weight).collect();
    shape.faults.every = every;
    (shape.faults.drop, shape.faults.duplicate, shape.faults.stall, shape.faults.crash) = (0, 0, 0, 0);
}

/// One partition on so many nodes.
fn one_partition(seed: u64, nodes: u32) -> Shape {
    let mut shape = Shape::of_seed(seed);
    shape.nodes = nodes;
    shape.partitions = vec![(1..=nodes).map(NodeId).collect()];
    shape.coordinators.clear();
    (shape.fragile, shape.forgetful) = (Vec::new(), None);
    shape.topics = false;
    (shape.load.burst, shape.load.pause) = (1, (10 * MILLISECOND, 40 * MILLISECOND));
    shape.faults.down = (10 * MILLISECOND, SECOND);
    shape.faults.lasts = (200 * MILLISECOND, 3 * SECOND);
    shape
}

/// With one coordinator of consumer groups.
fn with_consumers(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    shape.coordinators = vec![(1..=3).map(NodeId).collect()];
    shape
}

/// A log that keeps little, so that those who were away need snapshots.
fn short_log(shape: &mut Shape) {
    (shape.log.segment_bytes, shape.log.retain_bytes, shape.log.slack_bytes) = (256 << 10, 0, 0);
    shape.core.flush_after_bytes = 32 << 10;
}

fn broken(sabotage: Sabotage, mut shape: Shape) -> Shape {
    shape.sabotage = sabotage;
    shape
}

fn fsync_skipped(seed: u64) -> Shape {
    let mut shape = Shape::of_seed(seed);
    only(&mut shape, SECOND, &[(Fault::Crash, 1), (Fault::PowerCut, 1)]);
    shape.faults.kill_percent = 0;
    broken(Sabotage::SyncNothing, shape)
}

fn vote_forgotten(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    only(&mut shape, 400 * MILLISECOND, &[(Fault::Bridge, 3), (Fault::Crash, 5)]);
    shape.faults.down = (10 * MILLISECOND, 50 * MILLISECOND);
    shape.core.replica.election_ticks = 5;
    broken(Sabotage::ForgetVotes, shape)
}

fn quorum_one_short(seed: u64) -> Shape {
    broken(Sabotage::QuorumOneShort, one_partition(seed, 5))
}

fn ack_uncommitted(seed: u64) -> Shape {
    broken(Sabotage::AckUncommitted, one_partition(seed, 3))
}

/// A leader answers as soon as it has a batch. It names the right place, for nothing else is written.
fn ack_taken(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    only(&mut shape, SECOND, &[(Fault::Crash, 2), (Fault::Isolate, 1), (Fault::PowerCut, 1)]);
    (shape.load.producers, shape.load.inflight, shape.load.idempotent_percent) = (1, 1, 0);
    shape.load.trim_pause = (0, 0);
    broken(Sabotage::AckTaken, shape)
}

fn apply_uncommitted(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 5);
    // A leader that is left with a minority goes on sending.
    only(&mut shape, SECOND, &[(Fault::Split, 1)]);
    broken(Sabotage::ApplyUncommitted, shape)
}

/// One of three disks is damaged when it hurts most.
fn damaged(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    shape.fragile = vec![NodeId(1 + (seed % 3) as u32)];
    only(&mut shape, 4 * SECOND, &[(Fault::DamageDown, 1)]);
    shape.bad_moments = true;
    shape.load.pause = (20 * MILLISECOND, 100 * MILLISECOND);
    // Damage comes while the state machines are far behind the log.
    shape.core.flush_after_bytes = 4 << 20;
    shape.core.replica.election_ticks = 5;
    shape.speeds.network = (50, 300);
    shape
}

fn damage_cut(seed: u64) -> Shape {
    let mut shape = damaged(seed);
    shape.log.omit.damage = true;
    shape
}

fn newest_damage_cut(seed: u64) -> Shape {
    let mut shape = damage_cut(seed);
    only(&mut shape, 4 * SECOND, &[(Fault::DamageNewest, 1)]);
    shape
}

fn rows_trusted(seed: u64) -> Shape {
    let mut shape = with_consumers(seed);
    shape.fragile = vec![NodeId(1 + (seed % 3) as u32)];
    only(&mut shape, SECOND, &[(Fault::DamageState, 1)]);
    short_log(&mut shape);
    shape.load.idempotent_percent = 100;
    broken(Sabotage::TrustRows, shape)
}

fn old_promises(seed: u64) -> Shape {
    broken(Sabotage::OldPromises, damaged(seed))
}

fn votes_in_quarantine(seed: u64) -> Shape {
    broken(Sabotage::QuarantinedVotes, damaged(seed))
}

fn repairs_lost(seed: u64) -> Shape {
    let mut shape = damaged(seed);
    only(&mut shape, 4 * SECOND, &[(Fault::DamageNewest, 1)]);
    broken(Sabotage::RepairsLost, shape)
}

/// The log makes itself a new beginning wherever there is none.
fn wiped_disk_started(seed: u64) -> Shape {
    let mut shape = damaged(seed);
    only(&mut shape, SECOND, &[(Fault::Wipe, 1)]);
    (shape.bad_moments, shape.log.create) = (false, true);
    shape
}

fn rolled_back_lies(seed: u64) -> Shape {
    let mut shape = damaged(seed);
    only(&mut shape, SECOND, &[(Fault::Crash, 1), (Fault::RollBack, 3)]);
    shape.bad_moments = false;
    broken(Sabotage::RolledBackLies, shape)
}

fn snapshots_without_producers(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    only(&mut shape, SECOND, &[(Fault::Isolate, 2), (Fault::Crash, 2), (Fault::Transfer, 1)]);
    short_log(&mut shape);
    shape.load.idempotent_percent = 100;
    shape.load.record_bytes = (0, 8 << 10);
    broken(Sabotage::SnapshotsWithoutProducers, shape)
}

fn next_idx(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    only(&mut shape, 400 * MILLISECOND, &[(Fault::Isolate, 1), (Fault::Crash, 1), (Fault::Clog, 2)]);
    (shape.faults.duplicate, shape.faults.drop) = (100_000, 20_000);
    shape.speeds.reorders = true;
    shape.speeds.network = (100, 80_000);
    let replica = ReplicaOptions { max_inflight_messages: 2, max_message_bytes: 256, ..shape.core.replica.clone() };
    shape.core.replica = ReplicaOptions { omit: Omissions { next_index: true, ..Omissions::default() }, ..replica };
    shape
}

fn reads_unconfirmed(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    only(&mut shape, 500 * MILLISECOND, &[(Fault::Isolate, 1), (Fault::OneWay, 1), (Fault::Pause, 1)]);
    shape.load.read_pause = (10 * MILLISECOND, 100 * MILLISECOND);
    broken(Sabotage::ReadsUnconfirmed, shape)
}

fn one_voter(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    shape.partitions = vec![vec![NodeId(2), NodeId(3)]];
    only(&mut shape, SECOND, &[(Fault::PowerCut, 1)]);
    shape.faults.kill_percent = 0;
    shape.faults.down = (10 * MILLISECOND, 50 * MILLISECOND);
    shape.topics = true;
    // Everything is flushed soon, so that a change of members can be proposed right after an election.
    shape.core.flush_after_bytes = 4 << 10;
    shape.core.replica.election_ticks = 5;
    shape.speeds.append = (2_000, 12_000);
    shape.speeds.network = (50, 300);
    shape.core.replica.omit.promise_first = true;
    broken(Sabotage::OneVoter, shape)
}

fn out_of_turn(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    only(&mut shape, SECOND, &[(Fault::SlowDisk, 1)]);
    shape.faults.duplicate = 100_000;
    shape.core.omit_turn_order = true;
    shape
}

fn commits_unwritten(seed: u64) -> Shape {
    broken(Sabotage::CommitsUnwritten, one_partition(seed, 3))
}

fn torn_commit(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    only(&mut shape, SECOND, &[(Fault::PowerCut, 1)]);
    (shape.faults.crash, shape.faults.kill_percent) = (2_000, 0);
    broken(Sabotage::TornCommitKept, shape)
}

fn moved_as_appended(seed: u64) -> Shape {
    let mut shape = Shape::of_seed(seed);
    only(&mut shape, SECOND, &[(Fault::Crash, 3), (Fault::Isolate, 1)]);
    shape.nodes = 3;
    shape.partitions = vec![vec![NodeId(1), NodeId(2), NodeId(3)]; 3];
    shape.coordinators.clear();
    (shape.fragile, shape.forgetful) = (Vec::new(), None);
    (shape.log.segment_bytes, shape.log.retain_bytes, shape.log.slack_bytes) = (256 << 10, 0, 0);
    shape.load.record_bytes = (0, 8 << 10);
    shape.log.omit.moved_apart = true;
    shape
}

fn release_unflushed(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    only(&mut shape, SECOND, &[(Fault::Crash, 1)]);
    short_log(&mut shape);
    shape.core.flush_after_bytes = 4 << 20;
    shape.load.record_bytes = (0, 8 << 10);
    broken(Sabotage::ReleaseUnflushed, shape)
}

fn snapshots_without_offsets(seed: u64) -> Shape {
    let mut shape = with_consumers(seed);
    only(&mut shape, SECOND, &[(Fault::Isolate, 2), (Fault::Crash, 2), (Fault::Transfer, 1)]);
    short_log(&mut shape);
    shape.load.record_bytes = (0, 8 << 10);
    broken(Sabotage::SnapshotsWithoutOffsets, shape)
}

fn assignments_uncommitted(seed: u64) -> Shape {
    let mut shape = with_consumers(seed);
    only(&mut shape, 300 * MILLISECOND, &[(Fault::Isolate, 2), (Fault::Crash, 2)]);
    shape.core.replica.election_ticks = 5;
    broken(Sabotage::AssignmentsUncommitted, shape)
}

fn reclaim_unflushed(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    only(&mut shape, SECOND, &[(Fault::Crash, 1), (Fault::PowerCut, 1)]);
    shape.load.trim_pause = (100 * MILLISECOND, 500 * MILLISECOND);
    shape.core.space_flush_ticks = 1;
    shape.faults.crash = 200;
    shape.faults.crash_rare = 60;
    broken(Sabotage::ReclaimUnflushed, shape)
}

fn trim_too_much(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    shape.load.trim_pause = (100 * MILLISECOND, 500 * MILLISECOND);
    shape.core.space_flush_ticks = 1;
    broken(Sabotage::TrimTooMuch, shape)
}

fn twice_the_limits(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    shape.core.admitted_bytes_max = 8 << 10;
    shape.load.record_bytes = (0, 4 << 10);
    (shape.load.producers, shape.load.inflight) = (3, 5);
    broken(Sabotage::TwiceTheLimits, shape)
}

fn tails_unbounded(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    shape.partitions = vec![shape.partitions[0].clone(); 4];
    (shape.core.admitted_bytes_max, shape.core.queued_bytes_max) = (8 << 10, 8 << 10);
    (shape.core.unapplied_bytes_max, shape.core.turn_bytes_max) = (8 << 10, 8 << 10);
    (shape.core.tail_bytes_per_group, shape.core.tail_bytes_max) = (4 << 20, 8 << 10);
    (shape.core.replica.max_message_bytes, shape.core.replica.max_committed_bytes) = (1 << 10, 1 << 10);
    shape.load.record_bytes = (0, 1 << 10);
    broken(Sabotage::TailsUnbounded, shape)
}

fn acknowledge_lost(seed: u64) -> Shape {
    broken(Sabotage::AcknowledgeLost, one_partition(seed, 3))
}

fn refuse_what_is_done(seed: u64) -> Shape {
    broken(Sabotage::RefuseWhatIsDone, one_partition(seed, 3))
}

fn read_short(seed: u64) -> Shape {
    broken(Sabotage::ReadShort, one_partition(seed, 3))
}

fn topics_unconfirmed(seed: u64) -> Shape {
    let mut shape = one_partition(seed, 3);
    only(&mut shape, 500 * MILLISECOND, &[(Fault::Isolate, 1), (Fault::OneWay, 1), (Fault::Pause, 1)]);
    shape.topics = true;
    broken(Sabotage::ReadsUnconfirmed, shape)
}
