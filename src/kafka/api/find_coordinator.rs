//! FindCoordinator (key 10), versions 0 to 4: which node coordinates a consumer group.
//!
//! Without a *successful* answer librdkafka silently sends lz4 uncompressed, and confluent-kafka's `close()` hangs,
//! even of those who use no groups. A transactional id is refused for good until transactions exist.

use super::Api;
use crate::broker::{Broker, Cluster, Edge, Error, ErrorKind, Node};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT8, Kind, Shape, between, since, until};
use crate::kafka::translate;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{ApiKey, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::FindCoordinator,
    (0, 4),
    Shape::of(&[
        until(3, Kind::Text),                    // key
        since(1, INT8),                          // key type
        between(4, 4, Kind::Array(&Kind::Text)), // keys
    ]),
);

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// A coordinator, or the code and sentence of a refusal.
type Found<'a> = Result<&'a Node, (i16, StrBytes)>;

/// Finds the coordinators of one key, or of several from version 4 on.
pub fn answer<B: Broker>(broker: &B, request: &FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
    let cluster = broker.cluster(Edge::Kafka);
    let response = FindCoordinatorResponse::default();
    if version >= 4 {
        let keys = request.coordinator_keys.iter();
        let found = keys.map(|key| coordinator(key, find(broker, &cluster, key, request.key_type)));
        return response.with_coordinators(found.collect());
    }
    match find(broker, &cluster, &request.key, request.key_type) {
        Ok(node) => response
            .with_node_id(translate::broker_id(node.id))
            .with_host(translate::text(&node.address.host))
            .with_port(i32::from(node.address.port)),
        Err((code, message)) => response
            .with_error_code(code)
            .with_error_message(Some(message))
            .with_node_id(BrokerId(translate::UNKNOWN))
            .with_port(translate::UNKNOWN),
    }
}

fn find<'a, B: Broker>(broker: &B, cluster: &'a Cluster, key: &str, key_type: i8) -> Found<'a> {
    let refuse = |error: &Error| {
        (error_codes::group_code(ApiKey::FindCoordinator, error), translate::message(error).unwrap_or_default())
    };
    match key_type {
        GROUP => {
            let node = broker.coordinator(key).map_err(|error| refuse(&error))?;
            cluster.node(node).ok_or_else(|| refuse(&ErrorKind::CoordinatorNotAvailable.into()))
        }
        TRANSACTION => Err((
            ResponseError::TransactionalIdAuthorizationFailed.code(),
            StrBytes::from_static_str("transactions are not supported"),
        )),
        _ => Err(refuse(&Error::new(ErrorKind::InvalidRequest, "no such kind of coordinator"))),
    }
}

fn coordinator(key: &StrBytes, found: Found<'_>) -> Coordinator {
    let wire = Coordinator::default().with_key(key.clone());
    match found {
        Ok(node) => wire
            .with_node_id(translate::broker_id(node.id))
            .with_host(translate::text(&node.address.host))
            .with_port(i32::from(node.address.port)),
        Err((code, message)) => wire
            .with_error_code(code)
            .with_error_message(Some(message))
            .with_node_id(BrokerId(translate::UNKNOWN))
            .with_port(translate::UNKNOWN),
    }
}
