//! Produce (key 0), versions 3 to 12; shown from 0.
//!
//! The lie is Kafka's own: librdkafka before 2.11.1 compresses nothing unless version 0 is shown (KAFKA-18659).
//!
//! In two steps: [`admit`] hands every batch to the broker, in the request's order, and returns once their places are
//! fixed; [`Admitted::outcome`] waits for what became of them. Between the two the connection may read on, so requests
//! overlap and stay in order. A batch is a slice of the frame; nothing here looks further into it than the one bit that
//! depends on the request's version.
//!
//! acks 1 is answered like -1, which is stronger than asked. acks 0 is answered by silence, or by closing the
//! connection if a batch failed.

use super::Api;
use crate::broker::{Broker, Certainty, ConnectionId, Edge, Error, PartitionIndex, Produce, ProduceOutcome, Produced};
use crate::kafka::error_codes;
use crate::kafka::guard::{INT16, INT32, Kind, Shape, always};
use crate::kafka::translate;
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse, TopicName};

/// What is served.
pub static API: Api = Api {
    key: ApiKey::Produce,
    serves: (3, 12),
    shown_from: 0,
    shape: Shape::of(&[
        always(Kind::NullableText),                 // transactional id
        always(INT16),                              // acks
        always(INT32),                              // timeout
        always(Kind::Array(&Kind::Struct(&TOPIC))), // topics
    ]),
};
const TOPIC: Shape = Shape::of(&[always(Kind::Text), always(Kind::Array(&Kind::Struct(&PARTITION)))]);
const PARTITION: Shape = Shape::of(&[always(INT32), always(Kind::NullableBytes)]);

/// The first version whose clients read zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;
/// The first version whose clients know KAFKA_STORAGE_ERROR (KIP-112).
const STORAGE_ERROR_SINCE: i16 = 4;
/// The first version whose answer has error messages (KIP-467).
const MESSAGES_SINCE: i16 = 8;
/// The first version whose answer names the current leader (KIP-951).
const LEADER_SINCE: i16 = 10;

/// Where one partition's batch stands.
enum Step {
    /// Its place is fixed; what becomes of it is open.
    Admitted(ProduceOutcome),
    /// The broker refused it.
    Refused(Error),
    /// It was not even offered, for a reason that only Kafka has a word for.
    Invalid(ResponseError),
}

/// A request whose batches have been admitted or refused.
pub struct Admitted {
    /// Topics and their partitions, in the request's order.
    topics: Vec<(TopicName, Vec<(i32, Step)>)>,
    /// Whether the producer wants no answer.
    silent: bool,
}

/// Offers every batch of a request to the broker, one after the other.
pub async fn admit<B: Broker>(broker: &B, connection: ConnectionId, request: ProduceRequest, version: i16) -> Admitted {
    let refusal = refusal_of_all(&request);
    let timeout = translate::millis(request.timeout_ms);
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let name = translate::topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let step = match refusal.map_or_else(|| offerable(data.records, version), Err) {
                Err(code) => Step::Invalid(code),
                Ok(records) => {
                    let (topic, partition) = (name.clone(), PartitionIndex(data.index));
                    match broker.produce(Produce { connection, topic, partition, records, timeout }).await {
                        Ok(outcome) => Step::Admitted(outcome),
                        Err(error) => {
                            assert_eq!(error.kind.certainty(), Certainty::Definite, "a refused batch is not written");
                            Step::Refused(error)
                        }
                    }
                }
            };
            partitions.push((data.index, step));
        }
        topics.push((translate::wire_topic(&name), partitions));
    }
    Admitted { topics, silent: request.acks == 0 }
}

/// What is wrong with a request as a whole.
fn refusal_of_all(request: &ProduceRequest) -> Option<ResponseError> {
    if !matches!(request.acks, -1..=1) {
        return Some(ResponseError::InvalidRequiredAcks);
    }
    request.transactional_id.as_ref().map(|_| ResponseError::TransactionalIdAuthorizationFailed)
}

