//! Frames: what goes in comes out, what is hostile stays out, and bytes are never copied on the way in.

use super::*;
use crate::types::{EntryKind, LogEntry, LogId, Membership, NodeId, ReplicaId};
use native::produce_request::Payload;
use native::request::Body;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn body(frame: &Bytes) -> Bytes {
    let (prefix, body) = frame.split_first_chunk::<LENGTH_BYTES>().expect("a frame has a length");
    assert_eq!(frame_length(*prefix, usize::MAX), Ok(body.len()));
    frame.slice(LENGTH_BYTES..)
}

fn raft_frame(messages: Vec<peer::RaftMessage>) -> peer::Frame {
    peer::Frame { body: Some(peer::frame::Body::Raft(peer::RaftBatch { messages })) }
}

fn produce(records: Vec<native::Record>) -> native::Request {
    let payload = Some(Payload::Records(native::RecordList { records }));
    let produce = native::ProduceRequest { partition: None, payload, idempotence: None };
    native::Request { id: 7, timeout_ms: 0, body: Some(Body::Produce(produce)) }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
    assert_eq!(frame_length([0, 0, 1, 0], 256), Ok(256));
    assert_eq!(frame_length([0, 0, 1, 1], 256), Err(FrameError::TooLong { length: 257, max: 256 }));
    assert!(frame_length([0xff; 4], 1 << 30).is_err());
    let request = produce(vec![native::Record { value: Some(vec![0; 300].into()), ..Default::default() }]);
    assert!(matches!(encode_frame(&request, 256), Err(FrameError::TooLong { max: 256, .. })));
}

#[test]
fn an_entrys_data_is_a_slice_of_its_frame() {
    let data = Bytes::from(vec![7; 1000]);
    let entry = LogEntry { id: LogId::new(4, 2), kind: EntryKind::Normal, context: Bytes::from("header"), data };
    let message = peer::RaftMessage { entries: vec![entry.clone().into()], ..Default::default() };
    let frame = body(&encode_frame(&raft_frame(vec![message]), PEER_FRAME_BYTES_MAX).unwrap());
    let decoded = decode_peer_frame(frame.clone()).unwrap();
    let Some(peer::frame::Body::Raft(mut batch)) = decoded.body else { panic!("it was a batch") };
    let read = LogEntry::try_from(batch.messages.remove(0).entries.remove(0)).unwrap();
    assert_eq!(read, entry);
    assert!(frame.as_ptr_range().contains(&read.data.as_ptr()));
}

#[test]
fn more_elements_than_allowed_are_refused_and_the_limit_itself_is_not() {
    let too_many = |result: Result<(), FrameError>| matches!(result, Err(FrameError::TooMany { .. }));
    let request = |count: usize| {
        decode_request(body(&encode_frame(&produce(vec![native::Record::default(); count]), usize::MAX).unwrap()))
            .map(drop)
    };
    assert_eq!(request(100_000), Ok(()));
    assert!(too_many(request(100_001)));

    let frame = |messages: usize, entries: usize| {
        let message = peer::RaftMessage { entries: vec![peer::Entry::default(); entries], ..Default::default() };
        decode_peer_frame(body(&encode_frame(&raft_frame(vec![message; messages]), usize::MAX).unwrap())).map(drop)
    };
    assert_eq!(frame(65_536, 0), Ok(()));
    assert!(too_many(frame(65_537, 0)));
    assert_eq!(frame(2, 131_072), Ok(()));
    assert!(too_many(frame(2, 131_073)), "counted over all messages of a frame");
    // The same list in two halves, which protobuf merges into one.
    let half = body(&encode_frame(&raft_frame(vec![peer::RaftMessage::default(); 40_000]), usize::MAX).unwrap());
    assert!(too_many(decode_peer_frame([&half[..], &half[..]].concat().into()).map(drop)));
}

