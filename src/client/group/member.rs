//! A member of a consumer group: reads the partitions it is assigned, and stores how far it has come.
//!
//! Delivery is at least once: only what was handed to [`GroupMember::processed`] is stored. Rebalancing is eager: a
//! member gives up all its partitions, having stored how far it came, before it joins the next generation.

use super::assignment::{self, Share, Subscriber};
use super::{expect_answer, must_rejoin};
use crate::client::error::{Error, Result};
use crate::client::reader::{Reader, ReaderOptions, Received, Start};
use crate::client::routing::{Repeat, Router};
use crate::proto::native::{self, ErrorCode, request, response};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// Chunks of records that the partitions of a member may have read ahead.
const AHEAD: usize = 4;

/// How a member takes part.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// A static member's name (KIP-345): one that comes back in time keeps its partitions. Default: none.
    pub instance: Option<String>,
    /// Silence after which the group gives the member up. Default: 45 seconds.
    pub session_timeout: Duration,
    /// How long members have to join again when the group rebalances. Default: 60 seconds.
    pub rebalance_timeout: Duration,
    /// How often the member says that it is alive. Default: 3 seconds.
    pub heartbeat: Duration,
    /// How often `next` stores what was processed; with none, only `commit`, `close` and a rebalance do. Default: 5
    /// seconds.
    pub commit_every: Option<Duration>,
    /// Where a partition is begun for which the group has stored nothing. Default: the end.
    pub start: Start,
    /// How partitions are read.
    pub reader: ReaderOptions,
}

impl Default for MemberOptions {
    fn default() -> Self {
        Self {
            instance: None,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(60),
            heartbeat: Duration::from_secs(3),
            commit_every: Some(Duration::from_secs(5)),
            start: Start::End,
            reader: ReaderOptions::default(),
        }
    }
}

/// Records of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// In order.
    pub records: Vec<Received>,
}

/// How far a partition was processed: the offset to be read next, and the term of the last record.
type Position = (i64, u64);

/// What readers and heartbeats tell the member.
enum Event {
    /// Records.
    Chunk(Chunk),
    /// A partition can't be read.
    Failed(Error),
    /// The generation is over for this member, or the coordinator can't be reached.
    Ended(Error),
}

/// See the module.
pub struct GroupMember {
    /// Whom to ask.
    router: Arc<Router>,
    /// The group.
    group: String,
    /// The topics it reads.
    topics: Vec<String>,
    /// How it takes part.
    options: MemberOptions,
    /// Its id, empty until it has one.
    id: String,
    /// Its generation, while it has one.
    generation: Option<i32>,
    /// Readers and heartbeats of the generation.
    tasks: JoinSet<()>,
    /// What they tell.
    events: mpsc::Receiver<Event>,
    /// When offsets were stored last.
    stored_at: Instant,
    /// What was processed and is not stored yet.
    processed: BTreeMap<(String, u32), Position>,
    /// What it is assigned.
    share: Share,
}

impl GroupMember {
    pub(in crate::client) fn new(
        router: Arc<Router>,
        group: &str,
        topics: &[impl AsRef<str>],
        options: MemberOptions,
    ) -> Self {
        let topics: BTreeSet<_> = topics.iter().map(|topic| topic.as_ref().to_owned()).collect();
        Self {
            router,
            group: group.to_owned(),
            topics: topics.into_iter().collect(),
            options,
            id: String::new(),
            generation: None,
            tasks: JoinSet::new(),
            events: mpsc::channel(AHEAD).1,
            stored_at: Instant::now(),
            processed: BTreeMap::new(),
            share: Share::new(),
        }
    }

    /// The partitions that it reads now, by topic.
    #[must_use]
    pub fn assigned(&self) -> &BTreeMap<String, Vec<u32>> {
        &self.share
    }

    /// The next records of any of its partitions. Joins the group when it has to, which may take as long as the other
    /// members need to join, too. Dropping the future loses no record; dropped while it joins, it joins again.
    pub async fn next(&mut self) -> Result<Chunk> {
        loop {
            if self.generation.is_none() {
                self.join().await?;
            }
            let event = match self.options.commit_every {
                Some(every) => timeout_at(self.stored_at + every, self.events.recv()).await,
                None => Ok(self.events.recv().await),
            };
            let Ok(event) = event else {
                self.store_in_passing().await?;
                continue;
            };
            match event {
                Some(Event::Chunk(chunk)) => return Ok(chunk),
                Some(Event::Failed(error)) => return Err(error),
                Some(Event::Ended(error)) => self.give_up(&error).await?,
                None => return Err(Error::protocol("the member's readers have ended")),
            }
        }
    }

