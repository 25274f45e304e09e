//! What this node knows as the leader of coordinators, and forgets with its leadership: sessions, and who waits.
//!
//! A coordinator's sessions are taken up by whoever needs them first in a term, from the published state. Each look at
//! them begins with the group as it is published, under one lock, so they never lag behind what a request has seen.

use super::{Inner, Place};
use crate::broker::node::lock;
use crate::broker::node::views::Views;
use crate::coordinator::sessions::{Action, Sessions};
use crate::metrics::Metrics;
use crate::storage::Engine;
use crate::types::{RaftGroupId, Term};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// See the module.
pub(in crate::broker::node) struct Led {
    /// Where the sessions' time begins.
    began: Instant,
    /// How long an empty group waits for more members than the first, in milliseconds.
    first_delay_ms: u64,
    /// The coordinators that this node leads.
    state: Mutex<State>,
    /// Wakes the keeper: something is due earlier than it thinks, or has to be done again.
    pub(super) wake: Notify,
    /// Which topics there are, as far as this node has drawn its conclusions.
    pub(super) topics: super::topics::Fence,
}

/// What is behind the lock.
#[derive(Default)]
struct State {
    /// By Raft group.
    coordinators: BTreeMap<RaftGroupId, Coordinator>,
    /// Until when the keeper sleeps.
    asleep_until_ms: u64,
}

/// A coordinator that this node leads.
struct Coordinator {
    /// Since which term.
    term: Term,
    /// Its members.
    sessions: Sessions,
    /// This node's metadata is as new as that of any leader before: what is gone from it was deleted.
    sure: bool,
    /// No offset of a deleted topic is left, or the topic's end is proposed.
    swept: bool,
}

/// What is looked at and counted.
pub(super) struct Surroundings<'a> {
    /// The published state.
    pub views: &'a Views,
    /// What is measured.
    pub metrics: &'a Metrics,
}

