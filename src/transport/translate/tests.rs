//! What is sent is what arrives, entries' bytes are never copied, and what no replica says is refused.

use super::repair::{repair_from_wire, repair_to_wire};
use super::*;
use crate::multiraft::core::repair::message::{ANCHORS_MAX, Lack, Lost, RepairBody, RepairMessage};
use crate::proto::peer::frame::Body;
use crate::proto::{LENGTH_BYTES, PEER_FRAME_BYTES_MAX, decode_peer_frame, encode_frame};
use crate::types::EntryKind;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

/// Through a frame and back.
fn carry(body: Body) -> (Body, Bytes) {
    let frame = encode_frame(&peer::Frame { body: Some(body) }, PEER_FRAME_BYTES_MAX).unwrap().slice(LENGTH_BYTES..);
    (decode_peer_frame(frame.clone()).unwrap().body.unwrap(), frame)
}

fn carry_raft(message: RaftMessage) -> Result<(RaftGroupId, RaftMessage), Malformed> {
    let messages = vec![raft_to_wire(RaftGroupId(9), message)];
    let (Body::Raft(mut batch), _) = carry(Body::Raft(peer::RaftBatch { messages })) else { panic!("a batch") };
    raft_from_wire(batch.messages.remove(0))
}

fn append(entries: &[(u64, u64)]) -> RaftMessage {
    let entry = |(index, term): &(u64, u64)| LogEntry { id: LogId::new(*index, *term), ..LogEntry::default() };
    RaftMessage {
        term: Term(5),
        index: LogIndex(7),
        log_term: Term(3),
        entries: entries.iter().map(entry).collect(),
        ..RaftMessage::default()
    }
}

fn members() -> impl Strategy<Value = Membership> {
    let list = |sizes| {
        vec(any::<u64>(), sizes).prop_map(|mut numbers: Vec<u64>| {
            numbers.sort_unstable();
            numbers.into_iter().map(ReplicaId).collect::<Vec<_>>()
        })
    };
    (list(1..6), list(0..4), list(0..4), list(0..4), any::<bool>()).prop_map(
        |(voters, learners, voters_outgoing, learners_next, auto_leave)| Membership {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
        },
    )
}

fn some_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..50).prop_map(Bytes::from)
}

prop_compose! {
    fn message()(
        kind in 0..MessageKind::ALL.len(),
        numbers in proptest::array::uniform7(any::<u64>()),
        log_term in 0_u64..20,
        index in 0_u64..u64::MAX - 10,
        payloads in vec((some_bytes(), some_bytes(), any::<bool>()), 0..5),
        priority: i64,
        reject: bool,
        context in some_bytes(),
        at in (1_u64.., 1_u64..),
        membership in members(),
    ) -> RaftMessage {
        let kind = MessageKind::ALL[kind];
        let [from, to, term, commit, commit_term, reject_hint, request_snapshot] = numbers;
        let entries = payloads.into_iter().zip(1..).map(|((context, data, change), place)| LogEntry {
            id: LogId::new(index + place, log_term + place),
            kind: if change { EntryKind::ConfChange } else { EntryKind::Normal },
            context,
            data,
        });
        RaftMessage {
            kind,
            from: ReplicaId(from),
            to: ReplicaId(to),
            term: Term(term.max(30)),
            log_term: Term(log_term),
            index: LogIndex(index),
            entries: if kind == MessageKind::Append { entries.collect() } else { Vec::new() },
            commit: LogIndex(commit),
            commit_term: Term(commit_term),
            reject,
            reject_hint: LogIndex(reject_hint),
            request_snapshot: LogIndex(request_snapshot),
            priority,
            context,
            snapshot: (kind == MessageKind::Snapshot).then(|| SnapshotMeta { at: LogId::new(at.0, at.1), membership }),
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Partition), Just(Kind::Controller), Just(Kind::Coordinator)]
}

fn lack() -> impl Strategy<Value = Lack> {
    prop_oneof![Just(Lack::Different), Just(Lack::Released), Just(Lack::Damaged)]
}

