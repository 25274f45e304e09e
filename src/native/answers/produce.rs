//! Writing records, and the ids that make retries safe.

use super::{Failure, Outcome, partition};
use crate::broker::{Broker, ConnectionId, Produce, ProduceOutcome, Produced};
use crate::native::errors;
use crate::proto::native::{self, produce_request::Payload, response};
use crate::record::writer::{BatchWriter, Header};
use bytes::Bytes;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Hands a request's batch to the broker; on return its place in the partition's order is fixed.
pub(super) async fn admit<B: Broker>(
    broker: &B,
    connection: ConnectionId,
    asked: native::ProduceRequest,
    timeout: Duration,
) -> Result<ProduceOutcome, Failure> {
    let (topic, index) = partition(broker, asked.partition)?;
    let records = match asked.payload {
        Some(Payload::Records(list)) => encode(&list.records, asked.idempotence)?,
        Some(Payload::RecordBatch(_)) if asked.idempotence.is_some() => {
            return Err(errors::invalid("a record batch says itself whether it is idempotent").into());
        }
        Some(Payload::RecordBatch(batch)) => batch,
        None => return Err(errors::invalid("the request has no records").into()),
    };
    Ok(broker.produce(Produce { connection, topic, partition: index, records, timeout }).await?)
}

/// Makes one batch of the records.
fn encode(records: &[native::Record], idempotence: Option<native::Idempotence>) -> Result<Bytes, Failure> {
    if records.is_empty() {
        return Err(errors::invalid("the list of records is empty").into());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let mut batch = BatchWriter::new(now);
    if let Some(identity) = idempotence {
        let epoch = i16::try_from(identity.producer_epoch).map_err(|_| errors::invalid("epochs end at 32767"))?;
        if identity.producer_id < 0 || identity.base_sequence < 0 {
            return Err(errors::invalid("producer ids and sequences begin at 0").into());
        }
        batch = batch.producer(identity.producer_id, epoch, identity.base_sequence);
    }
    for record in records {
        let timestamp = match record.timestamp_ms {
            0 => now,
            negative if negative < 0 => return Err(errors::invalid("a record's time is negative").into()),
            given => given,
        };
        let headers: Vec<Header<'_>> =
            record.headers.iter().map(|header| (header.key.as_bytes(), header.value.as_deref())).collect();
        batch = batch.record_with_headers(record.key.as_deref(), record.value.as_deref(), timestamp, &headers);
    }
    Ok(batch.finish().into_bytes())
}

/// The commit's place.
pub(super) fn answer(produced: Produced) -> response::Body {
    response::Body::Produce(native::ProduceResponse {
        base_offset: produced.base_offset.0,
        term: produced.position.term.0,
        log_index: produced.position.index.0,
        duplicate: produced.duplicate,
        log_append_time_ms: produced.append_time_ms.unwrap_or(-1),
    })
}

/// An id that nobody had before. Its epoch is 0, so the id is all there is to tell.
pub(super) async fn producer_id<B: Broker>(broker: &B) -> Outcome {
    let identity = broker.new_producer().await?;
    Ok(response::Body::ProducerId(native::ProducerIdResponse { producer_id: identity.id }))
}
