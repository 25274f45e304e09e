//! Producers that keep to the rules of the protocol and write down exactly what they know.
//!
//! Each writes to one partition, several batches in flight on one connection. What an answer means is the table of
//! Kafka's codes as Ackord promises them: 7 (REQUEST_TIMED_OUT) and 20 (NOT_ENOUGH_REPLICAS_AFTER_APPEND), and every
//! connection that ends, leave a batch in doubt; any other error says that this attempt wrote nothing. A batch has
//! certainly failed when every attempt has. An idempotent producer sends a batch again until it knows, with the same
//! sequence number; or, when it has certainly failed, gives the number to other records, which a broker that told the
//! truth can't notice. Any other producer gives up a failed batch and sends one in doubt again half of the time.

use crate::client::{Client, Connection, PATIENCE, PAUSE};
use crate::history::{Outcome, Send, Value, value};
use ackord::record::writer::BatchWriter;
use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, RequestKind, ResponseKind};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

/// Most batches in flight: as many as a broker remembers of an idempotent producer.
const FLIGHT_MAX: usize = 5;
/// How long a broker may take over a batch, in milliseconds.
const TIMEOUT_MS: i32 = 1_500;
/// How long a producer that is told to stop goes on to settle what is open.
const SETTLING_MAX: Duration = Duration::from_secs(15);
/// Error codes that say a sequence number is out of order or unknown: never to the first of a rule-abiding producer's.
const SEQUENCE_ERRORS: [i16; 4] = [45, 46, 47, 59];
/// Codes that leave a batch in doubt.
const DOUBTS: [i16; 2] = [7, 20];

/// How fast and how much a producer writes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time from one new batch to the next.
    pub interval: Duration,
    /// Most records of a batch.
    pub batch_records_max: u32,
    /// Bytes of a record's value, at least 8.
    pub value_bytes: usize,
}

/// What producers have settled so far.
#[derive(Debug, Default)]
pub struct Journal {
    /// Their batches.
    pub sends: Vec<Send>,
    /// Records acknowledged.
    pub acknowledged: usize,
    /// What no fault explains.
    pub complaints: Vec<String>,
}

/// A journal as its writers share it.
pub type SharedJournal = Arc<Mutex<Journal>>;

/// A batch that is not settled.
#[derive(Debug)]
struct Batch {
    /// Its records.
    values: Vec<Value>,
    /// Its first sequence number; only an idempotent producer's means something.
    sequence: i32,
    /// Its bytes.
    bytes: Bytes,
    /// How many attempts ended in doubt.
    doubts: u32,
    /// When it was last sent.
    sent: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Producer {
    /// The cluster and the topic.
    client: Client,
    /// Which partition.
    partition: i32,
    /// Its own number, different from every other producer's of the run.
    number: u32,
    /// How fast and how much.
    pace: Pace,
    /// Whether it asks for an identity.
    idempotent: bool,
    /// Its producer id and epoch.
    identity: Option<(i64, i16)>,
    /// How many values it has used.
    count: u32,
    /// The next batch's first sequence number.
    next_sequence: i32,
    /// To the leader, as long as it is one.
    connection: Option<Connection>,
    /// Sent on this connection and not answered, in order.
    flight: VecDeque<Batch>,
    /// To be sent again once nothing is in flight, in order.
    again: VecDeque<Batch>,
    /// Whether the broker has refused something: then nothing new goes to it, and its successor is looked for.
    refusing: bool,
    /// When the next new batch is due.
    due: tokio::time::Instant,
    /// Where the settled batches go.
    journal: SharedJournal,
}

impl Producer {
    /// A producer that has not begun.
    #[must_use]
    pub fn new(client: Client, to: (i32, u32), idempotent: bool, pace: Pace, journal: SharedJournal) -> Self {
        Self {
            client,
            partition: to.0,
            number: to.1,
            pace,
            idempotent,
            identity: None,
            count: 0,
            next_sequence: 0,
            connection: None,
            flight: VecDeque::new(),
            again: VecDeque::new(),
            refusing: false,
            due: tokio::time::Instant::now(),
            journal,
        }
    }

