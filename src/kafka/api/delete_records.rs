//! DeleteRecords (key 21), versions 0 to 2: removes records from the front of partitions (KIP-107).

use super::Api;
use crate::broker::{Broker, DeleteRecords, Error, ErrorKind, PartitionIndex, Result};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT32, INT64, Kind, Shape, always};
use crate::kafka::translate;
use crate::types::Offset;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{ApiKey, DeleteRecordsRequest, DeleteRecordsResponse};
use std::collections::BTreeSet;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::DeleteRecords,
    (0, 2),
    Shape::of(&[
        always(Kind::Array(&Kind::Struct(&TOPIC))), // topics
        always(INT32),                              // timeout
    ]),
);
const TOPIC: Shape = Shape::of(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION)))]);
const PARTITION: Shape = Shape::of(&[
    always(INT32), // partition
    always(INT64), // offset
]);

/// The offset that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// Removes records. A second entry for the same partition is refused.
pub async fn answer<B: Broker>(broker: &B, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut seen = BTreeSet::new();
    let mut wanted: Vec<Result<DeleteRecords>> = Vec::new();
    for topic in &request.topics {
        let name = translate::topic(&topic.name);
        wanted.extend(topic.partitions.iter().map(|partition| {
            if !seen.insert((name.clone(), partition.partition_index)) {
                return Err(Error::new(ErrorKind::InvalidRequest, "the request names this partition more than once"));
            }
            let before = Some(partition.offset).filter(|offset| *offset != HIGH_WATERMARK).map(Offset);
            Ok(DeleteRecords { topic: name.clone(), partition: PartitionIndex(partition.partition_index), before })
        }));
    }
    let valid: Vec<_> = wanted.iter().filter_map(|target| target.as_ref().ok().cloned()).collect();
    let asked = valid.len();
    let deleted = broker.delete_records(valid, translate::millis(request.timeout_ms)).await;
    assert_eq!(deleted.len(), asked, "one answer per partition");
    let mut deleted = deleted.into_iter();
    let mut results = wanted.into_iter().map(|target| match target {
        Ok(_) => deleted.next().expect("counted above"),
        Err(error) => Err(error),
    });
    let topics = request.topics.into_iter().map(|topic| {
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        let partitions = indexes.zip(results.by_ref()).map(|(index, result)| partition(index, result)).collect();
        DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn partition(index: i32, result: Result<Offset>) -> DeleteRecordsPartitionResult {
    let wire = DeleteRecordsPartitionResult::default().with_partition_index(index);
    match result {
        Ok(start) => wire.with_low_watermark(start.0),
        Err(error) => wire.with_low_watermark(i64::from(translate::UNKNOWN)).with_error_code(error_codes::code(&error)),
    }
}
