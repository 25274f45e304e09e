//! Who of a coordinator's members was heard of when, and whose time has run out: the leader's own business.
//!
//! Nothing here survives a change of leadership: a new leader counts every member as heard of at that moment. Time
//! enters as milliseconds of a monotonic clock of the caller's. What has run out is said by [`Sessions::due`] and
//! becomes a command; until the group shows that it was carried out, it is said again after [`RETRY_MS`].
//!
//! The rules are Kafka's: a member that waits for an answer to JoinGroup or SyncGroup is there; a group prepares its
//! generation for as long as the slowest of its members may take, a group that was empty for
//! `group.initial.rebalance.delay.ms`, extended while members arrive (KIP-134); who does not ask for its share of a
//! generation within the rebalance timeout is given up.
//!
//! Timers are lazy: being heard of moves no timer, only what it finds when it goes off. So a heartbeat costs two
//! look-ups, and each member's timer goes off about once per session timeout.

use super::command::Expired;
use super::group::{Group, Member, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// After which time something that has run out is said again, in milliseconds.
pub const RETRY_MS: u64 = 2_000;

/// How long an id that was handed out is kept for who does not join under it, if nobody said how long: Java's default
/// session timeout, in milliseconds.
const PENDING_MS: u64 = 45_000;

/// Timers that one call of [`Sessions::due`] lets go off, and members that one of them gives up; the rest is said next.
const TIMERS_PER_CALL_MAX: usize = 1_024;

/// Something that has to be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// These members were not heard of in time.
    Expire {
        /// Their group.
        group: Arc<str>,
        /// The members; the limits of [`Sessions::due`] bound their number.
        members: Vec<Expired>,
    },
    /// The time in which members could join has run out.
    FinishJoin {
        /// The group.
        group: Arc<str>,
        /// What is finished.
        round: u64,
    },
}

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The preparation of a generation.
    Round,
    /// The members' asking for their shares of a generation.
    Shares,
    /// A member's session, or an id that was handed out.
    Member(Arc<str>),
}

/// Timers in the order in which they go off.
type Timers = BTreeSet<(u64, Arc<str>, Timer)>;

/// The members of one coordinator's groups, as its leader hears of them. See the module.
#[derive(Debug)]
pub struct Sessions {
    /// How long an empty group waits for more members than the first, in milliseconds.
    first_delay_ms: u64,
    /// The groups, as last seen, and what is known of their members.
    groups: BTreeMap<Arc<str>, Watched>,
    /// When to look at what.
    timers: Timers,
}

/// A group and what is known of its members.
#[derive(Debug)]
struct Watched {
    /// Its name.
    name: Arc<str>,
    /// As last seen.
    group: Arc<Group>,
    /// The preparation that is going on.
    round: Option<Round>,
    /// The members' asking for their shares, from the moment a generation is made up.
    shares: Option<Shares>,
    /// Its members, and the ids that were handed out.
    sessions: BTreeMap<Arc<str>, Session>,
}

/// The preparation of a generation.
#[derive(Debug)]
struct Round {
    /// Which.
    round: u64,
    /// When it began.
    began_ms: u64,
    /// Of a group that was empty: what is left of the time for which it may be extended.
    extendable_ms: Option<u64>,
    /// Somebody has joined since it began or was extended.
    grew: bool,
    /// When it is over.
    until_ms: u64,
    /// When its timer goes off.
    timer_ms: u64,
}

/// The time in which members have to ask for their shares.
#[derive(Debug)]
struct Shares {
    /// Who has not yet.
    missing: BTreeSet<Arc<str>>,
    /// When the timer goes off.
    timer_ms: u64,
}

/// What is known of a member.
#[derive(Debug)]
struct Session {
    /// [`Member::joins`]; 0 of an id that was only handed out.
    joins: u64,
    /// Silence after which it is given up, in milliseconds.
    timeout_ms: u64,
    /// When it was heard of.
    heard_ms: u64,
    /// Its requests that wait for their answer.
    waiting: u32,
    /// When its timer goes off.
    timer_ms: u64,
}

