//! What another node sends, as a stream of frames: lengths, limits, decoder, and the translation into messages.

use crate::shell::poll_once;
use ackord::proto::peer::frame::Body;
use ackord::transport::translate::repair::{repair_from_wire, repair_to_wire};
use ackord::transport::translate::{
    outcome_from_wire, outcome_to_wire, raft_from_wire, raft_to_wire, snapshot_from_wire, snapshot_to_wire,
};
use ackord::transport::wire;
use std::time::Duration;

/// The longest frame here; the real limit is far above what a fuzzer writes.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Each frame ends the connection, or is a message that is the same again when it is sent on.
pub fn run(mut data: &[u8]) {
    while let Some(Ok(body)) = poll_once(wire::read(&mut data, FRAME_BYTES_MAX, Duration::from_secs(1))) {
        match body {
            Body::Raft(batch) => {
                for message in batch.messages {
                    let Ok((group, message)) = raft_from_wire(message) else { return };
                    let again = raft_from_wire(raft_to_wire(group, message.clone())).expect("it was one of ours");
                    assert_eq!(again, (group, message));
                }
            }
            Body::Snapshot(message) => {
                let Ok(message) = snapshot_from_wire(message) else { return };
                let again = snapshot_from_wire(snapshot_to_wire(message.clone())).expect("it was one of ours");
                assert_eq!(again, message);
            }
            Body::Repair(message) => {
                let Ok(message) = repair_from_wire(message) else { return };
                let again = repair_from_wire(repair_to_wire(message.clone())).expect("it was one of ours");
                assert_eq!(again, message);
            }
            Body::Outcome(outcome) => {
                let (id, outcome) = (outcome.id, outcome_from_wire(outcome));
                assert_eq!(outcome_from_wire(outcome_to_wire(id, outcome.clone())), outcome);
            }
            Body::Hello(_) | Body::Welcome(_) | Body::Refused(_) | Body::Alive(_) => {}
            Body::Leaders(_) | Body::Proposal(_) => {}
        }
    }
}
