//! The members of many groups, each a task that joins, says that it is alive, and stores offsets.
//!
//! A member that was held up does not send what it missed: neither do real ones. So a stall counts once for each member
//! that it held up, with all of its length.

use crate::cli::Failure;
use crate::cli::bench::report::Latencies;
use crate::client::{Client, Error, GroupOffset, MemberOptions, MemberRequests};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// After which time a member that could not join tries again.
const JOIN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What all members do.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    /// What they read.
    pub topic: String,
    /// How often they say that they are alive.
    pub heartbeat: Duration,
    /// How often they store an offset.
    pub commit_every: Duration,
    /// How they join.
    pub options: MemberOptions,
}

/// What happened since it was taken last.
pub(super) struct Recorded {
    /// From the first request of a join to the member's share.
    pub joins: Latencies,
    /// From the time of a heartbeat to its answer, tries at other nodes included.
    pub heartbeats: Latencies,
    /// The same of stored offsets.
    pub commits: Latencies,
    /// Groups of which a member was told to join again.
    pub rebalanced: BTreeSet<usize>,
    /// Requests that failed otherwise, and what the first was told.
    pub failed: Option<(u64, String)>,
}

impl Recorded {
    fn new() -> Self {
        let (joins, heartbeats, commits) = (Latencies::new(), Latencies::new(), Latencies::new());
        Self { joins, heartbeats, commits, rebalanced: BTreeSet::new(), failed: None }
    }
}

/// How one member stands. Times are in microseconds since the beginning.
struct Seat {
    /// The generation that it has a share of; −1 while it has none.
    generation: AtomicI32,
    /// When it got the share.
    joined_at: AtomicU64,
    /// When its newest heartbeat that was answered was due.
    heard: AtomicU64,
    /// The same of its stored offsets.
    stored: AtomicU64,
    /// Whether it has partitions, and so something to store.
    reads: AtomicU64,
}

/// The members of all groups.
pub(super) struct Members {
    /// When the first joins.
    began: Instant,
    /// By group, then by member.
    seats: Vec<Vec<Seat>>,
    /// What happened.
    recorded: Mutex<Recorded>,
    /// What they do.
    habits: Habits,
}

impl Members {
    pub fn new(groups: usize, members: usize, habits: Habits) -> Arc<Self> {
        let seat = |_| Seat {
            generation: AtomicI32::new(-1),
            joined_at: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        };
        let seats = (0..groups).map(|_| (0..members).map(seat).collect()).collect();
        Arc::new(Self { began: Instant::now(), seats, recorded: Mutex::new(Recorded::new()), habits })
    }

