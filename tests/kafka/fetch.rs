//! The one answer that is written by hand: whatever a fetch found, a client decodes exactly that.

use crate::client::Server;
use ackord::broker::{EndOfEpoch, Error, ErrorKind, FetchedBatch, FetchedPartition, PartitionLeader, Result};
use ackord::kafka::Limits;
use ackord::types::{LeaderEpoch, NodeId, Offset};
use bytes::Bytes;
use fastrand::Rng;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{ApiKey, FetchRequest, ResponseKind, TopicName};
use kafka_protocol::protocol::StrBytes;

fn random_batch(rng: &mut Rng) -> FetchedBatch {
    let length = if rng.bool() { rng.usize(61..200) } else { rng.usize(200..5000) };
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
    bytes[22] = 0; // not zstd, which old versions refuse
    let (base_offset, leader_epoch) = (Offset(rng.i64(0..)), LeaderEpoch(rng.i32(0..)));
    FetchedBatch { base_offset, leader_epoch, bytes: Bytes::from(bytes) }
}

fn random_result(rng: &mut Rng) -> Result<FetchedPartition> {
    match rng.u8(..4) {
        0 => {
            let leader = PartitionLeader { node: NodeId(rng.u32(1..1000)), epoch: LeaderEpoch(rng.i32(0..)) };
            Err(Error::not_leader(rng.bool().then_some(leader)))
        }
        1 => Err(ErrorKind::StorageUnavailable.into()),
        _ => {
            let diverging = EndOfEpoch { epoch: LeaderEpoch(rng.i32(0..)), end: Offset(rng.i64(0..)) };
            Ok(FetchedPartition {
                high_watermark: Offset(rng.i64(0..)),
                last_stable: Offset(rng.i64(0..)),
                log_start: Offset(rng.i64(0..)),
                diverging: rng.bool().then_some(diverging),
                batches: (0..rng.usize(..5)).map(|_| random_batch(rng)).collect(),
            })
        }
    }
}

/// The bytes a client must see for these batches.
fn stamped(batches: &[FetchedBatch]) -> Vec<u8> {
    let mut all = Vec::new();
    for batch in batches {
        let start = all.len();
        all.extend_from_slice(&batch.bytes);
        all[start..start + 8].copy_from_slice(&batch.base_offset.0.to_be_bytes());
        all[start + 12..start + 16].copy_from_slice(&batch.leader_epoch.0.to_be_bytes());
    }
    all
}

fn check(decoded: &PartitionData, found: &Result<FetchedPartition>, version: i16, committed: bool) {
    assert_eq!(decoded.aborted_transactions, committed.then(Vec::new));
    assert_eq!(decoded.preferred_read_replica.0, -1);
    let flexible = version >= 12;
    match found {
        Ok(found) => {
            let offsets = (decoded.high_watermark, decoded.last_stable_offset, decoded.log_start_offset);
            let log_start = if version >= 5 { found.log_start.0 } else { -1 };
            assert_eq!(offsets, (found.high_watermark.0, found.last_stable.0, log_start));
            assert_eq!(decoded.error_code, 0);
            assert_eq!(decoded.records.as_deref(), Some(&stamped(&found.batches)[..]));
            let diverging = found.diverging.filter(|_| flexible).map_or((-1, -1), |end| (end.epoch.0, end.end.0));
            assert_eq!((decoded.diverging_epoch.epoch, decoded.diverging_epoch.end_offset), diverging);
        }
        Err(error) => {
            let storage = if version >= 6 { 56 } else { 6 };
            assert_eq!(decoded.error_code, if error.kind == ErrorKind::NotLeader { 6 } else { storage });
            assert_eq!(decoded.records.as_deref(), Some(&[][..]), "empty, never null");
            let leader = error.leader.filter(|_| flexible);
            let leader = leader.map_or((-1, -1), |leader| (leader.node.0 as i32, leader.epoch.0));
            assert_eq!((decoded.current_leader.leader_id.0, decoded.current_leader.leader_epoch), leader);
        }
    }
}

#[tokio::test]
async fn whatever_was_found_is_what_the_client_decodes() {
    let server = Server::start(Limits::default()).await;
    let mut client = server.connect().await;
    let mut rng = Rng::with_seed(8);
    for version in 4..=12 {
        for _ in 0..60 {
            let topics: Vec<usize> = (0..rng.usize(..4)).map(|_| rng.usize(..5)).collect();
            let found: Vec<_> = (0..topics.iter().sum()).map(|_| random_result(&mut rng)).collect();
            let named = topics.iter().zip(["a", "bb", "ccc", "d"]).map(|(partitions, name)| {
                let partition = |index| FetchPartition::default().with_partition(index);
                FetchTopic::default()
                    .with_topic(TopicName(StrBytes::from_static_str(name)))
                    .with_partitions((0..*partitions as i32).map(partition).collect())
            });
            let committed = rng.bool();
            let request = FetchRequest::default().with_topics(named.collect()).with_isolation_level(committed.into());
            server.broker.state().fetched = Some(found.clone());
            let ResponseKind::Fetch(answer) = client.call(ApiKey::Fetch, version, &request.into()).await else {
                panic!("an answer to a fetch")
            };
            let decoded: Vec<_> = answer.responses.iter().flat_map(|topic| &topic.partitions).collect();
            assert_eq!(decoded.len(), found.len());
            for (decoded, found) in decoded.into_iter().zip(&found) {
                check(decoded, found, version, committed);
            }
        }
    }
    server.stop().await;
}
