//! Random damage to random logs: a group is either exactly as it was or quarantined, never silently something else.

mod wal_common;
use ackord::sim::SimDisk;
use ackord::wal::Recovery;
use std::collections::BTreeSet;
use wal_common::world::{World, group_matches};
use wal_common::*;

fn segments(disk: &SimDisk) -> Vec<String> {
    let names = ackord::wal::disk::Disk::list(disk).expect("names");
    names.into_iter().filter(|name| name.starts_with("segment-") && name.ends_with(".wal")).collect()
}

/// Damages a disk in one place. Spares what lies at or behind `last` in the newest segment: damage to the last turn and
/// to the seal that proves it, together, is what the log can't detect.
fn damage(disk: &SimDisk, older: &SimDisk, random: &mut ackord::sim::Random, last: u64) -> String {
    let names = segments(disk);
    let which = random.below(names.len() as u64) as usize;
    let (name, is_newest) = (&names[which], which + 1 == names.len());
    let length = if is_newest { last } else { disk.contents(name).len() as u64 };
    let place = random.below(length);
    let sector = place / 512 * 512;
    if place + BLOCK > disk.contents(name).len() as u64 {
        return String::new(); // Cut off already. Writing there would bring the file's length back.
    }
    match random.below(8) {
        0..=2 => disk.flip(name, place, place as u8),
        3 => disk.zero(name, sector, 512),
        4 => disk.zero(name, place / BLOCK * BLOCK, BLOCK),
        5 => disk.make_unreadable(name, place),
        6 if segments(older).contains(name) && !is_newest => disk.put(name, &older.contents(name)),
        7 if random.one_in(2) => disk.lose(name),
        7 => disk.cut(name, place),
        _ => disk.overwrite(name, sector, &disk.contents(name)[..512]),
    }
    format!("{name} at {place}, block {}, newest {is_newest}", place / BLOCK)
}

fn quarantined(recovery: &Recovery) -> BTreeSet<u64> {
    recovery.groups.iter().filter(|(_, group)| group.damage.is_some()).map(|(group, _)| group.0).collect()
}

#[test]
fn a_group_is_as_it_was_or_quarantined() {
    let (mut harmless, mut partial, mut total) = (0, 0, 0);
    for seed in 0..120 {
        let mut world = World::<SimDisk>::new(seed, options());
        for _ in 0..world.random.below(60) {
            world.step();
        }
        let older = world.disk.duplicate();
        for _ in 0..40 + world.random.below(80) {
            world.step();
        }
        let log = world.log.as_mut().expect("open");
        let before = log.headroom();
        log.append(&turn([])).expect("an empty turn seals the last one");
        let last = SEGMENT - before.bytes;
        if log.headroom().bytes > before.bytes {
            continue; // It has just rotated; where the last turn is would be a guess.
        }
        world.disk.kill();
        for round in 0..15 {
            let disk = world.disk.duplicate();
            let wounds: Vec<String> =
                (0..1 + round % 3).map(|_| damage(&disk, &older, &mut world.random, last)).collect();
            let context = format!("seed {seed}, round {round}: {wounds:?}");
            let opened = try_open(&disk, options(), seed);
            let (log, recovery) = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
            let bad = quarantined(&recovery);
            for (&group, expected) in &world.model.groups {
                if !recovery.groups.contains_key(&ackord::types::RaftGroupId(group)) {
                    assert!(recovery.incomplete, "{context}: group {group} is forgotten");
                } else if !bad.contains(&group)
                    && let Err(difference) = group_matches(&log, &recovery, group, expected)
                {
                    panic!("{context}: {difference}\n{:#?}\n{expected:#?}", recovery.findings);
                }
            }
            for &group in recovery.groups.keys() {
                let is_known = world.model.groups.contains_key(&group.0) || bad.contains(&group.0);
                assert!(is_known, "{context}: group {group} came back from the dead");
            }
            match bad.len() {
                0 => harmless += 1,
                n if n < world.model.groups.len() => partial += 1,
                _ => total += 1,
            }
            drop(log);
            disk.kill();
            let (_, again) = try_open(&disk, options(), seed).expect("it opens again");
            assert_eq!(quarantined(&again), bad, "{context}: the next start says the same");
            assert_eq!(again.incomplete, recovery.incomplete, "{context}");
            assert_eq!(again.losses, recovery.losses, "{context}: a loss is counted once");
        }
    }
    assert!(harmless > 50 && partial > 50 && total < harmless, "{harmless} harmless, {partial} partial, {total} total");
}