fn repair_body() -> impl Strategy<Value = RepairBody> {
    let index = || any::<u64>().prop_map(LogIndex);
    let range = (1..u64::MAX, 0..9_u64).prop_map(|(first, more)| (first, first.saturating_add(more)));
    let anchors = vec((any::<u64>(), any::<u64>()).prop_map(|(index, term)| LogId::new(index, term)), 0..=ANCHORS_MAX);
    let entries = (1..1_000_u64, 1..20_u64, vec((some_bytes(), some_bytes()), 1..5));
    let meta = (1_u64.., 1_u64.., members());
    prop_oneof![
        (any::<u64>(), range, anchors).prop_map(|(nonce, (first, last), anchors)| {
            RepairBody::WantEntries(Lost { nonce, first: LogIndex(first), last: LogIndex(last), anchors })
        }),
        (any::<u64>(), entries).prop_map(|(nonce, (first, term, payloads))| {
            let entry = |(place, (context, data))| LogEntry {
                id: LogId::new(first + place, term + place / 2),
                context,
                data,
                ..LogEntry::default()
            };
            RepairBody::Entries { nonce, entries: (0..).zip(payloads).map(entry).collect() }
        }),
        (any::<u64>(), lack()).prop_map(|(nonce, lack)| RepairBody::NoEntries { nonce, lack }),
        (index(), any::<u64>(), any::<u64>()).prop_map(|(at_least, index, term)| {
            RepairBody::WantState { at_least, committed: LogId::new(index, term) }
        }),
        meta.prop_map(|(index, term, membership)| {
            RepairBody::State(SnapshotMeta { at: LogId::new(index, term), membership })
        }),
        index().prop_map(|applied| RepairBody::NoState { applied }),
        any::<u64>().prop_map(|nonce| RepairBody::WantFloor { nonce }),
        any::<u64>().prop_map(|by| RepairBody::Led { by: ReplicaId(by) }),
        (any::<u64>(), any::<u64>()).prop_map(|(nonce, term)| RepairBody::Term { nonce, term: Term(term) }),
        (any::<u64>(), any::<u64>(), index(), members()).prop_map(|(nonce, term, last, membership)| {
            RepairBody::Floor { nonce, term: Term(term), last, membership }
        }),
    ]
}

fn carry_repair(body: RepairBody) -> Result<RepairMessage, Malformed> {
    let (group, from, to) = (RaftGroupId(4), ReplicaId(1), ReplicaId(2));
    let wire = repair_to_wire(RepairMessage { group, from, to, body });
    let (Body::Repair(carried), _) = carry(Body::Repair(wire)) else { panic!("about a repair") };
    repair_from_wire(carried)
}

fn snapshot_body() -> impl Strategy<Value = SnapshotBody> {
    let offset = || (0..=i64::MAX).prop_map(Offset);
    prop_oneof![
        any::<u64>().prop_map(|from_byte| SnapshotBody::WantHead { from_byte }),
        (offset(), offset()).prop_map(|(from, until)| SnapshotBody::WantRecords { from, until }),
        (kind(), any::<u64>(), any::<u64>(), some_bytes()).prop_map(|(kind, from_byte, total_bytes, bytes)| {
            SnapshotBody::Head { kind, from_byte, total_bytes, bytes }
        }),
        (offset(), vec((offset(), some_bytes()), 0..5))
            .prop_map(|(log_start, batches)| SnapshotBody::Records(SnapshotChunk { log_start, batches })),
        Just(SnapshotBody::Gone),
    ]
}

proptest! {
    #[test]
    fn raft_messages_arrive_as_they_were_sent(message in message()) {
        prop_assert_eq!(carry_raft(message.clone()), Ok((RaftGroupId(9), message)));
    }

    #[test]
    fn snapshot_messages_arrive_as_they_were_sent(
        numbers in proptest::array::uniform5(any::<u64>()),
        body in snapshot_body(),
    ) {
        let [group, from, to, index, term] = numbers;
        let (from, to, at) = (ReplicaId(from), ReplicaId(to), LogId::new(index, term));
        let message = SnapshotMessage { group: RaftGroupId(group), from, to, at, body };
        let (Body::Snapshot(carried), _) = carry(Body::Snapshot(snapshot_to_wire(message.clone()))) else {
            panic!("a snapshot message")
        };
        prop_assert_eq!(snapshot_from_wire(carried), Ok(message));
    }

    #[test]
    fn what_is_said_of_repairs_arrives_as_it_was_said(body in repair_body()) {
        let (group, from, to) = (RaftGroupId(4), ReplicaId(1), ReplicaId(2));
        prop_assert_eq!(carry_repair(body.clone()), Ok(RepairMessage { group, from, to, body }));
    }

    #[test]
    fn outcomes_arrive_as_they_were_sent(answer in some_bytes(), at: u64, leader in 1_u32..) {
        for outcome in [
            ProposalOutcome::Answered { answer, at: LogIndex(at) },
            ProposalOutcome::NotProposed { leader: Some(NodeId(leader)) },
            ProposalOutcome::NotProposed { leader: None },
            ProposalOutcome::Unknown,
        ] {
            let (Body::Outcome(carried), _) = carry(Body::Outcome(outcome_to_wire(3, outcome.clone()))) else {
                panic!("an outcome")
            };
            prop_assert_eq!((carried.id, outcome_from_wire(carried)), (3, outcome));
        }
    }
}

