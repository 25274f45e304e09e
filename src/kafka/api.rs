//! The APIs served, one file each. The table here is made from their declarations, and everything that depends on what
//! is served (the guard, the dispatch, the ApiVersions answer) is made from the table, so the answer cannot lie.

pub mod alter_configs;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod fetch;
pub mod find_coordinator;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;

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
pub static APIS: [&Api; 15] = [
    &produce::API,
    &fetch::API,
    &list_offsets::API,
    &metadata::API,
    &find_coordinator::API,
    &api_versions::API,
    &create_topics::API,
    &delete_topics::API,
    &init_producer_id::API,
    &offset_for_leader_epoch::API,
    &describe_configs::API,
    &alter_configs::API,
    &create_partitions::API,
    &incremental_alter_configs::API,
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
        let tried =
            "0:0-12 1:4-12 2:1-7 3:0-12 10:0-4 18:0-4 19:2-7 20:1-6 22:0-4 23:2-4 32:1-4 33:0-2 37:0-3 44:0-1 60:0-1";
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
