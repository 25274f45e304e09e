//! SyncGroup (key 14), versions 0 to 5: the leader brings everybody's share of the work, and every member gets its own.
//!
//! From version 5 on, a member says which protocol it takes for chosen, and is told (KIP-559).

use super::Api;
use crate::broker::{Broker, Error, ErrorKind, Reservation, Result, SyncGroup};
use crate::kafka::caller::Caller;
use crate::kafka::error_codes;
use crate::kafka::guard::{INT32, Kind, Shape, always, since};
use crate::kafka::translate;
use kafka_protocol::messages::{ApiKey, SyncGroupRequest, SyncGroupResponse};

/// What is served.
pub static API: Api = Api::new(
    ApiKey::SyncGroup,
    (0, 5),
    Shape::of(&[
        always(Kind::Text),                              // group
        always(INT32),                                   // generation
        always(Kind::Text),                              // member id
        since(3, Kind::NullableText),                    // group instance id
        since(5, Kind::NullableText),                    // protocol type
        since(5, Kind::NullableText),                    // protocol name
        always(Kind::Array(&Kind::Struct(&ASSIGNMENT))), // assignments
    ]),
);
const ASSIGNMENT: Shape = Shape::of(&[always(Kind::Text), always(Kind::Bytes)]);

/// The first version that must name the protocol.
const PROTOCOL_SINCE: i16 = 5;

/// Hands in what a leader assigned, and waits for the member's own share.
pub async fn answer<B: Broker>(
    broker: &B,
    request: SyncGroupRequest,
    version: i16,
    caller: &Caller,
    memory: Reservation,
) -> SyncGroupResponse {
    let synced = match question(request, version) {
        Ok(question) => caller.wait_for_members(broker.sync_group(question, Some(memory))).await,
        Err(error) => Err(error),
    };
    match synced {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(Some(translate::text(&synced.protocol_type)))
            .with_protocol_name(Some(translate::text(&synced.protocol)))
            .with_assignment(synced.assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(error_codes::group_code(ApiKey::SyncGroup, &error)),
    }
}

fn question(request: SyncGroupRequest, version: i16) -> Result<SyncGroup> {
    let group = translate::group(&request.group_id)?;
    if version >= PROTOCOL_SINCE && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return Err(Error::new(ErrorKind::InconsistentGroupProtocol, "the protocol and its type must be named"));
    }
    let assignments = request.assignments.into_iter().map(|share| (share.member_id.to_string(), share.assignment));
    Ok(SyncGroup {
        group,
        generation: request.generation_id,
        member: translate::member(&request.member_id, request.group_instance_id.as_ref()),
        protocol_type: request.protocol_type.map(|text| text.to_string()),
        protocol: request.protocol_name.map(|text| text.to_string()),
        assignments: assignments.collect(),
    })
}
