//! Where the fuzzer begins, for everything but Kafka's requests (`tests/kafka/seeds.rs`): small inputs that are as they
//! should be, of every kind there is. Each goes through its target's body here, and must be accepted.

use crate::{commands, corpus, log_bytes, native_request, peer_frame, record_batch};
use ackord::controller::command::{
    Command, ConfigChanges, ConfigOperation, Finished, Layout, MorePartitions, NewTopic, Registration, TopicReference,
};
use ackord::coordinator::command::{self as coordinator, Action, Assign, Commit, Expired, Join, Leaver, NewOffset};
use ackord::machine::StateMachine;
use ackord::partition::command as partition;
use ackord::proto::native::{self, get_request, produce_request::Payload, request, topic_reference::By};
use ackord::proto::peer::{self, frame::Body, snapshot_message};
use ackord::proto::{LENGTH_BYTES, decode_request, encode_frame};
use ackord::record::codec::decompress;
use ackord::record::writer::BatchWriter;
use ackord::record::{Codec, HEADER_BYTES, RecordBatch};
use ackord::sim::SimDisk;
use ackord::sim::engine::SimEngine;
use ackord::storage::WriteBatch;
use ackord::types::{
    EntryKind, HardState, Incarnation, LogEntry, LogId, LogIndex, NodeId, Offset, RaftGroupId, ReplicaId, Term, TopicId,
};
use ackord::wal::{GroupWrite, LogChange, Turn};
use bytes::Bytes;
use std::io::Write;

#[path = "../support/partition_workload.rs"]
mod workload;

fn try_seed(target: &str, body: fn(&[u8]), name: &str, bytes: &[u8]) {
    println!("{target} {name}"); // shown with a failure: the last one is the one
    body(bytes);
    corpus::keep(target, name, bytes);
}

fn on_partition() -> Option<native::PartitionReference> {
    let topic = Some(native::TopicReference { by: Some(By::Name("orders".to_owned())) });
    Some(native::PartitionReference { topic, partition: 0 })
}

fn native_requests() -> Vec<(&'static str, request::Body)> {
    let header = native::Header { key: "h".into(), value: Some(Bytes::from_static(b"1")) };
    let record = native::Record { key: Some("k".into()), headers: vec![header], ..native::Record::default() };
    let produce = |payload| {
        request::Body::Produce(native::ProduceRequest {
            partition: on_partition(),
            payload: Some(payload),
            idempotence: Some(native::Idempotence { producer_id: 1, ..native::Idempotence::default() }),
        })
    };
    let get = |by| request::Body::Get(native::GetRequest { partition: on_partition(), by: Some(by) });
    let read = native::ReadRequest { partition: on_partition(), bytes_max: 1000, ..native::ReadRequest::default() };
    let batches = native::ReadRequest { format: native::ReadFormat::RecordBatches.into(), ..read.clone() };
    let create = native::CreateTopicRequest {
        name: "new".to_owned(),
        partitions: 2,
        configs: vec![native::Config { name: "retention.ms".to_owned(), value: "1000".to_owned() }],
        ..native::CreateTopicRequest::default()
    };
    let batch = BatchWriter::new(1).record(Some(b"k"), Some(b"v"), 1).finish();
    vec![
        ("produce-records", produce(Payload::Records(native::RecordList { records: vec![record] }))),
        ("produce-batch", produce(Payload::RecordBatch(batch.into_bytes()))),
        ("read-records", request::Body::Read(read)),
        ("read-batches", request::Body::Read(batches)),
        ("get-offset", get(get_request::By::Offset(1))),
        ("get-time", get(get_request::By::TimestampMs(1))),
        ("get-key", get(get_request::By::Key("k".into()))),
        ("offsets", request::Body::Offsets(native::OffsetsRequest { partition: on_partition() })),
        ("create", request::Body::CreateTopic(create)),
    ]
}

