//! A member of a consumer group: reads the partitions it is assigned, and stores how far it has come.
//!
//! Delivery is at least once: only what was handed to [`GroupMember::processed`] is stored. Rebalancing is eager: a
//! member gives up all its partitions, having stored how far it came, before it joins the next generation.

use super::assignment::Share;
use super::must_rejoin;
use super::requests::MemberRequests;
use crate::client::error::{Error, Result};
use crate::client::reader::{Reader, ReaderOptions, Received, Start};
use crate::client::routing::Router;
use crate::proto::native;
use std::collections::BTreeMap;
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

/// What a join ends with: the member's share, and what the group has stored.
type Joined = Result<(Share, Vec<native::GroupOffset>)>;

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
    /// Its requests.
    requests: MemberRequests,
    /// How it takes part.
    options: MemberOptions,
    /// Whether it has its share of a generation, and reads it.
    is_in: bool,
    /// Why it is to let its share go. Kept until that is done, which may be dropped on the way.
    over: Option<Error>,
    /// The join under way, if there is one. It goes on when nobody waits for it.
    joining: JoinSet<(MemberRequests, Joined)>,
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
        Self {
            requests: MemberRequests::new(Arc::clone(&router), group, topics, &options),
            router,
            options,
            is_in: false,
            over: None,
            joining: JoinSet::new(),
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
    /// members need to join, too. Dropping the future loses no record; dropped while it joins, it goes on with that.
    /// Called after an error, it joins again.
    pub async fn next(&mut self) -> Result<Chunk> {
        loop {
            if let Some(error) = self.over.clone() {
                self.let_go(&error).await;
            }
            if !self.is_in {
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
                Some(Event::Ended(error)) if must_rejoin(&error) || error.is_retriable() => self.over = Some(error),
                // Or it is fenced: another process has this static member's name.
                Some(Event::Failed(error) | Event::Ended(error)) => {
                    self.over = Some(error.clone());
                    return Err(error);
                }
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
        if !self.is_in || self.processed.is_empty() {
            return Ok(());
        }
        let offset = |((topic, partition), (offset, term)): (&(String, u32), &Position)| native::GroupOffset {
            topic: topic.clone(),
            partition: *partition,
            offset: *offset,
            term: i32::try_from(*term).unwrap_or(-1),
            metadata: String::new(),
        };
        self.requests.commit(self.processed.iter().map(offset).collect()).await?;
        self.processed.clear();
        Ok(())
    }

    /// Stores how far it came and leaves, so that the others need not wait for its silence. A static member stays in
    /// the group, because it is to come back.
    pub async fn close(mut self) -> Result<()> {
        let stored = self.commit().await;
        self.tasks.shutdown().await;
        self.joining.shutdown().await;
        if self.options.instance.is_none() && self.requests.is_known() {
            let left = self.requests.leave().await;
            stored?;
            return left;
        }
        stored
    }

    /// Stores offsets between two chunks. That the group is rebalancing is no failure: heartbeats tell it, too.
    async fn store_in_passing(&mut self) -> Result<()> {
        self.stored_at = Instant::now();
        match self.commit().await {
            Err(error) if must_rejoin(&error) => self.over = Some(error),
            stored => stored?,
        }
        Ok(())
    }

    /// Ends the generation: stores what was processed, as far as that is still allowed, and lets the partitions go.
    async fn let_go(&mut self, error: &Error) {
        let stored = self.commit().await;
        if let Err(error) = stored {
            tracing::debug!(%error, "offsets could not be stored before the rebalance");
        }
        self.tasks.shutdown().await;
        self.requests.has_lost_its_place(error);
        self.processed.clear();
        self.is_in = false;
        self.share.clear();
        self.over = None;
    }

    async fn join(&mut self) -> Result<()> {
        if self.joining.is_empty() {
            let mut requests = self.requests.clone();
            self.joining.spawn(async move {
                let joined = join(&mut requests).await;
                (requests, joined)
            });
        }
        let Some(Ok((requests, joined))) = self.joining.join_next().await else {
            return Err(Error::protocol("the join has ended without a result"));
        };
        self.requests = requests;
        let (share, stored) = joined?;
        self.share = share;
        self.begin(stored);
        self.is_in = true;
        Ok(())
    }

    /// Begins to read what it is assigned, and to say that it is alive.
    fn begin(&mut self, stored: Vec<native::GroupOffset>) {
        let stored: BTreeMap<_, _> =
            stored.into_iter().map(|stored| ((stored.topic, stored.partition), stored.offset)).collect();
        let (sender, events) = mpsc::channel(AHEAD);
        self.events = events;
        for (topic, partition) in self.share.iter().flat_map(|(topic, all)| all.iter().map(move |one| (topic, *one))) {
            let start = stored.get(&(topic.clone(), partition)).map_or(self.options.start, |at| Start::Offset(*at));
            let (router, options) = (Arc::clone(&self.router), self.options.reader.clone());
            self.tasks.spawn(read(router, (topic.clone(), partition), start, options, sender.clone()));
        }
        self.tasks.spawn(beat_until_refused(self.requests.clone(), self.options.heartbeat, sender));
    }
}

async fn join(requests: &mut MemberRequests) -> Joined {
    let share = requests.join().await?;
    Ok((share, requests.committed().await?))
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

async fn beat_until_refused(requests: MemberRequests, interval: Duration, events: mpsc::Sender<Event>) {
    loop {
        sleep(interval).await;
        if let Err(error) = requests.heartbeat().await {
            return drop(events.send(Event::Ended(error)).await);
        }
    }
}
