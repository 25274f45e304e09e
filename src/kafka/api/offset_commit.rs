//! OffsetCommit (key 8), versions 2 to 9: how far a group has read.
//!
//! Stored by members of a generation, or by whoever says generation −1 and no member id and only stores offsets. How
//! long offsets are kept is for the node to say and not for the request, whose versions 2 to 4 try (KIP-211).

use super::Api;
use crate::broker::{Broker, CommitOffsets, CommittedOffset, OffsetToCommit, PartitionIndex, PerItem};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT32, INT64, Kind, Shape, always, between, since};
use crate::kafka::translate;
use crate::types::Offset;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{ApiKey, OffsetCommitRequest, OffsetCommitResponse};

/// What is served.
pub static API: Api = Api::new(
    ApiKey::OffsetCommit,
    (2, 9),
    Shape::of(&[
        always(Kind::Text),                         // group
        always(INT32),                              // generation
        always(Kind::Text),                         // member id
        since(7, Kind::NullableText),               // group instance id
        between(2, 4, INT64),                       // retention time
        always(Kind::Array(&Kind::Struct(&TOPIC))), // topics
    ]),
);
const TOPIC: Shape = Shape::of(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION)))]);
const PARTITION: Shape = Shape::of(&[
    always(INT32),              // partition
    always(INT64),              // offset
    since(6, INT32),            // leader epoch
    always(Kind::NullableText), // metadata
]);

/// Stores offsets. A refusal of the whole request is told for every partition: the answer has no other place for it.
pub async fn answer<B: Broker>(broker: &B, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut offsets = Vec::new();
    for topic in &request.topics {
        let name = translate::topic(&topic.name);
        offsets.extend(topic.partitions.iter().map(|partition| OffsetToCommit {
            topic: name.clone(),
            partition: PartitionIndex(partition.partition_index),
            position: position(partition),
        }));
    }
    let asked = offsets.len();
    let stored = match translate::group(&request.group_id) {
        Err(error) => Err(error),
        Ok(group) => {
            let member = translate::member(&request.member_id, request.group_instance_id.as_ref());
            let generation = request.generation_id_or_member_epoch;
            broker.commit_offsets(CommitOffsets { group, generation, member, offsets, all_or_none: false }).await
        }
    };
    let mut codes = codes(asked, stored).into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(codes.by_ref()).map(|(partition, code)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn position(partition: &OffsetCommitRequestPartition) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(partition.committed_offset),
        leader_epoch: translate::epoch(partition.committed_leader_epoch),
        metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
    }
}

/// The code of every partition, in the order of the request.
fn codes(asked: usize, stored: PerItem) -> Vec<i16> {
    match stored {
        Err(error) => vec![error_codes::group_code(ApiKey::OffsetCommit, &error); asked],
        Ok(stored) => {
            assert_eq!(stored.len(), asked, "one answer per offset");
            let code = |error| error_codes::offset_code(ApiKey::OffsetCommit, &error);
            stored.into_iter().map(|stored| stored.map_or_else(code, |()| error_codes::NONE)).collect()
        }
    }
}
