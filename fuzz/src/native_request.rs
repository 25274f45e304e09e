//! The body of a frame of the native edge, on the way it takes in a connection: limits, decoder, broker, answer.

use crate::shell::{CONNECTION, MEMORY_BYTES, broker, poll_once};
use ackord::broker::{ByteBudget, ConnectionIds};
use ackord::native::answers::{self, Caller};
use ackord::native::{Limits, Service};
use ackord::proto::{self, LENGTH_BYTES, native};
use bytes::Bytes;
use std::sync::Arc;

/// Refused, or answered with what the sender can read.
pub fn run(data: &[u8]) {
    let Ok(request) = proto::decode_request(Bytes::copy_from_slice(data)) else { return };
    let id = request.id;
    let service = Arc::new(Service {
        broker: Arc::new(broker()),
        limits: Limits::default(),
        request_memory: ByteBudget::new(MEMORY_BYTES),
        connection_ids: ConnectionIds::default(),
    });
    let caller = Caller { connection: CONNECTION, host: None };
    let memory = poll_once(service.request_memory.reserve(data.len())).expect("nobody else reserves any");
    let Some(pending) = poll_once(answers::begin(&service, caller, request, memory)) else { return };
    let Some(answer) = poll_once(pending) else { return };
    let response = native::Response { id, body: Some(answer.body) };
    let frame = proto::encode_frame(&response, u32::MAX as usize).expect("an answer fits into a frame");
    let read = proto::decode_response(frame.slice(LENGTH_BYTES..)).expect("clients read what is answered");
    assert_eq!(read, response, "what is answered is what is read");
}
