//! A replica whose state machine is missing or damaged takes in a peer's state as a whole, whatever is left of its
//! rows, and nobody sees it before it is complete.

use ackord::controller::Controller;
use ackord::coordinator::Coordinator;
use ackord::coordinator::command::{Action, Command, Commit, NewOffset};
use ackord::machine::{StateMachine, own};
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::apply::transfer::{SnapshotBody, SnapshotMessage};
use ackord::multiraft::apply::{Applier, NoObserver, Observer, Transferred};
use ackord::partition::Partition;
use ackord::sim::engine::SimEngine;
use ackord::storage::{Engine, Family, WriteBatch};
use ackord::types::{CONTROLLER_GROUP, ClusterId, LogEntry, LogId, NodeId, RaftGroupId, ReplicaId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[path = "support/partition_workload.rs"]
mod workload;
use workload::{GROUP, apply, check_reads, create, dump, entries, expected, membership};

const CLUSTER: ClusterId = ClusterId(3);
const SENDER: ReplicaId = ReplicaId::new(NodeId(1), 0);
const RECEIVER: ReplicaId = ReplicaId::new(NodeId(2), 0);

fn applier<E: Engine>(engine: E, machine: Option<(RaftGroupId, Machine)>) -> Applier<E> {
    Applier::new(engine, CLUSTER, machine.into_iter().collect(), Box::new(NoObserver))
}

/// Fetches the sender's state as of now into the receiver, and switches to it.
fn repair<S: Engine, R: Engine>(group: RaftGroupId, sender: &mut Applier<S>, receiver: &mut Applier<R>) {
    let meta = sender.build_snapshot(group).expect("the sender has the group");
    let at = meta.at;
    let mut next = receiver.fetch(group, RECEIVER, SENDER, meta);
    while next.done.is_none() {
        let answer = sender.transferred(next.send.take().expect("a question")).send.expect("an answer");
        assert!(receiver.machine(group).is_none(), "not before it is complete");
        next = receiver.transferred(answer);
    }
    assert!(matches!(next.done, Some((done, Some(_))) if done == at), "{:?}", next.done);
    // A question that was repeated is answered late, by a sender that has a newer state by then.
    let late = SnapshotMessage { group, from: SENDER, to: RECEIVER, at, body: SnapshotBody::Gone };
    assert_eq!(receiver.transferred(late).done, None);
    let freed = receiver.install(group, at).expect("it can be switched to");
    assert_eq!(own::get(receiver.engine(), group).expect("it reads"), Some(RECEIVER), "not the sender's row");
    receiver.engine().flush().expect("it flushes");
    if let Some(freed) = freed {
        freed.reclaim(receiver.engine()).expect("it reclaims");
    }
}

fn partition(machine: Option<&Machine>) -> &Partition {
    match machine {
        Some(Machine::Partition(partition)) => partition,
        _ => panic!("a partition"),
    }
}

/// The rows of a partition without their generation.
fn contents(engine: &dyn Engine) -> Vec<(Family, Vec<u8>, Vec<u8>)> {
    let mut rows = dump(engine);
    rows.retain(|(family, ..)| matches!(family, Family::Records | Family::Producers));
    rows.iter_mut().for_each(|(_, key, _)| drop(key.drain(8..16)));
    rows
}

/// Row `number` of a family, from the end.
fn row(engine: &dyn Engine, family: Family, number: usize) -> Vec<u8> {
    let mut keys = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    };
    engine.scan(family, &[], &[0xff; 32], visit).expect("it reads");
    keys.iter().rev().nth(number).expect("there are so many rows").clone()
}

fn put(engine: &dyn Engine, family: Family, key: Vec<u8>, value: Option<&'static [u8]>) {
    let mut batch = WriteBatch::default();
    match value {
        Some(value) => batch.put(family, key, Bytes::from_static(value)),
        None => batch.delete(family, key),
    }
    engine.write(batch).expect("it writes");
}