#[test]
fn an_entrys_data_is_a_slice_of_the_frame_it_came_in() {
    let mut message = append(&[(8, 4)]);
    message.entries[0].data = Bytes::from(vec![7; 1_000]);
    let messages = vec![raft_to_wire(RaftGroupId(1), message)];
    let (Body::Raft(mut batch), frame) = carry(Body::Raft(peer::RaftBatch { messages })) else { panic!("a batch") };
    let (_, read) = raft_from_wire(batch.messages.remove(0)).unwrap();
    assert!(frame.as_ptr_range().contains(&read.entries[0].data.as_ptr()));
}

#[test]
fn what_no_replica_says_of_a_repair_is_refused() {
    let refused = |body: RepairBody| assert!(carry_repair(body.clone()).is_err(), "{body:?}");
    let entry = |(index, term): &(u64, u64)| LogEntry { id: LogId::new(*index, *term), ..LogEntry::default() };
    let entries = |ids: &[(u64, u64)]| RepairBody::Entries { nonce: 1, entries: ids.iter().map(entry).collect() };
    assert!(carry_repair(entries(&[(4, 2), (5, 2), (6, 3)])).is_ok());
    refused(entries(&[]));
    refused(entries(&[(4, 2), (6, 2)]));
    refused(entries(&[(4, 2), (4, 2)]));
    refused(entries(&[(4, 2), (5, 1)]));
    refused(entries(&[(u64::MAX, 2), (0, 2)]));
    let want = |first, last, anchors| {
        let (first, last, anchors) = (LogIndex(first), LogIndex(last), vec![LogId::new(9, 1); anchors]);
        RepairBody::WantEntries(Lost { nonce: 1, first, last, anchors })
    };
    assert!(carry_repair(want(4, 4, ANCHORS_MAX)).is_ok());
    refused(want(4, 3, 1));
    refused(want(0, 3, 1));
    refused(want(4, 4, ANCHORS_MAX + 1));
    let floor = |voters| RepairBody::Floor {
        nonce: 1,
        term: Term(1),
        last: LogIndex(1),
        membership: Membership::of_voters(voters),
    };
    assert!(carry_repair(floor(vec![ReplicaId(1)])).is_ok());
    refused(floor(vec![]));
    refused(floor((0..=1_000).map(ReplicaId).collect()));
    assert!(repair_from_wire(peer::RepairMessage::default()).is_err());
    let body = Some(peer::repair_message::Body::NoEntries(peer::NoEntries { lack: 9, nonce: 1 }));
    assert!(repair_from_wire(peer::RepairMessage { body, ..Default::default() }).is_err());
    let body = Some(peer::snapshot_message::Body::Head(peer::HeadPiece::default()));
    assert!(snapshot_from_wire(peer::SnapshotMessage { body, ..Default::default() }).is_err(), "of no machine");
}

#[test]
fn what_no_replica_says_is_refused() {
    let refused = |message: RaftMessage| assert!(carry_raft(message.clone()).is_err(), "{message:?}");
    assert!(carry_raft(append(&[(8, 3), (9, 5)])).is_ok());
    refused(append(&[(9, 3)]));
    refused(append(&[(8, 3), (8, 3)]));
    refused(append(&[(8, 2)]));
    refused(append(&[(8, 4), (9, 3)]));
    refused(append(&[(8, 6)]));
    refused(RaftMessage { term: Term(0), ..append(&[]) });
    refused(RaftMessage { index: LogIndex(u64::MAX), ..append(&[(1, 3)]) });
    refused(RaftMessage { kind: MessageKind::Heartbeat, ..append(&[(8, 3)]) });
    refused(RaftMessage { context: Bytes::from(vec![0; CONTEXT_BYTES_MAX + 1]), ..append(&[]) });

    let meta = |voters| SnapshotMeta { at: LogId::new(4, 2), membership: Membership::of_voters(voters) };
    let offer = |meta| RaftMessage { kind: MessageKind::Snapshot, snapshot: meta, ..append(&[]) };
    assert!(carry_raft(offer(Some(meta(vec![ReplicaId(1)])))).is_ok());
    refused(offer(None));
    refused(offer(Some(meta(vec![]))));
    refused(offer(Some(meta((0..=1_000).map(ReplicaId).collect()))));
    refused(offer(Some(SnapshotMeta { at: LogId::default(), ..meta(vec![ReplicaId(1)]) })));
    refused(RaftMessage { snapshot: Some(meta(vec![ReplicaId(1)])), ..append(&[]) });

    let unknown = peer::RaftMessage { r#type: 11, ..raft_to_wire(RaftGroupId(1), append(&[])) };
    assert_eq!(raft_from_wire(unknown), Err(Malformed("message: unknown type")));
    assert!(snapshot_from_wire(peer::SnapshotMessage::default()).is_err());
    let body = Some(peer::snapshot_message::Body::WantRecords(peer::WantRecords { from: -1, until: 4 }));
    assert!(snapshot_from_wire(peer::SnapshotMessage { body, ..Default::default() }).is_err());
}