    /// Writes until it is told to stop; then settles what is open, as far as it can.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut give_up: Option<Instant> = None;
        loop {
            if give_up.is_none() && *stop.borrow_and_update() {
                give_up = Some(Instant::now() + SETTLING_MAX);
            }
            let open = !self.flight.is_empty() || !self.again.is_empty();
            match give_up {
                Some(_) if !open => return,
                Some(at) if Instant::now() > at => return self.abandon(),
                _ => {}
            }
            if self.step(give_up.is_none()).await.is_err() {
                self.disconnect();
                sleep(PAUSE).await;
            }
        }
    }

    /// Sends what may be sent, and takes one answer. An error leaves what is in flight in doubt.
    async fn step(&mut self, may_begin: bool) -> io::Result<()> {
        if self.idempotent && self.identity.is_none() {
            self.identity = Some(self.client.new_producer().await?);
            self.next_sequence = 0;
        }
        if self.connection.is_none() {
            self.connection = Some(Connection::open(self.client.leader(self.partition).await?).await?);
        }
        if self.flight.is_empty() {
            while let Some(batch) = self.again.pop_front() {
                self.send(batch).await?;
            }
        }
        let may_begin = may_begin && !self.refusing && self.again.is_empty();
        let room = may_begin && self.flight.len() < FLIGHT_MAX;
        if room && self.due <= tokio::time::Instant::now() {
            let batch = self.new_batch();
            self.due = tokio::time::Instant::now() + self.pace.interval;
            self.send(batch).await?;
        }
        let room = may_begin && self.flight.len() < FLIGHT_MAX;
        let Some(oldest) = self.flight.front() else {
            // Nothing in flight: a stop must not wait for long.
            sleep_until(self.due.min(tokio::time::Instant::now() + PAUSE)).await;
            return Ok(());
        };
        let overdue = tokio::time::Instant::from_std(oldest.sent + PATIENCE);
        let connection = self.connection.as_mut().expect("opened above");
        tokio::select! {
            biased;
            answer = connection.answer(ApiKey::Produce) => self.take(answer?),
            () = sleep_until(self.due), if room => Ok(()),
            () = sleep_until(overdue) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn new_batch(&mut self) -> Batch {
        let records = fastrand::u32(1..=self.pace.batch_records_max);
        let values = self.new_values(records as usize);
        let sequence = self.next_sequence;
        self.next_sequence += i32::try_from(records).expect("few");
        let bytes = self.encode(&values, sequence);
        Batch { values, sequence, bytes, doubts: 0, sent: Instant::now() }
    }

    fn new_values(&mut self, records: usize) -> Vec<Value> {
        let first = self.count;
        self.count += u32::try_from(records).expect("few");
        (first..self.count).map(|count| value(self.number, count)).collect()
    }

    fn encode(&self, values: &[Value], sequence: i32) -> Bytes {
        let mut writer = BatchWriter::new(0);
        if let Some((id, epoch)) = self.identity {
            writer = writer.producer(id, epoch, sequence);
        }
        let mut content = vec![b'.'; self.pace.value_bytes];
        for value in values {
            content[..8].copy_from_slice(&value.to_be_bytes());
            writer = writer.record(None, Some(&content), 0);
        }
        writer.finish().into_bytes()
    }

    async fn send(&mut self, mut batch: Batch) -> io::Result<()> {
        let data = PartitionProduceData::default().with_index(self.partition).with_records(Some(batch.bytes.clone()));
        let topic = TopicProduceData::default().with_name(self.client.topic.clone()).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(TIMEOUT_MS).with_topic_data(vec![topic]);
        batch.sent = Instant::now();
        // In flight even if the send fails: a part of it may have left.
        self.flight.push_back(batch);
        let connection = self.connection.as_mut().expect("batches are sent on a connection");
        connection.send(ApiKey::Produce, &RequestKind::Produce(request)).await
    }

    /// Takes the answer to the oldest batch in flight.
    fn take(&mut self, answer: ResponseKind) -> io::Result<()> {
        let ResponseKind::Produce(answer) = answer else { return Err(io::Error::other("not an answer to Produce")) };
        let answer = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        let (code, base_offset) =
            answer.map(|answer| (answer.error_code, answer.base_offset)).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut batch = self.flight.pop_front().expect("an answer is awaited only for a batch in flight");
        if code == 0 && base_offset >= 0 {
            self.settle(batch, Outcome::Ok { base_offset });
            return self.end_if_refusing();
        }
        self.refusing = true;
        if code == 0 || DOUBTS.contains(&code) {
            batch.doubts += 1;
            self.doubtful(batch);
        } else if SEQUENCE_ERRORS.contains(&code) && self.again.is_empty() {
            self.complain(&batch, code);
            self.again.push_back(batch);
            self.disconnect();
            self.abandon_all();
        } else {
            self.refused(batch);
        }
        self.end_if_refusing()
    }

    /// A leader that refuses is perhaps none any more: another is looked for once what is in flight is answered.
    fn end_if_refusing(&self) -> io::Result<()> {
        if self.refusing && self.flight.is_empty() { Err(io::ErrorKind::NotConnected.into()) } else { Ok(()) }
    }

    fn complain(&mut self, batch: &Batch, code: i16) {
        let complaint = format!(
            "producer {} of partition {}: error {code} for sequence {} (first value {:#x}, {} doubts), with all before \
             it acknowledged",
            self.number, self.partition, batch.sequence, batch.values[0], batch.doubts
        );
        self.journal.lock().expect("no writer panics").complaints.push(complaint);
    }

    /// A batch whose attempt may have been written.
    fn doubtful(&mut self, batch: Batch) {
        if self.idempotent || fastrand::bool() {
            self.again.push_back(batch);
        } else {
            self.settle(batch, Outcome::Info);
        }
    }

    /// A batch whose attempt certainly was not written.
    fn refused(&mut self, batch: Batch) {
        let certain = batch.doubts == 0;
        if !self.idempotent {
            self.settle(batch, if certain { Outcome::Fail } else { Outcome::Info });
        } else if certain && fastrand::bool() {
            let values = self.new_values(batch.values.len());
            let bytes = self.encode(&values, batch.sequence);
            let heir = Batch { values, sequence: batch.sequence, bytes, doubts: 0, sent: batch.sent };
            self.settle(batch, Outcome::Fail);
            self.again.push_back(heir);
        } else {
            self.again.push_back(batch);
        }
    }

    /// Gives the connection up: what is in flight on it is in doubt.
    fn disconnect(&mut self) {
        self.connection = None;
        self.refusing = false;
        for mut batch in std::mem::take(&mut self.flight) {
            batch.doubts += 1;
            self.doubtful(batch);
        }
        if self.idempotent {
            self.again.make_contiguous().sort_by_key(|batch| batch.sequence);
        }
    }

    /// Ends with batches open.
    fn abandon(mut self) {
        self.disconnect();
        self.abandon_all();
    }

    /// Gives up every batch, and the identity whose sequence they were part of.
    fn abandon_all(&mut self) {
        for batch in std::mem::take(&mut self.again) {
            let outcome = if batch.doubts == 0 { Outcome::Fail } else { Outcome::Info };
            self.settle(batch, outcome);
        }
        self.identity = None;
    }

    fn settle(&mut self, batch: Batch, outcome: Outcome) {
        let mut journal = self.journal.lock().expect("no writer panics");
        if matches!(outcome, Outcome::Ok { .. }) {
            journal.acknowledged += batch.values.len();
        }
        journal.sends.push(Send {
            partition: self.partition,
            values: batch.values,
            sequence: self.idempotent.then_some(batch.sequence),
            doubts: batch.doubts,
            sent: batch.sent,
            completed: Instant::now(),
            outcome,
        });
    }
}
