//! OffsetForLeaderEpoch (key 23), versions 2 to 4: where an epoch ends in the leader's log, so that a reader can tell
//! whether its own position was truncated away (KIP-320).

use super::Api;
use crate::broker::{Broker, EndOfEpoch, EpochQuery, PartitionIndex, Result};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT32, Kind, Shape, always, since};
use crate::kafka::translate;
use crate::types::LeaderEpoch;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{ApiKey, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

/// What is served.
pub static API: Api = Api::new(
    ApiKey::OffsetForLeaderEpoch,
    (2, 4),
    Shape::of(&[
        since(3, INT32),                            // replica id
        always(Kind::Array(&Kind::Struct(&TOPIC))), // topics
    ]),
);
const TOPIC: Shape = Shape::of(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION)))]);
const PARTITION: Shape = Shape::of(&[
    always(INT32), // partition
    always(INT32), // current leader epoch
    always(INT32), // leader epoch
]);

/// Finds the ends of the epochs asked about.
pub async fn answer<B: Broker>(broker: &B, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let mut queries = Vec::new();
    for topic in &request.topics {
        let name = translate::topic(&topic.topic);
        queries.extend(topic.partitions.iter().map(|partition| EpochQuery {
            topic: name.clone(),
            partition: PartitionIndex(partition.partition),
            current_epoch: translate::epoch(partition.current_leader_epoch),
            epoch: LeaderEpoch(partition.leader_epoch),
        }));
    }
    let asked = queries.len();
    let ends = broker.end_of_epochs(queries).await;
    assert_eq!(ends.len(), asked, "one answer per query");
    let mut ends = ends.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let indexes = topic.partitions.iter().map(|partition| partition.partition);
        let partitions = indexes.zip(ends.by_ref()).map(|(index, end)| wire_end(index, end)).collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn wire_end(partition: i32, end: Result<Option<EndOfEpoch>>) -> EpochEndOffset {
    let wire = EpochEndOffset::default()
        .with_partition(partition)
        .with_leader_epoch(translate::UNKNOWN)
        .with_end_offset(i64::from(translate::UNKNOWN));
    match end {
        Ok(None) => wire,
        Ok(Some(end)) => wire.with_leader_epoch(end.epoch.0).with_end_offset(end.end.0),
        Err(error) => wire.with_error_code(error_codes::code(&error)),
    }
}