fn native_requests_of_groups() -> Vec<(&'static str, request::Body)> {
    let (group, text) = ("g".to_owned(), str::to_owned);
    let member = Some(native::GroupMember { id: text("m-1"), instance: Some(text("i")) });
    // A subscription to "orders", and a share of it.
    let metadata = Bytes::from_static(b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff");
    let assignment = Bytes::from_static(b"\0\0\0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\0\xff\xff\xff\xff");
    let join = native::JoinGroupRequest {
        group: group.clone(),
        member: member.clone(),
        client_name: text("c"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: text("consumer"),
        protocols: vec![native::GroupProtocol { name: text("range"), metadata }],
    };
    let assignments = vec![native::GroupAssignment { member: text("m-1"), assignment }];
    let sync = native::SyncGroupRequest { group: group.clone(), generation: 1, member: member.clone(), assignments };
    let offset = native::GroupOffset { topic: text("orders"), partition: 0, offset: 5, term: 2, metadata: text("x") };
    let commit = native::CommitOffsetsRequest {
        group: group.clone(),
        generation: 1,
        member: member.clone(),
        offsets: vec![offset],
    };
    let partitions = on_partition().into_iter().collect();
    vec![
        ("find-coordinator", request::Body::FindCoordinator(native::FindCoordinatorRequest { group: group.clone() })),
        ("join", request::Body::JoinGroup(join)),
        ("sync", request::Body::SyncGroup(sync)),
        ("leave", request::Body::LeaveGroup(native::LeaveGroupRequest { group: group.clone(), member })),
        ("commit", request::Body::CommitOffsets(commit)),
        ("delete-offsets", request::Body::DeleteOffsets(native::DeleteOffsetsRequest { group, partitions })),
    ]
}

#[test]
fn native_requests_of_every_kind() {
    for (name, body) in native_requests().into_iter().chain(native_requests_of_groups()) {
        let request = native::Request { id: 1, timeout_ms: 10, body: Some(body) };
        let frame = encode_frame(&request, usize::MAX).expect("a request");
        try_seed("native_request", native_request::run, name, &frame[LENGTH_BYTES..]);
    }
    // Every kind of request there is or may come, empty: field numbers above id and timeout, each an empty message.
    let mut kinds = 0;
    for field in 10..200_u32 {
        let key = field << 3 | 2;
        let key = if key < 128 { vec![key as u8] } else { vec![key as u8 | 128, (key >> 7) as u8] };
        let bytes = [&[8, 1], &key[..], &[0]].concat();
        if decode_request(Bytes::from(bytes.clone())).expect("a request").body.is_some() {
            kinds += 1;
            try_seed("native_request", native_request::run, &format!("empty-{field}"), &bytes);
        }
    }
    assert!(kinds >= 16, "only {kinds} kinds of request were found");
}

fn raft_message(kind: i32) -> peer::RaftMessage {
    let entry = |index| peer::Entry { index, term: 2, data: "data".into(), ..peer::Entry::default() };
    let append = kind == i32::from(peer::RaftMessageType::Append);
    let membership = Some(peer::Membership { voters: vec![1, 2, 3], ..peer::Membership::default() });
    let snapshot = (kind == i32::from(peer::RaftMessageType::Snapshot)).then_some(peer::SnapshotMetadata {
        index: 9,
        term: 2,
        membership,
    });
    peer::RaftMessage {
        r#type: kind,
        group: 3,
        from: 1 << 32,
        to: 2 << 32,
        term: 2,
        log_term: 1,
        index: 4,
        entries: if append { vec![entry(5), entry(6)] } else { vec![] },
        snapshot,
        ..peer::RaftMessage::default()
    }
}

fn repair_bodies() -> Vec<(String, Body)> {
    use peer::repair_message::Body as Repair;
    let membership = || Some(peer::Membership { voters: vec![1, 2, 3], ..peer::Membership::default() });
    let entry = |index| peer::Entry { index, term: 2, data: "data".into(), ..peer::Entry::default() };
    let anchors = vec![peer::LogPosition { index: 9, term: 2 }];
    let all = [
        ("want-entries", Repair::WantEntries(peer::WantEntries { first: 5, last: 6, anchors, nonce: 7 })),
        ("entries", Repair::Entries(peer::LostEntries { entries: vec![entry(5), entry(6)], nonce: 7 })),
        ("no-entries", Repair::NoEntries(peer::NoEntries { lack: peer::Lack::Released.into(), nonce: 7 })),
        (
            "want-state",
            Repair::WantState(peer::WantState {
                at_least: 9,
                committed: Some(peer::LogPosition { index: 8, term: 3 }),
            }),
        ),
        ("state", Repair::State(peer::SnapshotMetadata { index: 9, term: 2, membership: membership() })),
        ("no-state", Repair::NoState(peer::NoState { applied: 4 })),
        ("want-floor", Repair::WantFloor(peer::WantFloor { nonce: 7 })),
        ("led", Repair::Led(peer::RepairLed { by: 3 })),
        ("term", Repair::Term(peer::RepairTerm { nonce: 7, term: 2 })),
        ("floor", Repair::Floor(peer::RepairFloor { nonce: 7, term: 2, last: 9, membership: membership() })),
    ];
    let message = |body| Body::Repair(peer::RepairMessage { group: 3, from: 1, to: 2, body: Some(body) });
    all.into_iter().map(|(name, body)| (format!("repair-{name}"), message(body))).collect()
}

fn peer_bodies() -> Vec<(String, Body)> {
    use snapshot_message::Body as Snapshot;
    let named = |name: &str, body| (name.to_owned(), body);
    let snapshot = |body| {
        Body::Snapshot(peer::SnapshotMessage {
            group: 3,
            index: 9,
            term: 2,
            body: Some(body),
            ..peer::SnapshotMessage::default()
        })
    };
    let batch = peer::SnapshotBatch { base_offset: 2, data: "batch".into() };
    let id = || Bytes::from_static(&[7; 16]);
    let hello = peer::Hello { protocol: 1, cluster_id: id(), incarnation: id(), life: id(), ..peer::Hello::default() };
    let registration = Some(peer::Registration { index: 5, address: "n1.example:9094".into() });
    let welcome = peer::Welcome {
        incarnation: id(),
        durable_turn: 7,
        life: id(),
        first_turn: 3,
        losses: 1,
        in_doubt: true,
        registration,
        yours: Some(40),
    };
    let leader = peer::LeaderAnnouncement { group: 3, term: 2, node: 1 };
    let mut bodies = vec![
        named("hello", Body::Hello(hello)),
        named("welcome", Body::Welcome(welcome)),
        named("leaders", Body::Leaders(peer::LeaderAnnouncements { leaders: vec![leader] })),
        named("want-head", snapshot(Snapshot::WantHead(peer::WantHead { from_byte: 3 }))),
        named(
            "head",
            snapshot(Snapshot::Head(peer::HeadPiece {
                from_byte: 0,
                total_bytes: 4,
                data: "head".into(),
                kind: peer::MachineKind::Coordinator.into(),
            })),
        ),
        named("want-records", snapshot(Snapshot::WantRecords(peer::WantRecords { from: 3, until: 5 }))),
        named("records", snapshot(Snapshot::Records(peer::SnapshotRecords { log_start: 1, batches: vec![batch] }))),
        named("proposal", Body::Proposal(peer::ControllerProposal { id: 1, command: "c".into(), timeout_ms: 5 })),
        named("outcome", Body::Outcome(peer::ControllerOutcome { id: 1, result: None, log_index: 3 })),
    ];
    bodies.extend(repair_bodies());
    let kinds = (1..20).filter(|kind| peer::RaftMessageType::try_from(*kind).is_ok());
    let raft = |kind| Body::Raft(peer::RaftBatch { messages: vec![raft_message(kind)] });
    bodies.extend(kinds.map(|kind| (format!("raft-{kind}"), raft(kind))));
    bodies
}

#[test]
fn peers_frames_of_every_kind() {
    let mut all = Vec::new();
    for (name, body) in peer_bodies() {
        let frame = encode_frame(&peer::Frame { body: Some(body) }, usize::MAX).expect("a frame");
        try_seed("peer_frame", peer_frame::run, &name, &frame);
        all.extend_from_slice(&frame);
    }
    try_seed("peer_frame", peer_frame::run, "all", &all);
}

/// The records of `batch`, compressed, in a batch of their own.
fn compressed(batch: &RecordBatch, codec: Codec) -> Bytes {
    let plain = &batch.bytes()[HEADER_BYTES..];
    let (number, body) = match codec {
        Codec::None => (0, plain.to_vec()),
        Codec::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(plain).expect("memory");
            (1, writer.finish().expect("memory"))
        }
        Codec::Snappy => (2, snap::raw::Encoder::new().compress_vec(plain).expect("memory")),
        Codec::Lz4 => {
            let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
            writer.write_all(plain).expect("memory");
            (3, writer.finish().expect("memory"))
        }
        Codec::Zstd => (4, zstd::encode_all(plain, 3).expect("memory")),
    };
    assert_eq!(decompress(codec, &body, 4 << 20).expect("sound"), plain);
    let mut bytes = [&batch.bytes()[..HEADER_BYTES], &body].concat();
    bytes[22] = number;
    record_batch::repaired(&bytes)
}

#[test]
fn record_batches_of_every_codec() {
    let writer = BatchWriter::new(999_000).record(Some(b"key"), Some(&[7; 100]), 999_000).record_with_headers(
        Some(b""),
        None,
        999_500,
        &[(b"a", Some(b"1")), (b"a", None)],
    );
    let batch = writer.producer(1, 0, 5).finish();
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bytes = compressed(&batch, codec);
        RecordBatch::parse_verified(bytes.clone()).expect("a sound batch");
        try_seed("record_batch", record_batch::run, &format!("{codec:?}"), &bytes);
    }
    // Some kilobytes that would be three million: beyond the limit, whatever the codec.
    let bomb = BatchWriter::new(999_000).record(None, Some(&vec![0; 3 << 20]), 999_000).finish();
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let bytes = compressed(&bomb, codec);
        assert!(bytes.len() < 20_000, "{codec:?}: {}", bytes.len());
        try_seed("record_batch", record_batch::run, &format!("bomb-{codec:?}"), &bytes);
    }
}