fn millis(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}

/// The time that the slowest member may take.
fn rebalance_timeout_ms(group: &Group) -> u64 {
    group.members.values().map(|member| millis(member.rebalance_timeout_ms)).max().unwrap_or(0)
}

impl Sessions {
    /// The sessions of these groups for a leader that begins now.
    pub fn lead<'a>(now_ms: u64, first_delay_ms: u64, groups: impl IntoIterator<Item = &'a Arc<Group>>) -> Self {
        let mut sessions = Self { first_delay_ms, groups: BTreeMap::new(), timers: Timers::new() };
        for group in groups {
            sessions.observe(now_ms, group);
        }
        sessions
    }

    /// Takes in a group as it is now. Says whether a generation has been made up since it was last seen.
    pub fn observe(&mut self, now_ms: u64, group: &Arc<Group>) -> bool {
        // Whoever has only offsets is not kept: there is nothing to wait for, and such groups may be many.
        if group.members.is_empty() && group.pending.is_empty() {
            self.forget(&group.name);
            return false;
        }
        let Some(watched) = self.groups.get_mut(group.name.as_str()) else {
            let name: Arc<str> = group.name.as_str().into();
            let mut watched = Watched::new(&name);
            watched.take_in(now_ms, self.first_delay_ms, group, &mut self.timers);
            self.groups.insert(name, watched);
            return group.phase == Phase::Completing;
        };
        if Arc::ptr_eq(&watched.group, group) {
            return false;
        }
        let before = watched.group.generation;
        watched.take_in(now_ms, self.first_delay_ms, group, &mut self.timers);
        group.generation > before
    }

    /// A group is gone.
    pub fn forget(&mut self, group: &str) {
        if let Some(mut watched) = self.groups.remove(group) {
            watched.stop(&mut self.timers);
        }
    }

    /// An id was handed out, for as long as this.
    pub fn handed_out(&mut self, now_ms: u64, group: &str, member: &str, timeout_ms: u64) {
        let Some(watched) = self.groups.get_mut(group) else { return };
        let Some(session) = watched.sessions.get_mut(member).filter(|session| session.joins == 0) else { return };
        (session.heard_ms, session.timeout_ms) = (now_ms, timeout_ms);
        session.set_timer(session.until_ms(), &watched.name, &member.into(), &mut self.timers);
    }

    /// A member was heard of.
    pub fn heard(&mut self, now_ms: u64, group: &str, member: &str) {
        if let Some(session) = self.session(group, member) {
            session.heard_ms = session.heard_ms.max(now_ms);
        }
    }

    /// A member asks for its share of the group's generation.
    pub fn asked(&mut self, now_ms: u64, group: &str, member: &str) {
        self.heard(now_ms, group, member);
        if let Some(shares) = self.groups.get_mut(group).and_then(|watched| watched.shares.as_mut()) {
            shares.missing.remove(member);
        }
    }

    /// A request of a member begins to wait for its answer: the member is there until it stops.
    pub fn waits(&mut self, group: &str, member: &str) {
        if let Some(session) = self.session(group, member) {
            session.waiting = session.waiting.saturating_add(1);
        }
    }

    /// A request of a member stops to wait, with an answer or because its connection is gone.
    pub fn stops_waiting(&mut self, now_ms: u64, group: &str, member: &str) {
        if let Some(session) = self.session(group, member) {
            session.waiting = session.waiting.saturating_sub(1);
            session.heard_ms = session.heard_ms.max(now_ms);
        }
    }

    fn session(&mut self, group: &str, member: &str) -> Option<&mut Session> {
        self.groups.get_mut(group)?.sessions.get_mut(member)
    }

    /// When [`Self::due`] is to be asked next.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.timers.first().map(|(at_ms, ..)| *at_ms)
    }

    /// What has run out.
    pub fn due(&mut self, now_ms: u64) -> Vec<Action> {
        let mut expired: BTreeMap<Arc<str>, Vec<Expired>> = BTreeMap::new();
        let mut actions = Vec::new();
        for _ in 0..TIMERS_PER_CALL_MAX {
            if self.next_due().is_none_or(|due_ms| due_ms > now_ms) {
                break;
            }
            let Some((_, name, timer)) = self.timers.pop_first() else { break };
            let watched = self.groups.get_mut(&name).expect("a group that is gone has no timers");
            match timer {
                Timer::Round => {
                    let round = watched.round_over(now_ms, self.first_delay_ms, &mut self.timers);
                    actions.extend(round.map(|round| Action::FinishJoin { group: name, round }));
                }
                Timer::Shares => {
                    let missing = watched.shares_over(now_ms, &mut self.timers);
                    if !missing.is_empty() {
                        expired.entry(name).or_default().extend(missing);
                    }
                }
                Timer::Member(id) => {
                    if let Some(silent) = watched.session_over(now_ms, &id, &mut self.timers) {
                        expired.entry(name).or_default().push(silent);
                    }
                }
            }
        }
        actions.extend(expired.into_iter().map(|(group, members)| Action::Expire { group, members }));
        actions
    }
}

