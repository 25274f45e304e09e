//! What retention removes is really given back: RocksDB's files are counted while partitions are written and trimmed.

use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::apply::{Applier, NoObserver};
use ackord::partition::Partition;
use ackord::partition::command::Command;
use ackord::partition::retention::Retention;
use ackord::record::writer::BatchWriter;
use ackord::storage::rocks::{RocksEngine, RocksOptions};
use ackord::storage::{Engine, WriteBatch};
use ackord::types::{ClusterId, EntryKind, LogEntry, LogId, Membership, NodeId, Offset, RaftGroupId, ReplicaId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const PARTITIONS: u64 = 3;
/// What each partition keeps.
const LIMIT: u64 = 8 * MIB;
/// What each partition is given.
const TOTAL: u64 = 160 * MIB;
/// Small files, so that there are many.
const OPTIONS: RocksOptions =
    RocksOptions { write_buffer_bytes: 12 << 20, block_cache_bytes: 8 << 20, open_files_max: 512 };

/// The bytes of the database's table files.
fn on_disk(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let tables = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "sst"));
    // A file may go while it is looked at.
    tables.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// Partitions on RocksDB, driven as the threads of a node drive them.
struct World {
    engine: Arc<RocksEngine>,
    applier: Applier<Arc<RocksEngine>>,
    next: BTreeMap<RaftGroupId, u64>,
}

impl World {
    fn open(directory: &Path) -> Self {
        let engine = Arc::new(RocksEngine::open(directory, OPTIONS).unwrap());
        let (mut machines, mut next) = (BTreeMap::new(), BTreeMap::new());
        for group in (1..=PARTITIONS).map(RaftGroupId) {
            let mut batch = WriteBatch::default();
            let members = Membership::of_voters([ReplicaId::new(NodeId(1), 0)]);
            let partition = Partition::open(&*engine, group).unwrap();
            let partition =
                partition.unwrap_or_else(|| Partition::create(group, LogId::default(), members, &mut batch));
            engine.write(batch).unwrap();
            let machine = Machine::Partition(Box::new(partition));
            next.insert(group, machine.applied().index.0 + 1);
            machines.insert(group, machine);
        }
        let applier = Applier::new(Arc::clone(&engine), ClusterId(1), machines, Box::new(NoObserver));
        Self { engine, applier, next }
    }

    fn partition(&self, group: RaftGroupId) -> &Partition {
        let Some(Machine::Partition(partition)) = self.applier.machine(group) else { panic!("it is a partition") };
        partition
    }

    fn apply(&mut self, group: RaftGroupId, command: Command, data: Bytes) {
        let next = self.next.get_mut(&group).unwrap();
        let (id, context) = (LogId::new(*next, 1), command.encode());
        *next += 1;
        let entry = LogEntry { id, kind: EntryKind::Normal, context, data };
        self.applier.apply(group, &[entry], &[]).unwrap();
    }

    fn write(&mut self, group: RaftGroupId, bytes: usize) {
        let value = vec![self.next[&group] as u8; bytes];
        let batch = BatchWriter::new(0).record(None, Some(&value), 0).finish();
        self.apply(group, Command::Produce { proposed_at_ms: 0 }, batch.into_bytes());
    }

    fn retain(&mut self, group: RaftGroupId, bytes: u64) {
        let retention = Retention { age_max_ms: None, bytes: Some(bytes) };
        if let Some(offset) = self.partition(group).view().retained_start(&*self.engine, &retention, 0).unwrap() {
            self.apply(group, Command::SetLogStart { offset }, Bytes::new());
        }
    }

    /// A flush; and what the threads do after one.
    fn flush(&mut self, reclaims: bool) {
        let plan = self.applier.begin_flush().unwrap();
        self.engine.flush().unwrap();
        if reclaims {
            plan.freed.iter().for_each(|freed| freed.reclaim(&*self.engine).unwrap());
            self.engine.merge_deleted().unwrap();
        }
    }

    /// Everything from the log start on can be read.
    fn check(&self) {
        for group in (1..=PARTITIONS).map(RaftGroupId) {
            let view = self.partition(group).view();
            let mut offset = view.log_start;
            while offset < view.high_watermark {
                offset = view.fetch(&*self.engine, offset, 4 << 20, true).unwrap().last().unwrap().next_offset();
            }
        }
    }
}

/// Partitions take turns, so that every file that a flush writes has something of each of them.
fn fill(world: &mut World, directory: &Path) -> u64 {
    let (mut max, record) = (0, 512 << 10);
    for round in 0..TOTAL / record {
        for group in (1..=PARTITIONS).map(RaftGroupId) {
            world.write(group, record as usize - 200);
            world.retain(group, LIMIT);
        }
        if round % 16 == 15 {
            world.flush(true);
            max = on_disk(directory).max(max);
        }
    }
    max
}

#[test]
fn the_disk_is_bounded_by_what_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::open(directory.path());
    let max = fill(&mut world, directory.path());
    let kept = PARTITIONS * LIMIT;
    println!("{} MiB at most, {} MiB at the end", max / MIB, on_disk(directory.path()) / MIB);
    assert!(max < 5 * kept, "{} MiB on the disk where {} MiB are kept", max / MIB, kept / MIB);
    world.check();

    // All of one partition goes: the others stay.
    let view = world.partition(RaftGroupId(2)).view();
    world.apply(RaftGroupId(2), Command::SetLogStart { offset: view.high_watermark }, Bytes::new());
    assert!(world.applier.take_flush_wish(), "a flush would give space back");
    world.flush(true);
    world.check();
    let starts = |world: &World| [1, 2, 3].map(|group| world.partition(RaftGroupId(group)).view().log_start);
    let before = starts(&world);
    drop(world);
    let world = World::open(directory.path());
    assert_eq!(starts(&world), before);
    world.check();
}

/// A process that ends between the flush and the dropping of files drops them after its next start.
#[test]
fn what_was_not_given_back_is_given_back_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::open(directory.path());
    for _ in 0..15 {
        (1..=PARTITIONS).for_each(|group| world.write(RaftGroupId(group), MIB as usize));
    }
    world.flush(true);
    let full = on_disk(directory.path());
    assert!(full > PARTITIONS * 15 * MIB);
    for group in (1..=PARTITIONS).map(RaftGroupId) {
        world.apply(group, Command::SetLogStart { offset: Offset(14) }, Bytes::new());
    }
    world.flush(false);
    drop(world);
    let mut world = World::open(directory.path());
    assert!(world.applier.take_flush_wish(), "nothing was written, and a flush is wanted");
    let still = on_disk(directory.path());
    assert!(still > full / 2, "{still} of {full} bytes: it has come back by itself");
    world.flush(true);
    let left = on_disk(directory.path());
    assert!(left < full / 4, "{} of {} MiB are left", left / MIB, full / MIB);
    world.check();
}
