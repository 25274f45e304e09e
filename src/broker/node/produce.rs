//! Produce: validate, propose, wait.
//!
//! A refusal must not reorder what a producer sent: without state of the producer the log accepts any first sequence,
//! so "refused" for one batch followed by "accepted" for the next would wedge it. Once a batch of an idempotent
//! producer is refused, its later ones for that partition are refused until the refused one is sent again.

use super::{Inner, lock, now_ms};
use crate::broker::records::{Produce, ProduceOutcome, Produced};
use crate::broker::{Error, ErrorKind, Result};
use crate::controller::topic_config::TopicSettings;
use crate::machine::{Outcome, Refusal};
use crate::multiraft::core::effect::{Refused, Reply};
use crate::partition::command::Command;
use crate::record::codec::DECOMPRESSED_BYTES_MAX;
use crate::record::validate::{Rules, validate};
use crate::record::{BatchError, RecordBatch, TimestampType};
use crate::storage::Engine;
use crate::types::RaftGroupId;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Producers remembered for their refused batches; beyond it the oldest is forgotten, whichever it is.
const REFUSED_MAX: usize = 10_000;

/// The newest refused batch of each (partition, producer): epoch and first sequence.
pub(super) type RefusedSequences = BTreeMap<(RaftGroupId, i64), (i16, i32)>;

pub(super) async fn produce<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    request: Produce,
) -> Result<ProduceOutcome> {
    let begun = Instant::now();
    let deadline = begun + request.timeout;
    let target = inner.target(&request.topic, request.partition)?;
    let group = target.group;
    inner.lead(group)?;
    let settings = TopicSettings::of(&target.topic.configs);
    let now_ms = now_ms();
    let batch = validate(request.records, &rules(&settings, now_ms)).map_err(refuse_batch)?;
    let append_time_ms = settings.log_append_time.then_some(now_ms);
    let key = sequence_of(group, &batch);
    inner.check_order(key)?;

    let bytes = batch.bytes().len() as u64;
    let context = Command::Produce { proposed_at_ms: now_ms }.encode();
    let patience = deadline.min(Instant::now() + inner.settings.admission_wait);
    let admitted = timeout_at(patience, inner.handle.propose(group, context, batch.into_bytes())).await;
    let pending = match admitted {
        Ok(Ok(pending)) => pending,
        Ok(Err(refused)) => return Err(inner.refused(key, refused, group)),
        Err(_) => return Err(inner.refused(key, Refused::Busy, group)),
    };
    let proposed = Instant::now();
    Ok(Box::pin(async move {
        let reply = timeout_at(deadline, pending.wait()).await.map_err(|_| Error::from(ErrorKind::TimedOut))?;
        let outcome = inner.outcome(key, group, &reply, append_time_ms);
        if outcome.is_ok() {
            inner.metrics.commit_seconds.observe(proposed.elapsed().as_secs_f64());
            inner.metrics.produce_seconds.observe(begun.elapsed().as_secs_f64());
            inner.metrics.produced_bytes.inc_by(bytes);
        }
        outcome
    }))
}

/// (partition, producer) and (epoch, first sequence) of an idempotent batch.
type Sequence = Option<((RaftGroupId, i64), (i16, i32))>;

fn sequence_of(group: RaftGroupId, batch: &RecordBatch) -> Sequence {
    batch.producer().map(|producer| ((group, producer.id), (producer.epoch, producer.first_sequence)))
}

fn rules(settings: &TopicSettings, now_ms: i64) -> Rules {
    Rules {
        batch_bytes_max: settings.batch_bytes_max,
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        timestamp_type: if settings.log_append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
        now_ms,
        timestamp_before_max_ms: settings.timestamp_before_max_ms,
        timestamp_after_max_ms: settings.timestamp_after_max_ms,
        key_required: false,
        zstd_allowed: true, // the Kafka edge refuses it where the request's version does not know it
    }
}

impl<E: Engine + Clone + 'static> Inner<E> {
    fn check_order(&self, sequence: Sequence) -> Result<()> {
        let Some((key, (epoch, first_sequence))) = sequence else { return Ok(()) };
        let mut refused = lock(&self.refused);
        match refused.get(&key) {
            Some((refused_epoch, refused_sequence))
                if *refused_epoch == epoch && *refused_sequence != first_sequence =>
            {
                Err(Error::new(ErrorKind::Overloaded, "an earlier batch of this producer was refused; it comes first"))
            }
            Some(_) => {
                refused.remove(&key);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn refused(&self, sequence: Sequence, why: Refused, group: RaftGroupId) -> Error {
        if let Some((key, value)) = sequence {
            let mut refused = lock(&self.refused);
            if refused.len() >= REFUSED_MAX {
                refused.pop_first();
            }
            refused.entry(key).or_insert(value);
        }
        match why {
            Refused::NoReplica | Refused::NotLeader | Refused::Overwritten => {
                Error::not_leader(self.leader(group).filter(|leader| leader.node != self.node))
            }
            Refused::Busy => ErrorKind::Overloaded.into(),
            Refused::NoSpace => ErrorKind::StorageUnavailable.into(),
        }
    }

    fn outcome(
        &self,
        sequence: Sequence,
        group: RaftGroupId,
        reply: &Reply,
        append_time_ms: Option<i64>,
    ) -> Result<Produced> {
        match reply {
            Reply::Applied { at, outcome: Outcome::Appended { base_offset, duplicate } } => {
                let log_start = self.views.partition(group).map(|view| view.log_start).unwrap_or_default();
                let (position, duplicate) = (*at, *duplicate);
                Ok(Produced { base_offset: *base_offset, log_start, append_time_ms, position, duplicate })
            }
            Reply::Applied { outcome: Outcome::Refused(refusal), .. } => Err(refuse_sequence(*refusal)),
            Reply::Applied { .. } | Reply::ReadAt(_) => Err(ErrorKind::Internal.into()),
            Reply::Refused(refused) => Err(self.refused(sequence, *refused, group)),
            Reply::Undecided => Err(ErrorKind::LeadershipLost.into()),
        }
    }
}

fn refuse_sequence(refusal: Refusal) -> Error {
    match refusal {
        Refusal::OutOfOrderSequence => ErrorKind::OutOfOrderSequence,
        Refusal::InvalidProducerEpoch => ErrorKind::InvalidProducerEpoch,
        Refusal::DuplicateSequence => ErrorKind::DuplicateSequence,
    }
    .into()
}

fn refuse_batch(error: BatchError) -> Error {
    let kind = match error {
        BatchError::Length | BatchError::Checksum => ErrorKind::CorruptRecord,
        BatchError::Magic(_) => ErrorKind::UnsupportedFormat,
        BatchError::TooLarge { .. } => ErrorKind::RecordTooLarge,
        BatchError::Invalid { .. } => ErrorKind::InvalidRecord,
        BatchError::Timestamp { .. } => ErrorKind::InvalidTimestamp,
        BatchError::Codec(_) => ErrorKind::UnsupportedCompression,
    };
    Error::new(kind, error.to_string())
}
