//! Crash, replay, snapshots, and the formats of older versions.

use crate::world::{CLUSTER, Memory, World, born, command_entry, open, registration, topic};
use ackord::controller::command::{
    Answer, Command, ConfigChanges, ConfigOperation, CreatedTopic, Finished, Joining, Layout, MorePartitions, NewTopic,
    Reason, Rejection, TopicReference,
};
use ackord::controller::{CodecError, Controller, LoadError};
use ackord::machine::{MachineError, StateMachine};
use ackord::storage::{Engine, Family, WriteBatch};
use ackord::types::{
    ClusterId, EntryKind, Incarnation, LogEntry, LogId, Membership, NodeId, RaftGroupId, ReplicaId, TopicId,
};
use bytes::Bytes;

/// A log with every command in it, and the members changed on the way.
fn history() -> (World, Vec<(ackord::types::LogIndex, Membership)>) {
    let mut world = World::of_nodes(3);
    let live: Vec<_> = (1..=3).map(NodeId).collect();
    for number in 0..5 {
        world.create(topic(&format!("topic-{number}"), 3, 3)).unwrap();
    }
    world.create(topic("refused", 1, 9)).unwrap_err();
    let more = MorePartitions { name: "topic-1".to_owned(), count: 7, assignment: None };
    world.run(&Command::CreatePartitions { topics: vec![more], live, validate_only: false });
    world.run(&Command::DeleteTopics { topics: vec![TopicReference::Name("topic-2".to_owned())] });
    let set = ("retention.ms".to_owned(), ConfigOperation::Set(Some("60000".to_owned())));
    let changes = ConfigChanges { name: "topic-3".to_owned(), replace: false, operations: vec![set] };
    world.run(&Command::AlterTopicConfigs { topics: vec![changes], validate_only: false });
    world.run(&Command::AllocateProducerIds { node: NodeId(1), incarnation: registration(1).incarnation });
    world.run(&Command::RegisterBroker(registration(4)));
    world.run(&Command::JoinController { node: NodeId(4), incarnation: registration(4).incarnation });
    let (old, new, disk) = (NodeId(3), NodeId(4), Some(registration(3).incarnation));
    world.run(&Command::ReplaceNode { old, new, disk, live: Vec::new(), force: false });
    let (old, new) = (ReplicaId::new(old, 0), ReplicaId::new(new, 0));
    world.run(&Command::FinishReplacements { finished: vec![Finished { group: RaftGroupId(1), old, new }] });

    let members = Membership::of_voters((1..=3).map(|node| ReplicaId::new(NodeId(node), 0)));
    let change = LogEntry { id: world.next_id(), kind: EntryKind::ConfChange, ..LogEntry::default() };
    let memberships = vec![(change.id.index, members)];
    let mut batch = WriteBatch::default();
    world.controller.apply(std::slice::from_ref(&change), &memberships, &mut batch).unwrap();
    world.engine.write(batch).unwrap();
    world.log.push(change);
    (world, memberships)
}

#[test]
fn a_crash_after_any_batch_replays_to_the_same_state() {
    let (world, memberships) = history();
    for batch_length in [1, 3, 100] {
        let engine = Memory::default();
        let mut controller = open(&engine);
        let mut crashes = vec![engine.copy()];
        for entries in world.log.chunks(batch_length) {
            let mut batch = WriteBatch::default();
            controller.apply(entries, &memberships, &mut batch).unwrap();
            engine.write(batch).unwrap();
            crashes.push(engine.copy());
        }
        assert_eq!(engine.dump(), world.engine.dump(), "how entries are grouped leaves no trace");
        for crashed in crashes {
            let mut controller = open(&crashed);
            let from = controller.applied().index;
            let rest: Vec<_> = world.log.iter().filter(|entry| entry.id.index > from).cloned().collect();
            let mut batch = WriteBatch::default();
            controller.apply(&rest, &memberships, &mut batch).unwrap();
            crashed.write(batch).unwrap();
            assert_eq!(crashed.dump(), world.engine.dump());
            assert_eq!(controller.view(), world.view());
            assert_eq!(controller.membership(), world.controller.membership());
        }
    }
}

