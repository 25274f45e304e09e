//! A power cut at every step of opening, sealing, rotating and recycling, on real files.
//!
//! A log is prepared in a directory and left. For each change (write, sync, creation, renaming, removal) that a piece
//! of work makes there, and each way in which a cut can treat what was not synced, the work is done on a copy and cut
//! there; then the disk of production opens what is left. Nothing acknowledged may be missing, nothing else may be
//! there in part, and the log goes on.

mod wal_common;
use ackord::types::{LogId, LogIndex, RaftGroupId};
use ackord::wal::disk::Disk;
use ackord::wal::{LogError, Options, Turn};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use wal_common::files::{Fate, Files};
use wal_common::world::{Model, ModelGroup, World, matches};
use wal_common::*;

const OLDEST: &str = "segment-0000000000000001.wal";

const SHORT_SPARE: &str = "spare-0000000000000778.wal";

const FATES: [Fate; 6] = [Fate::Lost, Fate::Kept, Fate::Torn, Fate::Nameless, Fate::Any(1), Fate::Any(2)];

/// A piece of work.
struct Work {
    /// How its log uses the disk.
    options: fn() -> Options,
    /// Leaves a log in the directory, and says what it has acknowledged.
    prepare: fn(&Files, &Options) -> Model,
    /// Whether the cut may be in the opening; otherwise it comes after it.
    cuts_opening: bool,
    /// What is done once the log is open; false when the disk has stopped.
    run: fn(&mut World<Files>) -> bool,
    /// Fails unless the work, done to its end, did what it is there for. Given the files' names before and after.
    did: fn(&Files, &Names, &Names),
}

type Names = BTreeSet<String>;

fn names(disk: &Files) -> Names {
    disk.list().expect("names").into_iter().collect()
}

fn count(names: &Names, of: &str) -> usize {
    names.iter().filter(|name| name.contains(of)).count()
}

/// A model of one group more, after its birth.
fn with_group(mut model: Model, group: u64) -> Model {
    let known = ModelGroup { hard_state: state(1, 1), start: LogId::new(1, 1), released: 2, ..ModelGroup::default() };
    model.groups.insert(group, known);
    model
}

fn bear(world: &mut World<Files>, group: u64) -> bool {
    let next = with_group(world.model.clone(), group);
    world.append(&turn([born(group)]), next)
}

fn last(world: &World<Files>, group: u64) -> u64 {
    world.model.groups[&group].entries.last_key_value().map_or(1, |(&index, _)| index)
}

/// One more turn of `count` entries for each of these groups.
fn write(world: &mut World<Files>, groups: &[u64], count: u64, bytes: usize) -> bool {
    let mut next = world.model.clone();
    let mut writes = Vec::new();
    for &group in groups {
        let first = last(world, group) + 1;
        writes.push(append(group, first, count, 1, bytes));
        let known = next.groups.get_mut(&group).expect("it was born");
        known.hard_state = state(1, first - 1);
        known.entries.extend((first..first + count).map(|index| (index, (1, bytes))));
    }
    world.append(&Turn { writes }, next)
}

/// Group 1 needs no more than its newest ten entries.
fn release(world: &mut World<Files>) {
    let below = last(world, 1).saturating_sub(10);
    let known = world.model.groups.get_mut(&1).expect("it was born");
    known.released = known.released.max(below);
    world.log.as_mut().expect("open").release(RaftGroupId(1), LogIndex(below));
}

fn headroom(world: &World<Files>) -> u64 {
    world.log.as_ref().expect("open").headroom().bytes
}

/// Writes to group 1 until the log has rotated.
fn write_until_it_rotates(world: &mut World<Files>) -> bool {
    loop {
        let before = headroom(world);
        if !write(world, &[1], 5, 15_000) {
            return false;
        }
        if headroom(world) > before {
            return true;
        }
    }
}

/// A world over `disk` with a log that is open and has groups 1 and 2.
fn begin(disk: &Files, options: &Options) -> World<Files> {
    let mut world = World::over(disk.clone(), 1, options.clone(), Model::default());
    open_in(&mut world).expect("an empty directory opens");
    assert!(bear(&mut world, 1) && bear(&mut world, 2) && write(&mut world, &[1, 2], 2, 700));
    world
}

fn open_in(world: &mut World<Files>) -> Result<(), LogError> {
    let (log, recovery) = try_open(&world.disk, world.options.clone(), 7 + world.disk.changes())?;
    world.verify(&log, &recovery);
    world.log = Some(log);
    Ok(())
}

