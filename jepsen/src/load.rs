//! The load: producers and readers of every partition of a topic, from a start to an end.

use crate::check::{Anomaly, check};
use crate::client::Client;
use crate::history::{History, Outcome, Read};
use crate::producer::{Pace, Producer, SharedJournal};
use crate::reader::Reader;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long the readers may take to read every partition whole, with the cluster just back from the dead.
const WHOLE_MAX: Duration = Duration::from_secs(60);

/// What to write, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Partitions of the topic.
    pub partitions: i32,
    /// Producers of each partition; every other one is idempotent.
    pub producers: u32,
    /// How fast and how much each of them writes.
    pub pace: Pace,
}

/// Producers and readers at work.
#[derive(Debug)]
pub struct Load {
    /// What the producers have settled.
    journal: SharedJournal,
    /// Tells all of them to stop.
    stop: watch::Sender<bool>,
    /// The producers.
    producers: JoinSet<()>,
    /// The readers, with what they have read.
    readers: JoinSet<Vec<Read>>,
}

/// A topic under load, again and again, and all that was ever seen of it.
#[derive(Debug)]
pub struct Topic {
    /// The cluster and the topic.
    client: Client,
    /// What to write, and how fast.
    shape: Shape,
    /// The next producer's number.
    next_producer: u32,
    /// How far each partition has been read.
    ends: BTreeMap<i32, i64>,
    /// What was seen.
    pub history: History,
}

impl Topic {
    /// A topic that has just been created.
    #[must_use]
    pub fn new(client: Client, shape: Shape) -> Self {
        Self { client, shape, next_producer: 1, ends: BTreeMap::new(), history: History::default() }
    }

    /// What is written, and how fast.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Starts new producers and readers.
    pub fn start_load(&mut self) -> Load {
        let (stop, stopped) = watch::channel(false);
        let journal = SharedJournal::default();
        let (mut producers, mut readers) = (JoinSet::new(), JoinSet::new());
        for partition in 0..self.shape.partitions {
            for place in 0..self.shape.producers {
                let to = (partition, self.next_producer);
                self.next_producer += 1;
                let (client, journal) = (self.client.clone(), SharedJournal::clone(&journal));
                let producer = Producer::new(client, to, place % 2 == 0, self.shape.pace, journal);
                producers.spawn(producer.run(stopped.clone()));
            }
            let end = self.ends.get(&partition).copied().unwrap_or(0);
            readers.spawn(Reader::new(self.client.clone(), partition).follow(end, stopped.clone()));
        }
        Load { journal, stop, producers, readers }
    }

    /// Ends the load, reads every partition whole, and checks all that was ever seen.
    pub async fn end_load(&mut self, mut load: Load) -> io::Result<Vec<Anomaly>> {
        load.stop.send_replace(true);
        while let Some(ended) = load.producers.join_next().await {
            ended.map_err(io::Error::other)?;
        }
        while let Some(reads) = load.readers.join_next().await {
            self.history.reads.extend(reads.map_err(io::Error::other)?);
        }
        let settled = std::mem::take(&mut *load.journal.lock().expect("no writer panics"));
        self.history.sends.extend(settled.sends);
        self.history.complaints.extend(settled.complaints);
        self.read_whole().await?;
        let anomalies = check(&self.history);
        if anomalies.is_empty() {
            // The last read of each partition agrees with all before it, and holds what they held.
            self.history.reads.retain(|read| read.whole.is_some());
            let newest = self.history.reads.len() - self.shape.partitions as usize;
            self.history.reads.drain(..newest);
        }
        Ok(anomalies)
    }

    async fn read_whole(&mut self) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + WHOLE_MAX;
        for partition in 0..self.shape.partitions {
            let read = Reader::new(self.client.clone(), partition).read_whole(deadline).await?;
            self.ends.insert(partition, read.whole.unwrap_or(0));
            self.history.reads.push(read);
        }
        Ok(())
    }
}

impl Load {
    /// Records acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.journal.lock().expect("no writer panics").acknowledged
    }

    /// For each partition, how long after `since` the first acknowledgement came of a batch that was sent after
    /// `fault`. One that was sent before may have been acknowledged by a node that is dead by now.
    #[must_use]
    pub fn recovery(&self, fault: Instant, since: Instant) -> BTreeMap<i32, Duration> {
        let journal = self.journal.lock().expect("no writer panics");
        let mut first: BTreeMap<i32, Duration> = BTreeMap::new();
        for send in &journal.sends {
            let acknowledged = matches!(send.outcome, Outcome::Ok { .. });
            if acknowledged && send.sent >= fault && send.completed >= since {
                let after = send.completed - since;
                first.entry(send.partition).and_modify(|known| *known = (*known).min(after)).or_insert(after);
            }
        }
        first
    }
}
