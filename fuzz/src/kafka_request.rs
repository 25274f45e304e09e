//! A frame of the Kafka edge, on the way its bytes take in a connection: guard, decoder, broker, answer.

use crate::shell::{CONNECTION, MEMORY_BYTES, broker, poll_once};
use ackord::broker::{ByteBudget, ConnectionIds};
use ackord::kafka::caller::Caller;
use ackord::kafka::reply::Reply;
use ackord::kafka::request::Request;
use ackord::kafka::{Limits, Service};
use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiKey, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::Decodable;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::sync::watch;

/// Refused, or answered with what the sender can read.
pub fn run(data: &[u8]) {
    let Ok(request) = Request::read(Bytes::copy_from_slice(data)) else { return };
    let asked = match &request {
        Request::Served { api, version, correlation_id, .. } => (api.key, *version, *correlation_id),
        Request::UnservedApiVersions { correlation_id } => (ApiKey::ApiVersions, 0, *correlation_id),
    };
    let service = Arc::new(Service {
        broker: Arc::new(broker()),
        limits: Limits::default(),
        request_memory: ByteBudget::new(MEMORY_BYTES),
        connection_ids: ConnectionIds::default(),
    });
    let (_open, stop) = watch::channel(false);
    let caller = Arc::new(Caller { connection: CONNECTION, host: Ipv4Addr::LOCALHOST.into(), stop });
    let memory = poll_once(service.request_memory.reserve(data.len())).expect("nobody else reserves any");
    let Some(Ok(pending)) = poll_once(request.begin(&service, &caller, memory)) else { return };
    if let Some(Ok(Reply::Send(mut chunks))) = poll_once(pending) {
        let length = chunks.remaining();
        check(asked, chunks.copy_to_bytes(length));
    }
}

/// An answer, its length prefix included, is whole and of the version that was asked.
fn check((key, version, correlation_id): (ApiKey, i16, i32), mut answer: Bytes) {
    assert_eq!(answer.get_i32() as usize, answer.len(), "{key:?} v{version}: the length is the answer's");
    let header = ResponseHeader::decode(&mut answer, key.response_header_version(version)).expect("a header");
    assert_eq!(header.correlation_id, correlation_id, "{key:?} v{version}: it answers what was asked");
    let decoded = ResponseKind::decode(key, &mut answer, version);
    assert!(decoded.is_ok() && answer.is_empty(), "{key:?} v{version}: {decoded:?}, and {} bytes left", answer.len());
}
