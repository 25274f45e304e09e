//! CreateTopics (key 19), versions 2 to 7.

use super::Api;
use super::describe_configs::{config_source, shown_value};
use crate::broker::{
    Broker, ConfigEntry, CreatedTopic, Error, ErrorKind, NewTopic, PartitionIndex, Partitions, Result,
};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT8, INT16, INT32, Kind, Shape, always};
use crate::kafka::translate;
use crate::types::NodeId;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{ApiKey, CreateTopicsRequest, CreateTopicsResponse};
use std::collections::BTreeMap;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::CreateTopics,
    (2, 7),
    Shape::of(&[
        always(Kind::Array(&Kind::Struct(&TOPIC))), // topics
        always(INT32),                              // timeout
        always(INT8),                               // validate only
    ]),
);
const TOPIC: Shape = Shape::of(&[
    always(Kind::Text),                              // name
    always(INT32),                                   // number of partitions
    always(INT16),                                   // replication factor
    always(Kind::Array(&Kind::Struct(&ASSIGNMENT))), // assignments
    always(Kind::Array(&Kind::Struct(&CONFIG))),     // configs
]);
const ASSIGNMENT: Shape = Shape::of(&[always(INT32), always(Kind::Array(&INT32))]);
const CONFIG: Shape = Shape::of(&[always(Kind::Text), always(Kind::NullableText)]);

/// The first version whose answer tells partitions, replication factor and settings (KIP-525).
const DETAILS_SINCE: i16 = 5;

/// Creates topics. One named twice is refused both times, as in Kafka: nobody can tell which of the two was meant.
pub async fn answer<B: Broker>(broker: &B, request: CreateTopicsRequest, version: i16) -> CreateTopicsResponse {
    let mut named: BTreeMap<_, usize> = BTreeMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let wanted: Vec<Result<NewTopic>> =
        request.topics.iter().filter(|topic| named.get(&topic.name) == Some(&1)).map(new_topic).collect();
    let valid = wanted.iter().filter_map(|topic| topic.as_ref().ok().cloned()).collect::<Vec<_>>();
    let asked = valid.len();
    let created = broker.create_topics(valid, request.validate_only, translate::millis(request.timeout_ms)).await;
    assert_eq!(created.len(), asked, "one answer per topic");
    let (mut wanted, mut created) = (wanted.into_iter(), created.into_iter());

    let mut results = Vec::new();
    for topic in request.topics {
        let result = match named.remove(&topic.name) {
            Some(1) => match wanted.next().expect("one for each topic named once") {
                Ok(_) => created.next().expect("counted above"),
                Err(error) => Err(error),
            },
            Some(_) => Err(Error::new(ErrorKind::InvalidRequest, "the request names this topic more than once")),
            None => continue, // its repetitions share one answer
        };
        let wire = CreatableTopicResult::default().with_name(topic.name);
        results.push(match result {
            Ok(created) => success(wire, &created, version),
            Err(error) => wire
                .with_error_code(error_codes::code(&error))
                .with_error_message(translate::message(&error))
                .with_num_partitions(translate::UNKNOWN)
                .with_replication_factor(-1),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

/// -1 means the cluster's default (KIP-464), and is what stands beside an explicit assignment.
fn new_topic(topic: &CreatableTopic) -> Result<NewTopic> {
    let configs = topic.configs.iter();
    let configs = configs.map(|config| (config.name.to_string(), config.value.as_ref().map(ToString::to_string)));
    Ok(NewTopic { name: translate::topic(&topic.name), partitions: partitions(topic)?, configs: configs.collect() })
}

fn partitions(topic: &CreatableTopic) -> Result<Partitions> {
    if topic.assignments.is_empty() {
        let partitions = match topic.num_partitions {
            -1 => None,
            1.. => Some(topic.num_partitions.unsigned_abs()),
            _ => return Err(ErrorKind::InvalidPartitions.into()),
        };
        let replication_factor = match topic.replication_factor {
            -1 => None,
            1.. => Some(topic.replication_factor.unsigned_abs()),
            _ => return Err(ErrorKind::InvalidReplicationFactor.into()),
        };
        return Ok(Partitions::Count { partitions, replication_factor });
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        return Err(Error::new(ErrorKind::InvalidRequest, "an assignment and numbers exclude each other"));
    }
    let mut assigned: BTreeMap<PartitionIndex, Vec<NodeId>> = BTreeMap::new();
    for assignment in &topic.assignments {
        let nodes: Option<Vec<NodeId>> = assignment.broker_ids.iter().map(|id| translate::node(*id)).collect();
        let nodes = nodes.ok_or(ErrorKind::InvalidAssignment)?;
        if assigned.insert(PartitionIndex(assignment.partition_index), nodes).is_some() {
            return Err(Error::new(ErrorKind::InvalidAssignment, "a partition is assigned twice"));
        }
    }
    Ok(Partitions::Assigned(assigned))
}

fn success(wire: CreatableTopicResult, created: &CreatedTopic, version: i16) -> CreatableTopicResult {
    let wire = wire.with_topic_id(created.id.0);
    if version < DETAILS_SINCE {
        return wire;
    }
    wire.with_num_partitions(i32::try_from(created.partitions).expect("partitions are numbered by i32"))
        .with_replication_factor(i16::try_from(created.replication_factor).expect("a cluster is smaller"))
        .with_configs(Some(created.configs.iter().map(config).collect()))
}

fn config(entry: &ConfigEntry) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(translate::text(&entry.name))
        .with_value(shown_value(entry))
        .with_read_only(entry.read_only)
        .with_config_source(config_source(entry.source))
        .with_is_sensitive(entry.sensitive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::BrokerId;
    use kafka_protocol::messages::create_topics_request::CreatableReplicaAssignment;

    fn counted(count: i32, replicas: i16) -> std::result::Result<Partitions, ErrorKind> {
        let topic = CreatableTopic::default().with_num_partitions(count).with_replication_factor(replicas);
        partitions(&topic).map_err(|error| error.kind)
    }

    #[test]
    fn numbers_are_checked_before_the_broker_sees_them() {
        let default = Partitions::Count { partitions: None, replication_factor: None };
        assert_eq!(counted(-1, -1), Ok(default));
        assert_eq!(counted(0, 1), Err(ErrorKind::InvalidPartitions));
        assert_eq!(counted(-2, 1), Err(ErrorKind::InvalidPartitions));
        assert_eq!(counted(1, 0), Err(ErrorKind::InvalidReplicationFactor));
    }

    #[test]
    fn assignments_name_each_partition_once_and_real_nodes() {
        let assign = |index, node| {
            CreatableReplicaAssignment::default().with_partition_index(index).with_broker_ids(vec![BrokerId(node)])
        };
        let check = |assignments| {
            let topic = CreatableTopic::default().with_num_partitions(-1).with_replication_factor(-1);
            partitions(&topic.with_assignments(assignments)).map_err(|error| error.kind)
        };
        assert!(check(vec![assign(0, 1), assign(1, 2)]).is_ok());
        assert_eq!(check(vec![assign(0, 1), assign(0, 2)]), Err(ErrorKind::InvalidAssignment));
        assert_eq!(check(vec![assign(0, -1)]), Err(ErrorKind::InvalidAssignment));
    }
}
