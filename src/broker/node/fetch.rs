//! Fetch: committed batches only, from this leader's own state; waits on what state machines publish.
//!
//! The database is read on a blocking thread, the consensus thread never reads for consumers. An offset above the end
//! is called out of range only after a ReadIndex has confirmed where the end is.

use super::Inner;
use super::views::Views;
use crate::broker::records::{EndOfEpoch, Fetch, FetchAnswer, FetchPartition, FetchedBatch, FetchedPartition};
use crate::broker::{Error, ErrorKind, Result};
use crate::multiraft::core::effect::Reply;
use crate::multiraft::handle::{GroupStatus, Handle};
use crate::partition::read::{PartitionView, ReadError};
use crate::storage::Engine;
use crate::types::{LeaderEpoch, Offset, RaftGroupId};
use futures_util::future::select_all;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// No answer holds more than this, whatever the client allows, but for one larger batch.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// One partition on its way into an answer.
enum Step {
    /// There is nothing to read, or a reason not to.
    Done(Result<FetchedPartition>),
    /// Records wait at this offset of this view.
    Read(PartitionView, Offset, usize),
}

pub(super) async fn fetch<E: Engine + Clone + 'static>(inner: Arc<Inner<E>>, request: Fetch) -> FetchAnswer {
    let begun = Instant::now();
    let deadline = begun + request.max_wait;
    let max_bytes = request.max_bytes.min(ANSWER_BYTES_MAX);
    loop {
        // Watching begins before looking, so that no change between the two is missed.
        let watches = inner.watches(&request.partitions);
        let mut steps = Vec::with_capacity(request.partitions.len());
        for partition in &request.partitions {
            steps.push(inner.look(partition).await);
        }
        let failed = steps.iter().any(|step| matches!(step, Step::Done(Err(_))));
        let waiting = steps.iter().any(|step| matches!(step, Step::Read(..)));
        let over = failed || Instant::now() >= deadline;
        if waiting || over {
            let answer = read(&inner, steps, max_bytes).await;
            if over || request.min_bytes <= answer.bytes || answer.failed {
                inner.metrics.fetch_seconds.observe(begun.elapsed().as_secs_f64());
                inner.metrics.fetched_bytes.inc_by(answer.bytes as u64);
                return answer.into_answer();
            }
        }
        wait_for_change(watches, deadline).await;
    }
}

/// Waits until one of the partitions has changed, or until the deadline.
async fn wait_for_change(watches: Vec<Watch>, deadline: Instant) {
    let sleep: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(sleep_until(deadline));
    let changes = watches.into_iter().map(Watch::changed);
    // A deadline that has passed ends the wait at once; so does a partition that is gone.
    select_all(changes.chain([sleep])).await;
}

/// What a change of a partition shows on.
enum Watch {
    /// Its records.
    View(watch::Receiver<PartitionView>),
    /// Its leader: a parked fetch is told at once when it has changed.
    Status(watch::Receiver<GroupStatus>),
}

impl Watch {
    fn changed(self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            // A closed channel is a change, too.
            let _closed = match self {
                Self::View(mut receiver) => receiver.changed().await,
                Self::Status(mut receiver) => receiver.changed().await,
            };
        })
    }
}

/// Partitions as they were read.
struct Answer {
    /// In the order of the request.
    partitions: Vec<Result<FetchedPartition>>,
    /// Bytes of records in them.
    bytes: usize,
    /// Whether one of them could not be read.
    failed: bool,
    /// Their share of the node's memory.
    held: crate::broker::Reservation,
}

impl Answer {
    fn into_answer(self) -> FetchAnswer {
        FetchAnswer { partitions: self.partitions, held: Some(self.held) }
    }
}

