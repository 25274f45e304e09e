//! A replica that gets a snapshot ends in the sender's state, whatever it had before, however the transfer is cut, and
//! wherever it crashes.

use ackord::machine::StateMachine;
use ackord::partition::Partition;
use ackord::partition::producers::PRODUCER_EXPIRATION_MS;
use ackord::partition::snapshot::{Install, InstallError, SnapshotChunk, SnapshotHead};
use ackord::record::writer::BatchWriter;
use ackord::sim::engine::SimEngine;
use ackord::storage::rocks::{RocksEngine, RocksOptions};
use ackord::storage::{Engine, Family};
use ackord::types::{LogEntry, LogId, Offset};

#[path = "support/partition_workload.rs"]
mod workload;
use workload::*;

/// A sender after all of `log`, and what it must be able to serve.
fn sender(log: &[LogEntry]) -> (SimEngine, Partition, Vec<Expected>) {
    let engine = SimEngine::default();
    let mut partition = create(&engine);
    let outcomes = apply(&engine, &mut partition, log);
    let expected = expected(log, &outcomes);
    (engine, partition, expected)
}

fn over_the_wire(head: &SnapshotHead) -> SnapshotHead {
    let decoded = SnapshotHead::decode(&head.encode()).unwrap();
    assert_eq!(&decoded, head);
    decoded
}

fn pull(from: &SimEngine, sender: &Partition, install: &Install, bytes_max: usize) -> SnapshotChunk {
    let wanted = install.wants().expect("there is something to pull");
    sender.view().snapshot_chunk(from, wanted, install.head().next_offset, bytes_max).unwrap()
}

/// Everything of a state but which generation it is under, and how its time index is cut into runs.
fn contents(partition: &Partition) -> (LogId, SnapshotHead) {
    (partition.applied(), partition.snapshot_head())
}

/// The whole of an installation, as the group's driver does it.
fn install(from: &SimEngine, sender: &Partition, to: &dyn Engine, receiver: &Partition, bytes_max: usize) -> Partition {
    let mut install = receiver.begin_install(to, over_the_wire(&sender.snapshot_head())).unwrap();
    while install.wants().is_some() {
        let chunk = pull(from, sender, &install, bytes_max);
        install.receive(to, &chunk).unwrap();
    }
    let (installed, freed) = install.finish(to).unwrap();
    to.flush().unwrap();
    freed.reclaim(to).unwrap();
    installed
}

#[test]
fn from_any_prefix_the_receiver_ends_in_the_senders_state() {
    for seed in 0..8 {
        let log = entries(seed, 160);
        let (from, sending, expected) = sender(&log);
        let mut rng = fastrand::Rng::with_seed(seed);
        for applied in (0..log.len()).step_by(7) {
            let to = SimEngine::default();
            let mut receiver = create(&to);
            apply(&to, &mut receiver, &log[..applied]);
            let installed = install(&from, &sending, &to, &receiver, rng.usize(0..3_000));
            assert_eq!(contents(&installed), contents(&sending));
            check_reads(&to, &installed, &expected, &mut rng);
            assert_eq!(Partition::open(&to, GROUP).unwrap().unwrap(), installed, "and so it is after a restart");
        }
    }
}

#[test]
fn only_what_is_missing_is_sent() {
    let batch = || BatchWriter::new(0).record(None, Some(b"value"), 0).finish();
    let log: Vec<_> = (1..=20).map(|index| produce(index, 1 + index / 8, 0, batch())).collect();
    let (_, sending, _) = sender(&log);
    let to = SimEngine::default();
    let mut receiver = create(&to);
    apply(&to, &mut receiver, &log[..12]);
    let wanted = receiver.begin_install(&to, sending.snapshot_head()).unwrap();
    assert_eq!((wanted.wants(), wanted.generation()), (Some(Offset(12)), receiver.generation()));
    // The same offsets, but another leader's: not a prefix.
    let to = SimEngine::default();
    let mut foreign = create(&to);
    let other: Vec<_> = (1..=12).map(|index| produce(index, 9, 0, batch())).collect();
    apply(&to, &mut foreign, &other);
    let wanted = foreign.begin_install(&to, sending.snapshot_head()).unwrap();
    assert_eq!((wanted.wants(), wanted.generation()), (Some(Offset(0)), foreign.generation() + 1));
    assert_eq!(wanted.generation(), foreign.generation_for(&sending.snapshot_head()), "as the log record said before");
    assert!(matches!(sending.begin_install(&to, sending.snapshot_head()), Err(InstallError::Stale { .. })));
}

