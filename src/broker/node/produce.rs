//! Produce: validate, propose, wait.
//!
//! A refusal must not reorder what a producer sent (`multiraft::handle::order`): whatever is refused here before it was
//! proposed is entered there, too.

use super::{Inner, now_ms};
use crate::broker::records::{Produce, ProduceOutcome, Produced};
use crate::broker::{Error, ErrorKind, Result};
use crate::controller::topic_config::TopicSettings;
use crate::machine::{Outcome, Refusal};
use crate::multiraft::core::effect::{Refused, Reply};
use crate::multiraft::handle::Pending;
use crate::multiraft::handle::order::Sequence;
use crate::partition::command::Command;
use crate::record::codec::DECOMPRESSED_BYTES_MAX;
use crate::record::validate::{Rules, validate};
use crate::record::{BatchError, RecordBatch, TimestampType};
use crate::storage::Engine;
use crate::types::RaftGroupId;
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

pub(super) async fn produce<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    request: Produce,
) -> Result<ProduceOutcome> {
    let begun = Instant::now();
    let deadline = begun + request.timeout;
    let target = inner.target(&request.topic, request.partition)?;
    let group = target.group;
    let settings = TopicSettings::of(&target.topic.configs);
    let now_ms = now_ms();
    let batch = validate(request.records, &rules(&settings, now_ms)).map_err(refuse_batch)?;
    let append_time_ms = settings.log_append_time.then_some(now_ms);
    let sequence = sequence_of(&batch);
    if let Err(error) = inner.lead(group) {
        inner.note_refusal(group, sequence);
        return Err(error);
    }

    let bytes = batch.bytes().len() as u64;
    let (context, batch) = (Command::Produce { proposed_at_ms: now_ms }.encode(), batch.into_bytes());
    let patience = deadline.min(Instant::now() + inner.settings.admission_wait);
    let proposing = inner.propose(group, sequence, &context, &batch);
    let pending = match timeout_at(patience, proposing).await.unwrap_or(Err(Refused::Busy)) {
        Ok(pending) => pending,
        Err(refused) => {
            inner.note_refusal(group, sequence);
            return Err(inner.refused(refused, group));
        }
    };
    let proposed = Instant::now();
    Ok(Box::pin(async move {
        let reply = timeout_at(deadline, pending.wait()).await.map_err(|_| Error::from(ErrorKind::TimedOut))?;
        let outcome = inner.outcome(group, &reply, append_time_ms);
        if outcome.is_ok() {
            inner.metrics.commit_seconds.observe(proposed.elapsed().as_secs_f64());
            inner.metrics.produce_seconds.observe(begun.elapsed().as_secs_f64());
            inner.metrics.produced_bytes.inc_by(bytes);
        }
        outcome
    }))
}

fn sequence_of(batch: &RecordBatch) -> Option<Sequence> {
    batch.producer().map(|producer| Sequence {
        producer: producer.id,
        epoch: producer.epoch,
        first: producer.first_sequence,
    })
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
    /// Proposes a batch in its turn. What was refused here once may have been written elsewhere since; whether a
    /// producer that the partition knows keeps its order, the partition judges.
    async fn propose(
        &self,
        group: RaftGroupId,
        sequence: Option<Sequence>,
        context: &Bytes,
        batch: &Bytes,
    ) -> std::result::Result<Pending, Refused> {
        let propose = || self.handle.propose_in_order(group, sequence, context.clone(), batch.clone());
        match (propose().await, sequence) {
            (Err(Refused::OutOfTurn), Some(Sequence { producer, .. })) if self.is_known(group, producer).await => {
                self.handle.order().forget(group, producer);
                propose().await
            }
            (outcome, _) => outcome,
        }
    }

    /// Whether the partition knows the producer. One that can't be read is none: its batch waits its turn.
    async fn is_known(&self, group: RaftGroupId, producer: i64) -> bool {
        let Some(view) = self.views.partition(group) else { return false };
        let (engine, generation) = (self.engine.clone(), view.generation);
        let read = tokio::task::spawn_blocking(move || view.knows_producer(&engine, producer));
        match read.await {
            Ok(Ok(known)) => known,
            Ok(Err(error)) => {
                if error.damage {
                    self.handle.state_damaged(group, generation, error.reason);
                }
                false
            }
            Err(_panicked) => false,
        }
    }

    fn note_refusal(&self, group: RaftGroupId, sequence: Option<Sequence>) {
        if let Some(sequence) = sequence {
            self.handle.order().refused(group, sequence);
        }
    }

    pub(super) fn refused(&self, why: Refused, group: RaftGroupId) -> Error {
        match why {
            Refused::NoReplica | Refused::NotLeader | Refused::Overwritten => {
                Error::not_leader(self.leader(group).filter(|leader| leader.node != self.node))
            }
            Refused::Busy => ErrorKind::Overloaded.into(),
            Refused::OutOfTurn => {
                Error::new(ErrorKind::Overloaded, "an earlier batch of this producer was refused; it comes first")
            }
            Refused::NoSpace => ErrorKind::StorageUnavailable.into(),
        }
    }

    fn outcome(&self, group: RaftGroupId, reply: &Reply, append_time_ms: Option<i64>) -> Result<Produced> {
        match reply {
            Reply::Applied { at, outcome: Outcome::Appended { base_offset, duplicate } } => {
                let log_start = self.views.partition(group).map(|view| view.log_start).unwrap_or_default();
                let (position, duplicate) = (*at, *duplicate);
                Ok(Produced { base_offset: *base_offset, log_start, append_time_ms, position, duplicate })
            }
            Reply::Applied { outcome: Outcome::Refused(refusal), .. } => Err(refuse_sequence(*refusal)),
            Reply::Applied { .. } | Reply::ReadAt(_) => Err(ErrorKind::Internal.into()),
            Reply::Refused(refused) => Err(self.refused(*refused, group)),
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
