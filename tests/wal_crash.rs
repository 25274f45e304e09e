//! The log against a model, with crashes everywhere: nothing acknowledged is lost, nothing dropped comes back.

mod wal_common;
use ackord::sim::SimDisk;
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
