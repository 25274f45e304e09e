//! What lies in the Raft log and in snapshots: every decoder behind a version byte. The first byte of an input says
//! which, modulo their number; a new one is added at the end, so that the corpus keeps its meaning.

use ackord::controller::Controller;
use ackord::controller::command as controller;
use ackord::coordinator::Coordinator;
use ackord::coordinator::command as coordinator;
use ackord::machine::StateMachine;
use ackord::partition::command as partition;
use ackord::partition::snapshot::SnapshotHead;
use ackord::sim::engine::SimEngine;
use ackord::storage::WriteBatch;
use ackord::types::{ClusterId, LogEntry, LogId, Membership, NodeId, RaftGroupId, ReplicaId};
use bytes::Bytes;
use std::fmt::Debug;

/// The cluster whose snapshots are taken in.
pub const CLUSTER: ClusterId = ClusterId(77);

/// The decoders.
const DECODERS: [fn(&[u8]); 8] = [
    |bytes| same_again(bytes, |bytes| partition::Command::decode(bytes).ok(), |command| command.encode().to_vec()),
    controller_command,
    |bytes| same_again(bytes, |bytes| controller::Answer::decode(bytes).ok(), |answer| answer.encode().to_vec()),
    |bytes| same_again(bytes, |bytes| SnapshotHead::decode(bytes).ok(), |head| head.encode().to_vec()),
    controller_snapshot,
    coordinator_command,
    |bytes| same_again(bytes, |bytes| coordinator::Answer::decode(bytes).ok(), |answer| answer.encode().to_vec()),
    coordinator_snapshot,
];

/// See the module.
pub fn run(data: &[u8]) {
    if let Some((which, bytes)) = data.split_first() {
        DECODERS[usize::from(*which) % DECODERS.len()](bytes);
    }
}

/// What is decoded can be applied: the outcome may be a refusal, and is never the machine's end.
fn apply(machine: &mut impl StateMachine, data: &[u8]) {
    let entry = LogEntry { id: LogId::new(2, 1), data: Bytes::copy_from_slice(data), ..LogEntry::default() };
    let outcomes = machine.apply(&[entry], &[], &mut WriteBatch::default()).expect("a command that was decoded");
    assert_eq!(outcomes.len(), 1);
}

fn controller_command(bytes: &[u8]) {
    let encode = |command: &controller::Command| command.encode().expect("no longer than it was").to_vec();
    same_again(bytes, |bytes| controller::Command::decode(bytes).ok(), encode);
    if controller::Command::decode(bytes).is_ok() {
        apply(&mut empty_controller(), bytes);
    }
}

fn coordinator_command(bytes: &[u8]) {
    let encode = |command: &coordinator::Command| command.encode().expect("no longer than it was").to_vec();
    same_again(bytes, |bytes| coordinator::Command::decode(bytes).ok(), encode);
    if coordinator::Command::decode(bytes).is_ok() {
        apply(&mut empty_coordinator(), bytes);
    }
}

/// Refused, or a value that survives its own encoding.
fn same_again<T: PartialEq + Debug>(bytes: &[u8], decode: impl Fn(&[u8]) -> Option<T>, encode: impl Fn(&T) -> Vec<u8>) {
    if let Some(value) = decode(bytes) {
        assert_eq!(decode(&encode(&value)).as_ref(), Some(&value));
    }
}

/// A controller that begins, in an empty database.
pub fn empty_controller() -> Controller {
    let born = (LogId::new(1, 1), Membership::of_voters([ReplicaId::new(NodeId(1), 0)]));
    Controller::open(&SimEngine::default(), CLUSTER, born).expect("an empty database can be opened")
}

/// Refused, or a state whose own snapshot is taken in again, and is the same.
fn controller_snapshot(bytes: &[u8]) {
    let mut receiver = empty_controller();
    if receiver.install(bytes, &mut WriteBatch::default()).is_ok() {
        let mut second = empty_controller();
        second.install(&receiver.snapshot(), &mut WriteBatch::default()).expect("it was taken in once");
        assert_eq!(second.view(), receiver.view());
    }
}

/// A coordinator of consumer groups that has none yet.
pub fn empty_coordinator() -> Coordinator {
    let membership = Membership::of_voters([ReplicaId::new(NodeId(1), 0)]);
    Coordinator::create(RaftGroupId(9), LogId::new(1, 1), membership, &mut WriteBatch::default())
}

/// Refused, or a state whose own snapshot is taken in again, and is the same.
fn coordinator_snapshot(bytes: &[u8]) {
    let mut receiver = empty_coordinator();
    if receiver.install(bytes, &mut WriteBatch::default()).is_ok() {
        let mut second = empty_coordinator();
        second.install(&receiver.snapshot(), &mut WriteBatch::default()).expect("it was taken in once");
        assert_eq!(second.groups(), receiver.groups());
    }
}