#[test]
fn lists_of_a_repair_are_counted() {
    let decode = |body| {
        let repair = peer::RepairMessage { body: Some(body), ..Default::default() };
        let frame = peer::Frame { body: Some(peer::frame::Body::Repair(repair)) };
        decode_peer_frame(body_of(&frame)).is_ok()
    };
    let anchors = |count| vec![peer::LogPosition::default(); count];
    let want = |count| peer::WantEntries { anchors: anchors(count), ..Default::default() };
    assert!(decode(peer::repair_message::Body::WantEntries(want(16))));
    assert!(!decode(peer::repair_message::Body::WantEntries(want(17))));
    let entries = |count| peer::LostEntries { entries: vec![peer::Entry::default(); count], nonce: 1 };
    assert!(decode(peer::repair_message::Body::Entries(entries(262_144))));
    assert!(!decode(peer::repair_message::Body::Entries(entries(262_145))));
    let membership = |count| Some(peer::Membership { voters: vec![1; count], ..Default::default() });
    let floor = |count| peer::RepairFloor { membership: membership(count), ..Default::default() };
    assert!(decode(peer::repair_message::Body::Floor(floor(65_536))));
    assert!(!decode(peer::repair_message::Body::Floor(floor(65_537))));
}

fn body_of(frame: &peer::Frame) -> Bytes {
    body(&encode_frame(frame, usize::MAX).unwrap())
}

#[test]
fn packed_numbers_are_counted_too() {
    let frame = |voters: usize| {
        let membership = Some(peer::Membership { voters: vec![1; voters], ..Default::default() });
        let snapshot = Some(peer::SnapshotMetadata { membership, ..Default::default() });
        let message = peer::RaftMessage { snapshot, ..Default::default() };
        decode_peer_frame(body(&encode_frame(&raft_frame(vec![message; 2]), usize::MAX).unwrap())).map(drop)
    };
    assert_eq!(frame(32_768), Ok(()));
    assert!(matches!(frame(32_769), Err(FrameError::TooMany { .. })));
}

/// A field as a `.proto` file has it.
struct Field {
    /// Its number.
    number: u32,
    /// Its type's name.
    of: String,
    /// Whether it is a list.
    repeated: bool,
}

/// The messages of a `.proto` file with their fields, those of a oneof included.
fn messages(file: &str) -> BTreeMap<String, Vec<Field>> {
    let mut messages: BTreeMap<String, Vec<Field>> = BTreeMap::new();
    let mut name = String::new();
    for line in file.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
        let words: Vec<_> = line.trim_end_matches(';').split_whitespace().collect();
        match words.as_slice() {
            ["message", message, ..] => name = (*message).to_owned(),
            ["enum", ..] => name.clear(),
            [label @ .., of, _, "=", number] if !name.is_empty() => {
                let (of, repeated) = ((*of).to_owned(), label == ["repeated"]);
                let field = Field { number: number.parse().unwrap(), of, repeated };
                messages.entry(name.clone()).or_default().push(field);
            }
            _ => {}
        }
    }
    messages
}

/// The paths from `message` to every list.
fn lists(messages: &BTreeMap<String, Vec<Field>>, message: &str, path: &[u32], found: &mut BTreeSet<Vec<u32>>) {
    for field in messages.get(message).into_iter().flatten() {
        let path = [path, &[field.number]].concat();
        lists(messages, &field.of, &path, found);
        if field.repeated {
            found.insert(path);
        }
    }
}

#[test]
fn every_list_has_a_limit() {
    let native = messages(include_str!("../../proto/ackord.proto"));
    let peer = messages(include_str!("../../proto/peer.proto"));
    for (messages, root, limits) in [
        (&native, "Request", limits::REQUEST),
        (&native, "Response", limits::RESPONSE),
        (&peer, "Frame", limits::PEER_FRAME),
    ] {
        let mut found = BTreeSet::new();
        lists(messages, root, &[], &mut found);
        let limited: BTreeSet<_> = limits.iter().map(|limit| limit.path.to_vec()).collect();
        assert_eq!(found, limited, "lists of {root}, and those that have a limit");
    }
}

