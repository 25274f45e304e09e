//! InitProducerId without transactions: ids come in blocks from the controller, so that handing one out costs nothing.

use super::{Inner, lock};
use crate::broker::records::ProducerIdentity;
use crate::broker::{Error, ErrorKind, Result};
use crate::controller::command::{Answer, Command};
use crate::storage::Engine;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long the controller is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ids of this node's block that nobody has yet. What is left of it when the node stops is never used.
#[derive(Debug, Default)]
pub(super) struct ProducerIds {
    /// What is left.
    left: Mutex<Range<i64>>,
    /// Held while a block is being fetched, so that many waiting producers cost one block.
    fetching: tokio::sync::Mutex<()>,
}

impl ProducerIds {
    fn take(&self) -> Option<ProducerIdentity> {
        lock(&self.left).next().map(|id| ProducerIdentity { id, epoch: 0 })
    }
}

pub(super) async fn new_producer<E: Engine + Clone + 'static>(inner: Arc<Inner<E>>) -> Result<ProducerIdentity> {
    if let Some(identity) = inner.producer_ids.take() {
        return Ok(identity);
    }
    let _fetching = inner.producer_ids.fetching.lock().await;
    if let Some(identity) = inner.producer_ids.take() {
        return Ok(identity);
    }
    let command = Command::AllocateProducerIds { node: inner.node, incarnation: inner.incarnation };
    // A block whose fate is unknown is lost, not handed out twice.
    let ids = match inner.controller.decide(&command, PATIENCE).await? {
        Answer::ProducerIds(Ok(ids)) => ids,
        Answer::ProducerIds(Err(rejection)) => {
            return Err(Error::new(ErrorKind::ControllerNotAvailable, rejection.message));
        }
        _ => return Err(ErrorKind::Internal.into()),
    };
    *lock(&inner.producer_ids.left) = ids.first..ids.first + i64::from(ids.count);
    inner.producer_ids.take().ok_or_else(|| ErrorKind::Internal.into())
}
