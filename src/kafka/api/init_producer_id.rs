//! InitProducerId (key 22), versions 0 to 4: an identity for an idempotent producer (KIP-98).
//!
//! Not optional: the producers of Java and kafka-python 3 fail without it at their defaults. A transactional id is
//! refused for good until transactions exist. The identity a producer had before does not matter without one: Kafka
//! gives a new id, too.

use super::Api;
use crate::broker::Broker;
use crate::kafka::error_codes;
use crate::kafka::guard::{INT16, INT32, INT64, Kind, Shape, always, since};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, InitProducerIdResponse, ProducerId};

/// What is served.
pub static API: Api = Api::new(
    ApiKey::InitProducerId,
    (0, 4),
    Shape::of(&[
        always(Kind::NullableText), // transactional id
        always(INT32),              // transaction timeout
        since(3, INT64),            // producer id
        since(3, INT16),            // producer epoch
    ]),
);

/// Gives a producer its identity.
pub async fn answer<B: Broker>(broker: &B, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refuse = |code: i16| {
        InitProducerIdResponse::default().with_error_code(code).with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
    };
    match request.transactional_id {
        Some(id) if id.is_empty() => return refuse(ResponseError::InvalidRequest.code()),
        Some(_) => return refuse(ResponseError::TransactionalIdAuthorizationFailed.code()),
        None => {}
    }
    match broker.new_producer().await {
        Ok(identity) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(identity.id))
            .with_producer_epoch(identity.epoch),
        // The code that Kafka gives until it has a block of ids: every producer asks again.
        Err(error) if error.kind.is_retriable() => refuse(ResponseError::CoordinatorLoadInProgress.code()),
        Err(error) => refuse(error_codes::code(&error)),
    }
}