/// A batch that may be offered to the broker.
fn offerable(records: Option<Bytes>, version: i16) -> Result<Bytes, ResponseError> {
    match records {
        None => Err(ResponseError::InvalidRecord),
        Some(records) if version < ZSTD_SINCE && is_zstd(&records) => Err(ResponseError::UnsupportedCompressionType),
        Some(records) => Ok(records),
    }
}

/// Whether a batch says that zstd compresses it: the low three bits of its attributes, which are bytes 21 and 22.
pub(super) fn is_zstd(batch: &[u8]) -> bool {
    batch.get(22).is_some_and(|attributes| attributes & 0x07 == 4)
}

impl Admitted {
    /// Waits for every batch's fate. `Ok(None)` is silence, `Err` the end of the connection.
    pub async fn outcome<B: Broker>(self, broker: &B, version: i16) -> Result<Option<ProduceResponse>, Failed> {
        let mut failed = false;
        let mut leaders = Vec::new();
        let mut responses = Vec::with_capacity(self.topics.len());
        for (name, partitions) in self.topics {
            let mut wire = Vec::with_capacity(partitions.len());
            for (index, step) in partitions {
                let (partition, error) = match step {
                    Step::Invalid(code) => (invalid(index, code, version), None),
                    Step::Refused(error) => (failure(index, &error, version), Some(error)),
                    Step::Admitted(outcome) => match outcome.await {
                        Ok(produced) => (success(index, produced), None),
                        Err(error) => (failure(index, &error, version), Some(error)),
                    },
                };
                failed |= partition.error_code != error_codes::NONE;
                leaders.extend(error.and_then(|error| error.leader));
                wire.push(partition);
            }
            responses.push(TopicProduceResponse::default().with_name(name).with_partition_responses(wire));
        }
        if self.silent {
            return if failed { Err(Failed) } else { Ok(None) };
        }
        let response = ProduceResponse::default().with_responses(responses);
        if version < LEADER_SINCE || leaders.is_empty() {
            return Ok(Some(response));
        }
        let cluster = broker.cluster(Edge::Kafka);
        let endpoints = translate::endpoints(&cluster, leaders).map(|node| {
            NodeEndpoint::default()
                .with_node_id(translate::broker_id(node.id))
                .with_host(translate::text(&node.address.host))
                .with_port(i32::from(node.address.port))
                .with_rack(node.rack.as_deref().map(translate::text))
        });
        Ok(Some(response.with_node_endpoints(endpoints.collect())))
    }
}

/// A produce that wanted no answer failed.
#[derive(Debug)]
pub struct Failed;

fn success(index: i32, produced: Produced) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_base_offset(produced.base_offset.0)
        .with_log_append_time_ms(produced.append_time_ms.unwrap_or(i64::from(translate::UNKNOWN)))
        .with_log_start_offset(produced.log_start.0)
}

fn failed_partition(index: i32, code: i16) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(code)
        .with_base_offset(i64::from(translate::UNKNOWN))
        .with_log_append_time_ms(i64::from(translate::UNKNOWN))
        .with_log_start_offset(i64::from(translate::UNKNOWN))
}

fn failure(index: i32, error: &Error, version: i16) -> PartitionProduceResponse {
    let mut wire = failed_partition(index, error_codes::code_since(error, version, STORAGE_ERROR_SINCE));
    if version >= MESSAGES_SINCE {
        wire.error_message = translate::message(error);
    }
    if let Some(leader) = error.leader.filter(|_| version >= LEADER_SINCE) {
        wire.current_leader = LeaderIdAndEpoch::default()
            .with_leader_id(translate::broker_id(leader.node))
            .with_leader_epoch(leader.epoch.0);
    }
    wire
}

fn invalid(index: i32, code: ResponseError, version: i16) -> PartitionProduceResponse {
    let mut wire = failed_partition(index, code.code());
    if version >= MESSAGES_SINCE {
        wire.error_message = Some(translate::text(match code {
            ResponseError::InvalidRecord => "a partition without a record batch",
            ResponseError::InvalidRequiredAcks => "acks is -1, 0 or 1",
            ResponseError::UnsupportedCompressionType => "zstd needs version 7 of the request",
            _ => "transactions are not supported",
        }));
    }
    wire
}