#[test]
fn every_replica_gives_the_same_outcomes() {
    let (world, memberships) = history();
    let replay = || {
        let mut controller = open(&Memory::default());
        controller.apply(&world.log, &memberships, &mut WriteBatch::default()).unwrap()
    };
    assert_eq!(replay(), replay());
}

#[test]
fn a_snapshot_carries_the_whole_state_over_whatever_was_there() {
    let (world, _) = history();
    let blob = world.controller.snapshot();
    let mut lagging = World::of_nodes(2);
    lagging.create(topic("only-here", 1, 1)).unwrap();
    let mut batch = WriteBatch::default();
    lagging.controller.install(&blob, &mut batch).unwrap();
    lagging.engine.write(batch).unwrap();
    assert_eq!(lagging.engine.dump(), world.engine.dump());
    let reopened = open(&lagging.engine);
    for controller in [&lagging.controller, &reopened] {
        assert_eq!(controller.view(), world.view());
        assert_eq!(controller.applied(), world.controller.applied());
        assert_eq!(controller.membership(), world.controller.membership());
        assert_eq!(controller.snapshot(), blob);
    }
}

#[test]
fn a_damaged_foreign_or_older_snapshot_is_refused_and_changes_nothing() {
    let (mut world, _) = history();
    let blob = world.controller.snapshot();
    let before = world.view();
    for length in 0..blob.len() {
        world.controller.install(&blob[..length], &mut WriteBatch::default()).unwrap_err();
    }
    let foreign = Controller::open(&Memory::default(), ClusterId(1), born()).unwrap().snapshot();
    world.controller.install(&foreign, &mut WriteBatch::default()).unwrap_err();
    let older = open(&Memory::default()).snapshot();
    world.controller.install(&older, &mut WriteBatch::default()).unwrap_err();
    // Any flipped bit gives an error or another valid state, never a panic or a wild allocation.
    for bit in 0..blob.len() * 8 {
        let mut flipped = blob.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut receiver = open(&Memory::default());
        let _ = receiver.install(&flipped, &mut WriteBatch::default());
    }
    assert_eq!(before, world.view());
}

#[test]
fn a_foreign_or_damaged_database_is_refused() {
    let (world, _) = history();
    let foreign = Controller::open(&world.engine, ClusterId(1), born());
    assert!(matches!(foreign, Err(LoadError::Contradiction(_))));
    let rows = world.engine.dump();
    for ((family, key), value) in rows.iter().filter(|((family, _), _)| *family == Family::Controller) {
        let damaged = world.engine.copy();
        let mut batch = WriteBatch::default();
        batch.put(*family, key.clone(), value.slice(..value.len() - 1));
        damaged.write(batch).unwrap();
        let error = Controller::open(&damaged, CLUSTER, born()).err();
        assert!(matches!(error, Some(LoadError::Row { .. })), "{key:02x?}: {error:?}");
    }
}

#[test]
fn what_cannot_be_understood_stops_the_group() {
    let mut world = World::of_nodes(1);
    let id = world.next_id();
    let good = command_entry(id, &Command::RaiseFeatureLevel { level: 1 });
    let with_data = |data: Vec<u8>| LogEntry { data: data.into(), ..good.clone() };
    let mut newer = good.data.to_vec();
    newer[0] = 200;
    let mut longer = good.data.to_vec();
    longer.push(0);
    let gap = LogEntry { id: LogId::new(id.index.0 + 1, 3), ..good.clone() };
    let no_members = LogEntry { kind: EntryKind::ConfChange, ..good.clone() };
    for entry in [with_data(newer), with_data(longer), with_data(vec![1]), gap, no_members] {
        let result = world.controller.apply(&[entry], &[], &mut WriteBatch::default());
        assert!(matches!(result, Err(MachineError::Damaged { .. })));
    }
}

#[test]
fn a_command_that_is_too_long_is_not_proposed() {
    let topics = (0..100_000).map(|number| TopicReference::Name(format!("topic-{number}"))).collect();
    assert!(matches!(Command::DeleteTopics { topics }.encode(), Err(CodecError::TooLong(_))));
}