/// The example of `docs/native-protocol.md`, byte for byte.
#[test]
fn the_documented_frame_is_what_is_sent() {
    let body = Some(Body::ClusterStatus(native::ClusterStatusRequest {}));
    let request = native::Request { id: 1, timeout_ms: 0, body };
    let frame = [0, 0, 0, 5, 0x08, 0x01, 0x82, 0x01, 0x00];
    assert_eq!(encode_frame(&request, 100).unwrap(), frame[..]);
    assert_eq!(decode_request(Bytes::copy_from_slice(&frame[LENGTH_BYTES..])), Ok(request));
}

#[test]
fn fields_of_newer_nodes_are_skipped_whatever_their_type() {
    let frame = raft_frame(vec![peer::RaftMessage { group: 5, ..Default::default() }]);
    let known = body(&encode_frame(&frame, PEER_FRAME_BYTES_MAX).unwrap());
    let unknown = |wire_type: u8, content: &[u8]| [&[99 << 3 & 0x7f | wire_type | 0x80, 99 >> 4][..], content].concat();
    for (wire_type, content) in [(0, &[0x80, 1][..]), (1, &[0xff; 8]), (2, &[3, 0xff, 0xff, 0xff]), (5, &[0xff; 4])] {
        let newer = [&unknown(wire_type, content), &known[..], &unknown(wire_type, content)].concat();
        assert_eq!(decode_peer_frame(newer.into()), Ok(frame.clone()), "wire type {wire_type}");
        let cut = [&known[..], &unknown(wire_type, &content[..content.len() - 1])].concat();
        assert!(decode_peer_frame(cut.into()).is_err(), "wire type {wire_type}, cut");
    }
}

#[test]
fn an_id_has_sixteen_bytes() {
    assert_eq!(read_id(&id_bytes(1 << 100)), Ok(1 << 100));
    assert!(read_id(&[0; 15]).is_err() && read_id(&[0; 17]).is_err());
}

#[test]
fn entries_that_no_node_writes_are_refused() {
    let good = peer::Entry { index: 1, term: 1, ..Default::default() };
    assert!(LogEntry::try_from(good.clone()).is_ok());
    assert!(LogEntry::try_from(peer::Entry { kind: 9, ..good.clone() }).is_err());
    assert!(LogEntry::try_from(peer::Entry { index: 0, ..good.clone() }).is_err());
    assert!(LogEntry::try_from(peer::Entry { term: 0, ..good }).is_err());
}

#[test]
fn members_are_sorted_whatever_order_they_come_in() {
    let replica = |node| ReplicaId::new(NodeId(node), 1);
    let mut members = Membership::of_voters([replica(3), replica(1), replica(2)]);
    members.learners = vec![replica(9)];
    let mut message = peer::Membership::from(&members);
    message.voters.reverse();
    assert_eq!(Membership::from(message), members);
}

proptest! {
    /// Whatever comes from the network gives a message or an error, never a panic; and limits refuse nothing that is
    /// small and well-formed.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = decode_request(bytes.clone());
        let _ = decode_response(bytes.clone());
        if let Ok(frame) = peer::Frame::decode(bytes.clone()) {
            let groups = bytes.windows(1).any(|byte| matches!(byte[0] & 7, 3 | 4));
            prop_assert!(groups || decode_peer_frame(bytes) == Ok(frame));
        }
    }

    #[test]
    fn raft_messages_survive_the_wire(
        numbers in proptest::array::uniform9(any::<u64>()),
        kind in 0..11,
        reject: bool,
        priority: i64,
        context in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let [group, from, to, term, log_term, index, commit, reject_hint, request_snapshot] = numbers;
        let message = peer::RaftMessage {
            r#type: kind, group, from, to, term, log_term, index, commit, reject_hint, request_snapshot, reject,
            priority, context: context.into(), ..Default::default()
        };
        let frame = raft_frame(vec![message]);
        let encoded = encode_frame(&frame, PEER_FRAME_BYTES_MAX).unwrap();
        prop_assert_eq!(decode_peer_frame(body(&encoded)), Ok(frame));
    }
}