impl Watched {
    fn new(name: &Arc<str>) -> Self {
        let (name, group) = (Arc::clone(name), Arc::default());
        Self { name, group, round: None, shares: None, sessions: BTreeMap::new() }
    }

    /// The group as it is now, in the place of what it was.
    fn take_in(&mut self, now_ms: u64, first_delay_ms: u64, group: &Arc<Group>, timers: &mut Timers) {
        let before = std::mem::replace(&mut self.group, Arc::clone(group));
        let gone = |id: &&String| !group.members.contains_key(*id) && !group.pending.contains(*id);
        for id in before.pending.difference(&group.pending).filter(gone) {
            self.remove(id, timers);
        }
        let mut grew = false;
        for (id, change) in changes(&before.members, &group.members) {
            match change {
                Some(member) => grew |= self.joined(now_ms, id, member, timers),
                None => self.remove(id, timers),
            }
        }
        for id in group.pending.difference(&before.pending) {
            let session = Session { timeout_ms: PENDING_MS, ..Session::of_nobody(now_ms) };
            self.add(id, session, timers);
        }
        self.follow_round(now_ms, first_delay_ms, grew, timers);
        self.follow_shares(now_ms, &before, timers);
    }

    /// A member is new, or has changed. Says whether it has joined since it was last seen.
    fn joined(&mut self, now_ms: u64, id: &str, member: &Member, timers: &mut Timers) -> bool {
        let timeout_ms = millis(member.session_timeout_ms).max(1);
        let Some(session) = self.sessions.get_mut(id) else {
            let session = Session { joins: member.joins, timeout_ms, ..Session::of_nobody(now_ms) };
            self.add(id, session, timers);
            return true;
        };
        let again = session.joins != member.joins;
        if again {
            (session.joins, session.heard_ms) = (member.joins, now_ms);
        }
        session.timeout_ms = timeout_ms;
        // Later, it finds out by itself; earlier, it must be told.
        let until_ms = session.until_ms();
        if until_ms < session.timer_ms {
            session.set_timer(until_ms, &self.name, &id.into(), timers);
        }
        again
    }

    fn add(&mut self, id: &str, mut session: Session, timers: &mut Timers) {
        let id: Arc<str> = id.into();
        session.timer_ms = session.until_ms();
        timers.insert((session.timer_ms, Arc::clone(&self.name), Timer::Member(Arc::clone(&id))));
        self.sessions.insert(id, session);
    }

    fn remove(&mut self, id: &str, timers: &mut Timers) {
        if let Some((id, session)) = self.sessions.remove_entry(id) {
            timers.remove(&(session.timer_ms, Arc::clone(&self.name), Timer::Member(id)));
        }
    }