/// Hostile lengths: a claim of 2^63 topics must not be believed.
#[test]
fn decoding_is_bounded() {
    for (version, command) in (1..=2).flat_map(|version| (0..=11).map(move |command| (version, command))) {
        let mut bytes = vec![version, command];
        bytes.extend([253, 255, 255, 255, 255, 255, 255, 255, 127]);
        assert!(Command::decode(&bytes).is_err());
        assert!(Answer::decode(&bytes).is_err());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// What version 1 wrote. These bytes are in logs and never change: a new version adds a list and leaves this one.
#[test]
fn version_1_stays_readable() {
    let samples: Vec<(Command, &str)> = vec![
        (Command::RegisterBroker(registration(2)), REGISTER),
        (Command::UnregisterBroker { node: NodeId(300) }, "0101fb2c01"),
        (
            Command::CreateTopics {
                topics: vec![topic("t", 3, 2)],
                live: vec![NodeId(1), NodeId(2)],
                now_ms: 1_700_000_000_000,
                validate_only: false,
            },
            CREATE,
        ),
        (Command::DeleteTopics { topics: vec![TopicReference::Name("t".to_owned())] }, "010301000174"),
        (
            Command::CreatePartitions {
                topics: vec![MorePartitions { name: "t".to_owned(), count: 5, assignment: None }],
                live: vec![NodeId(1)],
                validate_only: true,
            },
            "01040101740a00010101",
        ),
        (
            Command::AlterTopicConfigs {
                topics: vec![ConfigChanges {
                    name: "t".to_owned(),
                    replace: false,
                    operations: vec![("k".to_owned(), ConfigOperation::Append(Some("v".to_owned())))],
                }],
                validate_only: false,
            },
            "01050101740001016b0201017600",
        ),
        (Command::AllocateProducerIds { node: NodeId(1), incarnation: Incarnation(5) }, "01060105"),
        (Command::RaiseFeatureLevel { level: 2 }, "010702"),
    ];
    for (command, bytes) in samples {
        assert_eq!(hex(&command.encode().unwrap()), bytes, "{command:?}");
        assert_eq!(Command::decode(&unhex(bytes)), Ok(command));
    }
    let rejection = Rejection { reason: Reason::InvalidConfig, message: "no".to_owned() };
    let answer = Answer::Changed(vec![("t".to_owned(), Err(rejection))]);
    assert_eq!(hex(&answer.encode()), "01030101740107026e6f");
    assert_eq!(Answer::decode(&unhex("01030101740107026e6f")), Ok(answer));
    let configs = [("k".to_owned(), "v".to_owned())].into();
    let created = CreatedTopic { id: TopicId(5), partitions: 3, replication_factor: 2, configs };
    let answer = Answer::Created(vec![("t".to_owned(), Ok(created))]);
    assert_eq!(hex(&answer.encode()), "01010101740005060401016b0176");
}

/// What version 2 wrote: the commands about replacements.
#[test]
fn version_2_stays_readable() {
    let (old, new) = (ReplicaId::new(NodeId(3), 0), ReplicaId::new(NodeId(3), 1));
    let samples = [
        (
            Command::ReplaceNode {
                old: NodeId(3),
                new: NodeId(4),
                disk: Some(Incarnation(5)),
                live: vec![NodeId(1)],
                force: true,
            },
            "020803040105010101",
        ),
        (
            Command::FinishReplacements { finished: vec![Finished { group: RaftGroupId(7), old, new }] },
            "0209010703fd0300000001000000",
        ),
        (Command::JoinController { node: NodeId(4), incarnation: Incarnation(5) }, "020a0405"),
    ];
    for (command, bytes) in samples {
        assert_eq!(hex(&command.encode().unwrap()), bytes, "{command:?}");
        assert_eq!(Command::decode(&unhex(bytes)), Ok(command));
    }
    assert_eq!(hex(&Answer::Replacing(Ok(3)).encode()), "01050003");
    let joining = Answer::Joining(Ok(Joining { replica: new, has_begun: true, peers: vec![old] }));
    assert_eq!(hex(&joining.encode()), "010600fd0300000001000000010103");
    assert!(Command::decode(&unhex("020702")).is_err(), "a command of version 1 under another version");
    assert!(Command::decode(&unhex("010a0405")).is_err(), "and the other way round");
}

/// Rows and snapshots of version 2: a topic one of whose replicas is being replaced, and another's was.
#[test]
fn version_2_of_rows_and_snapshots_stays_readable() {
    let mut world = World::of_nodes(3);
    let layout = Layout::Manual(vec![vec![NodeId(1), NodeId(2)]; 2]);
    world.create(NewTopic { layout, ..topic("t", 0, 0) }).unwrap();
    world.run(&Command::JoinController { node: NodeId(2), incarnation: registration(2).incarnation });
    let (old, new, disk) = (NodeId(2), NodeId(3), Some(registration(2).incarnation));
    world.run(&Command::ReplaceNode { old, new, disk, live: Vec::new(), force: false });
    let (old, new) = (ReplicaId::new(NodeId(2), 0), ReplicaId::new(NodeId(3), 0));
    world.run(&Command::FinishReplacements { finished: vec![Finished { group: RaftGroupId(1), old, new }] });

    let rows = world.engine.dump();
    let row = |kind: u8| rows.iter().find(|((_, key), _)| key.get(8) == Some(&kind)).map(|(_, row)| hex(row));
    assert_eq!((row(b'c').as_deref(), row(b't').as_deref()), (Some(SECOND_CLUSTER), Some(SECOND_TOPIC)));
    assert_eq!(open(&world.engine).view(), world.view());
    assert_eq!(hex(&world.controller.snapshot()), SECOND_SNAPSHOT);
    let mut receiver = open(&Memory::default());
    receiver.install(&unhex(SECOND_SNAPSHOT), &mut WriteBatch::default()).unwrap();
    assert_eq!(receiver.view(), world.view());
}

/// The same for what lies in the database and travels in snapshots.
#[test]
fn version_1_of_rows_and_snapshots_stays_readable() {
    let mut world = World::of_nodes(1);
    let configs = vec![("retention.ms".to_owned(), Some("5".to_owned()))];
    world.create(NewTopic { configs, ..topic("t", 2, 1) }).unwrap();

    let engine = Memory::default();
    for (family, key, row) in ROWS {
        engine.rows.lock().unwrap().insert((*family, unhex(key).to_vec()), unhex(row));
    }
    assert_eq!(engine.dump(), world.engine.dump(), "{:#?}", world.engine.dump());
    assert_eq!(open(&engine).view(), world.view());

    let mut receiver = open(&Memory::default());
    receiver.install(&unhex(SNAPSHOT), &mut WriteBatch::default()).unwrap();
    assert_eq!(receiver.view(), world.view());
    assert_eq!(hex(&world.controller.snapshot()), SNAPSHOT);
}

const SECOND_CLUSTER: &str = "024d01030000010100000102000001020302";
const SECOND_TOPIC: &str = "02fb760201740a020102010300020102010202020102010203000000";
const SECOND_SNAPSHOT: &str = "0208030101000000004d010300000101000001020000010203020301fe0000000000000000010000\
    0000000000000200056e6f646531fb842303056e6f646531fbe823010202fe000000000000000002\
    00000000000000000200056e6f646532fb842303056e6f646532fbe823010303fe00000000000000\
    000300000000000000000200056e6f646533fb842303056e6f646533fbe823010401fb760201740a\
    020102010300020102010202020102010203000000";
const REGISTER: &str = "010002fe00000000000000000200000000000000000200056e6f646532fb842303056e6f646532fbe82301";
const CREATE: &str = "010201fb7602017400060400020102fd00d0ca9f1703000000";
const SNAPSHOT: &str = "0103030101000000004d0103000101fe00000000000000000100000000000000000200056e6f6465\
    31fb842303056e6f646531fbe823010201fb760201740a02010101020101010c726574656e74696f\
    6e2e6d730135";
const ROWS: &[(Family, &str, &str)] = &[
    (Family::Meta, "0000000000000000", "010303010100000000"),
    (Family::Controller, "000000000000000063", "014d010300"),
    (Family::Controller, "00000000000000006e00000001", NODE),
    (Family::Controller, "00000000000000007400000000000000000000000000000276", TOPIC),
];
const NODE: &str = "0101fe00000000000000000100000000000000000200056e6f646531fb842303056e6f646531fbe8230102";
const TOPIC: &str = "01fb760201740a02010101020101010c726574656e74696f6e2e6d730135";
