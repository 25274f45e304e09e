//! DeleteTopics (key 20), versions 1 to 6: by name, and from version 6 on by id as well (KIP-516).

use super::Api;
use crate::broker::{Broker, DeletedTopic, Error, ErrorKind, Result, TopicRef};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT32, Kind, Shape, UUID, always, since, until};
use crate::kafka::translate;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{ApiKey, DeleteTopicsRequest, DeleteTopicsResponse};
use std::collections::BTreeSet;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::DeleteTopics,
    (1, 6),
    Shape::of(&[
        since(6, Kind::Array(&Kind::Struct(&TOPIC))), // topics
        until(5, Kind::Array(&Kind::Text)),           // topic names
        always(INT32),                                // timeout
    ]),
);
const TOPIC: Shape = Shape::of(&[always(Kind::NullableText), always(UUID)]);

/// Deletes topics. One named twice is deleted and answered once.
pub async fn answer<B: Broker>(broker: &B, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.iter().map(|name| Ok(TopicRef::Name(translate::topic(name))));
    let by_either = request.topics.iter().map(|topic| match (&topic.name, topic.topic_id.is_nil()) {
        (Some(_), false) => Err((topic, "a topic is named either by name or by id")),
        (None, true) => Err((topic, "a topic needs a name or an id")),
        (name, _) => Ok(translate::topic_ref(name.as_ref(), topic.topic_id)),
    });
    let mut seen = BTreeSet::new();
    let mut topics = Vec::new();
    let mut results = Vec::new();
    for topic in by_name.chain(by_either) {
        match topic {
            Ok(topic) if seen.insert(topic.clone()) => topics.push(topic),
            Ok(_) => {}
            Err((topic, reason)) => {
                let error = Error::new(ErrorKind::InvalidRequest, reason);
                let wire = DeletableTopicResult::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id);
                results.push(failure(wire, &error));
            }
        }
    }
    let deleted = broker.delete_topics(topics.clone(), translate::millis(request.timeout_ms)).await;
    assert_eq!(deleted.len(), topics.len(), "one answer per topic");
    results.extend(topics.into_iter().zip(deleted).map(|(topic, deleted)| result(topic, deleted)));
    DeleteTopicsResponse::default().with_responses(results)
}

fn result(asked: TopicRef, deleted: Result<DeletedTopic>) -> DeletableTopicResult {
    let wire = DeletableTopicResult::default();
    match (deleted, asked) {
        (Ok(topic), _) => wire.with_name(Some(translate::wire_topic(&topic.name))).with_topic_id(topic.id.0),
        (Err(error), TopicRef::Name(name)) => failure(wire.with_name(Some(translate::wire_topic(&name))), &error),
        (Err(error), TopicRef::Id(id)) => failure(wire.with_name(None).with_topic_id(id.0), &error),
    }
}

fn failure(wire: DeletableTopicResult, error: &Error) -> DeletableTopicResult {
    wire.with_error_code(error_codes::code(error)).with_error_message(translate::message(error))
}