fn write(group: u64, change: LogChange) -> GroupWrite {
    let hard_state = HardState { term: Term(2), vote: Some(ReplicaId(1)), commit: LogIndex(1) };
    GroupWrite { group: RaftGroupId(group), hard_state, change }
}

fn entries(first: u64, kind: EntryKind) -> LogChange {
    let entry = |index| LogEntry { id: LogId::new(index, 2), kind, context: "c".into(), data: "data".into() };
    LogChange::Append((first..first + 3).map(entry).collect())
}

/// Turns of every kind of change.
fn turns() -> Vec<(&'static str, Vec<GroupWrite>)> {
    let born = || LogChange::Born { start: LogId::new(1, 1) };
    let at = LogId::new(9, 2);
    vec![
        ("born", vec![write(1, born()), write(2, born())]),
        ("append", vec![write(1, entries(2, EntryKind::Normal)), write(2, entries(2, EntryKind::ConfChange))]),
        ("overwrite", vec![write(1, entries(3, EntryKind::Normal))]),
        ("state", vec![write(2, LogChange::None)]),
        ("installing", vec![write(1, LogChange::Installing { at, generation: 4 })]),
        ("installed", vec![write(1, LogChange::Installed { at, generation: 4 })]),
        ("tombstone", vec![write(2, LogChange::Tombstone)]),
    ]
}

