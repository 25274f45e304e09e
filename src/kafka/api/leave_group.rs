//! LeaveGroup (key 13), versions 0 to 5: members leave; one up to version 2, several from version 3 on, each with an
//! answer of its own (KIP-345). The reason they may give (version 5, KIP-800) is not looked at.

use super::Api;
use crate::broker::{Broker, MemberIdentity, PerItem};
use crate::kafka::error_codes;
use crate::kafka::guard::{Kind, Shape, always, since, until};
use crate::kafka::translate;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{ApiKey, GroupId, LeaveGroupRequest, LeaveGroupResponse};

/// What is served.
pub static API: Api = Api::new(
    ApiKey::LeaveGroup,
    (0, 5),
    Shape::of(&[
        always(Kind::Text),                            // group
        until(2, Kind::Text),                          // member id
        since(3, Kind::Array(&Kind::Struct(&MEMBER))), // members
    ]),
);
const MEMBER: Shape = Shape::of(&[
    always(Kind::Text),           // member id
    always(Kind::NullableText),   // group instance id
    since(5, Kind::NullableText), // reason
]);

/// The first version with several members.
const MEMBERS_SINCE: i16 = 3;

/// Takes members out of a group.
pub async fn answer<B: Broker>(broker: &B, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let response = LeaveGroupResponse::default();
    let code = |error| error_codes::group_code(ApiKey::LeaveGroup, &error);
    if version < MEMBERS_SINCE {
        let left = leave(broker, &request.group_id, vec![translate::member(&request.member_id, None)]).await;
        let left = left.and_then(|left| left.into_iter().next().expect("one answer per member"));
        return response.with_error_code(left.map_or_else(code, |()| error_codes::NONE));
    }
    let members = request.members.iter().map(|who| translate::member(&who.member_id, who.group_instance_id.as_ref()));
    match leave(broker, &request.group_id, members.collect()).await {
        Err(error) => response.with_error_code(code(error)),
        Ok(left) => {
            let members = request.members.into_iter().zip(left).map(|(who, left)| {
                MemberResponse::default()
                    .with_member_id(who.member_id)
                    .with_group_instance_id(who.group_instance_id)
                    .with_error_code(left.map_or_else(code, |()| error_codes::NONE))
            });
            response.with_members(members.collect())
        }
    }
}

async fn leave<B: Broker>(broker: &B, group: &GroupId, members: Vec<MemberIdentity>) -> PerItem {
    let asked = members.len();
    let left = broker.leave_group(translate::group(group)?, members).await?;
    assert_eq!(left.len(), asked, "one answer per member");
    Ok(left)
}