    /// The timer of the preparation begins, moves or ends with it.
    fn follow_round(&mut self, now_ms: u64, first_delay_ms: u64, grew: bool, timers: &mut Timers) {
        let going_on = self.round.as_ref().map(|round| round.round);
        let timeout_ms = rebalance_timeout_ms(&self.group);
        match self.group.phase {
            Phase::Preparing { round, .. } if going_on == Some(round) => {
                let Some(known) = &mut self.round else { return };
                known.grew |= grew;
                if known.extendable_ms.is_none() {
                    known.until_ms = known.began_ms.saturating_add(timeout_ms);
                    if known.until_ms < known.timer_ms {
                        known.set_timer(known.until_ms, &self.name, timers);
                    }
                }
            }
            Phase::Preparing { round, first } => {
                self.end_round(timers);
                let delay_ms = if first { first_delay_ms.min(timeout_ms) } else { timeout_ms };
                let until_ms = now_ms.saturating_add(delay_ms);
                let extendable_ms = first.then(|| timeout_ms - delay_ms);
                timers.insert((until_ms, Arc::clone(&self.name), Timer::Round));
                let (began_ms, grew, timer_ms) = (now_ms, false, until_ms);
                self.round = Some(Round { round, began_ms, extendable_ms, grew, until_ms, timer_ms });
            }
            Phase::Empty | Phase::Completing | Phase::Stable => self.end_round(timers),
        }
    }

    fn end_round(&mut self, timers: &mut Timers) {
        if let Some(round) = self.round.take() {
            timers.remove(&(round.timer_ms, Arc::clone(&self.name), Timer::Round));
        }
    }

    /// From the moment a generation is made up, until the next is prepared, its members' asking is waited for. Of one
    /// that was stable when this leader first saw it, nobody knows who has asked: sessions must do.
    fn follow_shares(&mut self, now_ms: u64, before: &Group, timers: &mut Timers) {
        let group = &self.group;
        let is_made_up = match group.phase {
            Phase::Completing => group.generation != before.generation || before.phase != Phase::Completing,
            Phase::Stable => group.generation != before.generation && !before.name.is_empty(),
            Phase::Empty | Phase::Preparing { .. } => return self.end_shares(timers),
        };
        if is_made_up {
            let missing = self.sessions.iter().filter(|(_, session)| session.joins > 0);
            let missing = missing.map(|(id, _)| Arc::clone(id)).collect();
            let timer_ms = now_ms.saturating_add(rebalance_timeout_ms(group));
            self.end_shares(timers);
            timers.insert((timer_ms, Arc::clone(&self.name), Timer::Shares));
            self.shares = Some(Shares { missing, timer_ms });
        }
    }

    fn end_shares(&mut self, timers: &mut Timers) {
        if let Some(shares) = self.shares.take() {
            timers.remove(&(shares.timer_ms, Arc::clone(&self.name), Timer::Shares));
        }
    }

    fn stop(&mut self, timers: &mut Timers) {
        self.end_round(timers);
        self.end_shares(timers);
        for (id, session) in std::mem::take(&mut self.sessions) {
            timers.remove(&(session.timer_ms, Arc::clone(&self.name), Timer::Member(id)));
        }
    }

    /// The round's timer went off: the round, if it is over.
    fn round_over(&mut self, now_ms: u64, first_delay_ms: u64, timers: &mut Timers) -> Option<u64> {
        let round = self.round.as_mut().expect("the timer goes with the round");
        let extension_ms = round.extendable_ms.unwrap_or(0).min(first_delay_ms);
        if round.grew && extension_ms > 0 {
            round.grew = false;
            round.extendable_ms = round.extendable_ms.map(|left_ms| left_ms - extension_ms);
            round.until_ms = now_ms.saturating_add(extension_ms);
        }
        // Where only static members are left and none of them has come, nothing is made up. Their sessions end that; it
        // must not be tried over and over if they may take no time to join.
        let is_idle = self.group.members.values().all(|member| member.instance.is_some() && !member.joined);
        if round.until_ms <= now_ms && is_idle {
            round.began_ms = now_ms;
            round.until_ms = now_ms.saturating_add(rebalance_timeout_ms(&self.group).max(RETRY_MS));
        }
        let over = round.until_ms <= now_ms;
        round.timer_ms = if over { now_ms.saturating_add(RETRY_MS) } else { round.until_ms };
        timers.insert((round.timer_ms, Arc::clone(&self.name), Timer::Round));
        over.then_some(round.round)
    }