    /// Says that the first `count` records of a chunk need not be delivered again. Of no effect once the partition has
    /// gone to another member: that one begins at what was stored.
    pub fn processed(&mut self, chunk: &Chunk, count: usize) {
        let reads = |share: &Share| share.get(&chunk.topic).is_some_and(|all| all.contains(&chunk.partition));
        if let Some(last) = chunk.records[..count.min(chunk.records.len())].last().filter(|_| reads(&self.share)) {
            self.processed.insert((chunk.topic.clone(), chunk.partition), (last.offset + 1, last.term));
        }
    }

    /// Stores how far the member has come.
    pub async fn commit(&mut self) -> Result<()> {
        let Some(generation) = self.generation.filter(|_| !self.processed.is_empty()) else { return Ok(()) };
        let offset = |((topic, partition), (offset, term)): (&(String, u32), &Position)| native::GroupOffset {
            topic: topic.clone(),
            partition: *partition,
            offset: *offset,
            term: i32::try_from(*term).unwrap_or(-1),
            metadata: String::new(),
        };
        let body = request::Body::CommitOffsets(native::CommitOffsetsRequest {
            group: self.group.clone(),
            generation,
            member: self.identity(),
            offsets: self.processed.iter().map(offset).collect(),
        });
        let answer = self.ask(body, self.router.options.timeout).await?;
        expect_answer!(answer, CommitOffsets)?;
        self.processed.clear();
        Ok(())
    }

    /// Stores how far it came and leaves, so that the others need not wait for its silence. A static member stays in
    /// the group, because it is to come back.
    pub async fn close(mut self) -> Result<()> {
        let stored = self.commit().await;
        self.tasks.shutdown().await;
        if self.options.instance.is_none() && !self.id.is_empty() {
            let (group, member) = (self.group.clone(), self.identity());
            let body = request::Body::LeaveGroup(native::LeaveGroupRequest { group, member });
            let left = self.ask(body, self.router.options.timeout).await;
            stored?;
            return left.map(drop);
        }
        stored
    }

    /// Stores offsets between two chunks. That the group is rebalancing is no failure: heartbeats tell it, too.
    async fn store_in_passing(&mut self) -> Result<()> {
        self.stored_at = Instant::now();
        match self.commit().await {
            Err(error) if must_rejoin(&error) => self.give_up(&error).await,
            stored => stored,
        }
    }

    fn identity(&self) -> Option<native::GroupMember> {
        Some(native::GroupMember { id: self.id.clone(), instance: self.options.instance.clone() })
    }

    async fn ask(&self, body: request::Body, timeout: Duration) -> Result<response::Body> {
        self.router.ask_coordinator(&self.group, body, Repeat::Harmless, timeout).await
    }

    /// Ends the generation: stores what was processed, as far as that is still allowed, and lets the partitions go.
    async fn give_up(&mut self, error: &Error) -> Result<()> {
        if !must_rejoin(error) && !error.is_retriable() {
            return Err(error.clone()); // fenced: another process has this static member's name
        }
        let stored = self.commit().await;
        if let Err(error) = stored {
            tracing::debug!(%error, group = self.group, "offsets could not be stored before the rebalance");
        }
        self.tasks.shutdown().await;
        if error.code() == Some(ErrorCode::UnknownMember) {
            self.id.clear();
        }
        self.processed.clear();
        self.generation = None;
        self.share.clear();
        Ok(())
    }