#[test]
fn logs_with_every_kind_of_turn() {
    let disk = SimDisk::new();
    let (mut log, _) = log_bytes::open(&disk, 3).expect("an empty disk");
    for (name, writes) in turns() {
        log.append(&Turn { writes }).expect("append");
        let image = disk.contents(log_bytes::FIRST);
        let end = image.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // Once as it is, and once so that what the fuzzer changes is covered by checksums that agree.
        for flags in [0, 7] {
            let seed = [&[flags], &image[..end]].concat();
            try_seed("log_bytes", log_bytes::run, &format!("{name}-{flags}"), &seed);
        }
    }
    let copy = SimDisk::new();
    copy.put(log_bytes::FIRST, &disk.contents(log_bytes::FIRST));
    let (_, recovery) = log_bytes::open(&copy, 4).expect("what was written opens");
    assert_eq!((recovery.groups.len(), recovery.tombstones.len()), (1, 1), "{:?}", recovery.findings);
}

fn controller_commands() -> Vec<(&'static str, Command)> {
    let node = NodeId(1);
    let registration =
        Registration { node, incarnation: Incarnation(5), rack: None, listeners: vec![], feature_level_max: 1 };
    let topic = NewTopic {
        id: TopicId(9),
        name: "orders".to_owned(),
        layout: Layout::Counted { partitions: 2, replication_factor: 1 },
        configs: vec![("retention.ms".to_owned(), Some("5".to_owned()))],
    };
    let more = MorePartitions { name: "orders".to_owned(), count: 3, assignment: None };
    let operations = vec![
        ("a".to_owned(), ConfigOperation::Set(Some("1".to_owned()))),
        ("b".to_owned(), ConfigOperation::Delete),
        ("c".to_owned(), ConfigOperation::Append(None)),
    ];
    let change = ConfigChanges { name: "orders".to_owned(), replace: false, operations };
    let finished = Finished { group: RaftGroupId(1), old: ReplicaId::new(node, 0), new: ReplicaId::new(node, 1) };
    let create = Command::CreateTopics { topics: vec![topic], live: vec![node], now_ms: 1, validate_only: false };
    vec![
        ("register", Command::RegisterBroker(registration)),
        ("unregister", Command::UnregisterBroker { node }),
        ("create", create),
        ("delete", Command::DeleteTopics { topics: vec![TopicReference::Name("orders".to_owned())] }),
        ("grow", Command::CreatePartitions { topics: vec![more], live: vec![node], validate_only: true }),
        ("alter", Command::AlterTopicConfigs { topics: vec![change], validate_only: false }),
        ("producer-ids", Command::AllocateProducerIds { node, incarnation: Incarnation(5) }),
        ("raise", Command::RaiseFeatureLevel { level: 1 }),
        ("join-controller", Command::JoinController { node, incarnation: Incarnation(5) }),
        (
            "replace-node",
            Command::ReplaceNode {
                old: node,
                new: node,
                disk: Some(Incarnation(7)),
                live: vec![NodeId(2)],
                force: true,
            },
        ),
        ("finish-replacements", Command::FinishReplacements { finished: vec![finished] }),
    ]
}

