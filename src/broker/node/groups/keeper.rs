//! The task that proposes what time brings about: members that fell silent, generations that are made up, offsets that
//! nobody reads any more.
//!
//! One task for the whole node. It sleeps until something is due, who leads a coordinator has changed, or a topic is
//! gone. What it proposed and was not carried out, the sessions say again.

use super::{Inner, NodeBroker, Place};
use crate::controller::view::MetadataView;
use crate::coordinator::command::Action;
use crate::coordinator::sessions;
use crate::multiraft::handle::GroupStatus;
use crate::storage::Engine;
use crate::types::RaftGroupId;
use futures_util::future::select_all;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Proposals of the keeper that are under way at once.
const PROPOSALS_MAX: usize = 64;

/// After which time it is tried again to drop offsets of deleted topics.
const TIDY_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What the keeper looks at between two sleeps.
struct Keeper<E> {
    /// The broker.
    inner: Arc<Inner<E>>,
    /// What is due and not proposed yet.
    backlog: VecDeque<(Place, sessions::Action)>,
    /// Proposals under way.
    proposals: JoinSet<()>,
    /// The look for offsets of deleted topics, one at a time, and whether all is done.
    tidying: JoinSet<bool>,
    /// When to look again, after a failure.
    tidy_again: Option<Instant>,
    /// The metadata that was last looked at.
    seen: Option<Arc<MetadataView>>,
    /// The look for offsets that nobody reads, one at a time.
    expiring: JoinSet<()>,
    /// When to look for them again.
    next_expiry: Instant,
}

impl<E: Engine + Clone + 'static> NodeBroker<E> {
    /// Keeps the consumer groups that this node coordinates, for as long as it runs. To be called once.
    pub async fn keep_groups(self) {
        let next_expiry = Instant::now() + self.0.settings.groups.offsets_check_interval;
        let keeper = Keeper {
            inner: self.0,
            backlog: VecDeque::new(),
            proposals: JoinSet::new(),
            tidying: JoinSet::new(),
            tidy_again: None,
            seen: None,
            expiring: JoinSet::new(),
            next_expiry,
        };
        keeper.run().await;
    }
}

impl<E: Engine + Clone + 'static> Keeper<E> {
    async fn run(mut self) {
        let inner = Arc::clone(&self.inner);
        let mut metadata = inner.views.watch_metadata();
        loop {
            let topics = Arc::clone(&metadata.borrow_and_update());
            // Watching begins before looking, so that no change between the two is missed.
            let coordinators = inner.coordinators();
            let watches = coordinators.iter().map(|raft| inner.handle.board().watch(*raft)).collect();
            self.follow(&coordinators);
            let due = self.propose();
            self.tidy(topics);
            self.expire_offsets();
            let next = [due, self.tidy_again, Some(self.next_expiry)].into_iter().flatten().min();
            tokio::select! {
                () = inner.led.wake.notified() => {}
                changed = metadata.changed() => if changed.is_err() {
                    return;
                },
                () = change_or(watches, next.unwrap_or(self.next_expiry)) => {}
                Some(_) = self.proposals.join_next() => {}
                Some(done) = self.tidying.join_next() => {
                    let done = done.unwrap_or(false);
                    self.tidy_again = (!done).then(|| Instant::now() + TIDY_AGAIN_AFTER);
                }
                Some(_) = self.expiring.join_next() => {}
            }
        }
    }

    /// Takes up what this node leads now, and lets go of the rest.
    fn follow(&self, coordinators: &[RaftGroupId]) {
        let places: Vec<_> = coordinators.iter().filter_map(|raft| self.inner.place_of(*raft).ok()).collect();
        self.inner.led.retain(&places);
        places.iter().for_each(|place| self.inner.led.lead(&self.inner.views, place));
    }

    /// Proposes what is due, as far as there is room. Says when something is due next.
    fn propose(&mut self) -> Option<Instant> {
        let (due, next) = self.inner.led.due(self.backlog.is_empty());
        self.backlog.extend(due);
        while self.proposals.len() < PROPOSALS_MAX
            && let Some((place, action)) = self.backlog.pop_front()
        {
            self.proposals.spawn(propose(Arc::clone(&self.inner), place, action));
        }
        next
    }

    /// Looks for offsets of deleted topics, if there is reason to and nobody is at it.
    fn tidy(&mut self, topics: Arc<MetadataView>) {
        let is_new = self.seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &topics));
        let again = self.tidy_again.is_some_and(|again| again <= Instant::now());
        let waits = self.tidy_again.is_some() && !again;
        let wanted = is_new || again || (!waits && self.inner.led.is_untidy());
        if wanted && self.tidying.is_empty() {
            self.seen = Some(topics);
            self.tidy_again = None;
            let inner = Arc::clone(&self.inner);
            self.tidying.spawn(async move { inner.tidy().await });
        }
    }

    /// Looks for offsets that nobody reads, when it is time.
    fn expire_offsets(&mut self) {
        if self.next_expiry > Instant::now() {
            return;
        }
        let settings = &self.inner.settings.groups;
        self.next_expiry = Instant::now() + settings.offsets_check_interval;
        let retention_ms = i64::try_from(settings.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        if self.expiring.is_empty() {
            self.expiring.spawn(expire_offsets(Arc::clone(&self.inner), retention_ms));
        }
    }
}

async fn propose<E: Engine + Clone + 'static>(inner: Arc<Inner<E>>, place: Place, action: sessions::Action) {
    if !inner.place_of(place.raft).is_ok_and(|now| now == place) {
        return; // it ran out in another term; who leads now counts anew
    }
    let (group, action) = match action {
        sessions::Action::Expire { group, members } => {
            tracing::info!(%group, silent = members.len(), "members were not heard of in time");
            (Arc::clone(&group), Action::Expire { group: group.to_string(), members })
        }
        sessions::Action::FinishJoin { group, round } => {
            (Arc::clone(&group), Action::FinishJoin { group: group.to_string(), round })
        }
    };
    if let Err(error) = inner.decide_on(&place, Some(&group), action).await {
        tracing::debug!(%group, %error, "what is due in a group could not be decided");
    }
}

async fn expire_offsets<E: Engine + Clone + 'static>(inner: Arc<Inner<E>>, retention_ms: i64) {
    for place in inner.led.all() {
        if let Err(error) = inner.decide_on(&place, None, Action::ExpireOffsets { retention_ms }).await {
            tracing::debug!(coordinator = %place.raft, %error, "old offsets could not be dropped");
        }
    }
}

/// Waits until who leads one of the groups has changed, or until then.
async fn change_or(watches: Vec<watch::Receiver<GroupStatus>>, then: Instant) {
    let sleep: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(sleep_until(then));
    let change = |mut watch: watch::Receiver<GroupStatus>| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if watch.changed().await.is_err() {
                // The group is gone; the metadata says so, too.
                std::future::pending::<()>().await;
            }
        })
    };
    select_all(watches.into_iter().map(change).chain([sleep])).await;
}
