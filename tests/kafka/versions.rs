//! Every API at every version served, over a socket: what the edge answers, a client decodes to the last byte.

use crate::client::{Server, batch};
use crate::fake_broker::{EPOCH, NODE};
use crate::guard::served;
use crate::requests;
use ackord::broker::{Error, PartitionLeader};
use ackord::kafka::Limits;
use fastrand::Rng;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

const TOPIC: &str = "orders";

fn topic_name() -> TopicName {
    StrBytes::from_static_str(TOPIC).into()
}

/// A request about a topic that exists, or that creates another.
pub fn sensible(key: ApiKey, version: i16) -> RequestKind {
    let name = topic_name();
    match key {
        ApiKey::Produce => produce(version, 0, 1).into(),
        ApiKey::Fetch => fetch(0, 0).into(),
        ApiKey::ListOffsets => {
            use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
            let partition = ListOffsetsPartition::default().with_timestamp(-1);
            let topic = ListOffsetsTopic::default().with_name(name).with_partitions(vec![partition]);
            ListOffsetsRequest::default().with_topics(vec![topic]).into()
        }
        ApiKey::OffsetForLeaderEpoch => {
            use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
            let partition = OffsetForLeaderPartition::default().with_leader_epoch(EPOCH.0);
            let topic = OffsetForLeaderTopic::default().with_topic(name).with_partitions(vec![partition]);
            OffsetForLeaderEpochRequest::default().with_topics(vec![topic]).into()
        }
        ApiKey::DeleteRecords => delete_records(-1).into(),
        ApiKey::Metadata => MetadataRequest::default().with_topics(None).into(),
        ApiKey::CreateTopics => {
            let topic = create_topics_request::CreatableTopic::default()
                .with_name(StrBytes::from_string(format!("created-by-{version}")).into())
                .with_num_partitions(2)
                .with_replication_factor(1);
            CreateTopicsRequest::default().with_topics(vec![topic]).into()
        }
        ApiKey::CreatePartitions => {
            let topic = create_partitions_request::CreatePartitionsTopic::default()
                .with_name(name)
                .with_count(10 + i32::from(version))
                .with_assignments(None);
            CreatePartitionsRequest::default().with_topics(vec![topic]).into()
        }
        ApiKey::DescribeConfigs => {
            let resource = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(name.0)
                .with_configuration_keys(None);
            let request = DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
            request.with_include_documentation(version >= 3).into()
        }
        ApiKey::AlterConfigs => {
            use alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default()
                .with_name(StrBytes::from_static_str("segment.ms"))
                .with_value(Some(StrBytes::from_static_str("5")));
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(name.0)
                .with_configs(vec![config]);
            AlterConfigsRequest::default().with_resources(vec![resource]).into()
        }
        ApiKey::IncrementalAlterConfigs => {
            use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default()
                .with_name(StrBytes::from_static_str("segment.ms"))
                .with_config_operation(1)
                .with_value(None);
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(name.0)
                .with_configs(vec![config]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).into()
        }
        other => requests::random(&mut Rng::with_seed(5), other, version),
    }
}

fn delete_records(before: i64) -> DeleteRecordsRequest {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let partition = DeleteRecordsPartition::default().with_offset(before);
    let topic = DeleteRecordsTopic::default().with_name(topic_name()).with_partitions(vec![partition]);
    DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000)
}

pub fn produce(_version: i16, partition: i32, acks: i16) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch(3, 0)));
    let topic = TopicProduceData::default().with_name(topic_name()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1000).with_topic_data(vec![topic])
}

pub fn fetch(offset: i64, min_bytes: i32) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic};
    let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name()).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(min_bytes)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

