//! Writes records, many at a time.
//!
//! Every partition that is written to has a lane of its own (`producer/lane.rs`): it gathers records into batches,
//! keeps several of them in flight in order, and retries. What all lanes hold together is bounded by
//! [`ProducerOptions::buffer_bytes`]; [`Producer::send`] waits for room.

mod lane;

use super::error::{Error, Result};
use super::partitioner::partition_of_key;
use super::routing::Router;
use bytes::Bytes;
use lane::{Entry, Lane};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// What a record is charged beside its bytes, against [`ProducerOptions::buffer_bytes`].
const RECORD_OVERHEAD_BYTES: usize = 64;

/// The most batches of one partition in flight: a server remembers this many of a producer's last ones (KIP-98).
const IN_FLIGHT_MAX: usize = 5;

/// How a producer batches and retries.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// How long a batch that is not full waits for more records. Default: 5 ms, as Kafka's.
    pub linger: Duration,
    /// When a batch is full, in bytes; a longer record makes a batch of its own. Default: 131072 (128 KiB). At most
    /// what the topic allows (`max.message.bytes`).
    pub batch_bytes: usize,
    /// Batches of one partition on their way at once, 1 to 5. Default: 5, as Kafka's.
    pub in_flight: usize,
    /// Bytes of records that may wait or be on their way, all partitions together. Default: 33554432 (32 MiB), as
    /// Kafka's.
    pub buffer_bytes: u32,
    /// How long the server may try to write a batch before its fate counts as unknown and it is sent again.
    /// Default: 10 seconds.
    pub request_timeout: Duration,
    /// How long a record may take from [`Producer::send`] to its acknowledgement; then it fails, and the error says
    /// whether it may have been written. Default: 120 seconds, as Kafka's.
    pub delivery_timeout: Duration,
    /// Whether a record is in the log at most once however often it is sent (KIP-98). Without, a batch whose fate is
    /// unknown is reported at once and never sent again, and retries may change the order of batches in flight.
    /// Default: true.
    pub idempotent: bool,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            batch_bytes: 128 << 10,
            in_flight: IN_FLIGHT_MAX,
            buffer_bytes: 32 << 20,
            request_timeout: Duration::from_secs(10),
            delivery_timeout: Duration::from_secs(120),
            idempotent: true,
        }
    }
}

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its key: records with one key go to one partition.
    pub key: Option<Bytes>,
    /// Its value; a key without a value is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Its time in milliseconds since 1970; the time of [`Producer::send`] without one.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A record with this key, if any, and this value.
    pub fn new<K: Into<Bytes>, V: Into<Bytes>>(key: Option<K>, value: V) -> Self {
        Self { key: key.map(Into::into), value: Some(value.into()), ..Self::default() }
    }

    /// What it is charged for.
    fn charged_bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + length(value) + 16).sum();
        RECORD_OVERHEAD_BYTES + length(&self.key) + length(&self.value) + headers
    }
}

/// Where a record was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub partition: u32,
    /// The record's offset.
    pub offset: i64,
    /// The term of the entry of the partition's Raft log that holds its batch.
    pub term: u64,
    /// The index of that entry.
    pub log_index: u64,
    /// An earlier try had written it; term and index are then those of the try that found out.
    pub duplicate: bool,
}

/// What becomes of a record. Dropping it does not take the record back.
#[derive(Debug)]
pub struct Delivery {
    /// Where the outcome arrives.
    outcome: oneshot::Receiver<Result<Commit>>,
}

impl Future for Delivery {
    type Output = Result<Commit>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = || Error::lost("the producer's task has ended");
        Pin::new(&mut self.outcome).poll(context).map(|outcome| outcome.unwrap_or_else(|_| Err(lost())))
    }
}

/// See the module. Dropping a producer does not take records back; to be sure that they are sent, [`Producer::flush`].
#[derive(Debug)]
pub struct Producer {
    /// Whom to ask.
    router: Arc<Router>,
    /// How to batch and retry.
    options: ProducerOptions,
    /// Where each partition's records go.
    lanes: Mutex<BTreeMap<(String, u32), mpsc::UnboundedSender<lane::Command>>>,
    /// One permit per byte that may be waiting or on its way.
    room: Arc<Semaphore>,
    /// Bytes sent without a key, by which partitions take turns.
    unkeyed_bytes: AtomicUsize,
}

impl Producer {
    pub(super) fn new(router: Arc<Router>, options: ProducerOptions) -> Result<Self> {
        if !(1..=IN_FLIGHT_MAX).contains(&options.in_flight) {
            return Err(Error::usage(format!("in_flight is 1 to {IN_FLIGHT_MAX}")));
        }
        if options.batch_bytes == 0 || options.batch_bytes > options.buffer_bytes as usize {
            return Err(Error::usage("batch_bytes is at least 1, and at most buffer_bytes"));
        }
        let room = Arc::new(Semaphore::new(options.buffer_bytes as usize));
        Ok(Self { router, options, lanes: Mutex::default(), room, unkeyed_bytes: AtomicUsize::new(0) })
    }

    /// Takes a record: for the partition named, else for its key's, else for one of them in turn. Waits for room; on
    /// return its place behind the partition's earlier records is fixed.
    pub async fn send(&self, topic: &str, partition: Option<u32>, mut record: Record) -> Result<Delivery> {
        let bytes = record.charged_bytes();
        let charge = u32::try_from(bytes).ok().filter(|charge| *charge <= self.options.buffer_bytes);
        let charge = charge.ok_or_else(|| Error::usage("the record is longer than buffer_bytes"))?;
        if record.timestamp_ms.is_some_and(|time| time < 0) {
            return Err(Error::usage("a record's time is not negative"));
        }
        record.timestamp_ms.get_or_insert_with(now_ms);
        let partition = match partition {
            Some(partition) => partition,
            None => self.choose(topic, &record, bytes).await?,
        };
        let room = Arc::clone(&self.room).acquire_many_owned(charge).await.expect("the semaphore is never closed");
        let (outcome, delivery) = oneshot::channel();
        let entry = Entry { record, bytes, outcome, room };
        let lane = self.lane(topic, partition);
        lane.send(lane::Command::Add(entry)).map_err(|_| Error::usage("the runtime is shutting down"))?;
        Ok(Delivery { outcome: delivery })
    }

    /// Sends what is waiting for more, and waits until everything sent so far has its outcome.
    pub async fn flush(&self) {
        for lane in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            drop(lane.send(lane::Command::Seal)); // a lane that has ended holds nothing
        }
        let all = self.room.acquire_many(self.options.buffer_bytes).await;
        drop(all.expect("the semaphore is never closed"));
    }

    async fn choose(&self, topic: &str, record: &Record, bytes: usize) -> Result<u32> {
        let count = self.router.partition_count(topic).await?;
        if count == 0 {
            return Err(Error::unknown_partition(topic, 0, 0));
        }
        Ok(match &record.key {
            Some(key) => partition_of_key(key, count),
            None => {
                // One partition for a whole batch (KIP-480), so that few records don't become as many batches.
                let sent = self.unkeyed_bytes.fetch_add(bytes, Ordering::Relaxed);
                (sent / self.options.batch_bytes) as u32 % count
            }
        })
    }

    fn lane(&self, topic: &str, partition: u32) -> mpsc::UnboundedSender<lane::Command> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (topic.to_owned(), partition);
        lanes
            .entry(key)
            .or_insert_with_key(|(topic, partition)| {
                Lane::spawn(Arc::clone(&self.router), self.options.clone(), topic.clone(), *partition)
            })
            .clone()
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
