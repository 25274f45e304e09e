//! The APIs served, one file each. The table here is made from their declarations, and everything that depends on what
//! is served (the guard, the dispatch, the ApiVersions answer) is made from the table, so the answer cannot lie.

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;

use super::guard::Shape;
use kafka_protocol::messages::ApiKey;

/// What a file under `api/` declares.
#[derive(Debug)]
pub struct Api {
    /// Its key.
    pub key: ApiKey,
    /// The versions it serves, first and last.
    pub serves: (i16, i16),
    /// The first version ApiVersions shows. Only Produce shows more than it serves.
    pub shown_from: i16,
    /// The fields of its requests.
    pub shape: Shape,
}

impl Api {
    /// An API that shows what it serves.
    #[must_use]
    pub const fn new(key: ApiKey, serves: (i16, i16), shape: Shape) -> Self {
        Self { key, serves, shown_from: serves.0, shape }
    }

    /// Whether requests of this version are flexible: varint lengths and tagged fields (KIP-482).
    #[must_use]
    pub fn is_flexible(&self, version: i16) -> bool {
        self.key.request_header_version(version) >= 2
    }
}

/// Every API served, by key.
pub static APIS: [&Api; 26] = [
    &produce::API,
    &fetch::API,
    &list_offsets::API,
    &metadata::API,
    &offset_commit::API,
    &offset_fetch::API,
    &find_coordinator::API,
    &join_group::API,
    &heartbeat::API,
    &leave_group::API,
    &sync_group::API,
    &describe_groups::API,
    &list_groups::API,
    &api_versions::API,
    &create_topics::API,
    &delete_topics::API,
    &delete_records::API,
    &init_producer_id::API,
    &offset_for_leader_epoch::API,
    &describe_configs::API,
    &alter_configs::API,
    &create_partitions::API,
    &delete_groups::API,
    &incremental_alter_configs::API,
    &offset_delete::API,
    &describe_cluster::API,
];

/// The API of this key, if it is served.
#[must_use]
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_that_clients_were_tried_with() {
        let shown: Vec<String> =
            APIS.iter().map(|api| format!("{}:{}-{}", api.key as i16, api.shown_from, api.serves.1)).collect();
        let tried = "0:0-12 1:4-12 2:1-7 3:0-12 \
                     8:2-9 9:1-9 10:0-4 11:0-9 12:0-4 13:0-5 14:0-5 15:0-6 16:0-5 \
                     18:0-4 19:2-7 20:1-6 21:0-2 22:0-4 23:2-4 32:1-4 33:0-2 37:0-3 42:0-2 44:0-1 47:0-0 60:0-1";
        assert_eq!(shown.join(" "), tried);
    }

    #[test]
    fn the_decoder_knows_every_version_served() {
        for api in APIS {
            let known = api.key.valid_versions();
            assert!(known.min <= api.serves.0 && api.serves.1 <= known.max, "{:?}", api.key);
        }
    }
}