/// The end stands for itself; beyond it, below 0, and a second time are refused, each on its own.
#[tokio::test]
async fn records_are_deleted_up_to_an_offset_of_the_log() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic(TOPIC, 2);
    let mut client = server.connect().await;
    client.call(ApiKey::Produce, 8, &produce(8, 0, -1).into()).await;
    for (before, expected) in [(-1, (0, 3)), (3, (0, 3)), (1, (0, 1)), (4, (1, -1)), (-2, (1, -1))] {
        let answer = client.call(ApiKey::DeleteRecords, 2, &delete_records(before).into()).await;
        let ResponseKind::DeleteRecords(answer) = answer else { panic!("an answer to a deletion") };
        let told = &answer.topics[0].partitions[0];
        assert_eq!((told.error_code, told.low_watermark), expected, "before {before}");
    }
    let mut twice = delete_records(1);
    twice.topics.push(twice.topics[0].clone());
    let answer = client.call(ApiKey::DeleteRecords, 2, &twice.into()).await;
    let ResponseKind::DeleteRecords(answer) = answer else { panic!("an answer to a deletion") };
    let codes: Vec<_> = answer.topics.iter().map(|topic| topic.partitions[0].error_code).collect();
    assert_eq!(codes, [0, 42]);
    server.stop().await;
}

#[tokio::test]
async fn sensible_requests_of_every_version_succeed() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic(TOPIC, 2);
    let mut client = server.connect().await;
    for (key, version) in served() {
        let answer = client.call(key, version, &sensible(key, version)).await;
        let code = match &answer {
            ResponseKind::Produce(answer) => answer.responses[0].partition_responses[0].error_code,
            ResponseKind::Fetch(answer) => answer.responses[0].partitions[0].error_code,
            ResponseKind::ListOffsets(answer) => answer.topics[0].partitions[0].error_code,
            ResponseKind::Metadata(answer) => {
                assert_eq!(answer.brokers[0].node_id.0, NODE.0 as i32);
                answer.topics[0].error_code | answer.topics[0].partitions[0].error_code
            }
            ResponseKind::CreateTopics(answer) => answer.topics[0].error_code,
            ResponseKind::CreatePartitions(answer) => answer.results[0].error_code,
            ResponseKind::AlterConfigs(answer) => answer.responses[0].error_code,
            ResponseKind::IncrementalAlterConfigs(answer) => answer.responses[0].error_code,
            ResponseKind::DeleteRecords(answer) => answer.topics[0].partitions[0].error_code,
            ResponseKind::DescribeConfigs(answer) => {
                assert_eq!(answer.results[0].configs[0].name.as_str(), "max.message.bytes");
                answer.results[0].error_code
            }
            ResponseKind::OffsetForLeaderEpoch(answer) => {
                assert_eq!(answer.topics[0].partitions[0].leader_epoch, EPOCH.0);
                answer.topics[0].partitions[0].error_code
            }
            ResponseKind::ApiVersions(answer) => answer.error_code,
            _ => 0,
        };
        assert_eq!(code, 0, "{key:?} v{version}: {answer:?}");
    }
    server.stop().await;
}

/// Whatever a request says, its answer fits its version: nothing is written that the version does not have.
#[tokio::test]
async fn random_requests_of_every_version_are_answered() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic(TOPIC, 1);
    let mut client = server.connect().await;
    let mut rng = Rng::with_seed(6);
    for (key, version) in served() {
        for _ in 0..20 {
            let mut request = requests::random(&mut rng, key, version);
            if let RequestKind::Produce(produce) = &mut request {
                produce.acks = -1; // with 0 the answer is silence or the end
            }
            client.call(key, version, &request).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_refusal_names_the_leader_where_the_version_can() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic(TOPIC, 1);
    let leader = PartitionLeader { node: NODE, epoch: EPOCH };
    server.broker.state().refusal = Some(Error::not_leader(Some(leader)));
    let mut client = server.connect().await;
    for version in 3..=12 {
        let ResponseKind::Produce(answer) =
            client.call(ApiKey::Produce, version, &produce(version, 0, -1).into()).await
        else {
            panic!("an answer to a produce")
        };
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (6, -1));
        assert_eq!(partition.error_message.is_some(), version >= 8);
        let told = (partition.current_leader.leader_epoch, answer.node_endpoints.len());
        assert_eq!(told, if version >= 10 { (EPOCH.0, 1) } else { (-1, 0) }, "v{version}");
    }
    for version in 4..=12 {
        let ResponseKind::Fetch(answer) = client.call(ApiKey::Fetch, version, &fetch(0, 0).into()).await else {
            panic!("an answer to a fetch")
        };
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 6);
        assert_eq!(partition.records.as_deref(), Some(&[][..]), "empty, never null");
        assert_eq!(partition.current_leader.leader_epoch, if version >= 12 { EPOCH.0 } else { -1 });
    }
    server.stop().await;
}