/// Batches so large that the time index has several rows: a receiver that keeps its records ends with the very rows of
/// the sender, and one that gives up has none of them.
#[test]
fn rows_are_the_senders_to_the_last_byte() {
    let value = vec![5u8; 900 << 10];
    let times = [50i64, 90, 20, 30, 10, 60, 70, 5, 80, 40, 15, 25, 35, 45, 55];
    let batch = |time| BatchWriter::new(0).record(None, Some(&value), time).finish();
    let log: Vec<_> = (1..).zip(times).map(|(index, time)| produce(index, 1, 0, batch(time))).collect();
    let (from, sending, expected) = sender(&log);
    assert!(dump(&from).iter().any(|(family, ..)| *family == Family::Times));
    for applied in 0..log.len() {
        let to = SimEngine::default();
        let mut receiver = create(&to);
        apply(&to, &mut receiver, &log[..applied]);
        let before = dump(&to);
        let mut abandoned = receiver.begin_install(&to, sending.snapshot_head()).unwrap();
        while abandoned.wants().is_some() {
            let chunk = pull(&from, &sending, &abandoned, 1 << 20);
            abandoned.receive(&to, &chunk).unwrap();
        }
        assert_eq!(Partition::open(&to, GROUP).unwrap().unwrap(), receiver);
        assert!(dump(&to) == before, "leftovers after {applied}");
        let installed = install(&from, &sending, &to, &receiver, 3 << 20);
        assert_eq!(installed, sending);
        assert!(dump(&to) == dump(&from), "rows after {applied}");
        check_reads(&to, &installed, &expected, &mut fastrand::Rng::with_seed(applied as u64));
    }
}

#[test]
fn producers_that_the_sender_has_forgotten_are_forgotten() {
    let batch = |id| BatchWriter::new(0).producer(id, 0, 0).record(None, None, 0).finish();
    let log = [produce(1, 1, 0, batch(1)), produce(2, 1, PRODUCER_EXPIRATION_MS, batch(2))];
    let (from, sending, _) = sender(&log);
    let to = SimEngine::default();
    let mut receiver = create(&to);
    apply(&to, &mut receiver, &log[..1]);
    let known = |partition: &Partition| [-1, 1, 2].map(|id| partition.view().knows_producer(&to, id).unwrap());
    assert_eq!(known(&receiver), [false, true, false]);
    assert_eq!(receiver.generation_for(&sending.snapshot_head()), receiver.generation(), "the rows stay in place");
    let installed = install(&from, &sending, &to, &receiver, 1_000);
    assert_eq!(known(&installed), [false, false, true]);
    assert_eq!(Partition::open(&to, GROUP).unwrap().unwrap(), installed);
}

/// After every write of the installation, and with every prefix of the unflushed ones kept, the receiver is in its old
/// state or in the new one, nothing else is left, and both the log's replay and another installation work from there.
#[test]
fn a_crash_after_any_step_leaves_the_old_state_or_the_new_one() {
    let log = entries(11, 120);
    let (from, sending, expected) = sender(&log);
    for (applied, foreign) in [(0, false), (40, false), (90, false), (30, true)] {
        let own = if foreign { entries(99, 60) } else { log.clone() };
        let mut crash_at = 0;
        loop {
            let to = SimEngine::default();
            let mut receiver = create(&to);
            apply(&to, &mut receiver, &own[..applied]);
            to.flush().unwrap();
            let before = dump(&to);
            let mut install = receiver.begin_install(&to, sending.snapshot_head()).unwrap();
            for step in 0.. {
                if step == crash_at {
                    break;
                }
                if install.wants().is_none() {
                    break;
                }
                let chunk = pull(&from, &sending, &install, 2_000);
                install.receive(&to, &chunk).unwrap();
            }
            let complete = install.wants().is_none();
            if complete {
                let _ = install.finish(&to).unwrap();
            }
            for kept in (0..=to.unflushed()).rev() {
                let (engine, survived) = (SimEngine::default(), kept == to.unflushed());
                replay_writes(&to, &engine, kept, &before);
                let opened = Partition::open(&engine, GROUP).unwrap().unwrap();
                if complete && survived {
                    assert_eq!(contents(&opened), contents(&sending));
                    check_reads(&engine, &opened, &expected, &mut fastrand::Rng::with_seed(1));
                    continue;
                }
                assert_eq!(opened, receiver, "crash after {crash_at} chunks with {kept} writes kept");
                assert_eq!(dump(&engine), before, "nothing is left of the installation");
                if !foreign {
                    let mut replayed = opened.clone();
                    let again = SimEngine::default();
                    replay_writes(&to, &again, kept, &before);
                    assert_eq!(Partition::open(&again, GROUP).unwrap().unwrap(), opened);
                    apply(&again, &mut replayed, &log[applied..]);
                    assert_eq!(dump(&again), dump(&from), "the log's replay from there");
                }
                let installed = self::install(&from, &sending, &engine, &opened, 5_000);
                assert_eq!(contents(&installed), contents(&sending));
            }
            if complete {
                break;
            }
            crash_at += 1;
        }
        assert!(crash_at > 0);
    }
}

/// Puts into `to` what a crash of `from` with `kept` writes would leave; `before` is the state at the last flush.
fn replay_writes(from: &SimEngine, to: &SimEngine, kept: usize, before: &[(Family, Vec<u8>, Vec<u8>)]) {
    let mut batch = ackord::storage::WriteBatch::default();
    for (family, key, value) in before {
        batch.put(*family, key.clone(), value.clone());
    }
    to.write(batch).unwrap();
    for write in &from.unflushed_batches()[..kept] {
        to.write(write.clone()).unwrap();
    }
    to.flush().unwrap();
}

