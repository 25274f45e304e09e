//! Heartbeat (key 12), versions 0 to 4: a member is alive, and learns whether it has to join again.

use super::Api;
use crate::broker::{Broker, Heartbeat, Result};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT32, Kind, Shape, always, since};
use crate::kafka::translate;
use kafka_protocol::messages::{ApiKey, HeartbeatRequest, HeartbeatResponse};

/// What is served.
pub static API: Api = Api::new(
    ApiKey::Heartbeat,
    (0, 4),
    Shape::of(&[
        always(Kind::Text),           // group
        always(INT32),                // generation
        always(Kind::Text),           // member id
        since(3, Kind::NullableText), // group instance id
    ]),
);

/// Takes note of a member.
pub async fn answer<B: Broker>(broker: &B, request: HeartbeatRequest) -> HeartbeatResponse {
    let code = match beat(broker, request).await {
        Ok(()) => error_codes::NONE,
        Err(error) => error_codes::group_code(ApiKey::Heartbeat, &error),
    };
    HeartbeatResponse::default().with_error_code(code)
}

async fn beat<B: Broker>(broker: &B, request: HeartbeatRequest) -> Result<()> {
    let group = translate::group(&request.group_id)?;
    let member = translate::member(&request.member_id, request.group_instance_id.as_ref());
    broker.heartbeat(Heartbeat { group, generation: request.generation_id, member }).await
}