    /// Begins every member; member `n` of all uses the client at `n * clients / members`. They leave when `stop` says
    /// so, or its sender is gone.
    pub fn start(self: &Arc<Self>, clients: &[Client], prefix: &str, stop: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let (groups, members) = (self.seats.len(), self.seats.first().map_or(0, Vec::len));
        for group in 0..groups {
            let name = group_name(prefix, group);
            let client = &clients[group * clients.len() / groups];
            for member in 0..members {
                let requests = client.member_requests(&name, &[&self.habits.topic], &self.habits.options);
                // Spread over the interval, as members that began at different times are.
                let place = (group * members + member) as f64 / (groups * members) as f64;
                let live = live(Arc::clone(self), (group, member), place, requests, stop.clone());
                tasks.spawn(live);
            }
        }
        tasks
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened since this was asked last.
    pub fn take(&self) -> Recorded {
        std::mem::replace(&mut *self.recorded(), Recorded::new())
    }

    fn since_began(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    /// How long it took until all members of each group had a share of one generation; none while that is not so.
    pub fn stable_after(&self) -> Option<Duration> {
        let is_stable = |seats: &Vec<Seat>| {
            let mut generations = seats.iter().map(|seat| seat.generation.load(Ordering::Relaxed));
            let first = generations.next().unwrap_or(0);
            first >= 0 && generations.all(|other| other == first)
        };
        let joined = self.seats.iter().flatten().map(|seat| seat.joined_at.load(Ordering::Relaxed));
        self.seats.iter().all(is_stable).then(|| Duration::from_micros(joined.max().unwrap_or(0)))
    }

    /// Members of whom no heartbeat, or no stored offset, was answered that was due after this moment.
    pub fn unheard_since(&self, moment: Instant) -> usize {
        let moment = self.since_began(moment);
        let is_unheard = |seat: &&Seat| {
            let reads = seat.reads.load(Ordering::Relaxed) > 0;
            seat.heard.load(Ordering::Relaxed) < moment || (reads && seat.stored.load(Ordering::Relaxed) < moment)
        };
        self.seats.iter().flatten().filter(is_unheard).count()
    }

    fn failed(&self, error: &Error) {
        self.recorded().failed.get_or_insert_with(|| (0, error.to_string())).0 += 1;
    }
}

/// The name of one of the groups.
pub(super) fn group_name(prefix: &str, group: usize) -> String {
    format!("{prefix}-{group}")
}

/// A member's life.
async fn live(
    members: Arc<Members>,
    (group, member): (usize, usize),
    place: f64,
    mut requests: MemberRequests,
    mut stop: watch::Receiver<bool>,
) {
    let told = async move { drop(stop.wait_for(|stop| *stop).await) };
    tokio::pin!(told);
    loop {
        let seat = &members.seats[group][member];
        let begun = Instant::now();
        let joined = tokio::select! {
            joined = requests.join() => joined,
            () = &mut told => break,
        };
        let lost = match joined {
            Ok(share) => {
                members.recorded().joins.record(begun.elapsed());
                seat.reads.store(share.values().map(Vec::len).sum::<usize>() as u64, Ordering::Relaxed);
                seat.joined_at.store(members.since_began(Instant::now()), Ordering::Relaxed);
                seat.generation.store(requests.generation(), Ordering::Relaxed);
                tokio::select! {
                    lost = beat(&members, seat, place, &requests) => lost,
                    lost = store(&members, seat, place, &requests, &share) => lost,
                    () = &mut told => break,
                }
            }
            Err(error) => error,
        };
        seat.generation.store(-1, Ordering::Relaxed);
        if requests.has_lost_its_place(&lost) {
            members.recorded().rebalanced.insert(group);
        } else {
            members.failed(&lost);
            tokio::select! {
                () = sleep(JOIN_AGAIN_AFTER) => {}
                () = &mut told => break,
            }
        }
    }
    if let Err(error) = requests.leave().await {
        tracing::debug!(%error, "a member could not leave; its session will end");
    }
}

/// Times at regular intervals, without those that have passed.
struct Times {
    /// The next.
    next: Instant,
    /// What is between them.
    every: Duration,
}

impl Times {
    fn new(now: Instant, every: Duration, place: f64) -> Self {
        Self { next: now + every.mul_f64(place), every }
    }

    /// The next time, once it has come.
    async fn wait(&mut self) -> Instant {
        let due = self.next;
        sleep_until(due).await;
        due
    }

    /// What was due at the last time is done.
    fn done(&mut self, now: Instant) {
        self.next += self.every;
        while self.next < now {
            self.next += self.every;
        }
    }
}

/// Says that a member is alive, until the answer says otherwise.
async fn beat(members: &Members, seat: &Seat, place: f64, requests: &MemberRequests) -> Error {
    let mut times = Times::new(Instant::now(), members.habits.heartbeat, place);
    loop {
        let due = times.wait().await;
        if let Err(error) = requests.heartbeat().await {
            return error;
        }
        times.done(Instant::now());
        members.recorded().heartbeats.record(due.elapsed());
        seat.heard.store(members.since_began(due), Ordering::Relaxed);
    }
}

/// Stores offsets, until that is refused.
async fn store(
    members: &Members,
    seat: &Seat,
    place: f64,
    requests: &MemberRequests,
    share: &BTreeMap<String, Vec<u32>>,
) -> Error {
    let first = share.iter().find_map(|(topic, partitions)| Some((topic, *partitions.first()?)));
    let Some((topic, partition)) = first else { return std::future::pending().await };
    let mut times = Times::new(Instant::now(), members.habits.commit_every, place);
    for offset in 0.. {
        let due = times.wait().await;
        let (topic, metadata) = (topic.clone(), String::new());
        if let Err(error) = requests.commit(vec![GroupOffset { topic, partition, offset, term: -1, metadata }]).await {
            return error;
        }
        times.done(Instant::now());
        members.recorded().commits.record(due.elapsed());
        seat.stored.store(members.since_began(due), Ordering::Relaxed);
    }
    unreachable!("offsets do not end")
}

/// Waits until all members have left.
pub(super) async fn join_all(mut tasks: JoinSet<()>) -> Result<(), Failure> {
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| Failure::new(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Arc<Members> {
        let habits = Habits {
            topic: "t".to_owned(),
            heartbeat: Duration::from_secs(3),
            commit_every: Duration::from_secs(1),
            options: MemberOptions::default(),
        };
        Members::new(2, 2, habits)
    }

    fn seat(members: &Members, group: usize, member: usize) -> &Seat {
        &members.seats[group][member]
    }

    #[test]
    fn groups_are_stable_once_all_their_members_share_a_generation() {
        let members = members();
        for (group, member, generation, joined_at) in [(0, 0, 1, 500), (0, 1, 2, 700), (1, 0, 1, 600), (1, 1, 1, 600)] {
            assert_eq!(members.stable_after(), None, "somebody has no share");
            seat(&members, group, member).generation.store(generation, Ordering::Relaxed);
            seat(&members, group, member).joined_at.store(joined_at, Ordering::Relaxed);
        }
        assert_eq!(members.stable_after(), None, "one of the first group is a generation behind");
        seat(&members, 0, 0).generation.store(2, Ordering::Relaxed);
        seat(&members, 0, 0).joined_at.store(900, Ordering::Relaxed);
        assert_eq!(members.stable_after(), Some(Duration::from_micros(900)));
    }

    #[test]
    fn who_reads_is_heard_of_once_both_are_answered() {
        let members = members();
        let moment = members.began + Duration::from_micros(50);
        seat(&members, 0, 0).reads.store(1, Ordering::Relaxed);
        let all: Vec<_> = members.seats.iter().flatten().collect();
        assert_eq!(members.unheard_since(moment), 4);
        all.iter().for_each(|seat| seat.heard.store(49, Ordering::Relaxed));
        assert_eq!(members.unheard_since(moment), 4, "that was before");
        all.iter().for_each(|seat| seat.heard.store(50, Ordering::Relaxed));
        assert_eq!(members.unheard_since(moment), 1, "one has stored nothing");
        all[0].stored.store(51, Ordering::Relaxed);
        assert_eq!(members.unheard_since(moment), 0);
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let mut times = Times::new(now, Duration::from_millis(100), 0.5);
        assert_eq!(times.next, at(50));
        times.done(at(60));
        assert_eq!(times.next, at(150));
        times.done(at(480));
        assert_eq!(times.next, at(550), "200 to 450 are gone");
    }
}
