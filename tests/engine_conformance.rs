//! What every engine must do, checked on both: RocksDB, and the simulator's stand-in, which is also the model.

use ackord::sim::engine::SimEngine;
use ackord::storage::rocks::{RocksEngine, RocksOptions};
use ackord::storage::{Engine, Family, WriteBatch};
use bytes::Bytes;
use proptest::prelude::*;
use std::ops::ControlFlow;

fn rocks(directory: &tempfile::TempDir) -> RocksEngine {
    RocksEngine::open(directory.path(), RocksOptions { write_buffer_bytes: 8 << 20, ..RocksOptions::default() })
        .unwrap()
}

/// Runs `check` on both engines.
fn on_both(check: impl Fn(&dyn Engine)) {
    check(&SimEngine::default());
    let directory = tempfile::tempdir().unwrap();
    check(&rocks(&directory));
}

/// A key as the state machines make them: group, generation, place.
fn key(group: u64, generation: u64, place: u64) -> Vec<u8> {
    [group, generation, place].into_iter().flat_map(u64::to_be_bytes).collect()
}

fn rows(engine: &dyn Engine, family: Family, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    engine
        .scan(family, from, to, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

#[test]
fn families_are_apart_and_a_later_change_wins() {
    on_both(|engine| {
        let mut batch = WriteBatch::default();
        for (n, family) in Family::ALL.into_iter().enumerate() {
            batch.put(family, b"key".to_vec(), vec![n as u8]);
        }
        batch.put(Family::Meta, b"key".to_vec(), &b"second"[..]);
        batch.put(Family::Groups, b"gone".to_vec(), &b"x"[..]);
        batch.delete(Family::Groups, b"gone".to_vec());
        engine.write(batch).unwrap();
        for (n, family) in Family::ALL.into_iter().enumerate().filter(|(_, family)| *family != Family::Meta) {
            assert_eq!(engine.get(family, b"key").unwrap().unwrap(), vec![n as u8]);
        }
        assert_eq!(engine.get(Family::Meta, b"key").unwrap().unwrap(), &b"second"[..]);
        assert_eq!(engine.get(Family::Groups, b"gone").unwrap(), None);
    });
}

#[test]
fn scans_are_ordered_half_open_and_end_on_break() {
    on_both(|engine| {
        let mut batch = WriteBatch::default();
        for place in [5u64, 1, 300, 2] {
            batch.put(Family::Records, key(1, 1, place), place.to_string());
        }
        batch.put(Family::Records, key(1, 2, 0), "other generation");
        batch.put(Family::Records, key(2, 1, 0), "other group");
        engine.write(batch).unwrap();
        let places: Vec<_> =
            rows(engine, Family::Records, &key(1, 1, 2), &key(1, 1, 300)).into_iter().map(|(_, value)| value).collect();
        assert_eq!(places, [b"2", b"5"]);
        assert_eq!(rows(engine, Family::Records, &key(1, 0, 0), &key(2, 1, 1)).len(), 6, "across prefixes");
        assert_eq!(rows(engine, Family::Records, &key(1, 1, 9), &key(1, 1, 9)), []);
        assert_eq!(rows(engine, Family::Records, &key(1, 1, 9), &key(1, 1, 3)), [], "an empty range is no error");
        let mut seen = 0;
        let stop = &mut |_: &[u8], _: &[u8]| {
            seen += 1;
            if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        engine.scan(Family::Records, &key(0, 0, 0), &key(9, 0, 0), stop).unwrap();
        assert_eq!(seen, 2);
    });
}

#[test]
fn the_last_row_at_or_before_a_key_stays_within_its_bounds() {
    on_both(|engine| {
        let mut batch = WriteBatch::default();
        batch.put(Family::Records, key(1, 1, 10), "ten");
        batch.put(Family::Records, key(1, 1, 20), "twenty");
        batch.put(Family::Records, key(0, 9, 9), "other group");
        engine.write(batch).unwrap();
        engine.flush().unwrap();
        let last = |from: u64, at: u64| {
            engine.last_at_or_before(Family::Records, &key(1, 1, from), &key(1, 1, at)).unwrap().map(|(_, value)| value)
        };
        assert_eq!(last(0, 20), Some(Bytes::from("twenty")));
        assert_eq!(last(0, 19), Some(Bytes::from("ten")));
        assert_eq!(last(0, u64::MAX), Some(Bytes::from("twenty")));
        assert_eq!(last(0, 9), None, "the row of another group is out of bounds");
        assert_eq!(last(11, 19), None);
        assert_eq!(last(20, 10), None);
        let across = engine.last_at_or_before(Family::Records, &key(0, 0, 0), &key(1, 0, 0)).unwrap();
        assert_eq!(across.unwrap().1, "other group");
    });
}

#[test]
fn deleted_ranges_stay_deleted_through_flush_and_reclaim() {
    on_both(|engine| {
        for place in 0..100 {
            let mut batch = WriteBatch::default();
            batch.put(Family::Records, key(7, 1, place), vec![1; 1_000]);
            engine.write(batch).unwrap();
        }
        engine.flush().unwrap();
        let mut batch = WriteBatch::default();
        batch.delete_range(Family::Records, key(7, 1, 0), key(7, 1, 60));
        batch.put(Family::Records, key(7, 1, 30), "written after the deletion");
        engine.write(batch).unwrap();
        assert_eq!(rows(engine, Family::Records, &key(7, 1, 0), &key(7, 1, 60)).len(), 1);
        let mut batch = WriteBatch::default();
        batch.delete(Family::Records, key(7, 1, 30));
        engine.write(batch).unwrap();
        engine.flush().unwrap();
        engine.reclaim(Family::Records, &key(7, 1, 0), &key(7, 1, 60)).unwrap();
        assert_eq!(rows(engine, Family::Records, &key(7, 1, 0), &key(7, 1, 60)), []);
        assert_eq!(rows(engine, Family::Records, &key(7, 1, 0), &key(7, 1, 1_000)).len(), 40);
        assert_eq!(engine.get(Family::Records, &key(7, 1, 59)).unwrap(), None);
        assert!(engine.get(Family::Records, &key(7, 1, 60)).unwrap().is_some());
    });
}

#[test]
fn a_crash_of_the_model_keeps_whole_batches_up_to_some_point_after_the_flush() {
    let engine = SimEngine::default();
    let write = |n: u64| {
        let mut batch = WriteBatch::default();
        batch.put(Family::Meta, key(1, 0, 0), n.to_string());
        batch.put(Family::Records, key(1, 0, n), "row");
        engine.write(batch).unwrap();
    };
    (1..=3).for_each(write);
    engine.flush().unwrap();
    (4..=9).for_each(write);
    assert_eq!(engine.unflushed(), 6);
    engine.crash(2);
    assert_eq!(engine.get(Family::Meta, &key(1, 0, 0)).unwrap().unwrap(), "5");
    assert_eq!(rows(&engine, Family::Records, &key(1, 0, 0), &key(2, 0, 0)).len(), 5);
    assert_eq!(engine.unflushed(), 0, "what survived a crash is durable");
    engine.fail("disk full");
    assert!(engine.write(WriteBatch::default()).is_err() && engine.flush().is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, u64, u64, u8),
    Delete(usize, u64, u64),
    DeleteRange(usize, u64, u64),
    Flush,
    /// The process is killed; the disk is as it was at that moment.
    Crash,
    Last(usize, u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (family, group, place) = (0..Family::ALL.len(), 0..3u64, 0..20u64);
    prop_oneof![
        5 => (family.clone(), group.clone(), place.clone(), any::<u8>()).prop_map(|(f, g, p, v)| Step::Put(f, g, p, v)),
        1 => (family.clone(), group.clone(), place.clone()).prop_map(|(f, g, p)| Step::Delete(f, g, p)),
        1 => (family.clone(), 0..60u64, 0..60u64).prop_map(|(f, a, b)| Step::DeleteRange(f, a, b)),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
        2 => (family, group, place).prop_map(|(f, g, p)| Step::Last(f, g, p)),
    ]
}

/// Everything in a database.
fn everything(engine: &dyn Engine) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    Family::ALL.into_iter().map(|family| rows(engine, family, &key(0, 0, 0), &key(9, 0, 0))).collect()
}

/// A model that was written these batches and nothing else.
fn model_of(batches: &[WriteBatch]) -> SimEngine {
    let model = SimEngine::default();
    batches.iter().for_each(|batch| model.write(batch.clone()).unwrap());
    model.flush().unwrap();
    model
}

/// The files of a directory, but for the lock; nothing if they change under way.
fn files(directory: &tempfile::TempDir) -> std::io::Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory.path())? {
        let entry = entry?;
        if entry.file_name() != "LOCK" {
            files.push((entry.file_name(), std::fs::read(entry.path())?));
        }
    }
    files.sort();
    Ok(files)
}

/// What a killed process leaves of its database: its files as they are at one moment, in another place.
fn killed(directory: &tempfile::TempDir) -> (RocksEngine, tempfile::TempDir) {
    // What the database does in the background changes files one by one; two equal looks are one moment.
    let moment = (0..1_000).find_map(|_| {
        let (first, second) = (files(directory).ok()?, files(directory).ok()?);
        (first == second).then_some(first)
    });
    let left = tempfile::tempdir().unwrap();
    for (name, bytes) in moment.expect("the database comes to rest") {
        std::fs::write(left.path().join(name), bytes).unwrap();
    }
    (rocks(&left), left)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// RocksDB answers as the model does, whatever is written and however it is spread over files; and after a crash it
    /// is what the model may be: whole batches up to some point at or after the last flush.
    #[test]
    fn both_engines_agree(steps in prop::collection::vec(step(), 1..80)) {
        let mut directory = tempfile::tempdir().unwrap();
        let (mut model, mut real) = (SimEngine::default(), rocks(&directory));
        let (mut batches, mut flushed): (Vec<WriteBatch>, usize) = (Vec::new(), 0);
        let place = |n: u64| key(n / 20, 1, n % 20);
        for step in steps {
            let mut batch = WriteBatch::default();
            match step {
                Step::Put(f, g, p, v) => batch.put(Family::ALL[f], key(g, 1, p), vec![v]),
                Step::Delete(f, g, p) => batch.delete(Family::ALL[f], key(g, 1, p)),
                Step::DeleteRange(f, a, b) => batch.delete_range(Family::ALL[f], place(a.min(b)), place(a.max(b))),
                Step::Flush => {
                    model.flush().unwrap();
                    real.flush().unwrap();
                    flushed = batches.len();
                }
                Step::Crash => {
                    (real, directory) = killed(&directory);
                    let found = everything(&real);
                    let kept = (flushed..=batches.len()).find(|kept| everything(&model_of(&batches[..*kept])) == found);
                    prop_assert!(kept.is_some(), "no prefix of the batches after the flush gives {found:?}");
                    batches.truncate(kept.unwrap());
                    flushed = batches.len();
                    model = model_of(&batches);
                }
                Step::Last(f, g, p) => {
                    let (from, at) = (key(g, 1, 0), key(g, 1, p));
                    let ask = |engine: &dyn Engine| engine.last_at_or_before(Family::ALL[f], &from, &at).unwrap();
                    prop_assert_eq!(ask(&model), ask(&real));
                }
            }
            model.write(batch.clone()).unwrap();
            real.write(batch.clone()).unwrap();
            batches.push(batch);
        }
        model.flush().unwrap();
        real.flush().unwrap();
        drop(real);
        real = rocks(&directory);
        prop_assert_eq!(everything(&model), everything(&real));
    }
}