/// A kind of damage to a partition's rows.
type Damage = fn(&dyn Engine);

const DAMAGE: [(&str, Damage); 6] = [
    ("a damaged position", |engine| put(engine, Family::Meta, row(engine, Family::Meta, 1), Some(b"\x02nonsense"))),
    ("no position", |engine| put(engine, Family::Meta, row(engine, Family::Meta, 1), None)),
    ("no shape", |engine| put(engine, Family::Meta, row(engine, Family::Meta, 0), None)),
    ("no last record", |engine| put(engine, Family::Records, row(engine, Family::Records, 0), None)),
    ("damaged producers", |engine| put(engine, Family::Producers, row(engine, Family::Producers, 0), Some(b"\x09"))),
    ("nothing", |engine| {
        let mut batch = WriteBatch::default();
        Family::ALL.into_iter().for_each(|family| batch.delete_range(family, vec![], vec![0xff; 32]));
        engine.write(batch).expect("it writes");
    }),
];

#[test]
fn whatever_is_left_of_a_partition_it_ends_in_the_senders_state() {
    let both = DAMAGE.into_iter().flat_map(|case| [(case, true), (case, false)]);
    for (seed, ((name, damage), keeps_all)) in (0..).zip(both) {
        let mut log = entries(seed, 200);
        if keeps_all {
            log.iter_mut().filter(|entry| entry.data.is_empty()).for_each(|entry| entry.context = Bytes::new());
        }
        let (from, to) = (SimEngine::default(), SimEngine::default());
        let mut sending = create(&from);
        let expected = expected(&log, &apply(&from, &mut sending, &log));
        let mut damaged = create(&to);
        apply(&to, &mut damaged, &log[..150]);
        damage(&to);
        let opened = Partition::open(&to, GROUP);
        assert!(matches!(opened, Err(_) | Ok(None)), "{name} is noticed");
        // Rows of before that the sender's do not overwrite, in the generation that is there.
        let junk = |number: u64| [GROUP.0.to_be_bytes(), 1_u64.to_be_bytes(), number.to_be_bytes()].concat();
        (0..500).for_each(|number| put(&to, Family::Records, junk(number), Some(b"junk")));

        let mut sender = applier(from, Some((GROUP, Machine::Partition(Box::new(sending)))));
        let mut receiver = applier(to.clone(), None);
        repair(GROUP, &mut sender, &mut receiver);
        let (sending, installed) = (partition(sender.machine(GROUP)).clone(), receiver.machine(GROUP));
        let installed = partition(installed);
        assert_eq!(installed.snapshot_head(), sending.snapshot_head(), "{name}");
        check_reads(&to, installed, &expected, &mut fastrand::Rng::with_seed(seed));
        assert_eq!(Partition::open(&to, GROUP).unwrap().as_ref(), Some(installed), "{name}: and after a restart");
        let start = row_of(&sending);
        let ours: Vec<_> = contents(&to).into_iter().filter(|(family, key, _)| in_log(*family, key, start)).collect();
        let theirs = contents(sender.engine()).into_iter().filter(|(family, key, _)| in_log(*family, key, start));
        assert!(theirs.eq(ours), "{name}: its rows, and no others");
    }
}

/// Records from here on are to be there; what lies before may have been deleted already.
fn row_of(partition: &Partition) -> i64 {
    partition.log_start().0
}

fn in_log(family: Family, key: &[u8], start: i64) -> bool {
    let number = i64::from_be_bytes(key[8..16].try_into().expect("a key has a number"));
    family != Family::Records || number >= start
}

/// Nothing of these families that is there now can be read any more.
fn rot(engine: &SimEngine, families: &[Family]) {
    engine.flush().expect("it flushes");
    families.iter().for_each(|family| engine.damage(*family, &engine.durable_keys(*family, &[])));
}

