//! Reads partitions: all along while a workload runs, and whole once it has ended.

use crate::client::{Client, Connection, PAUSE};
use crate::history::{Read, Value};
use ackord::record::RecordBatch;
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, FetchRequest, RequestKind, ResponseKind};
use std::io;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long a broker may wait for records, in milliseconds.
const WAIT_MS: i32 = 200;
/// How much one answer carries at most, in bytes.
const FETCH_BYTES: i32 = 1 << 20;
/// One in so many reads begins again somewhere before the end.
const AGAIN_ONE_IN: u32 = 20;

/// Reads a partition from one connection after another.
#[derive(Debug)]
pub struct Reader {
    /// The cluster and the topic.
    client: Client,
    /// Which partition.
    partition: i32,
    /// To the leader, as long as it is one.
    connection: Option<Connection>,
}

impl Reader {
    /// A reader of one partition.
    #[must_use]
    pub fn new(client: Client, partition: i32) -> Self {
        Self { client, partition, connection: None }
    }

    /// Records from `offset` on; perhaps none.
    async fn fetch(&mut self, offset: i64) -> io::Result<Vec<(i64, Value)>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.client.leader(self.partition).await?).await?,
        };
        let wanted = FetchPartition::default()
            .with_partition(self.partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(FETCH_BYTES);
        let topic = FetchTopic::default().with_topic(self.client.topic.clone()).with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let answer = connection.ask(ApiKey::Fetch, &RequestKind::Fetch(request)).await?;
        let ResponseKind::Fetch(mut answer) = answer else { return Err(io::Error::other("not an answer to Fetch")) };
        let topic = answer.responses.pop();
        let found = topic.and_then(|mut topic| topic.partitions.pop()).ok_or(io::ErrorKind::UnexpectedEof)?;
        if found.error_code != 0 {
            return Err(io::Error::other(format!("fetch from {offset}: error {}", found.error_code)));
        }
        self.connection = Some(connection);
        records(found.records.unwrap_or_default(), offset)
    }

    /// Reads on from offset `next` until it is told to stop, now and then some of it again.
    pub async fn follow(mut self, mut next: i64, mut stop: watch::Receiver<bool>) -> Vec<Read> {
        let mut reads: Vec<Read> = Vec::new();
        while !*stop.borrow_and_update() {
            let again = next > 0 && fastrand::u32(..AGAIN_ONE_IN) == 0;
            let from = if again { fastrand::i64(..next) } else { next };
            match self.fetch(from).await {
                Ok(records) if records.is_empty() => {}
                Ok(records) => {
                    next = next.max(records.last().map_or(0, |(offset, _)| offset + 1));
                    reads.push(Read { partition: self.partition, from, records, whole: None });
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
        reads
    }

    /// Reads the whole partition, up to where its leader says now that it ends.
    pub async fn read_whole(mut self, deadline: Instant) -> io::Result<Read> {
        let end = loop {
            match self.client.end_offset(self.partition).await {
                Ok(end) => break end,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(PAUSE).await,
            }
        };
        let mut records: Vec<(i64, Value)> = Vec::new();
        loop {
            let next = records.last().map_or(0, |(offset, _)| offset + 1);
            if next >= end {
                return Ok(Read { partition: self.partition, from: 0, records, whole: Some(end) });
            }
            match self.fetch(next).await {
                Ok(more) if !more.is_empty() => records.extend(more),
                // A leader that has nothing where another said there is something: a hole, for the checker to say so.
                Ok(_) if Instant::now() > deadline => {
                    return Ok(Read { partition: self.partition, from: 0, records, whole: Some(end) });
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Ok(_) | Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// The records of an answer, from `offset` on: its first batch may begin before.
fn records(mut bytes: Bytes, offset: i64) -> io::Result<Vec<(i64, Value)>> {
    let mut records = Vec::new();
    while bytes.len() >= 12 {
        let length = u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")) as usize + 12;
        if length > bytes.len() {
            break; // Cut off by the size limit.
        }
        let batch = RecordBatch::parse_verified(bytes.split_to(length)).map_err(io::Error::other)?;
        let base = batch.written_base_offset();
        let limit = FETCH_BYTES as usize;
        for record in batch.records(limit).map_err(io::Error::other)?.iter() {
            let record = record.map_err(io::Error::other)?;
            let value = record.value.and_then(|value| value.first_chunk()).map(|bytes| Value::from_be_bytes(*bytes));
            let value = value.ok_or_else(|| io::Error::other("a record that no workload wrote"))?;
            let at = base + i64::from(record.offset_delta);
            if at >= offset {
                records.push((at, value));
            }
        }
    }
    Ok(records)
}