    /// The time for asking is over: who has not asked.
    fn shares_over(&mut self, now_ms: u64, timers: &mut Timers) -> Vec<Expired> {
        let shares = self.shares.as_mut().expect("the timer goes with the generation");
        shares.missing.retain(|id| self.sessions.contains_key(id));
        if shares.missing.is_empty() {
            self.shares = None;
            return Vec::new();
        }
        shares.timer_ms = now_ms.saturating_add(RETRY_MS);
        timers.insert((shares.timer_ms, Arc::clone(&self.name), Timer::Shares));
        let missing = shares.missing.iter().take(TIMERS_PER_CALL_MAX);
        missing.map(|id| Expired { member: id.to_string(), joins: self.sessions[id].joins }).collect()
    }

    /// A member's timer went off: the member, if it was silent for so long.
    fn session_over(&mut self, now_ms: u64, id: &Arc<str>, timers: &mut Timers) -> Option<Expired> {
        let session = self.sessions.get_mut(id).expect("the timer goes with the member");
        if session.waiting > 0 {
            session.heard_ms = now_ms;
        }
        let over = session.until_ms() <= now_ms;
        // At least a moment later, whatever timeout it came with.
        session.timer_ms = if over { now_ms.saturating_add(RETRY_MS) } else { session.until_ms() };
        timers.insert((session.timer_ms, Arc::clone(&self.name), Timer::Member(Arc::clone(id))));
        over.then(|| Expired { member: id.to_string(), joins: session.joins })
    }
}

impl Round {
    fn set_timer(&mut self, at_ms: u64, group: &Arc<str>, timers: &mut Timers) {
        timers.remove(&(self.timer_ms, Arc::clone(group), Timer::Round));
        timers.insert((at_ms, Arc::clone(group), Timer::Round));
        self.timer_ms = at_ms;
    }
}

impl Session {
    /// Heard of now, and nothing else known.
    fn of_nobody(now_ms: u64) -> Self {
        Self { joins: 0, timeout_ms: 0, heard_ms: now_ms, waiting: 0, timer_ms: 0 }
    }

    /// When it is given up, if nothing is heard until then.
    fn until_ms(&self) -> u64 {
        self.heard_ms.saturating_add(self.timeout_ms)
    }

    fn set_timer(&mut self, at_ms: u64, group: &Arc<str>, id: &Arc<str>, timers: &mut Timers) {
        timers.remove(&(self.timer_ms, Arc::clone(group), Timer::Member(Arc::clone(id))));
        timers.insert((at_ms, Arc::clone(group), Timer::Member(Arc::clone(id))));
        self.timer_ms = at_ms;
    }
}

/// What differs between two maps of members, by walking both once: each id with its new value, or none if it is gone.
fn changes<'a>(
    before: &'a BTreeMap<String, Arc<Member>>,
    after: &'a BTreeMap<String, Arc<Member>>,
) -> Vec<(&'a str, Option<&'a Member>)> {
    let mut changes = Vec::new();
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        match (before.peek(), after.peek()) {
            (None, None) => return changes,
            (Some((old, _)), Some((new, _))) if old == new => {
                if let (Some((_, old)), Some((id, new))) = (before.next(), after.next())
                    && !Arc::ptr_eq(old, new)
                {
                    changes.push((id.as_str(), Some(new.as_ref())));
                }
            }
            (Some((old, _)), new) if new.is_none_or(|(new, _)| old < new) => {
                changes.push((old.as_str(), None));
                before.next();
            }
            _ => changes.extend(after.next().map(|(id, member)| (id.as_str(), Some(member.as_ref())))),
        }
    }
}

#[cfg(test)]
#[path = "sessions/tests.rs"]
mod tests;
