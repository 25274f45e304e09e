//! The log against a model, with crashes everywhere: nothing acknowledged is lost, nothing dropped comes back.

mod wal_common;
use ackord::sim::{Random, SimDisk};
use ackord::wal::disk::{Disk, DiskFile};
use std::io::IoSlice;
use wal_common::world::World;
use wal_common::*;

/// Runs `steps` steps from `seed`, stopping the disk once at its `stop`-th change after the first start.
fn run(seed: u64, steps: u64, stop: Option<u64>) -> (World<SimDisk>, u64) {
    let mut world = World::<SimDisk>::new(seed, options());
    let before = world.disk.changes();
    if let Some(stop) = stop {
        world.disk.stop_after(stop);
    }
    for _ in 0..steps {
        if !world.step() {
            let crashes = world.random.below(3);
            world.reopen(crashes);
        }
    }
    let changes = world.disk.changes() - before;
    world.reopen(0);
    (world, changes)
}

#[test]
fn a_crash_at_any_change_loses_nothing_acknowledged() {
    for seed in 0..2 {
        let (_, changes) = run(seed, 100, None);
        assert!(changes > 200, "the script is long enough to rotate, free and copy forward: {changes}");
        for stop in 1..=changes {
            run(seed, 100, Some(stop));
        }
    }
}

#[test]
fn random_lives_lose_nothing_acknowledged() {
    for seed in 100..160 {
        let mut world = World::<SimDisk>::new(seed, options());
        for _ in 0..20 {
            match world.random.below(4) {
                0 => world.disk.stop_after(1 + world.random.below(200)),
                1 => world.disk.fail_sync(1 + world.random.below(100)),
                2 => world.disk.fail_write(1 + world.random.below(100)),
                _ => {}
            }
            for _ in 0..world.random.below(80) {
                if !world.step() {
                    break;
                }
            }
            let crashes = world.random.below(4);
            world.reopen(crashes);
        }
    }
}

/// How many changes an opening makes, and whether it finds a torn turn.
fn opening(disk: &SimDisk) -> (u64, bool) {
    let copy = disk.duplicate();
    let (_, recovery) = try_open(&copy, options(), 1).expect("it opens");
    (copy.changes() - disk.changes(), recovery.findings.iter().any(|finding| finding.contains("torn")))
}

/// What a power cut leaves when an opening is cut short at its `stop`-th change.
fn cut_short(disk: &SimDisk, stop: u64, seed: u64) -> SimDisk {
    let copy = disk.duplicate();
    copy.stop_after(stop);
    drop(try_open(&copy, options(), seed));
    copy.crash(&mut Random::new(seed));
    copy
}

/// What is written in the place of a torn turn may be torn as well, and is much like it.
#[test]
fn starts_that_are_cut_short_one_after_the_other_leave_nothing_that_looks_like_damage() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk);
    log.append(&turn((1..5).map(born))).expect("append");
    kill(&disk, log);
    let cuts = |changes, seeds| (1..=changes).flat_map(move |stop| (0..seeds).map(move |seed| (stop, seed)));
    let mut torn = 0;
    for (first, seed) in cuts(opening(&disk).0, 20) {
        let once = cut_short(&disk, first, seed);
        let (changes, is_torn) = opening(&once);
        torn += u64::from(is_torn);
        for (second, seed) in cuts(if is_torn { changes } else { 0 }, 30) {
            let twice = cut_short(&once, second, 100 + seed);
            let (_, recovery) = try_open(&twice, options(), 200).expect("it opens");
            let damage = recovery.findings.iter().find(|finding| finding.contains("damage"));
            assert_eq!(damage, None, "at change {first}, then at {second}; seed {seed}");
        }
    }
    assert!(torn > 5, "openings are torn: {torn}");
}

/// The torn turn proves that the one before it was durable, and nothing else does.
#[test]
fn damage_before_a_torn_turn_is_found_by_every_start_that_follows() {
    let mut torn = 0;
    for seed in 0..40 {
        let disk = SimDisk::new();
        let (mut log, _) = open(&disk);
        log.append(&turn([born(1)])).expect("append");
        log.append(&turn([append(1, 2, 1, 1, 5_000)])).expect("append");
        let (segment, offset) = log.proven();
        disk.stop_after(1);
        assert!(log.append(&turn([append(1, 3, 1, 1, 5_000)])).is_err());
        drop(log);
        disk.crash(&mut Random::new(seed));
        let file = disk.open(&format!("segment-{segment:016}.wal")).expect("it is there");
        file.write_all_at(&[IoSlice::new(&[7; 512])], offset + 4_096).expect("it rots");
        file.sync_data().expect("for good");
        let (changes, is_torn) = opening(&disk);
        // If nothing is left of the torn turn, the damaged one is the newest, and looks as if it were torn.
        let (_, recovery) = try_open(&disk.duplicate(), options(), 1).expect("it opens");
        let is_proven = is_torn && damage_of(&recovery, 1).is_some();
        torn += u64::from(is_proven);
        for stop in 1..=if is_proven { changes } else { 0 } {
            let cut = cut_short(&disk, stop, seed);
            let (_, recovery) = try_open(&cut, options(), 200).expect("it opens");
            assert!(damage_of(&recovery, 1).is_some(), "at change {stop}; seed {seed}: {:?}", recovery.findings);
        }
    }
    assert!(torn > 3, "turns are torn: {torn}");
}