/// Does the work on a copy of `left` until it is cut at its `stop`-th change; true if it came to its end before.
fn cut(work: &Work, left: &Files, model: &Model, stop: u64, fate: Fate, lie: bool) -> bool {
    let disk = left.duplicate();
    let mut world = World::over(disk.clone(), 2, (work.options)(), model.clone());
    world.is_scarred = true;
    if lie {
        disk.lie();
    }
    if work.cuts_opening {
        disk.stop_after(stop);
    }
    let mut ended = match open_in(&mut world) {
        Ok(()) => true,
        Err(LogError::Disk { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    if ended {
        if !work.cuts_opening {
            disk.stop_after(stop);
        }
        ended = (work.run)(&mut world);
    }
    world.log = None;
    disk.crash_with(fate);
    expect_whole(&mut world);
    ended
}

/// The disk of production opens what is left, twice, and the log goes on.
fn expect_whole(world: &mut World<Files>) {
    for life in 0..2 {
        let real = world.disk.real();
        let (mut log, recovery) = try_open(&real, world.options.clone(), 100 + life).expect("what is left opens");
        world.verify(&log, &recovery);
        let next = last(world, 1) + 1;
        let known = world.model.groups.get_mut(&1).expect("it was born");
        known.hard_state = state(1, next - 1);
        known.entries.insert(next, (1, 50));
        log.append(&turn([append(1, next, 1, 1, 50)])).expect("the log goes on");
        assert_eq!(matches(&log, &log.groups(), &world.model), Ok(()));
    }
}

/// Runs `work` to its end once, then cuts it at each change with each fate. Returns the number of changes.
fn cut_everywhere(work: &Work, lie: bool) -> u64 {
    let left = Files::new();
    let model = (work.prepare)(&left, &(work.options)());
    left.kill();
    let whole = left.duplicate();
    let mut world = World::over(whole.clone(), 2, (work.options)(), model.clone());
    world.is_scarred = true;
    let mut before = names(&whole);
    open_in(&mut world).expect("it opens");
    if !work.cuts_opening {
        before = names(&whole);
    }
    assert!((work.run)(&mut world));
    (work.did)(&whole, &before, &names(&whole));
    for stop in 1.. {
        for fate in FATES {
            let done = catch_unwind(AssertUnwindSafe(|| cut(work, &left, &model, stop, fate, lie)));
            match done {
                Ok(true) => return stop - 1,
                Ok(false) => {}
                Err(panic) if lie => std::panic::resume_unwind(panic),
                Err(panic) => {
                    eprintln!("cut at change {stop}, {fate:?}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
        assert!(stop < 200, "the work comes to its end");
    }
    unreachable!("the loop returns or fails")
}

/// Leaves everything that an opening can have to do: a torn turn to keep and drop, a spare to take over and one of a
/// wrong length to remove, and a freed segment that is still there.
fn left_in_disorder(disk: &Files, options: &Options) -> Model {
    let mut world = begin(disk, options);
    let mut before = BTreeMap::new();
    while names(disk).contains(OLDEST) {
        before = names(disk).into_iter().map(|name| (name.clone(), disk.contents(&name))).collect();
        let all = last(&world, 2);
        world.log.as_mut().expect("open").release(RaftGroupId(2), LogIndex(all));
        world.model.groups.get_mut(&2).expect("it was born").released = all;
        release(&mut world);
        assert!(write(&mut world, &[2], 1, 100) && write_until_it_rotates(&mut world));
    }
    let acknowledged = world.model.clone();
    let at = SEGMENT - headroom(&world);
    assert!(write(&mut world, &[2], 3, 3_000));
    world.log = None;
    disk.kill();
    let newest = segments(disk).pop().expect("a segment");
    disk.zero(&newest, at + BLOCK, 512);
    let freed = before.iter().rfind(|(name, _)| name.starts_with("segment-") && !names(disk).contains(*name));
    let (freed, bytes) = freed.expect("the last rotation has freed one");
    disk.put(freed, bytes);
    disk.put("spare-0000000000000777.wal", &vec![0; SEGMENT as usize]);
    disk.put(SHORT_SPARE, &vec![0; BLOCK as usize]);
    acknowledged
}

/// A log whose last turn nothing proves.
fn left_unsealed(disk: &Files, options: &Options) -> Model {
    begin(disk, options).model
}

/// More segments than are retained, the oldest of which group 2 holds back with a few entries. Something is wrong with
/// the header of the second, which harms nobody.
fn left_to_be_freed(disk: &Files, options: &Options) -> Model {
    let mut world = begin(disk, options);
    while segments(disk).len() < 6 {
        assert!(write_until_it_rotates(&mut world));
    }
    release(&mut world);
    disk.zero(&segments(disk)[1], 0, 112);
    world.model
}

fn segments(disk: &Files) -> Vec<String> {
    names(disk).into_iter().filter(|name| name.starts_with("segment-") && name.ends_with(".wal")).collect()
}

/// The names in `before` with this prefix that are not in `after`.
fn gone<'a>(before: &'a Names, after: &'a Names, prefix: &str) -> Vec<&'a str> {
    let names = before.difference(after).filter(|name| name.starts_with(prefix));
    names.map(String::as_str).collect()
}

const OPENING_AFTER_AN_UNSEALED_TURN: Work = Work {
    options,
    prepare: left_unsealed,
    cuts_opening: true,
    run: |_| true,
    did: |_, before, after| assert_eq!(count(after, "segment-"), count(before, "segment-") + 1),
};

const OPENING_IN_DISORDER: Work = Work {
    prepare: left_in_disorder,
    did: |_, before, after| {
        assert_eq!((count(before, ".torn"), count(after, ".torn")), (0, 1), "a torn turn is kept");
        let spares = gone(before, after, "spare-");
        assert!(spares.contains(&SHORT_SPARE) && spares.len() > 1, "one was of no use, one is used: {spares:?}");
        assert!(!gone(before, after, "segment-").is_empty(), "one was freed");
    },
    ..OPENING_AFTER_AN_UNSEALED_TURN
};

const SEALING: Work = Work {
    options,
    prepare: left_unsealed,
    cuts_opening: false,
    run: |world| write(world, &[1, 2], 1, 500) && seal(world),
    did: |_, before, after| assert_eq!(count(before, "segment-"), count(after, "segment-")),
};

const ROTATING: Work = Work {
    options,
    prepare: left_unsealed,
    cuts_opening: false,
    run: write_until_it_rotates,
    did: |_, before, after| assert_eq!(count(after, "segment-"), count(before, "segment-") + 1),
};

/// Freed segments become spares.
const RECYCLING: Work = Work {
    options: || Options { recycled_max: 8, slack_bytes: SEGMENT, ..options() },
    prepare: left_to_be_freed,
    cuts_opening: false,
    run: rotate_thrice,
    did: |disk, before, after| {
        assert_eq!(disk.removals(), 0, "every freed file is used again");
        did_free(disk, before, after);
    },
};

/// Freed segments are removed.
const REMOVING: Work = Work {
    options: || Options { spares: 0, slack_bytes: SEGMENT, ..options() },
    did: |disk, before, after| {
        assert!(disk.removals() >= 2, "no freed file is used again");
        did_free(disk, before, after);
    },
    ..RECYCLING
};

fn rotate_thrice(world: &mut World<Files>) -> bool {
    (0..3).all(|_| {
        release(world);
        write_until_it_rotates(world)
    })
}

fn did_free(disk: &Files, before: &Names, after: &Names) {
    assert!(gone(before, after, "segment-").len() >= 2, "{before:?} {after:?}");
    assert_eq!(count(after, ".damaged"), 1, "the damaged one is put aside: {after:?}");
    let (log, _) = try_open(&disk.real(), options(), 5).expect("it opens");
    assert_eq!(all(&log, 2)[0], entry(2, 2, 1, 700), "it was in a freed segment, and copied forward");
}

fn seal(world: &mut World<Files>) -> bool {
    match world.log.as_mut().expect("open").seal() {
        Ok(()) => true,
        Err(LogError::Disk { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_cut_in_opening_loses_nothing() {
    let simple = cut_everywhere(&OPENING_AFTER_AN_UNSEALED_TURN, false);
    let in_disorder = cut_everywhere(&OPENING_IN_DISORDER, false);
    assert!(simple >= 10 && in_disorder >= simple + 6, "{simple}, {in_disorder} changes");
}

#[test]
fn a_cut_in_sealing_loses_nothing() {
    assert_eq!(cut_everywhere(&SEALING, false), 2 + 3 + 2, "a turn, the spare that it keeps in reserve, the seal");
}

#[test]
fn a_cut_in_rotating_loses_nothing() {
    assert!(cut_everywhere(&ROTATING, false) >= 20);
}

#[test]
fn a_cut_in_recycling_loses_nothing() {
    assert!(cut_everywhere(&RECYCLING, false) >= 60);
    assert!(cut_everywhere(&REMOVING, false) >= 60);
}

/// The control: a disk whose syncs do nothing loses what was acknowledged, and each of the above notices.
#[test]
fn syncs_that_do_nothing_are_noticed() {
    for work in [OPENING_AFTER_AN_UNSEALED_TURN, OPENING_IN_DISORDER, SEALING, ROTATING, RECYCLING, REMOVING] {
        let noticed = catch_unwind(AssertUnwindSafe(|| cut_everywhere(&work, true)));
        assert!(noticed.is_err(), "not noticed");
    }
}
