//! OffsetFetch (key 9), versions 1 to 9: how far groups have read; one group up to version 7, several from 8 on
//! (KIP-709).
//!
//! * A partition without an offset is no error: its offset is −1.
//! * No list of topics (null, from version 2 on) asks for everything stored.
//! * A group without a name is asked about like any other, as in Kafka: it just has no offsets.
//! * A refusal of the group has a place of its own from version 2 on; version 1 is told with every partition.
//! * What is named twice is answered once: an answer is not larger than what is stored.

use super::Api;
use crate::broker::{Broker, CommittedOffset, FetchOffsets, FetchedOffset, PartitionIndex, Result, TopicName};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT8, INT32, Kind, Shape, always, between, since, until};
use crate::kafka::translate;
use crate::types::Offset;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{self, ApiKey, GroupId, OffsetFetchRequest, OffsetFetchResponse};
use std::collections::BTreeSet;

/// What is served.
pub static API: Api = Api::new(
    ApiKey::OffsetFetch,
    (1, 9),
    Shape::of(&[
        until(7, Kind::Text),                                      // group
        until(1, Kind::Array(&Kind::Struct(&TOPIC))),              // topics
        between(2, 7, Kind::NullableArray(&Kind::Struct(&TOPIC))), // topics, or all
        since(8, Kind::Array(&Kind::Struct(&GROUP))),              // groups
        since(7, INT8),                                            // require stable
    ]),
);
const GROUP: Shape = Shape::of(&[
    always(Kind::Text),                                 // group
    since(9, Kind::NullableText),                       // member id
    since(9, INT32),                                    // member epoch
    always(Kind::NullableArray(&Kind::Struct(&TOPIC))), // topics, or all
]);
const TOPIC: Shape = Shape::of(&[always(Kind::Text), always(Kind::Array(&INT32))]);

/// The first version with an error of the whole group.
const ERROR_SINCE: i16 = 2;
/// The first version with several groups.
const GROUPS_SINCE: i16 = 8;

/// Partitions, in the order of the request.
type Asked = Vec<(TopicName, PartitionIndex)>;

/// Fetches offsets of one group, or of several. Member ids and epochs belong to a protocol that is not served
/// (KIP-848).
pub async fn answer<B: Broker>(broker: &B, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    if version >= GROUPS_SINCE {
        let mut seen = BTreeSet::new();
        let mut groups = Vec::new();
        for group in request.groups {
            if seen.insert(group.group_id.clone()) {
                groups.push(of_group(broker, group, request.require_stable).await);
            }
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let asked = request.topics.map(|topics| {
        distinct(topics.iter().map(|topic| (translate::topic(&topic.name), topic.partition_indexes.as_slice())))
    });
    match fetch(broker, &request.group_id, asked.clone(), request.require_stable).await {
        Ok(found) => OffsetFetchResponse::default().with_topics(topics(found, error_codes::NONE)),
        Err(error) => {
            let code = error_codes::group_code(ApiKey::OffsetFetch, &error);
            match asked.filter(|_| version < ERROR_SINCE) {
                None => OffsetFetchResponse::default().with_error_code(code),
                Some(asked) => {
                    let nothing = |(topic, partition)| FetchedOffset { topic, partition, committed: None };
                    let found = asked.into_iter().map(nothing).collect();
                    OffsetFetchResponse::default().with_topics(topics(found, code))
                }
            }
        }
    }
}

async fn of_group<B: Broker>(broker: &B, group: OffsetFetchRequestGroup, stable: bool) -> OffsetFetchResponseGroup {
    let asked = group.topics.map(|topics| {
        distinct(topics.iter().map(|topic| (translate::topic(&topic.name), topic.partition_indexes.as_slice())))
    });
    let found = fetch(broker, &group.group_id, asked, stable).await;
    let wire = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
    match found {
        Ok(found) => wire.with_topics(topics_of_group(found)),
        Err(error) => wire.with_error_code(error_codes::group_code(ApiKey::OffsetFetch, &error)),
    }
}

async fn fetch<B: Broker>(
    broker: &B,
    group: &GroupId,
    partitions: Option<Asked>,
    require_stable: bool,
) -> Result<Vec<FetchedOffset>> {
    let group = group.to_string();
    let asked = partitions.as_ref().map(Vec::len);
    let found = broker.fetch_offsets(FetchOffsets { group, partitions, require_stable }).await?;
    assert!(asked.is_none_or(|asked| asked == found.len()), "one answer per partition");
    Ok(found)
}

/// Every partition once, in the order of the request.
fn distinct<'a>(topics: impl Iterator<Item = (TopicName, &'a [i32])>) -> Asked {
    translate::distinct(
        topics.flat_map(|(topic, indexes)| indexes.iter().map(move |index| (topic.clone(), PartitionIndex(*index)))),
    )
}

/// What stands for a partition that has no offset.
fn or_none(committed: Option<CommittedOffset>) -> CommittedOffset {
    let offset = Offset(i64::from(translate::UNKNOWN));
    committed.unwrap_or(CommittedOffset { offset, leader_epoch: None, metadata: String::new() })
}

/// Neighbours of one topic together, each part made by `topic`.
fn by_topic<T>(found: Vec<FetchedOffset>, topic: impl Fn(messages::TopicName, Vec<FetchedOffset>) -> T) -> Vec<T> {
    let mut topics: Vec<(TopicName, Vec<FetchedOffset>)> = Vec::new();
    for offset in found {
        match topics.last_mut() {
            Some((name, offsets)) if *name == offset.topic => offsets.push(offset),
            _ => topics.push((offset.topic.clone(), vec![offset])),
        }
    }
    topics.into_iter().map(|(name, offsets)| topic(translate::wire_topic(&name), offsets)).collect()
}

fn topics(found: Vec<FetchedOffset>, code: i16) -> Vec<OffsetFetchResponseTopic> {
    let partition = |found: FetchedOffset| {
        let position = or_none(found.committed);
        OffsetFetchResponsePartition::default()
            .with_partition_index(found.partition.0)
            .with_committed_offset(position.offset.0)
            .with_committed_leader_epoch(position.leader_epoch.map_or(translate::UNKNOWN, |epoch| epoch.0))
            .with_metadata(Some(translate::text(&position.metadata)))
            .with_error_code(code)
    };
    by_topic(found, |name, offsets| {
        let partitions = offsets.into_iter().map(partition).collect();
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
    })
}

fn topics_of_group(found: Vec<FetchedOffset>) -> Vec<OffsetFetchResponseTopics> {
    let partition = |found: FetchedOffset| {
        let position = or_none(found.committed);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(found.partition.0)
            .with_committed_offset(position.offset.0)
            .with_committed_leader_epoch(position.leader_epoch.map_or(translate::UNKNOWN, |epoch| epoch.0))
            .with_metadata(Some(translate::text(&position.metadata)))
    };
    by_topic(found, |name, offsets| {
        let partitions = offsets.into_iter().map(partition).collect();
        OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
    })
}
