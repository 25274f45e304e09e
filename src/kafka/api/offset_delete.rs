//! OffsetDelete (key 47), version 0: drops stored offsets of partitions that the group no longer reads (KIP-496).

use super::Api;
use crate::broker::{Broker, PartitionIndex};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT32, Kind, Shape, always};
use crate::kafka::translate;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{ApiKey, OffsetDeleteRequest, OffsetDeleteResponse};

/// What is served.
pub static API: Api = Api::new(
    ApiKey::OffsetDelete,
    (0, 0),
    Shape::of(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&TOPIC)))]),
);
const TOPIC: Shape = Shape::of(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION)))]);
const PARTITION: Shape = Shape::of(&[always(INT32)]);

/// Drops offsets. A refusal of the whole request has no topics.
pub async fn answer<B: Broker>(broker: &B, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let name = translate::topic(&topic.name);
        let indexes = topic.partitions.iter().map(|partition| PartitionIndex(partition.partition_index));
        partitions.extend(indexes.map(|index| (name.clone(), index)));
    }
    let asked = partitions.len();
    let deleted = match translate::group(&request.group_id) {
        Ok(group) => broker.delete_offsets(group, partitions).await,
        Err(error) => Err(error),
    };
    let deleted = match deleted {
        Ok(deleted) => deleted,
        Err(error) => {
            let code = error_codes::group_code(ApiKey::OffsetDelete, &error);
            return OffsetDeleteResponse::default().with_error_code(code);
        }
    };
    assert_eq!(deleted.len(), asked, "one answer per partition");
    let mut deleted = deleted.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(deleted.by_ref()).map(|(partition, deleted)| {
            let code = |error| error_codes::offset_code(ApiKey::OffsetDelete, &error);
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(deleted.map_or_else(code, |()| error_codes::NONE))
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