async fn read<E: Engine + Clone + 'static>(inner: &Arc<Inner<E>>, steps: Vec<Step>, max_bytes: usize) -> Answer {
    let wanted: usize = steps.iter().map(|step| if let Step::Read(.., bytes) = step { *bytes } else { 0 }).sum();
    let held = inner.fetch_budget.reserve(wanted.min(max_bytes)).await;
    let (engine, views, handle) = (inner.engine.clone(), inner.views.clone(), inner.handle.clone());
    let read = move || {
        let (mut bytes, mut failed) = (0, false);
        let mut partitions = Vec::with_capacity(steps.len());
        for step in steps {
            let partition = match step {
                Step::Done(done) => done,
                Step::Read(view, offset, limit) => {
                    let limit = limit.min(max_bytes.saturating_sub(bytes));
                    read_one((&engine, &views, &handle), &view, offset, limit, bytes == 0)
                }
            };
            bytes += partition.iter().flat_map(|found| &found.batches).map(|batch| batch.bytes.len()).sum::<usize>();
            failed |= partition.is_err();
            partitions.push(partition);
        }
        (partitions, bytes, failed)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok((partitions, bytes, failed)) => Answer { partitions, bytes, failed, held },
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Reads by a view, and by the newest one if what it covers is not there: records that it covers may have been removed
/// since, or the whole state replaced. Only then is a hole a hole, and the replica is repaired.
pub(super) fn read_newest<T>(
    (views, handle): (&Views, &Handle),
    view: &PartitionView,
    read: impl Fn(&PartitionView) -> std::result::Result<T, ReadError>,
) -> Result<T> {
    let (found, generation) = match (read(view), views.partition(view.group)) {
        (Err(ReadError::Missing(_)), Some(newest)) if newest != *view => (read(&newest), newest.generation),
        (found, _) => (found, view.generation),
    };
    found.map_err(|error| {
        if error.is_damage() {
            handle.state_damaged(view.group, generation, error.to_string());
        }
        read_error(&error)
    })
}

fn read_one<E: Engine>(
    (engine, views, handle): (&E, &Views, &Handle),
    view: &PartitionView,
    offset: Offset,
    bytes_max: usize,
    at_least_one: bool,
) -> Result<FetchedPartition> {
    let batches = read_newest((views, handle), view, |view| view.fetch(engine, offset, bytes_max, at_least_one))?;
    let batches = batches.into_iter().map(|found| FetchedBatch {
        base_offset: found.base_offset,
        leader_epoch: found.leader_epoch,
        bytes: found.batch.into_bytes(),
    });
    Ok(found(view, batches.collect()))
}

fn found(view: &PartitionView, batches: Vec<FetchedBatch>) -> FetchedPartition {
    let PartitionView { high_watermark, log_start, .. } = *view;
    FetchedPartition { high_watermark, last_stable: high_watermark, log_start, diverging: None, batches }
}

/// What a reader is told when the state can't be read; the operator reads more.
fn read_error(error: &ReadError) -> Error {
    match error {
        ReadError::OutOfRange { offset, log_start, high_watermark } => {
            Error::out_of_range(*offset, *log_start, *high_watermark)
        }
        ReadError::Missing(_) | ReadError::Damaged { .. } | ReadError::Engine(_) => {
            tracing::error!(%error, "a partition's records can't be read");
            Error::new(ErrorKind::StorageUnavailable, error.to_string())
        }
    }
}

impl<E: Engine + Clone + 'static> Inner<E> {
    fn watches(&self, partitions: &[FetchPartition]) -> Vec<Watch> {
        let groups = partitions.iter().filter_map(|wanted| self.target(&wanted.topic, wanted.partition).ok());
        let watch = |group: RaftGroupId| {
            let view = self.views.watch_partition(group).map(Watch::View);
            [Some(Watch::Status(self.handle.board().watch(group))), view].into_iter().flatten()
        };
        groups.flat_map(|target| watch(target.group)).collect()
    }

    async fn look(&self, wanted: &FetchPartition) -> Step {
        match self.look_at(wanted).await {
            Ok(step) => step,
            Err(error) => Step::Done(Err(error)),
        }
    }

    async fn look_at(&self, wanted: &FetchPartition) -> Result<Step> {
        let target = self.target(&wanted.topic, wanted.partition)?;
        let view = self.readable(target.group, wanted.current_epoch)?;
        if let Some(diverging) = wanted.last_epoch.and_then(|epoch| diverging(&view, epoch, wanted.offset)) {
            return Ok(Step::Done(Ok(FetchedPartition { diverging: Some(diverging), ..found(&view, Vec::new()) })));
        }
        if wanted.offset > view.high_watermark {
            return self.confirm_beyond(target.group, wanted).await;
        }
        if wanted.offset < view.log_start {
            return Err(Error::out_of_range(wanted.offset, view.log_start, view.high_watermark));
        }
        if wanted.offset == view.high_watermark {
            return Ok(Step::Done(Ok(found(&view, Vec::new()))));
        }
        Ok(Step::Read(view, wanted.offset, wanted.max_bytes))
    }

    /// Above the end as this leader has applied it; only a majority can say whether that is the end.
    async fn confirm_beyond(&self, group: RaftGroupId, wanted: &FetchPartition) -> Result<Step> {
        self.confirm_end(group).await?;
        let view = self.readable(group, wanted.current_epoch)?;
        if wanted.offset <= view.high_watermark {
            return Ok(Step::Done(Ok(found(&view, Vec::new()))));
        }
        Err(Error::out_of_range(wanted.offset, view.log_start, view.high_watermark))
    }

    /// Waits until this node has applied everything that was committed when this was called.
    pub(super) async fn confirm_end(&self, group: RaftGroupId) -> Result<()> {
        match self.handle.read_index(group).await {
            Reply::ReadAt(_) => Ok(()),
            _ if self.lead(group).is_ok() => Err(ErrorKind::OffsetNotAvailable.into()),
            _ => Err(Error::not_leader(self.leader(group).filter(|leader| leader.node != self.node))),
        }
    }
}

/// Where the reader's log left this one (KIP-595): its last epoch ends here before the offset it asks for.
fn diverging(view: &PartitionView, last_epoch: LeaderEpoch, offset: Offset) -> Option<EndOfEpoch> {
    let (epoch, end) = view.end_offset_for_epoch(last_epoch)?;
    (epoch < last_epoch || end < offset).then_some(EndOfEpoch { epoch, end })
}
