//! ListGroups (key 16), versions 0 to 5: the groups that this node coordinates, by state from version 4 on (KIP-518)
//! and by type from version 5 on (KIP-848).

use super::Api;
use crate::broker::{Broker, ListedGroup};
use crate::kafka::error_codes;
use crate::kafka::guard::{Kind, Shape, since};
use kafka_protocol::messages::list_groups_response::ListedGroup as WireGroup;
use kafka_protocol::messages::{ApiKey, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::ListGroups,
    (0, 5),
    Shape::of(&[
        since(4, Kind::Array(&Kind::Text)), // states
        since(5, Kind::Array(&Kind::Text)), // types
    ]),
);

/// The type of every group: its members run the classic protocol, where one of them assigns the work.
const CLASSIC: &str = "classic";

/// Lists groups.
pub fn answer<B: Broker>(broker: &B, request: &ListGroupsRequest) -> ListGroupsResponse {
    let response = ListGroupsResponse::default();
    match broker.list_groups() {
        Err(error) => response.with_error_code(error_codes::group_code(ApiKey::ListGroups, &error)),
        Ok(groups) => {
            let groups = groups.into_iter().filter(|group| {
                lets_pass(&request.states_filter, group.state.name()) && lets_pass(&request.types_filter, CLASSIC)
            });
            response.with_groups(groups.map(listed).collect())
        }
    }
}

/// An empty filter lets everything pass. Kafka compares without regard to case and to spaces around a name.
fn lets_pass(filter: &[StrBytes], name: &str) -> bool {
    filter.is_empty() || filter.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
}

fn listed(group: ListedGroup) -> WireGroup {
    WireGroup::default()
        .with_group_id(StrBytes::from_string(group.group).into())
        .with_protocol_type(StrBytes::from_string(group.protocol_type))
        .with_group_state(StrBytes::from_static_str(group.state.name()))
        .with_group_type(StrBytes::from_static_str(CLASSIC))
}
