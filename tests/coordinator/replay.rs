//! Crash, replay, snapshots, and what is not what it should be.

use crate::world::{G, Memory, RAFT, World, born, command_entry, commit, create, dynamic, fixed, known, simple};
use ackord::coordinator::command::{Action, Answer, Command, Commit, Join, NewOffset};
use ackord::coordinator::group::Group;
use ackord::coordinator::{Coordinator, SNAPSHOT_BYTES_MAX, offsets};
use ackord::machine::codec::CodecError;
use ackord::machine::{MachineError, StateMachine};
use ackord::storage::{Engine, Family, WriteBatch};
use ackord::types::{EntryKind, LogEntry, LogId, LogIndex, Membership, NodeId, RaftGroupId, ReplicaId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A log with every command in it, and the members of the Raft group changed on the way.
fn history() -> (World, Vec<(LogIndex, Membership)>) {
    let mut world = World::stable(&["a", "b"]);
    world.commit(commit("a", 1, &[("t", 0, 5), ("u", 1, 6)])).unwrap();
    world.join(Join { two_steps: true, ..dynamic("c") }).unwrap();
    world.join(known("c")).unwrap();
    world.join(fixed("i", "d")).unwrap();
    world.join(known("a")).unwrap();
    world.finish_join(2);
    world.assign("a", 2, &["a", "c", "d"]).unwrap();
    world.join(fixed("i", "e")).unwrap();
    world.commit(simple("s", &[("t", 0, 1)])).unwrap();
    world.commit(simple("gone", &[("t", 0, 1), ("u", 1, 1)])).unwrap();
    world.delete_groups(&["gone", G]);
    world.delete_offsets(G, &[("t", 0), ("u", 1)]).unwrap();
    world.commit(commit("x", 7, &[])).unwrap_err();
    world.join(Join { two_steps: true, ..dynamic("f") }).unwrap();
    world.expire(&[("c", world.member("c").joins)]);
    world.leave(&[("a", None)]);
    world.forget_topics(&["t"]);

    let members = Membership::of_voters((1..=3).map(|node| ReplicaId::new(NodeId(node), 0)));
    let change = LogEntry { id: world.next_id(), kind: EntryKind::ConfChange, ..LogEntry::default() };
    let memberships = vec![(change.id.index, members)];
    let mut batch = WriteBatch::default();
    world.coordinator.apply(std::slice::from_ref(&change), &memberships, &mut batch).unwrap();
    world.engine.write(batch).unwrap();
    world.log.push(change);
    world.apply(LogEntry { id: world.next_id(), ..LogEntry::default() });
    world.now_ms += 1_000_000;
    world.commit(commit("e", 9, &[("t", 0, 5)])).unwrap_err();
    world.commit(simple("kept", &[("u", 0, 1), ("u", 1, 2)])).unwrap();
    world.expire_offsets(1000);
    assert!(!world.coordinator.groups().contains_key("s"));
    assert_eq!(world.show(), "preparing(3) 2 range, leader e: e (f)");
    (world, memberships)
}

fn reopened(engine: &Memory) -> Coordinator {
    Coordinator::open(engine, RAFT).unwrap().expect("it is there")
}

/// All there is to see of a coordinator.
fn state(coordinator: &Coordinator) -> (BTreeMap<String, Arc<Group>>, LogId, Membership, Bytes) {
    let groups = coordinator.groups().clone();
    (groups, coordinator.applied(), coordinator.membership().clone(), coordinator.snapshot())
}

#[test]
fn a_crash_after_any_batch_replays_to_the_same_state() {
    let (world, memberships) = history();
    for batch_length in [1, 3, 100] {
        let engine = Memory::default();
        let mut coordinator = create(&engine);
        let mut crashes = vec![engine.copy()];
        for entries in world.log.chunks(batch_length) {
            let mut batch = WriteBatch::default();
            coordinator.apply(entries, &memberships, &mut batch).unwrap();
            engine.write(batch).unwrap();
            crashes.push(engine.copy());
        }
        assert_eq!(engine.dump(), world.engine.dump(), "how entries are grouped leaves no trace");
        for crashed in crashes {
            let mut coordinator = reopened(&crashed);
            let from = coordinator.applied().index;
            let rest: Vec<_> = world.log.iter().filter(|entry| entry.id.index > from).cloned().collect();
            let mut batch = WriteBatch::default();
            coordinator.apply(&rest, &memberships, &mut batch).unwrap();
            crashed.write(batch).unwrap();
            assert_eq!(crashed.dump(), world.engine.dump());
            assert_eq!(state(&coordinator), state(&world.coordinator));
        }
    }
}

#[test]
fn every_replica_gives_the_same_outcomes() {
    let (world, memberships) = history();
    let replay = || create(&Memory::default()).apply(&world.log, &memberships, &mut WriteBatch::default()).unwrap();
    assert_eq!(replay(), replay());
}

#[test]
fn a_change_touches_the_rows_of_what_changed() {
    let mut world = World::stable(&["a", "b"]);
    let mut keys = |action| {
        let entry = command_entry(world.next_id(), &Command { now_ms: 2000, action });
        let mut batch = WriteBatch::default();
        world.coordinator.apply(&[entry], &[], &mut batch).unwrap();
        batch.changes.len()
    };
    assert_eq!(keys(Action::Join(known("b"))), 3, "the group, the member, and the position");
    assert_eq!(keys(Action::Commit(commit("a", 1, &[("t", 0, 1)]))), 2, "the offset and the position");
    assert_eq!(keys(Action::FinishJoin { group: G.to_owned(), round: 1 }), 1, "nothing but the position");
    assert!(world.coordinator.changed().is_empty());
}

#[test]
fn a_snapshot_carries_the_whole_state_over_whatever_was_there() {
    let (world, _) = history();
    let blob = world.coordinator.snapshot();
    let mut lagging = World::stable(&["a", "z"]);
    lagging.commit(simple("only-here", &[("t", 0, 1)])).unwrap();
    let mut other = WriteBatch::default();
    let _ = Coordinator::create(RaftGroupId(8), born().0, born().1, &mut other);
    lagging.engine.write(other.clone()).unwrap();
    world.engine.write(other).unwrap();
    let mut batch = WriteBatch::default();
    lagging.coordinator.install(&blob, &mut batch).unwrap();
    lagging.engine.write(batch).unwrap();
    assert_eq!(lagging.engine.dump(), world.engine.dump());
    let changed: Vec<&str> = lagging.coordinator.changed().iter().map(String::as_str).collect();
    assert_eq!(changed, [G, "kept", "only-here"]);
    assert_eq!(state(&lagging.coordinator), state(&world.coordinator));
    assert_eq!(state(&reopened(&lagging.engine)), state(&world.coordinator));
}

#[test]
fn a_group_that_is_destroyed_leaves_nothing_and_takes_nothing_else() {
    let (world, _) = history();
    assert!(Coordinator::open(&world.engine, RaftGroupId(8)).unwrap().is_none());
    let mut batch = WriteBatch::default();
    let _ = Coordinator::create(RaftGroupId(8), born().0, born().1, &mut batch);
    batch.put(Family::Groups, [&8_u64.to_be_bytes()[..], b"g"].concat(), vec![1]);
    Coordinator::destroy(RAFT, &mut batch);
    world.engine.write(batch).unwrap();
    assert_eq!(world.engine.dump().len(), 2);
    assert!(Coordinator::open(&world.engine, RAFT).unwrap().is_none());
}

#[test]
fn a_damaged_or_older_snapshot_is_refused_and_changes_nothing() {
    let (mut world, _) = history();
    let blob = world.coordinator.snapshot();
    let before = state(&world.coordinator);
    for length in 0..blob.len() {
        world.coordinator.install(&blob[..length], &mut WriteBatch::default()).unwrap_err();
    }
    let older = create(&Memory::default()).snapshot();
    world.coordinator.install(&older, &mut WriteBatch::default()).unwrap_err();
    world.coordinator.install(&vec![0; SNAPSHOT_BYTES_MAX + 1], &mut WriteBatch::default()).unwrap_err();
    // Any flipped bit gives an error or another valid state, never a panic or a wild allocation.
    for bit in 0..blob.len() * 8 {
        let mut flipped = blob.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut receiver = create(&Memory::default());
        let _ = receiver.install(&flipped, &mut WriteBatch::default());
    }
    assert_eq!(before, state(&world.coordinator));
}

#[test]
fn a_damaged_database_is_refused() {
    let (world, _) = history();
    for ((family, key), value) in world.engine.dump() {
        let damaged = world.engine.copy();
        let mut batch = WriteBatch::default();
        batch.put(family, key.clone(), value.slice(..value.len() - 1));
        damaged.write(batch).unwrap();
        let error = Coordinator::open(&damaged, RAFT).err();
        assert!(matches!(error, Some(MachineError::Damaged { .. })), "{key:02x?}: {error:?}");
    }
    // A member's row that is lost.
    let damaged = world.engine.copy();
    let mut batch = WriteBatch::default();
    batch.delete(Family::Groups, [&RAFT.0.to_be_bytes()[..], b"m\0\x01g\0\x01e"].concat());
    damaged.write(batch).unwrap();
    assert!(Coordinator::open(&damaged, RAFT).is_err());
    // A row under another name, and offsets of a group that is not there.
    let rows = world.engine.dump();
    let with =
        |letter| rows.iter().find(move |((family, key), _)| *family == Family::Groups && key[8] == letter).unwrap();
    let ((family, key), value) = with(b'm');
    let damaged = world.engine.copy();
    let mut batch = WriteBatch::default();
    batch.put(*family, [key.as_slice(), b"x"].concat(), value.clone());
    damaged.write(batch).unwrap();
    assert!(Coordinator::open(&damaged, RAFT).is_err());
    let damaged = world.engine.copy();
    let mut batch = WriteBatch::default();
    batch.delete(Family::Groups, [&RAFT.0.to_be_bytes()[..], b"g\0\x01s"].concat());
    batch.put(Family::Groups, [&RAFT.0.to_be_bytes()[..], b"o\0\x01s\0\x01t\0\0\0\0"].concat(), vec![1, 0, 0, 0, 0]);
    damaged.write(batch).unwrap();
    assert!(Coordinator::open(&damaged, RAFT).is_err());
    let torn = || offsets::read_all(&damaged, RAFT, "s").map(drop);
    assert!(torn().is_ok());
    let mut batch = WriteBatch::default();
    batch.put(Family::Groups, [&RAFT.0.to_be_bytes()[..], b"o\0\x01s\0\x01t\0\0\0\0"].concat(), vec![1, 0, 0]);
    damaged.write(batch).unwrap();
    assert!(torn().is_err() && offsets::read(&damaged, RAFT, "s", "t", 0).is_err());
}

#[test]
fn what_cannot_be_understood_stops_the_group() {
    let mut world = World::new();
    let id = world.next_id();
    let action = Action::ExpireOffsets { retention_ms: 1 };
    let good = command_entry(id, &Command { now_ms: 1, action });
    let with_data = |data: Vec<u8>| LogEntry { data: data.into(), ..good.clone() };
    let mut newer = good.data.to_vec();
    newer[0] = 2;
    let mut longer = good.data.to_vec();
    longer.push(0);
    let gap = LogEntry { id: LogId::new(id.index.0 + 1, 3), ..good.clone() };
    let no_members = LogEntry { kind: EntryKind::ConfChange, ..good.clone() };
    for entry in [with_data(newer), with_data(longer), with_data(vec![1]), gap, no_members] {
        let result = world.coordinator.apply(&[entry], &[], &mut WriteBatch::default());
        assert!(matches!(result, Err(MachineError::Damaged { .. })));
    }
}

#[test]
fn a_command_that_is_too_long_is_not_proposed() {
    let new = NewOffset { offset: 0, leader_epoch: 0, metadata: "m".repeat(1 << 20) };
    let offsets = (0..33).map(|partition| ("t".to_owned(), partition, new.clone())).collect();
    let action = Action::Commit(Commit { offsets, ..simple(G, &[]) });
    assert!(matches!(Command { now_ms: 0, action }.encode(), Err(CodecError::TooLong(_))));
}

/// Hostile lengths: a claim of 2^63 members must not be believed.
#[test]
fn decoding_is_bounded() {
    // But for ExpireOffsets, which is a number.
    for action in (0..10).filter(|action| *action != 8) {
        let mut bytes = vec![1, 0, action];
        bytes.extend([253, 255, 255, 255, 255, 255, 255, 255, 127]);
        assert!(Command::decode(&bytes).is_err());
        bytes.remove(1);
        assert!(Answer::decode(&bytes).is_err());
    }
}
