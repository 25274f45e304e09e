//! Linearizable questions about one partition: its ends, and single records.
//!
//! The end of the log is asked for first, and confirmed by a majority; whatever is then read from the same leader is at
//! least as new.

use super::{Failure, Outcome, partition, read};
use crate::broker::{
    Broker, Fetch, FetchPartition, Isolation, OffsetAt, OffsetQuery, OffsetTarget, PartitionIndex, TopicName,
};
use crate::native::errors;
use crate::proto::native::{self, get_request::By, response};
use crate::types::Offset;
use std::time::Duration;

/// Where the partition begins and ends.
pub(super) async fn offsets<B: Broker>(broker: &B, asked: native::OffsetsRequest) -> Outcome {
    let (topic, index) = partition(broker, asked.partition)?;
    let end = find_end(broker, &topic, index).await?;
    let start = find(broker, &topic, index, OffsetQuery::Earliest).await?;
    Ok(response::Body::Offsets(native::OffsetsResponse {
        log_start_offset: start.map_or(0, |start| start.offset.0),
        high_watermark: end.offset.0,
        term: end.leader_epoch.and_then(|epoch| u64::try_from(epoch.0).ok()).unwrap_or(0),
    }))
}

/// One record.
pub(super) async fn get<B: Broker>(broker: &B, asked: native::GetRequest) -> Outcome {
    let (topic, index) = partition(broker, asked.partition)?;
    let by = asked.by.ok_or_else(|| errors::invalid("the request does not say which record"))?;
    let end = find_end(broker, &topic, index).await?;
    let at = match by {
        By::Offset(offset) => (0..end.offset.0).contains(&offset).then_some(Offset(offset)),
        By::TimestampMs(time) => {
            find(broker, &topic, index, OffsetQuery::AtTime(time)).await?.map(|found| found.offset)
        }
        By::Key(_) => return Err(errors::unsupported("this version does not find records by key").into()),
    };
    let record = match at {
        Some(offset) => record_at(broker, topic, index, offset).await?,
        None => None,
    };
    Ok(response::Body::Get(native::GetResponse { record, high_watermark: end.offset.0 }))
}

async fn find_end<B: Broker>(broker: &B, topic: &TopicName, partition: PartitionIndex) -> Result<OffsetAt, Failure> {
    let end = find(broker, topic, partition, OffsetQuery::Latest).await?;
    end.ok_or_else(|| errors::internal("a log without an end").into())
}

async fn find<B: Broker>(
    broker: &B,
    topic: &TopicName,
    partition: PartitionIndex,
    query: OffsetQuery,
) -> Result<Option<OffsetAt>, Failure> {
    let target = OffsetTarget {
        topic: topic.clone(),
        partition,
        current_epoch: None,
        isolation: Isolation::ReadUncommitted,
        query,
    };
    match broker.list_offsets(vec![target]).await.pop() {
        Some(found) => Ok(found?),
        None => Err(errors::internal("the broker did not answer for the partition").into()),
    }
}

/// The record at an offset, or the next one if compaction has left a gap there. None below the start of the log.
async fn record_at<B: Broker>(
    broker: &B,
    topic: TopicName,
    partition: PartitionIndex,
    offset: Offset,
) -> Result<Option<native::Record>, Failure> {
    let at = FetchPartition { topic, partition, offset, current_epoch: None, last_epoch: None, max_bytes: 1 };
    let fetch = Fetch {
        max_wait: Duration::ZERO,
        min_bytes: 0,
        max_bytes: 1,
        isolation: Isolation::ReadUncommitted,
        partitions: vec![at],
    };
    let mut answer = broker.fetch(fetch).await;
    let found = match answer.partitions.pop() {
        Some(Err(error)) if error.kind == crate::broker::ErrorKind::OffsetOutOfRange => return Ok(None),
        Some(found) => found?,
        None => return Err(errors::internal("the broker did not answer for the partition").into()),
    };
    read::first_record(&found, offset)
}
