//! What lies in the Raft log and in snapshots: every decoder behind a version byte. The first byte of an input says
//! which, modulo their number; a new one is added at the end, so that the corpus keeps its meaning.

use ackord::controller::Controller;
use ackord::controller::command as controller;
use ackord::partition::command as partition;
use ackord::partition::snapshot::SnapshotHead;
use ackord::sim::engine::SimEngine;
use ackord::storage::WriteBatch;
use ackord::types::{ClusterId, LogId, Membership, NodeId, ReplicaId};
use std::fmt::Debug;

/// The cluster whose snapshots are taken in.
pub const CLUSTER: ClusterId = ClusterId(77);

/// The decoders.
const DECODERS: [fn(&[u8]); 5] = [
    |bytes| same_again(bytes, |bytes| partition::Command::decode(bytes).ok(), |command| command.encode().to_vec()),
    |bytes| same_again(bytes, |bytes| controller::Command::decode(bytes).ok(), encode_controller),
    |bytes| same_again(bytes, |bytes| controller::Answer::decode(bytes).ok(), |answer| answer.encode().to_vec()),
    |bytes| same_again(bytes, |bytes| SnapshotHead::decode(bytes).ok(), |head| head.encode().to_vec()),
    controller_snapshot,
];

/// See the module.
pub fn run(data: &[u8]) {
    if let Some((which, bytes)) = data.split_first() {
        DECODERS[usize::from(*which) % DECODERS.len()](bytes);
    }
}

fn encode_controller(command: &controller::Command) -> Vec<u8> {
    command.encode().expect("what was decoded is no longer than commands may be").to_vec()
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
