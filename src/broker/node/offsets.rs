//! ListOffsets and OffsetForLeaderEpoch: where a log begins and ends, by position, time and epoch.

use super::Inner;
use super::fetch::read_newest;
use crate::broker::records::{EndOfEpoch, EpochQuery, OffsetAt, OffsetQuery, OffsetTarget};
use crate::broker::{ErrorKind, Result};
use crate::partition::read::TimedOffset;
use crate::storage::Engine;
use futures_util::future::join_all;
use std::sync::Arc;

pub(super) async fn list<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    targets: Vec<OffsetTarget>,
) -> Vec<Result<Option<OffsetAt>>> {
    join_all(targets.iter().map(|target| find(&inner, target))).await
}

async fn find<E: Engine + Clone + 'static>(inner: &Arc<Inner<E>>, target: &OffsetTarget) -> Result<Option<OffsetAt>> {
    let group = inner.target(&target.topic, target.partition)?.group;
    inner.readable(group, target.current_epoch)?;
    // Earliest needs no confirmation: a log start only moves forward, and readers find out when they use it.
    if !matches!(target.query, OffsetQuery::Earliest) {
        inner.confirm_end(group).await?;
    }
    let view = inner.readable(group, target.current_epoch)?;
    let at = |offset, leader_epoch| Ok(Some(OffsetAt { offset, timestamp_ms: None, leader_epoch }));
    let (engine, views, handle) = (inner.engine.clone(), inner.views.clone(), inner.handle.clone());
    let search = match target.query {
        OffsetQuery::Latest => return at(view.high_watermark, Some(inner.lead(group)?)),
        OffsetQuery::Earliest => {
            let epoch = (view.log_start < view.high_watermark).then(|| view.epochs.of(view.log_start));
            return at(view.log_start, epoch.or(inner.lead(group).ok()));
        }
        OffsetQuery::AtTime(time) => {
            let search = move || read_newest((&views, &handle), &view, |view| view.offset_for_timestamp(&engine, time));
            tokio::task::spawn_blocking(search).await
        }
        OffsetQuery::HighestTimestamp => {
            let search = move || read_newest((&views, &handle), &view, |view| view.offset_of_max_timestamp(&engine));
            tokio::task::spawn_blocking(search).await
        }
    };
    let found = search.map_err(|_| ErrorKind::Internal)??;
    Ok(found.map(|TimedOffset { offset, timestamp, leader_epoch }| OffsetAt {
        offset,
        timestamp_ms: Some(timestamp),
        leader_epoch: Some(leader_epoch),
    }))
}

impl<E: Engine + Clone + 'static> Inner<E> {
    pub(super) fn end_of_epoch(&self, query: &EpochQuery) -> Result<Option<EndOfEpoch>> {
        let group = self.target(&query.topic, query.partition)?.group;
        let view = self.readable(group, query.current_epoch)?;
        Ok(view.end_offset_for_epoch(query.epoch).map(|(epoch, end)| EndOfEpoch { epoch, end }))
    }
}
