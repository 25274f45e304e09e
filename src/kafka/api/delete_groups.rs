//! DeleteGroups (key 42), versions 0 to 2: groups without members, and their offsets (KIP-229). One that is named twice
//! is deleted and answered once.

use super::Api;
use crate::broker::Broker;
use crate::kafka::error_codes;
use crate::kafka::guard::{Kind, Shape, always};
use crate::kafka::translate;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{ApiKey, DeleteGroupsRequest, DeleteGroupsResponse};

/// What is served.
pub static API: Api = Api::new(ApiKey::DeleteGroups, (0, 2), Shape::of(&[always(Kind::Array(&Kind::Text))]));

/// Deletes groups.
pub async fn answer<B: Broker>(broker: &B, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let asked = translate::distinct(request.groups_names);
    let deleted = broker.delete_groups(asked.iter().map(|group| group.to_string()).collect()).await;
    assert_eq!(deleted.len(), asked.len(), "one answer per group");
    let results = asked.into_iter().zip(deleted).map(|(group, deleted)| {
        let code = |error| error_codes::group_code(ApiKey::DeleteGroups, &error);
        DeletableGroupResult::default()
            .with_group_id(group)
            .with_error_code(deleted.map_or_else(code, |()| error_codes::NONE))
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}