#[test]
fn the_senders_log_start_may_move_on_while_it_sends() {
    let log = entries(21, 200);
    let (from, mut sending, expected) = sender(&log);
    for (applied, moves_to) in [(0, 60), (30, 150), (30, i64::MAX)] {
        let to = SimEngine::default();
        let mut receiver = create(&to);
        apply(&to, &mut receiver, &log[..applied]);
        let mut install = receiver.begin_install(&to, sending.snapshot_head()).unwrap();
        let chunk = pull(&from, &sending, &install, 100);
        install.receive(&to, &chunk).unwrap();
        let (index, term) = (sending.applied().index.0 + 1, sending.applied().term.0);
        let target = install.wants().map_or(moves_to, |wanted| moves_to.saturating_add(wanted.0));
        apply(&from, &mut sending, &[set_log_start(index, term, target)]);
        let mut trimmed = ackord::storage::WriteBatch::default();
        let _ = sending.view().trim(&from, &mut trimmed).unwrap();
        from.write(trimmed).unwrap();
        while install.wants().is_some() {
            let chunk = pull(&from, &sending, &install, 1_000);
            install.receive(&to, &chunk).unwrap();
        }
        let (mut installed, _) = install.finish(&to).unwrap();
        assert_eq!(Partition::open(&to, GROUP).unwrap().unwrap(), installed);
        check_reads(&to, &installed, &expected, &mut fastrand::Rng::with_seed(2));
        apply(&to, &mut installed, &[set_log_start(index, term, target)]);
        assert_eq!(contents(&installed), contents(&sending), "level again once the entry is applied here, too");
    }
}

#[test]
fn a_damaged_or_foreign_transfer_is_refused_and_changes_nothing_readable() {
    let log = entries(31, 80);
    let (from, sending, expected) = sender(&log);
    let to = SimEngine::default();
    let receiver = create(&to);
    let mut install = receiver.begin_install(&to, sending.snapshot_head()).unwrap();
    let good = pull(&from, &sending, &install, 1_000);
    let refuse = |install: &mut Install, change: &dyn Fn(&mut SnapshotChunk)| {
        let mut chunk = good.clone();
        change(&mut chunk);
        assert!(matches!(install.receive(&to, &chunk), Err(InstallError::Refused(_))));
    };
    refuse(&mut install, &|chunk| chunk.batches[0].1 = chunk.batches[0].1.slice(..30));
    refuse(&mut install, &|chunk| {
        let mut bytes = chunk.batches[0].1.to_vec();
        bytes[40] ^= 4;
        chunk.batches[0].1 = bytes.into();
    });
    refuse(&mut install, &|chunk| drop(chunk.batches.remove(0)));
    refuse(&mut install, &|chunk| chunk.batches[0].0 = Offset(-5));
    refuse(&mut install, &|chunk| chunk.batches.clear());
    refuse(&mut install, &|chunk| chunk.batches[1].0 = Offset(0));
    assert_eq!(Partition::open(&to, GROUP).unwrap().unwrap(), receiver);
    let mut install = receiver.begin_install(&to, sending.snapshot_head()).unwrap();
    refuse(&mut install, &|chunk| chunk.batches[1].0 = Offset(0));
    while install.wants().is_some() {
        let chunk = pull(&from, &sending, &install, 1_000);
        install.receive(&to, &chunk).unwrap();
    }
    let (installed, _) = install.finish(&to).unwrap();
    assert_eq!(contents(&installed), contents(&sending));
    check_reads(&to, &installed, &expected, &mut fastrand::Rng::with_seed(1));
    let head = sending.snapshot_head().encode();
    for end in 0..head.len() {
        assert!(SnapshotHead::decode(&head[..end]).is_err(), "cut at {end}");
    }
    for at in 0..head.len() {
        for bit in 0..8 {
            let mut flipped = head.to_vec();
            flipped[at] ^= 1 << bit;
            let _ = SnapshotHead::decode(&flipped);
        }
    }
}

#[test]
fn on_rocksdb_an_installation_replaces_another_history() {
    let log = entries(41, 150);
    let (from, sending, expected) = sender(&log);
    let directory = tempfile::tempdir().unwrap();
    let options = RocksOptions { write_buffer_bytes: 4 << 20, ..RocksOptions::default() };
    let engine = RocksEngine::open(directory.path(), options).unwrap();
    let mut foreign = create(&engine);
    apply(&engine, &mut foreign, &entries(42, 60));
    let installed = install(&from, &sending, &engine, &foreign, 3_000);
    drop(engine);
    let engine = RocksEngine::open(directory.path(), options).unwrap();
    assert_eq!(Partition::open(&engine, GROUP).unwrap().unwrap(), installed);
    check_reads(&engine, &installed, &expected, &mut fastrand::Rng::with_seed(4));
    assert_eq!(dump(&engine).len(), {
        let same = SimEngine::default();
        let receiver = create(&same);
        install(&from, &sending, &same, &receiver, 3_000);
        dump(&same).len()
    });
}
