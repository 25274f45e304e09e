//! JoinGroup (key 11), versions 0 to 9: a member asks to be part of a group's next generation, and waits for it.
//!
//! * Version 0 has no rebalance timeout; it is the session timeout.
//! * From version 4 on, a member without an id and without a name of its own is only told an id, and joins again under
//!   it, so that one that gives up waiting leaves no ghost (KIP-394).
//! * Version 5 brings static members (KIP-345), 7 the group's protocol type in the answer (KIP-559), 8 a reason, which
//!   is not looked at (KIP-800), 9 a leader that comes back and need not assign again (KIP-814).

use super::Api;
use crate::broker::{
    Broker, Error, ErrorKind, GROUP_TEXT_BYTES_MAX, Generation, GenerationMember, JoinGroup, Joined, Reservation,
    Result,
};
use crate::kafka::caller::Caller;
use crate::kafka::error_codes;
use crate::kafka::guard::{INT32, Kind, Shape, always, since};
use crate::kafka::translate;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{ApiKey, JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::JoinGroup,
    (0, 9),
    Shape::of(&[
        always(Kind::Text),                            // group
        always(INT32),                                 // session timeout
        since(1, INT32),                               // rebalance timeout
        always(Kind::Text),                            // member id
        since(5, Kind::NullableText),                  // group instance id
        always(Kind::Text),                            // protocol type
        always(Kind::Array(&Kind::Struct(&PROTOCOL))), // protocols
        since(8, Kind::NullableText),                  // reason
    ]),
);
const PROTOCOL: Shape = Shape::of(&[always(Kind::Text), always(Kind::Bytes)]);

/// The first version with a rebalance timeout (KIP-62).
const REBALANCE_TIMEOUT_SINCE: i16 = 1;
/// The first version whose new members join in two steps (KIP-394).
const TWO_STEPS_SINCE: i16 = 4;
/// The first version whose answer has a protocol type, and may have no protocol (KIP-559).
const PROTOCOL_TYPE_SINCE: i16 = 7;
/// The first version that knows `skip_assignment` (KIP-814).
const SKIP_ASSIGNMENT_SINCE: i16 = 9;

/// Joins a group, and answers once the group's next generation is made up.
pub async fn answer<B: Broker>(
    broker: &B,
    request: JoinGroupRequest,
    version: i16,
    caller: &Caller,
    client_id: String,
    memory: Reservation,
) -> JoinGroupResponse {
    // A copy: the frame goes while it is waited for the other members.
    let sent = translate::text(&request.member_id);
    let joined = match question(request, version, caller, client_id) {
        Ok(question) => caller.wait_for_members(broker.join_group(question, Some(memory))).await,
        Err(error) => Err(error),
    };
    match joined {
        Ok(Joined::In(generation)) => welcome(generation, version),
        Ok(Joined::Again { member }) => {
            refusal(ResponseError::MemberIdRequired.code(), translate::text(&member), version)
        }
        Err(error) => refusal(error_codes::group_code(ApiKey::JoinGroup, &error), sent, version),
    }
}

fn question(request: JoinGroupRequest, version: i16, caller: &Caller, client_id: String) -> Result<JoinGroup> {
    let group = translate::group(&request.group_id)?;
    let instance = request.group_instance_id.as_ref();
    let names = request.protocols.iter().map(|protocol| &protocol.name);
    for text in names.chain(instance).chain([&request.member_id, &request.protocol_type]) {
        if text.len() > GROUP_TEXT_BYTES_MAX {
            return Err(Error::new(ErrorKind::InvalidRequest, "a name is too long"));
        }
    }
    let session_timeout = translate::millis(request.session_timeout_ms);
    let rebalance_timeout = match version >= REBALANCE_TIMEOUT_SINCE {
        true => translate::millis(request.rebalance_timeout_ms),
        false => session_timeout,
    };
    let protocols = request.protocols.into_iter().map(|protocol| (protocol.name.to_string(), protocol.metadata));
    Ok(JoinGroup {
        group,
        two_steps: version >= TWO_STEPS_SINCE && instance.is_none(),
        member: translate::member(&request.member_id, instance),
        client_id,
        client_host: caller.host_text(),
        session_timeout,
        rebalance_timeout,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        can_skip_assignment: version >= SKIP_ASSIGNMENT_SINCE,
    })
}

fn welcome(generation: Generation, version: i16) -> JoinGroupResponse {
    let member = |member: GenerationMember| {
        JoinGroupResponseMember::default()
            .with_member_id(translate::text(&member.identity.id))
            .with_group_instance_id(member.identity.instance.as_deref().map(translate::text))
            .with_metadata(member.metadata)
    };
    JoinGroupResponse::default()
        .with_generation_id(generation.generation)
        .with_protocol_type(Some(translate::text(&generation.protocol_type)))
        .with_protocol_name(Some(translate::text(&generation.protocol)))
        .with_leader(translate::text(&generation.leader))
        .with_member_id(translate::text(&generation.member))
        .with_skip_assignment(generation.skip_assignment && version >= SKIP_ASSIGNMENT_SINCE)
        .with_members(generation.members.into_iter().map(member).collect())
}

/// No generation, no leader, no protocol: null from the version on that can say so.
fn refusal(code: i16, member: StrBytes, version: i16) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(code)
        .with_generation_id(translate::UNKNOWN)
        .with_protocol_name((version < PROTOCOL_TYPE_SINCE).then(StrBytes::default))
        .with_member_id(member)
}
