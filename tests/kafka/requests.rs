//! Random requests of every API and version, as the decoding crate's client side writes them.

#[path = "group_requests.rs"]
mod groups;

use bytes::Bytes;
use fastrand::Rng;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;

/// A request of this API and version with random contents: names, numbers, list lengths, nulls and unknown tags.
pub fn random(rng: &mut Rng, key: ApiKey, version: i16) -> RequestKind {
    Source { rng, flexible: key.request_header_version(version) >= 2, version }.request(key)
}

struct Source<'a> {
    rng: &'a mut Rng,
    flexible: bool,
    version: i16,
}

impl Source<'_> {
    fn text(&mut self) -> StrBytes {
        let length = if self.rng.u8(..) == 0 { self.rng.usize(..2000) } else { self.rng.usize(..12) };
        let text: String = std::iter::repeat_with(|| self.rng.char('a'..='ÿ')).take(length).collect();
        StrBytes::from_string(text)
    }

    fn word(&mut self) -> StrBytes {
        let length = self.rng.usize(1..12);
        StrBytes::from_string(std::iter::repeat_with(|| self.rng.alphanumeric()).take(length).collect())
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.rng.bool() { Some(make(self)) } else { None }
    }

    fn list<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let length = if self.rng.u8(..) == 0 { self.rng.usize(..300) } else { self.rng.usize(..4) };
        (0..length).map(|_| make(self)).collect()
    }

    fn bytes(&mut self) -> Bytes {
        let length = if self.rng.u8(..) == 0 { self.rng.usize(..70_000) } else { self.rng.usize(..80) };
        Bytes::from(std::iter::repeat_with(|| self.rng.u8(..)).take(length).collect::<Vec<u8>>())
    }

    fn tags(&mut self) -> BTreeMap<i32, Bytes> {
        if !self.flexible || self.rng.u8(..) > 40 {
            return BTreeMap::new();
        }
        self.list(|source| (source.rng.i32(50..), source.bytes())).into_iter().collect()
    }

    /// The value in versions that have the field, the type's default in others.
    fn since<T: Default>(&mut self, version: i16, make: impl FnOnce(&mut Self) -> T) -> T {
        if self.version >= version { make(self) } else { T::default() }
    }

    fn request(mut self, key: ApiKey) -> RequestKind {
        match key {
            ApiKey::Produce => self.produce().into(),
            ApiKey::Fetch => self.fetch().into(),
            ApiKey::ListOffsets => self.list_offsets().into(),
            ApiKey::Metadata => self.metadata().into(),
            ApiKey::FindCoordinator => self.find_coordinator().into(),
            ApiKey::ApiVersions => ApiVersionsRequest::default()
                .with_client_software_name(self.since(3, Self::word))
                .with_client_software_version(self.since(3, Self::word))
                .with_unknown_tagged_fields(self.tags())
                .into(),
            ApiKey::CreateTopics => self.create_topics().into(),
            ApiKey::DeleteTopics => self.delete_topics().into(),
            ApiKey::InitProducerId => self.init_producer_id().into(),
            ApiKey::OffsetForLeaderEpoch => self.offset_for_leader_epoch().into(),
            ApiKey::DeleteRecords => self.delete_records().into(),
            ApiKey::DescribeConfigs => self.describe_configs().into(),
            ApiKey::AlterConfigs => self.alter_configs().into(),
            ApiKey::CreatePartitions => self.create_partitions().into(),
            ApiKey::IncrementalAlterConfigs => self.incremental_alter_configs().into(),
            ApiKey::DescribeCluster => DescribeClusterRequest::default()
                .with_include_cluster_authorized_operations(self.rng.bool())
                .with_endpoint_type(if self.version >= 1 { self.rng.i8(..) } else { 1 })
                .with_unknown_tagged_fields(self.tags())
                .into(),
            other => self.about_groups(other),
        }
    }

    fn produce(&mut self) -> ProduceRequest {
        use produce_request::{PartitionProduceData, TopicProduceData};
        let topics = self.list(|source| {
            let partitions = source.list(|source| {
                PartitionProduceData::default()
                    .with_index(source.rng.i32(..))
                    .with_records(source.maybe(Self::bytes))
                    .with_unknown_tagged_fields(source.tags())
            });
            TopicProduceData::default()
                .with_name(source.text().into())
                .with_partition_data(partitions)
                .with_unknown_tagged_fields(source.tags())
        });
        ProduceRequest::default()
            .with_transactional_id(self.maybe(|source| source.text().into()))
            .with_acks(self.rng.i16(..))
            .with_timeout_ms(self.rng.i32(..))
            .with_topic_data(topics)
            .with_unknown_tagged_fields(self.tags())
    }

    fn fetch(&mut self) -> FetchRequest {
        use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
        let topics = self.list(|source| {
            let partitions = source.list(|source| {
                let version = source.version;
                FetchPartition::default()
                    .with_partition(source.rng.i32(..))
                    .with_current_leader_epoch(if version >= 9 { source.rng.i32(..) } else { -1 })
                    .with_fetch_offset(source.rng.i64(..))
                    .with_last_fetched_epoch(if version >= 12 { source.rng.i32(..) } else { -1 })
                    .with_log_start_offset(if version >= 5 { source.rng.i64(..) } else { -1 })
                    .with_partition_max_bytes(source.rng.i32(..))
                    .with_unknown_tagged_fields(source.tags())
            });
            FetchTopic::default()
                .with_topic(source.text().into())
                .with_partitions(partitions)
                .with_unknown_tagged_fields(source.tags())
        });
        let forgotten = self.since(7, |source| {
            source.list(|source| {
                ForgottenTopic::default()
                    .with_topic(source.text().into())
                    .with_partitions(source.list(|source| source.rng.i32(..)))
                    .with_unknown_tagged_fields(source.tags())
            })
        });
        FetchRequest::default()
            .with_cluster_id(self.since(12, |source| source.maybe(Self::text)))
            .with_replica_id(BrokerId(self.rng.i32(..)))
            .with_max_wait_ms(self.rng.i32(..20))
            .with_min_bytes(self.rng.i32(..))
            .with_max_bytes(self.rng.i32(..))
            .with_isolation_level(self.rng.i8(..))
            .with_session_id(self.since(7, |source| source.rng.i32(..)))
            .with_session_epoch(if self.version >= 7 { self.rng.i32(..) } else { -1 })
            .with_topics(topics)
            .with_forgotten_topics_data(forgotten)
            .with_rack_id(self.since(11, Self::text))
            .with_unknown_tagged_fields(self.tags())
    }

    fn list_offsets(&mut self) -> ListOffsetsRequest {
        use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
        let topics = self.list(|source| {
            let partitions = source.list(|source| {
                ListOffsetsPartition::default()
                    .with_partition_index(source.rng.i32(..))
                    .with_current_leader_epoch(if source.version >= 4 { source.rng.i32(..) } else { -1 })
                    .with_timestamp(source.rng.i64(..))
                    .with_unknown_tagged_fields(source.tags())
            });
            ListOffsetsTopic::default()
                .with_name(source.text().into())
                .with_partitions(partitions)
                .with_unknown_tagged_fields(source.tags())
        });
        ListOffsetsRequest::default()
            .with_replica_id(BrokerId(self.rng.i32(..)))
            .with_isolation_level(self.since(2, |source| source.rng.i8(..)))
            .with_topics(topics)
            .with_unknown_tagged_fields(self.tags())
    }

    fn metadata(&mut self) -> MetadataRequest {
        use metadata_request::MetadataRequestTopic;
        let topics = self.list(|source| {
            let name = source.text().into();
            let named = source.version < 10 || source.rng.bool();
            MetadataRequestTopic::default()
                .with_topic_id(source.since(10, |source| uuid::Uuid::from_u128(source.rng.u128(..))))
                .with_name(named.then_some(name))
                .with_unknown_tagged_fields(source.tags())
        });
        let all = self.version >= 1 && self.rng.u8(..) < 30;
        let operations = (8..=10).contains(&self.version) && self.rng.bool();
        MetadataRequest::default()
            .with_topics((!all).then_some(topics))
            .with_allow_auto_topic_creation(self.version < 4 || self.rng.bool())
            .with_include_cluster_authorized_operations(operations)
            .with_include_topic_authorized_operations(self.since(8, |source| source.rng.bool()))
            .with_unknown_tagged_fields(self.tags())
    }

    fn find_coordinator(&mut self) -> FindCoordinatorRequest {
        let request = FindCoordinatorRequest::default()
            .with_key_type(self.since(1, |source| source.rng.i8(0..3)))
            .with_coordinator_keys(self.since(4, |source| source.list(Self::text)))
            .with_unknown_tagged_fields(self.tags());
        if self.version <= 3 { request.with_key(self.text()) } else { request }
    }

    fn create_topics(&mut self) -> CreateTopicsRequest {
        use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
        let topics = self.list(|source| {
            let assignments = source.list(|source| {
                CreatableReplicaAssignment::default()
                    .with_partition_index(source.rng.i32(..))
                    .with_broker_ids(source.list(|source| BrokerId(source.rng.i32(..))))
                    .with_unknown_tagged_fields(source.tags())
            });
            let configs = source.list(|source| {
                CreatableTopicConfig::default()
                    .with_name(source.text())
                    .with_value(source.maybe(Self::text))
                    .with_unknown_tagged_fields(source.tags())
            });
            CreatableTopic::default()
                .with_name(source.text().into())
                .with_num_partitions(source.rng.i32(-2..50))
                .with_replication_factor(source.rng.i16(-2..5))
                .with_assignments(assignments)
                .with_configs(configs)
                .with_unknown_tagged_fields(source.tags())
        });
        CreateTopicsRequest::default()
            .with_topics(topics)
            .with_timeout_ms(self.rng.i32(..))
            .with_validate_only(self.rng.bool())
            .with_unknown_tagged_fields(self.tags())
    }

    fn delete_topics(&mut self) -> DeleteTopicsRequest {
        use delete_topics_request::DeleteTopicState;
        let states = self.since(6, |source| {
            source.list(|source| {
                DeleteTopicState::default()
                    .with_name(source.maybe(|source| source.text().into()))
                    .with_topic_id(
                        source.maybe(|source| uuid::Uuid::from_u128(source.rng.u128(..))).unwrap_or_default(),
                    )
                    .with_unknown_tagged_fields(source.tags())
            })
        });
        let request = DeleteTopicsRequest::default()
            .with_topics(states)
            .with_timeout_ms(self.rng.i32(..))
            .with_unknown_tagged_fields(self.tags());
        if self.version <= 5 { request.with_topic_names(self.list(|source| source.text().into())) } else { request }
    }

    fn init_producer_id(&mut self) -> InitProducerIdRequest {
        InitProducerIdRequest::default()
            .with_transactional_id(self.maybe(|source| source.text().into()))
            .with_transaction_timeout_ms(self.rng.i32(..))
            .with_producer_id(ProducerId(if self.version >= 3 { self.rng.i64(..) } else { -1 }))
            .with_producer_epoch(if self.version >= 3 { self.rng.i16(..) } else { -1 })
            .with_unknown_tagged_fields(self.tags())
    }

    fn delete_records(&mut self) -> DeleteRecordsRequest {
        use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
        let topics = self.list(|source| {
            let partitions = source.list(|source| {
                DeleteRecordsPartition::default()
                    .with_partition_index(source.rng.i32(..))
                    .with_offset(source.rng.i64(..))
                    .with_unknown_tagged_fields(source.tags())
            });
            DeleteRecordsTopic::default()
                .with_name(source.text().into())
                .with_partitions(partitions)
                .with_unknown_tagged_fields(source.tags())
        });
        DeleteRecordsRequest::default()
            .with_topics(topics)
            .with_timeout_ms(self.rng.i32(..))
            .with_unknown_tagged_fields(self.tags())
    }

    fn offset_for_leader_epoch(&mut self) -> OffsetForLeaderEpochRequest {
        use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
        let topics = self.list(|source| {
            let partitions = source.list(|source| {
                OffsetForLeaderPartition::default()
                    .with_partition(source.rng.i32(..))
                    .with_current_leader_epoch(source.rng.i32(..))
                    .with_leader_epoch(source.rng.i32(..))
                    .with_unknown_tagged_fields(source.tags())
            });
            OffsetForLeaderTopic::default()
                .with_topic(source.text().into())
                .with_partitions(partitions)
                .with_unknown_tagged_fields(source.tags())
        });
        OffsetForLeaderEpochRequest::default()
            .with_replica_id(BrokerId(if self.version >= 3 { self.rng.i32(..) } else { -2 }))
            .with_topics(topics)
            .with_unknown_tagged_fields(self.tags())
    }

    fn describe_configs(&mut self) -> DescribeConfigsRequest {
        use describe_configs_request::DescribeConfigsResource;
        let resources = self.list(|source| {
            DescribeConfigsResource::default()
                .with_resource_type(source.rng.i8(..8))
                .with_resource_name(source.text())
                .with_configuration_keys(source.maybe(|source| source.list(Self::text)))
                .with_unknown_tagged_fields(source.tags())
        });
        DescribeConfigsRequest::default()
            .with_resources(resources)
            .with_include_synonyms(self.rng.bool())
            .with_include_documentation(self.since(3, |source| source.rng.bool()))
            .with_unknown_tagged_fields(self.tags())
    }

    fn alter_configs(&mut self) -> AlterConfigsRequest {
        use alter_configs_request::{AlterConfigsResource, AlterableConfig};
        let resources = self.list(|source| {
            let configs = source.list(|source| {
                AlterableConfig::default()
                    .with_name(source.text())
                    .with_value(source.maybe(Self::text))
                    .with_unknown_tagged_fields(source.tags())
            });
            AlterConfigsResource::default()
                .with_resource_type(source.rng.i8(..8))
                .with_resource_name(source.text())
                .with_configs(configs)
                .with_unknown_tagged_fields(source.tags())
        });
        AlterConfigsRequest::default()
            .with_resources(resources)
            .with_validate_only(self.rng.bool())
            .with_unknown_tagged_fields(self.tags())
    }

    fn incremental_alter_configs(&mut self) -> IncrementalAlterConfigsRequest {
        use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
        let resources = self.list(|source| {
            let configs = source.list(|source| {
                AlterableConfig::default()
                    .with_name(source.text())
                    .with_config_operation(source.rng.i8(-1..5))
                    .with_value(source.maybe(Self::text))
                    .with_unknown_tagged_fields(source.tags())
            });
            AlterConfigsResource::default()
                .with_resource_type(source.rng.i8(..8))
                .with_resource_name(source.text())
                .with_configs(configs)
                .with_unknown_tagged_fields(source.tags())
        });
        IncrementalAlterConfigsRequest::default()
            .with_resources(resources)
            .with_validate_only(self.rng.bool())
            .with_unknown_tagged_fields(self.tags())
    }

    fn create_partitions(&mut self) -> CreatePartitionsRequest {
        use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
        let topics = self.list(|source| {
            let assignments = source.maybe(|source| {
                source.list(|source| {
                    CreatePartitionsAssignment::default()
                        .with_broker_ids(source.list(|source| BrokerId(source.rng.i32(..))))
                        .with_unknown_tagged_fields(source.tags())
                })
            });
            CreatePartitionsTopic::default()
                .with_name(source.text().into())
                .with_count(source.rng.i32(..))
                .with_assignments(assignments)
                .with_unknown_tagged_fields(source.tags())
        });
        CreatePartitionsRequest::default()
            .with_topics(topics)
            .with_timeout_ms(self.rng.i32(..))
            .with_validate_only(self.rng.bool())
            .with_unknown_tagged_fields(self.tags())
    }
}