impl Led {
    pub fn new(first_delay: Duration) -> Self {
        let first_delay_ms = u64::try_from(first_delay.as_millis()).unwrap_or(u64::MAX);
        let (state, wake, topics) = (Mutex::default(), Notify::new(), super::topics::Fence::default());
        Self { began: Instant::now(), first_delay_ms, state, wake, topics }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The sessions of a place with the group as it is now; not if a newer leadership has taken its place.
    pub(super) fn touch(
        &self,
        surroundings: &Surroundings<'_>,
        place: &Place,
        group: &str,
        act: impl FnOnce(u64, &mut Sessions),
    ) {
        let mut state = lock(&self.state);
        let now_ms = self.now_ms();
        self.take_up(&mut state, now_ms, surroundings.views, place);
        let Some(led) = state.coordinators.get_mut(&place.raft).filter(|led| led.term == place.term) else { return };
        match surroundings.views.group(place.raft, group) {
            Some(view) => {
                if led.sessions.observe(now_ms, &view) {
                    surroundings.metrics.group_rebalances.inc();
                }
            }
            None => led.sessions.forget(group),
        }
        act(now_ms, &mut led.sessions);
        let due_ms = led.sessions.next_due();
        if due_ms.is_some_and(|due_ms| due_ms < state.asleep_until_ms) {
            self.wake.notify_one();
        }
    }

    /// Begins to lead a coordinator, if it does not yet in this term.
    pub(super) fn lead(&self, views: &Views, place: &Place) {
        let mut state = lock(&self.state);
        let now_ms = self.now_ms();
        self.take_up(&mut state, now_ms, views, place);
    }

    fn take_up(&self, state: &mut MutexGuard<'_, State>, now_ms: u64, views: &Views, place: &Place) {
        if state.coordinators.get(&place.raft).is_some_and(|led| led.term >= place.term) {
            return;
        }
        let Some(groups) = views.groups(place.raft) else { return };
        let sessions = Sessions::lead(now_ms, self.first_delay_ms, &groups);
        state.coordinators.insert(place.raft, Coordinator { term: place.term, sessions, sure: false, swept: false });
        // It has a keeper now, who has not seen it.
        self.wake.notify_one();
    }

    /// Drops what this node no longer leads.
    pub(super) fn retain(&self, places: &[Place]) {
        let leads =
            |raft: &RaftGroupId, term: Term| places.iter().any(|place| place.raft == *raft && term >= place.term);
        lock(&self.state).coordinators.retain(|raft, led| leads(raft, led.term));
    }

    /// What is to be proposed now, and when to ask again; the keeper sleeps until then at the latest.
    pub(super) fn due(&self, room: bool) -> (Vec<(Place, Action)>, Option<Instant>) {
        let mut state = lock(&self.state);
        let now_ms = self.now_ms();
        let mut due = Vec::new();
        for (raft, led) in state.coordinators.iter_mut().filter(|_| room) {
            let place = Place { raft: *raft, term: led.term };
            due.extend(led.sessions.due(now_ms).into_iter().map(|action| (place.clone(), action)));
        }
        // Without room, the end of a proposal is waited for instead.
        let next_ms = state.coordinators.values().filter_map(|led| led.sessions.next_due()).min().filter(|_| room);
        state.asleep_until_ms = next_ms.unwrap_or(u64::MAX);
        (due, next_ms.map(|next_ms| self.began + Duration::from_millis(next_ms)))
    }

    /// Where a topic that is gone from the metadata is known to be deleted.
    pub(super) fn sure(&self) -> Vec<Place> {
        self.places(|led| led.sure)
    }

    /// Where it may only be unknown as yet.
    pub(super) fn unsure(&self) -> Vec<Place> {
        self.places(|led| !led.sure)
    }

    /// Where offsets of deleted topics may be left, and it is known which are deleted.
    pub(super) fn unswept(&self) -> Vec<Place> {
        self.places(|led| led.sure && !led.swept)
    }

    /// Whether there is something to find out, or to sweep.
    pub(super) fn is_untidy(&self) -> bool {
        lock(&self.state).coordinators.values().any(|led| !led.swept)
    }

    /// Every place.
    pub(super) fn all(&self) -> Vec<Place> {
        self.places(|_| true)
    }

    fn places(&self, wanted: impl Fn(&Coordinator) -> bool) -> Vec<Place> {
        let state = lock(&self.state);
        let wanted = state.coordinators.iter().filter(|(_, led)| wanted(led));
        wanted.map(|(raft, led)| Place { raft: *raft, term: led.term }).collect()
    }

    /// What is gone from the metadata was deleted.
    pub(super) fn be_sure(&self, place: &Place) {
        self.change(place, |led| led.sure = true);
    }

    /// Whether no offset of a deleted topic is left. The keeper looks after what is.
    pub(super) fn swept(&self, place: &Place, swept: bool) {
        self.change(place, |led| led.swept = swept);
        if !swept {
            self.wake.notify_one();
        }
    }

    fn change(&self, place: &Place, change: impl FnOnce(&mut Coordinator)) {
        let mut state = lock(&self.state);
        state.coordinators.get_mut(&place.raft).filter(|led| led.term == place.term).map(change);
    }
}

/// A request of a member that waits for its answer. While it does, the member is there; its clock starts when this is
/// dropped, with an answer or because its connection is gone.
pub(super) struct Waiting<E: Engine + Clone + 'static> {
    /// The broker.
    inner: Arc<Inner<E>>,
    /// The coordinator.
    place: Place,
    /// The group.
    group: String,
    /// The member.
    member: String,
}

impl<E: Engine + Clone + 'static> Waiting<E> {
    /// The member's request begins to wait. `asks`: it is one for its share of the present generation.
    pub fn begin(inner: &Arc<Inner<E>>, place: &Place, (group, member): (&str, &str), asks: bool) -> Self {
        inner.led.touch(&inner.surroundings(), place, group, |now_ms, sessions| {
            sessions.heard(now_ms, group, member);
            if asks {
                sessions.asked(now_ms, group, member);
            }
            sessions.waits(group, member);
        });
        let (inner, place) = (Arc::clone(inner), place.clone());
        Self { inner, place, group: group.to_owned(), member: member.to_owned() }
    }
}

impl<E: Engine + Clone + 'static> Drop for Waiting<E> {
    fn drop(&mut self) {
        let Self { inner, place, group, member } = self;
        inner.led.touch(&inner.surroundings(), place, group, |now_ms, sessions| {
            sessions.stops_waiting(now_ms, group, member);
        });
    }
}