#[tokio::test]
async fn what_was_produced_is_fetched_with_its_place_stamped_on() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic(TOPIC, 1);
    let mut client = server.connect().await;
    for base in [0, 3] {
        let ResponseKind::Produce(answer) = client.call(ApiKey::Produce, 9, &produce(9, 0, -1).into()).await else {
            panic!("an answer to a produce")
        };
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, base);
    }
    for version in 4..=12 {
        let ResponseKind::Fetch(answer) = client.call(ApiKey::Fetch, version, &fetch(4, 0).into()).await else {
            panic!("an answer to a fetch")
        };
        let partition = &answer.responses[0].partitions[0];
        assert_eq!((partition.high_watermark, partition.last_stable_offset), (6, 6));
        assert_eq!(answer.session_id, 0);
        let mut expected = batch(3, 0).to_vec();
        expected[..8].copy_from_slice(&3_i64.to_be_bytes());
        expected[12..16].copy_from_slice(&EPOCH.0.to_be_bytes());
        assert_eq!(partition.records.as_deref(), Some(&expected[..]), "the whole batch that holds offset 4");
    }
    server.stop().await;
}

#[tokio::test]
async fn zstd_is_refused_to_clients_that_do_not_know_it() {
    let server = Server::start(Limits::default()).await;
    server.broker.add_topic(TOPIC, 1);
    let mut client = server.connect().await;
    for (version, expected) in [(6, 76), (7, 0)] {
        let mut request = produce(version, 0, -1);
        request.topic_data[0].partition_data[0].records = Some(batch(1, 4));
        let ResponseKind::Produce(answer) = client.call(ApiKey::Produce, version, &request.into()).await else {
            panic!("an answer to a produce")
        };
        assert_eq!(answer.responses[0].partition_responses[0].error_code, expected);
    }
    for (version, expected) in [(9, 76), (10, 0)] {
        let ResponseKind::Fetch(answer) = client.call(ApiKey::Fetch, version, &fetch(0, 0).into()).await else {
            panic!("an answer to a fetch")
        };
        assert_eq!(answer.responses[0].partitions[0].error_code, expected);
    }
    server.stop().await;
}

#[tokio::test]
async fn transactions_are_refused_for_good_and_groups_have_a_coordinator() {
    let server = Server::start(Limits::default()).await;
    let mut client = server.connect().await;
    for version in 0..=4 {
        for (key_type, expected) in [(0_i8, 0_i16), (1, 53), (2, 42)] {
            if version == 0 && key_type != 0 {
                continue;
            }
            let key = StrBytes::from_static_str("it");
            let request = FindCoordinatorRequest::default().with_key_type(key_type);
            let request = match version {
                4 => request.with_coordinator_keys(vec![key]),
                _ => request.with_key(key),
            };
            let ResponseKind::FindCoordinator(answer) =
                client.call(ApiKey::FindCoordinator, version, &request.into()).await
            else {
                panic!("an answer about a coordinator")
            };
            let found = match version {
                4 => (answer.coordinators[0].error_code, answer.coordinators[0].node_id),
                _ => (answer.error_code, answer.node_id),
            };
            assert_eq!(found, (expected, BrokerId(if expected == 0 { 1 } else { -1 })), "v{version}");
        }
        let id = Some(StrBytes::from_static_str("tx").into());
        let request = InitProducerIdRequest::default().with_transactional_id(id);
        let ResponseKind::InitProducerId(answer) = client.call(ApiKey::InitProducerId, version, &request.into()).await
        else {
            panic!("an answer about a producer id")
        };
        assert_eq!((answer.error_code, answer.producer_id.0), (53, -1));
    }
    server.stop().await;
}
