//! CreatePartitions (key 37), versions 0 to 3: more partitions for existing topics (KIP-195).

use super::Api;
use crate::broker::{Broker, Error, ErrorKind, Growth, Result};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT8, INT32, Kind, Shape, always};
use crate::kafka::translate;
use crate::types::NodeId;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{ApiKey, CreatePartitionsRequest, CreatePartitionsResponse};
use std::collections::BTreeSet;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::CreatePartitions,
    (0, 3),
    Shape::of(&[
        always(Kind::Array(&Kind::Struct(&TOPIC))), // topics
        always(INT32),                              // timeout
        always(INT8),                               // validate only
    ]),
);
const TOPIC: Shape = Shape::of(&[
    always(Kind::Text),                                      // name
    always(INT32),                                           // count
    always(Kind::NullableArray(&Kind::Struct(&ASSIGNMENT))), // assignments
]);
const ASSIGNMENT: Shape = Shape::of(&[always(Kind::Array(&INT32))]);

/// Grows topics. A second entry for the same topic is refused.
pub async fn answer<B: Broker>(broker: &B, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut seen = BTreeSet::new();
    let wanted: Vec<Result<Growth>> = request
        .topics
        .iter()
        .map(|topic| match seen.insert(&topic.name) {
            true => growth(topic),
            false => Err(Error::new(ErrorKind::InvalidRequest, "the request names this topic more than once")),
        })
        .collect();
    let valid = wanted.iter().filter_map(|growth| growth.as_ref().ok().cloned()).collect::<Vec<_>>();
    let asked = valid.len();
    let grown = broker.grow_topics(valid, request.validate_only, translate::millis(request.timeout_ms)).await;
    assert_eq!(grown.len(), asked, "one answer per topic");
    let mut grown = grown.into_iter();
    let results = request.topics.into_iter().zip(wanted).map(|(topic, wanted)| {
        let wire = CreatePartitionsTopicResult::default().with_name(topic.name);
        match wanted.and_then(|_| grown.next().expect("counted above")) {
            Ok(()) => wire,
            Err(error) => {
                wire.with_error_code(error_codes::code(&error)).with_error_message(translate::message(&error))
            }
        }
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

fn growth(topic: &CreatePartitionsTopic) -> Result<Growth> {
    let partitions = u32::try_from(topic.count).map_err(|_| ErrorKind::InvalidPartitions)?;
    let nodes = |assignment: &Vec<_>| assignment.iter().map(|id| translate::node(*id)).collect::<Option<Vec<NodeId>>>();
    let assignments = match &topic.assignments {
        None => None,
        Some(all) => {
            let all: Option<Vec<_>> = all.iter().map(|assignment| nodes(&assignment.broker_ids)).collect();
            Some(all.ok_or(ErrorKind::InvalidAssignment)?)
        }
    };
    Ok(Growth { topic: translate::topic(&topic.name), partitions, assignments })
}