#[test]
fn commands_and_snapshots_of_every_kind() {
    let seed = |decoder: u8, name: &str, bytes: &[u8]| {
        try_seed("commands", commands::run, name, &[&[decoder], bytes].concat());
    };
    seed(0, "partition-produce", &partition::Command::Produce { proposed_at_ms: 5 }.encode());
    seed(0, "partition-log-start", &partition::Command::SetLogStart { offset: Offset(5) }.encode());
    let mut controller = commands::empty_controller();
    for (index, (name, command)) in (2..).zip(controller_commands()) {
        let bytes = command.encode().expect("short");
        seed(1, &format!("controller-{name}"), &bytes);
        let entry = LogEntry { id: LogId::new(index, 1), data: bytes, ..LogEntry::default() };
        let outcomes = controller.apply(&[entry], &[], &mut WriteBatch::default()).expect("a command");
        let [ackord::machine::Outcome::Answer(answer)] = &outcomes[..] else { panic!("{name}: {outcomes:?}") };
        seed(2, &format!("answer-{name}"), answer);
    }
    seed(4, "controller-snapshot", &controller.snapshot());
    let engine = SimEngine::default();
    let mut partition = workload::create(&engine);
    workload::apply(&engine, &mut partition, &workload::entries(3, 40));
    seed(3, "partition-head", &partition.snapshot_head().encode());
}

fn coordinator_actions() -> Vec<(&'static str, Action)> {
    let text = str::to_owned;
    let (group, member) = (text("g"), text("m-1"));
    let join = Join {
        group: group.clone(),
        member: String::new(),
        new_member: member.clone(),
        instance: None,
        two_steps: false,
        can_skip_assignment: true,
        client_id: text("c"),
        client_host: text("h"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: text("consumer"),
        protocols: vec![(text("range"), vec![1, 2])],
        delay_first: false,
        members_max: 10,
    };
    let assignments = vec![(member.clone(), vec![3])];
    let assign = Assign { group: group.clone(), generation: 1, member: member.clone(), instance: None, assignments };
    let offset = NewOffset { offset: 5, leader_epoch: 2, metadata: text("x") };
    let offsets = vec![(text("orders"), 0, offset)];
    let commit = Commit { group: group.clone(), member: member.clone(), instance: None, generation: 1, offsets };
    let leaver = Leaver { member: member.clone(), instance: None };
    vec![
        ("join", Action::Join(join)),
        ("finish", Action::FinishJoin { group: group.clone(), round: 1 }),
        ("assign", Action::Assign(assign)),
        ("commit", Action::Commit(commit)),
        ("expire", Action::Expire { group: group.clone(), members: vec![Expired { member, joins: 9 }] }),
        ("leave", Action::Leave { group: group.clone(), members: vec![leaver] }),
        ("delete-offsets", Action::DeleteOffsets { group: group.clone(), partitions: vec![(text("orders"), 0)] }),
        ("delete", Action::DeleteGroups { groups: vec![group] }),
        ("expire-offsets", Action::ExpireOffsets { retention_ms: 5 }),
        ("forget", Action::ForgetTopics { topics: vec![text("orders")] }),
    ]
}

#[test]
fn commands_of_a_coordinator_of_every_kind() {
    let seed = |decoder: u8, name: &str, bytes: &[u8]| {
        try_seed("commands", commands::run, name, &[&[decoder], bytes].concat());
    };
    let mut coordinator = commands::empty_coordinator();
    for (index, (name, action)) in (2..).zip(coordinator_actions()) {
        let bytes = coordinator::Command { now_ms: 1_000, action }.encode().expect("short");
        seed(5, &format!("coordinator-{name}"), &bytes);
        let entry = LogEntry { id: LogId::new(index, 1), data: bytes, ..LogEntry::default() };
        let outcomes = coordinator.apply(&[entry], &[], &mut WriteBatch::default()).expect("a command");
        if let [ackord::machine::Outcome::Answer(answer)] = &outcomes[..] {
            seed(6, &format!("coordinator-answer-{name}"), answer);
        }
        seed(7, &format!("coordinator-snapshot-{name}"), &coordinator.snapshot());
    }
}