    async fn join(&mut self) -> Result<()> {
        loop {
            match self.try_join().await {
                Ok((generation, share)) => {
                    self.generation = Some(generation);
                    self.share = share;
                    return self.begin(generation).await;
                }
                Err(error) if must_rejoin(&error) => {
                    if error.code() == Some(ErrorCode::UnknownMember) {
                        self.id.clear();
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_join(&mut self) -> Result<(i32, Share)> {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let protocol = native::GroupProtocol {
            name: assignment::RANGE.to_owned(),
            metadata: assignment::subscription(&self.topics),
        };
        let body = request::Body::JoinGroup(native::JoinGroupRequest {
            group: self.group.clone(),
            member: self.identity(),
            client_name: self.router.options.name.clone(),
            session_timeout_ms: millis(self.options.session_timeout),
            rebalance_timeout_ms: millis(self.options.rebalance_timeout),
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol],
        });
        let patience = self.options.rebalance_timeout + self.router.options.timeout;
        let joined = expect_answer!(self.ask(body, patience).await?, JoinGroup)?;
        self.id.clone_from(&joined.member);
        let assignments = if joined.leader == self.id { self.assign(&joined).await? } else { Vec::new() };
        let body = request::Body::SyncGroup(native::SyncGroupRequest {
            group: self.group.clone(),
            generation: joined.generation,
            member: self.identity(),
            assignments,
        });
        let synced = expect_answer!(self.ask(body, patience).await?, SyncGroup)?;
        let share = assignment::read_share(synced.assignment);
        let share = share.ok_or_else(|| Error::protocol("an assignment of another kind"))?;
        Ok((joined.generation, share))
    }

    /// The leader's work: deals the partitions out.
    async fn assign(&self, joined: &native::JoinGroupResponse) -> Result<Vec<native::GroupAssignment>> {
        let mut subscribers = Vec::with_capacity(joined.members.len());
        let mut counts = BTreeMap::new();
        for other in &joined.members {
            let member = other.member.clone().unwrap_or_default();
            let topics = assignment::read_subscription(other.metadata.clone());
            let topics = topics.ok_or_else(|| Error::protocol("a subscription of another kind"))?;
            for topic in &topics {
                if !counts.contains_key(topic) {
                    counts.insert(topic.clone(), self.router.partition_count(topic).await?);
                }
            }
            subscribers.push(Subscriber { member: member.id, instance: member.instance, topics });
        }
        let shares = assignment::ranges(&subscribers, &counts).into_iter();
        let assignment = |(member, share): (String, Share)| native::GroupAssignment {
            member,
            assignment: assignment::share(&share),
        };
        Ok(shares.map(assignment).collect())
    }

    /// Begins to read what it is assigned, and to say that it is alive.
    async fn begin(&mut self, generation: i32) -> Result<()> {
        let body = native::CommittedOffsetsRequest { group: self.group.clone() };
        let answer = self.ask(request::Body::CommittedOffsets(body), self.router.options.timeout).await?;
        let stored: BTreeMap<_, _> = expect_answer!(answer, CommittedOffsets)?
            .offsets
            .into_iter()
            .map(|stored| ((stored.topic, stored.partition), stored.offset))
            .collect();
        let (sender, events) = mpsc::channel(AHEAD);
        self.events = events;
        for (topic, partition) in self.share.iter().flat_map(|(topic, all)| all.iter().map(move |one| (topic, *one))) {
            let start = stored.get(&(topic.clone(), partition)).map_or(self.options.start, |at| Start::Offset(*at));
            let (router, options) = (Arc::clone(&self.router), self.options.reader.clone());
            self.tasks.spawn(read(router, (topic.clone(), partition), start, options, sender.clone()));
        }
        let beat = native::HeartbeatRequest { group: self.group.clone(), generation, member: self.identity() };
        let times = (self.options.heartbeat, self.options.session_timeout);
        self.tasks.spawn(beat_until_refused(Arc::clone(&self.router), beat, times, sender));
        Ok(())
    }
}

async fn read(
    router: Arc<Router>,
    (topic, partition): (String, u32),
    start: Start,
    options: ReaderOptions,
    events: mpsc::Sender<Event>,
) {
    let mut reader = match Reader::open(router, &topic, partition, start, options).await {
        Ok(reader) => reader,
        Err(error) => return drop(events.send(Event::Failed(error)).await),
    };
    loop {
        let event = match reader.read().await {
            Ok(records) if records.is_empty() => continue,
            Ok(records) => Event::Chunk(Chunk { topic: topic.clone(), partition, records }),
            Err(error) => return drop(events.send(Event::Failed(error)).await),
        };
        if events.send(event).await.is_err() {
            return; // the member has gone on without this generation
        }
    }
}

async fn beat_until_refused(
    router: Arc<Router>,
    beat: native::HeartbeatRequest,
    (interval, session): (Duration, Duration),
    events: mpsc::Sender<Event>,
) {
    loop {
        sleep(interval).await;
        let body = request::Body::Heartbeat(beat.clone());
        let answer = router.ask_coordinator(&beat.group, body, Repeat::Harmless, session).await;
        if let Err(error) = answer {
            return drop(events.send(Event::Ended(error)).await);
        }
    }
}
