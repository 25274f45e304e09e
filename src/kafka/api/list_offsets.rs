//! ListOffsets (key 2), versions 1 to 7: offsets by time, and a log's ends.

use super::Api;
use crate::broker::{Broker, Error, ErrorKind, OffsetAt, OffsetQuery, OffsetTarget, PartitionIndex, Result};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT8, INT32, INT64, Kind, Shape, always, since};
use crate::kafka::translate;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ApiKey, ListOffsetsRequest, ListOffsetsResponse};

/// What is served.
pub static API: Api = Api::new(
    ApiKey::ListOffsets,
    (1, 7),
    Shape::of(&[
        always(INT32),                              // replica id
        since(2, INT8),                             // isolation level
        always(Kind::Array(&Kind::Struct(&TOPIC))), // topics
    ]),
);
const TOPIC: Shape = Shape::of(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION)))]);
const PARTITION: Shape = Shape::of(&[
    always(INT32),   // partition
    since(4, INT32), // current leader epoch
    always(INT64),   // timestamp
]);

/// The first version whose clients know OFFSET_NOT_AVAILABLE (KIP-207).
const OFFSET_NOT_AVAILABLE_SINCE: i16 = 5;
/// The first version that may ask for the highest timestamp (KIP-734).
const HIGHEST_TIMESTAMP_SINCE: i16 = 7;

/// Finds the offsets asked for.
pub async fn answer<B: Broker>(broker: &B, request: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
    let mut targets = Vec::new();
    let mut refused = Vec::new();
    for topic in &request.topics {
        let name = translate::topic(&topic.name);
        for partition in &topic.partitions {
            let query = query(partition.timestamp, version);
            refused.push(query.is_none());
            targets.extend(query.map(|query| OffsetTarget {
                topic: name.clone(),
                partition: PartitionIndex(partition.partition_index),
                current_epoch: translate::epoch(partition.current_leader_epoch),
                isolation: translate::isolation(request.isolation_level),
                query,
            }));
        }
    }
    let asked = targets.len();
    let found = broker.list_offsets(targets).await;
    assert_eq!(found.len(), asked, "one answer per target");
    let (mut found, mut refused) = (found.into_iter(), refused.into_iter());
    let mut next = || match refused.next() {
        Some(false) => found.next().expect("counted above"),
        _ => Err(Error::new(ErrorKind::InvalidRequest, "no such special timestamp in this version")),
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| partition(asked.partition_index, next(), version));
        ListOffsetsTopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// Negative times are names (ListOffsetsRequest.json).
fn query(timestamp: i64, version: i16) -> Option<OffsetQuery> {
    match timestamp {
        -1 => Some(OffsetQuery::Latest),
        -2 => Some(OffsetQuery::Earliest),
        -3 if version >= HIGHEST_TIMESTAMP_SINCE => Some(OffsetQuery::HighestTimestamp),
        0.. => Some(OffsetQuery::AtTime(timestamp)),
        _ => None,
    }
}

fn partition(index: i32, found: Result<Option<OffsetAt>>, version: i16) -> ListOffsetsPartitionResponse {
    let wire = ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_timestamp(i64::from(translate::UNKNOWN))
        .with_offset(i64::from(translate::UNKNOWN));
    match found {
        Ok(None) => wire,
        Ok(Some(at)) => {
            let epoch = at.leader_epoch.filter(|_| version >= 4).map_or(translate::UNKNOWN, |epoch| epoch.0);
            wire.with_offset(at.offset.0)
                .with_timestamp(at.timestamp_ms.unwrap_or(i64::from(translate::UNKNOWN)))
                .with_leader_epoch(epoch)
        }
        Err(error) => wire.with_error_code(code(&error, version)),
    }
}

fn code(error: &Error, version: i16) -> i16 {
    match error.kind {
        ErrorKind::OffsetNotAvailable if version < OFFSET_NOT_AVAILABLE_SINCE => {
            error_codes::code_of(ErrorKind::LeaderNotAvailable).code()
        }
        _ => error_codes::code(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps() {
        assert_eq!(query(-3, 7), Some(OffsetQuery::HighestTimestamp));
        assert_eq!(query(-3, 6), None);
        assert_eq!(query(0, 1), Some(OffsetQuery::AtTime(0)));
        assert_eq!(query(-5, 7), None);
    }

    #[test]
    fn an_unanswered_read_index_is_told_in_the_words_the_client_knows() {
        let error = ErrorKind::OffsetNotAvailable.into();
        assert_eq!((code(&error, 4), code(&error, 5)), (5, 78));
    }
}