#[test]
fn rows_that_cannot_be_read_are_in_nobodys_way() {
    let log = entries(7, 200);
    let (from, to) = (SimEngine::default(), SimEngine::default());
    let mut sending = create(&from);
    let expected = expected(&log, &apply(&from, &mut sending, &log));
    apply(&to, &mut create(&to), &log[..150]);
    rot(&to, &[Family::Records, Family::Times, Family::Producers]);
    assert!(Partition::open(&to, GROUP).is_err_and(|error| error.is_damage()));
    let mut sender = applier(from, Some((GROUP, Machine::Partition(Box::new(sending)))));
    let mut receiver = applier(to.clone(), None);
    repair(GROUP, &mut sender, &mut receiver);
    let installed = partition(receiver.machine(GROUP));
    check_reads(&to, installed, &expected, &mut fastrand::Rng::with_seed(7));
    assert_eq!(Partition::open(&to, GROUP).unwrap().as_ref(), Some(installed));
}

/// Counts the machines that were lost.
struct Losses(Arc<AtomicUsize>);

impl Observer for Losses {
    fn changed(&mut self, _group: RaftGroupId, _machine: &Machine) {}

    fn lost(&mut self, _group: RaftGroupId) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_sender_that_cannot_read_its_records_says_so_and_lets_its_machine_go() {
    let engine = SimEngine::default();
    let mut sending = create(&engine);
    apply(&engine, &mut sending, &entries(1, 100));
    let generation = sending.generation();
    let machines = BTreeMap::from([(GROUP, Machine::Partition(Box::new(sending)))]);
    let lost = Arc::new(AtomicUsize::new(0));
    rot(&engine, &[Family::Records]);
    let mut sender = Applier::new(engine, CLUSTER, machines, Box::new(Losses(Arc::clone(&lost))));
    let mut receiver = applier(SimEngine::default(), None);
    let meta = sender.build_snapshot(GROUP).expect("it has the group");
    let mut next = receiver.fetch(GROUP, RECEIVER, SENDER, meta);
    let damaged = loop {
        let Transferred { send, failed: damaged, .. } = sender.transferred(next.send.take().expect("a question"));
        if let Some(damaged) = damaged {
            break damaged;
        }
        next = receiver.transferred(send.expect("an answer"));
    };
    assert!(damaged.contains("can't read the row"), "{damaged}");
    assert!(sender.machine(GROUP).is_none() && lost.load(Ordering::Relaxed) == 1);
    assert!(!sender.condemn(GROUP, Some(generation)), "it is gone");
}

/// Otherwise it would fetch the same state again and again, and nobody would hear why.
#[test]
fn a_receiver_whose_rows_cannot_be_read_or_written_says_so_and_lets_its_machine_go() {
    let (whole, log) = (SimEngine::default(), entries(1, 100));
    let mut sending = create(&whole);
    apply(&whole, &mut sending, &log);
    let mut sender = applier(whole, Some((GROUP, Machine::Partition(Box::new(sending)))));
    // What a transfer has left that never ended.
    let leave_over = |engine: &SimEngine| {
        let beyond = [&row(engine, Family::Records, 0)[..16], &[0x7f; 8]].concat();
        put(engine, Family::Records, beyond.clone(), Some(b"left over"));
        engine.flush().expect("it flushes");
        engine.damage(Family::Records, &[beyond]);
    };
    for what in ["can't read the row", "a disk error"] {
        let engine = SimEngine::default();
        let mut behind = create(&engine);
        apply(&engine, &mut behind, &log[..50]);
        match what {
            "a disk error" => engine.fail(what),
            _ => leave_over(&engine),
        }
        let mut receiver = applier(engine, Some((GROUP, Machine::Partition(Box::new(behind)))));
        let meta = sender.build_snapshot(GROUP).expect("it has the group");
        let mut next = receiver.fetch(GROUP, RECEIVER, SENDER, meta.clone());
        while let Some(question) = next.send.take() {
            next = receiver.transferred(sender.transferred(question).send.expect("an answer"));
        }
        assert!(next.failed.as_ref().is_some_and(|failed| failed.contains(what)), "{what}: {next:?}");
        assert_eq!(next.done, Some((meta.at, None)));
        assert!(receiver.machine(GROUP).is_none());
    }
}

#[test]
fn only_the_state_that_was_read_is_condemned() {
    let engine = SimEngine::default();
    let partition = create(&engine);
    let generation = partition.generation();
    let mut owner = applier(engine, Some((GROUP, Machine::Partition(Box::new(partition)))));
    assert!(!owner.condemn(GROUP, Some(generation + 1)) && owner.machine(GROUP).is_some());
    assert!(owner.condemn(GROUP, Some(generation)) && owner.machine(GROUP).is_none());
    assert!(!owner.is_beyond_repair(GROUP));
}

#[test]
fn a_coordinator_and_a_controller_are_taken_in_whole() {
    let (from, to) = (SimEngine::default(), SimEngine::default());
    let mut batch = WriteBatch::default();
    let mut sending = Coordinator::create(GROUP, LogId::new(1, 1), membership(3), &mut batch);
    let commit = |group: &str| {
        let new = NewOffset { offset: 5, leader_epoch: 2, metadata: "x".to_owned() };
        let offsets = vec![("orders".to_owned(), 0, new)];
        let (member, instance) = (String::new(), None);
        Action::Commit(Commit { group: group.to_owned(), member, instance, generation: -1, offsets })
    };
    let entry = |index, group: &str| {
        let data = Command { now_ms: 1_000, action: commit(group) }.encode().expect("short");
        LogEntry { id: LogId::new(index, 1), data, ..LogEntry::default() }
    };
    sending.apply(&[entry(2, "a"), entry(3, "b")], &[], &mut batch).expect("commands");
    from.write(batch).expect("it writes");
    // What is left here is of another group of consumers, and its first row is damaged.
    let mut batch = WriteBatch::default();
    let mut left = Coordinator::create(GROUP, LogId::new(1, 1), membership(3), &mut batch);
    left.apply(&[entry(2, "gone")], &[], &mut batch).expect("a command");
    to.write(batch).expect("it writes");
    put(&to, Family::Meta, row(&to, Family::Meta, 0), Some(b"nonsense"));
    assert!(Coordinator::open(&to, GROUP).is_err());
    let mut sender = applier(from, Some((GROUP, Machine::Coordinator(Box::new(sending)))));
    let mut receiver = applier(to.clone(), None);
    repair(GROUP, &mut sender, &mut receiver);
    let reopened = Coordinator::open(&to, GROUP).expect("whole").expect("there");
    let (Some(Machine::Coordinator(sent)), Some(Machine::Coordinator(taken))) =
        (sender.machine(GROUP), receiver.machine(GROUP))
    else {
        panic!("coordinators")
    };
    assert_eq!((taken.snapshot(), reopened.snapshot()), (sent.snapshot(), sent.snapshot()));

    let (from, to) = (SimEngine::default(), SimEngine::default());
    let controller = Controller::open(&from, CLUSTER, (LogId::new(1, 1), membership(3))).expect("a new one");
    put(&to, Family::Meta, CONTROLLER_GROUP.0.to_be_bytes().to_vec(), Some(b"nonsense"));
    assert!(Controller::open(&to, CLUSTER, (LogId::new(1, 1), membership(3))).is_err());
    let mut sender = applier(from, Some((CONTROLLER_GROUP, Machine::Controller(Box::new(controller)))));
    let mut receiver = applier(to.clone(), None);
    repair(CONTROLLER_GROUP, &mut sender, &mut receiver);
    let reopened = Controller::open(&to, CLUSTER, (LogId::new(9, 9), membership(1))).expect("whole");
    assert_eq!((reopened.applied(), reopened.membership()), (LogId::new(1, 1), &membership(3)));
}
