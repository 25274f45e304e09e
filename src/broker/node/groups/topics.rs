//! Offsets of deleted topics: dropped once their topic is known to be gone, and never those of its successor.
//!
//! "Known" is more than "not in this node's copy of the metadata", which may lag behind the copy under which an earlier
//! leader has accepted commits. So a new leader first has something decided by the controller and waits until it sees
//! it: whatever a deposed leader knew, it knows now. And a name may be taken again: a commit looks at the topics and
//! takes its place in the coordinator's order under one lock, drawing conclusions from what is new in the metadata
//! before it. So in each coordinator's order, the end of a topic stands before the first offset of the next of its
//! name.

use super::{DECISION_WAIT, Inner, Place, refused};
use crate::broker::{ErrorKind, Result};
use crate::controller::command::{Answer as ControllerAnswer, Command as ControllerCommand};
use crate::controller::view::MetadataView;
use crate::coordinator::command::{Action, Answer};
use crate::coordinator::offsets;
use crate::multiraft::core::effect::Refused;
use crate::multiraft::handle::Pending;
use crate::storage::Engine;
use crate::types::RaftGroupId;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{Instant, timeout_at};

/// The metadata from which conclusions were drawn; none before the first.
#[derive(Default)]
pub(in crate::broker::node) struct Fence(RwLock<Option<Arc<MetadataView>>>);

/// The topics there are, for as long as it is held.
pub(super) type Topics<'a> = RwLockReadGuard<'a, MetadataView>;

fn names_gone(seen: &MetadataView, now: &MetadataView) -> Vec<String> {
    let gone = seen.topics().filter(|topic| now.topic(topic.id).is_none());
    gone.map(|topic| topic.name.clone()).collect()
}

impl<E: Engine + Clone + 'static> Inner<E> {
    /// The topics as they are, with the ends of those that are gone proposed. None ends while the guard is held.
    pub(super) async fn topics(self: &Arc<Self>, deadline: Instant) -> Result<Topics<'_>> {
        let busy = |_| refused(Refused::Busy);
        let topics = timeout_at(deadline, self.led.topics.0.read()).await.map_err(busy)?;
        let is_new = topics.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &self.views.metadata()));
        let topics = if is_new {
            drop(topics);
            let mut topics = timeout_at(deadline, self.led.topics.0.write()).await.map_err(busy)?;
            self.conclude(&mut topics, deadline).await;
            RwLockWriteGuard::downgrade(topics)
        } else {
            topics
        };
        RwLockReadGuard::try_map(topics, Option::as_deref).map_err(|_| ErrorKind::Internal.into())
    }

    /// Proposes the end of topics that are gone since the last conclusion.
    async fn conclude(self: &Arc<Self>, topics: &mut Option<Arc<MetadataView>>, deadline: Instant) {
        let now = self.views.metadata();
        let gone = topics.as_ref().map(|seen| names_gone(seen, &now)).unwrap_or_default();
        let places = if gone.is_empty() { Vec::new() } else { self.led.sure() };
        // Whoever does this may be dropped on the way: what is left to do is known before.
        places.iter().for_each(|place| self.led.swept(place, false));
        *topics = Some(now);
        for place in places {
            if let Some(pending) = self.forget(&place, gone.clone(), deadline).await {
                let inner = Arc::clone(self);
                tokio::spawn(async move { inner.forgotten(&place, pending).await });
            }
        }
    }

    /// Proposes the end of these topics; it has its place in the coordinator's order then.
    async fn forget(self: &Arc<Self>, place: &Place, topics: Vec<String>, deadline: Instant) -> Option<Pending> {
        let pending = self.admit(place, Action::ForgetTopics { topics }, deadline).await.ok()?;
        self.led.swept(place, true);
        Some(pending)
    }

    async fn forgotten(self: &Arc<Self>, place: &Place, pending: Pending) -> bool {
        let answer = self.answer(place, None, pending, Instant::now() + DECISION_WAIT).await;
        let done = matches!(answer, Ok(Answer::Done(Ok(()))));
        if !done {
            self.led.swept(place, false);
        }
        done
    }

    /// Draws what conclusions there are to draw, and sweeps up after leaders before. Says whether all is done.
    pub(super) async fn tidy(self: &Arc<Self>) -> bool {
        let concluded = self.topics(Instant::now() + DECISION_WAIT).await.is_ok();
        let unsure = self.led.unsure();
        if !unsure.is_empty() {
            if self.confirm_metadata().await.is_err() {
                return false;
            }
            unsure.iter().for_each(|place| self.led.be_sure(place));
        }
        let mut done = concluded;
        for place in self.led.unswept() {
            done &= self.sweep(&place).await;
        }
        done
    }

    /// Waits until this node's metadata is as new as any node's was when this was called.
    async fn confirm_metadata(&self) -> Result<()> {
        // The one command that leaves a mark in the metadata and changes nothing else. The ids are never used.
        let command = ControllerCommand::AllocateProducerIds { node: self.node, incarnation: self.incarnation };
        let ControllerAnswer::ProducerIds(Ok(ids)) = self.controller.decide(&command, DECISION_WAIT).await? else {
            return Err(ErrorKind::ControllerNotAvailable.into());
        };
        let mark = ids.first + i64::from(ids.count);
        let mut metadata = self.views.watch_metadata();
        let seen = metadata.wait_for(|metadata| metadata.cluster().next_producer_id >= mark);
        match timeout_at(Instant::now() + DECISION_WAIT, seen).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ErrorKind::ControllerNotAvailable.into()),
        }
    }

    /// Proposes the end of every topic that has offsets there and is gone.
    async fn sweep(self: &Arc<Self>, place: &Place) -> bool {
        let deadline = Instant::now() + DECISION_WAIT;
        let Some(stored) = self.stored_topics(place.raft).await else { return false };
        let Ok(mut topics) = timeout_at(deadline, self.led.topics.0.write()).await else { return false };
        self.conclude(&mut topics, deadline).await;
        let Some(seen) = topics.as_ref() else { return false };
        let gone: Vec<_> = stored.into_iter().filter(|name| seen.topic_named(name).is_none()).collect();
        if gone.is_empty() {
            self.led.swept(place, true);
            return true;
        }
        let pending = self.forget(place, gone, deadline).await;
        drop(topics);
        match pending {
            Some(pending) => self.forgotten(place, pending).await,
            None => false,
        }
    }

    /// The names of all topics that a coordinator has offsets of.
    async fn stored_topics(&self, raft: RaftGroupId) -> Option<BTreeSet<String>> {
        let (engine, groups) = (self.engine.clone(), self.views.groups(raft)?);
        let read = move || {
            let mut topics = BTreeSet::new();
            for group in groups {
                let stored = offsets::read_all(&engine, raft, &group.name)?;
                topics.extend(stored.into_iter().map(|(topic, ..)| topic));
            }
            Ok::<_, crate::machine::MachineError>(topics)
        };
        match tokio::task::spawn_blocking(read).await.ok()? {
            Ok(topics) => Some(topics),
            Err(error) => {
                self.offsets_unreadable(raft, &error);
                None
            }
        }
    }
}
