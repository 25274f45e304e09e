//! DescribeGroups (key 15), versions 0 to 6: groups and their members in full. One that is named twice is answered
//! once.
//!
//! A group that does not exist is `Dead`; from version 6 on that is an error, too (KIP-1043).

use super::Api;
use crate::broker::{Broker, DescribedGroup, DescribedMember, Error, ErrorKind, GroupState, Result};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT8, Kind, Shape, always, since};
use crate::kafka::translate::{self, Operations};
use kafka_protocol::messages::describe_groups_response::{DescribedGroup as WireGroup, DescribedGroupMember};
use kafka_protocol::messages::{ApiKey, DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::DescribeGroups,
    (0, 6),
    Shape::of(&[
        always(Kind::Array(&Kind::Text)), // groups
        since(3, INT8),                   // include authorized operations
    ]),
);

/// The first version with messages, for which a group that does not exist is an error.
const MESSAGES_SINCE: i16 = 6;

/// Describes groups.
pub fn answer<B: Broker>(broker: &B, request: DescribeGroupsRequest, version: i16) -> DescribeGroupsResponse {
    let asked = translate::distinct(request.groups);
    let operations = Operations::Group.if_asked(request.include_authorized_operations);
    let names: Vec<String> = asked.iter().map(|group| group.to_string()).collect();
    let described = broker.describe_groups(&names);
    assert_eq!(described.len(), asked.len(), "one answer per group");
    let groups = asked
        .into_iter()
        .zip(described)
        .map(|(group, described)| wire_group(group, described, version).with_authorized_operations(operations));
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn wire_group(name: GroupId, described: Result<DescribedGroup>, version: i16) -> WireGroup {
    let wire = WireGroup::default().with_group_id(name);
    match described {
        Err(error) => failure(wire, &error, version),
        Ok(group) if group.state == GroupState::Dead => {
            let wire = wire.with_group_state(StrBytes::from_static_str(group.state.name()));
            match version >= MESSAGES_SINCE {
                true => failure(wire, &ErrorKind::UnknownGroup.into(), version),
                false => wire,
            }
        }
        Ok(group) => wire
            .with_group_state(StrBytes::from_static_str(group.state.name()))
            .with_protocol_type(StrBytes::from_string(group.protocol_type))
            .with_protocol_data(StrBytes::from_string(group.protocol))
            .with_members(group.members.into_iter().map(wire_member).collect()),
    }
}

fn failure(wire: WireGroup, error: &Error, version: i16) -> WireGroup {
    let message = translate::message(error).filter(|_| version >= MESSAGES_SINCE);
    wire.with_error_code(error_codes::group_code(ApiKey::DescribeGroups, error)).with_error_message(message)
}

fn wire_member(member: DescribedMember) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(StrBytes::from_string(member.identity.id))
        .with_group_instance_id(member.identity.instance.map(StrBytes::from_string))
        .with_client_id(StrBytes::from_string(member.client_id))
        .with_client_host(StrBytes::from_string(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}
