//! One partition's way to its leader: records in, batches out, in order.
//!
//! ```text
//! commands ─▶ open batch ─(full, or linger over)─▶ queue ─▶ window: in flight, oldest first ─▶ outcomes
//!                                                    ▲                     │
//!                                                    └── what must be sent again, in order
//! ```
//!
//! * The oldest batch in flight decides. When it fails, the lane sends nothing until the fate of everything behind it
//!   is told; then it fails what must fail and sends the rest again, oldest first.
//! * Idempotent batches keep their sequence numbers whenever they are sent again, so that a server that has them
//!   already says where. After a batch was given up, the numbers behind it would never be accepted: what was
//!   certainly not written is numbered anew under a new producer id, and the rest fails as indefinite, because a new
//!   number would write it twice (KIP-360).
//! * A batch that may have been written once stays so: no later refusal makes its error definite.

use super::{Commit, ProducerOptions, Record};
use crate::client::admin::reference;
use crate::client::connection::Reply;
use crate::client::error::{Error, Result};
use crate::client::routing::{Backoff, Repeat, Router};
use crate::proto::native::produce_request::Payload;
use crate::proto::native::{self, ErrorCode, request, response};
use crate::record::sequence_after;
use crate::record::writer::{BatchWriter, Header};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// The most records in a batch: what a server takes in one request, and far below what sequence numbers can count.
const RECORDS_MAX: usize = 100_000;

/// What a lane is told.
pub(super) enum Command {
    /// Takes a record.
    Add(Entry),
    /// Waits for no more records.
    Seal,
}

/// A record on its way.
pub(super) struct Entry {
    /// The record; it has a time.
    pub(super) record: Record,
    /// About how long it is, in bytes.
    pub(super) bytes: usize,
    /// Who waits for its outcome.
    pub(super) outcome: oneshot::Sender<Result<Commit>>,
    /// Its share of the producer's memory.
    pub(super) room: OwnedSemaphorePermit,
}

/// Records that are written together.
struct Batch {
    /// The records, at least one.
    entries: Vec<Entry>,
    /// About how long they are, in bytes.
    bytes: usize,
    /// When the first one came.
    begun: Instant,
    /// The sequence number of its first record, once it has one.
    sequence: Option<i32>,
    /// Whether an earlier try may have written it.
    maybe_written: bool,
}

impl Batch {
    /// The batch as Kafka's record batch.
    fn encode(&self, producer: Option<i64>) -> Bytes {
        let time = |entry: &Entry| entry.record.timestamp_ms.unwrap_or(0);
        let mut writer = BatchWriter::new(self.entries.first().map_or(0, time));
        if let (Some(id), Some(sequence)) = (producer, self.sequence) {
            writer = writer.producer(id, 0, sequence);
        }
        for entry in &self.entries {
            let Record { key, value, headers, .. } = &entry.record;
            let headers: Vec<Header<'_>> = headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
            writer = writer.record_with_headers(key.as_deref(), value.as_deref(), time(entry), &headers);
        }
        writer.finish().into_bytes()
    }

    fn count(&self) -> i32 {
        i32::try_from(self.entries.len()).expect("a batch has at most RECORDS_MAX records")
    }

    fn succeed(self, partition: u32, produced: &native::ProduceResponse) {
        for (offset, entry) in (produced.base_offset..).zip(self.entries) {
            drop(entry.room); // before its sender knows, who may want it for the next record
            let commit = Commit {
                partition,
                offset,
                term: produced.term,
                log_index: produced.log_index,
                duplicate: produced.duplicate,
            };
            drop(entry.outcome.send(Ok(commit))); // nobody may wait for it
        }
    }

    fn fail(self, error: &Error) {
        let error = if self.maybe_written { error.clone().after_indefinite() } else { error.clone() };
        for entry in self.entries {
            drop(entry.room);
            drop(entry.outcome.send(Err(error.clone())));
        }
    }
}

/// What a lane waits for.
enum Event {
    /// A command, or the end of them.
    Command(Option<Command>),
    /// The oldest batch's answer.
    Answer(Result<response::Body>),
    /// The open batch has waited long enough.
    LingerOver,
}

/// See the module.
pub(super) struct Lane {
    /// Whom to ask.
    router: Arc<Router>,
    /// How to batch and retry.
    options: ProducerOptions,
    /// The topic.
    topic: String,
    /// The partition.
    partition: u32,
    /// Records being gathered.
    open: Option<Batch>,
    /// Batches to be sent, oldest first.
    queue: VecDeque<Batch>,
    /// Batches in flight, oldest first.
    window: VecDeque<(Batch, Reply)>,
    /// The producer id, once there is one.
    producer: Option<i64>,
    /// The sequence number of the next record that gets one.
    next_sequence: i32,
    /// How long to wait before sending again.
    backoff: Backoff,
}

/// Waits until then. The runtime's timer wakes up to a millisecond late, so it is not asked for what is over.
async fn lingered(until: Option<Instant>) {
    match until {
        Some(until) if until <= Instant::now() => {}
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

impl Lane {
    pub(super) fn spawn(
        router: Arc<Router>,
        options: ProducerOptions,
        topic: String,
        partition: u32,
    ) -> mpsc::UnboundedSender<Command> {
        let (sender, commands) = mpsc::unbounded_channel(); // bounded by the producer's memory
        let lane = Self {
            router,
            options,
            topic,
            partition,
            open: None,
            queue: VecDeque::new(),
            window: VecDeque::new(),
            producer: None,
            next_sequence: 0,
            backoff: Backoff::new(),
        };
        tokio::spawn(lane.run(commands));
        sender
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut more = true;
        while more || self.open.is_some() || !self.queue.is_empty() || !self.window.is_empty() {
            while self.window.len() < self.options.in_flight && !self.queue.is_empty() {
                if let Err(error) = self.send_next().await {
                    self.recover(None, error).await;
                }
            }
            match self.next_event(&mut commands, more).await {
                Event::Command(Some(Command::Add(entry))) => self.add(entry),
                Event::Command(Some(Command::Seal)) => self.seal(),
                Event::Command(None) => {
                    more = false;
                    self.seal();
                }
                Event::LingerOver => self.seal(),
                Event::Answer(answer) => self.take_answer(answer).await,
            }
        }
    }

    async fn next_event(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>, more: bool) -> Event {
        let linger_over = self.open.as_ref().map(|open| open.begun + self.options.linger);
        let oldest = self.window.front_mut();
        tokio::select! {
            biased;
            answer = async { match oldest { Some((_, reply)) => reply.wait().await, None => pending().await } } => {
                Event::Answer(answer)
            }
            command = commands.recv(), if more => Event::Command(command),
            () = lingered(linger_over) => Event::LingerOver,
        }
    }

    fn add(&mut self, entry: Entry) {
        let full = |open: &Batch| open.bytes + entry.bytes > self.options.batch_bytes;
        if self.open.as_ref().is_some_and(full) {
            self.seal();
        }
        let begun = Instant::now();
        let empty = || Batch { entries: Vec::new(), bytes: 0, begun, sequence: None, maybe_written: false };
        let open = self.open.get_or_insert_with(empty);
        open.bytes += entry.bytes;
        open.entries.push(entry);
        if open.bytes >= self.options.batch_bytes || open.entries.len() >= RECORDS_MAX {
            self.seal();
        }
    }

    fn seal(&mut self) {
        self.queue.extend(self.open.take());
    }

    /// Sends the oldest batch of the queue. An error: it was not sent, and is where it was.
    async fn send_next(&mut self) -> Result<()> {
        let connection = self.router.leader(&self.topic, self.partition).await?;
        if self.options.idempotent && self.producer.is_none() {
            self.producer = Some(self.ask_producer_id().await?);
            self.next_sequence = 0;
        }
        let batch = self.queue.front_mut().expect("called with something to send");
        if self.producer.is_some() && batch.sequence.is_none() {
            batch.sequence = Some(self.next_sequence);
            self.next_sequence = sequence_after(self.next_sequence, batch.count());
        }
        let asked = native::ProduceRequest {
            partition: reference(&self.topic, self.partition),
            payload: Some(Payload::RecordBatch(batch.encode(self.producer))),
            idempotence: None,
        };
        let reply = connection.send(request::Body::Produce(asked), self.options.request_timeout)?;
        let batch = self.queue.pop_front().expect("it was looked at just now");
        self.window.push_back((batch, reply));
        Ok(())
    }

    async fn ask_producer_id(&self) -> Result<i64> {
        let body = request::Body::ProducerId(native::ProducerIdRequest {});
        match self.router.ask_any(body, Repeat::Harmless).await? {
            response::Body::ProducerId(answer) => Ok(answer.producer_id),
            _ => Err(Error::protocol("another answer than a producer id")),
        }
    }

    async fn take_answer(&mut self, answer: Result<response::Body>) {
        let (batch, _) = self.window.pop_front().expect("it was the oldest batch's answer");
        match read_answer(answer) {
            Ok(produced) => {
                self.backoff = Backoff::new();
                batch.succeed(self.partition, &produced);
            }
            Err(error) => self.recover(Some(batch), error).await,
        }
    }

    /// After the oldest batch failed, or could not be sent: waits for the fate of those behind it, fails what must
    /// fail, and puts the rest back in order.
    async fn recover(&mut self, oldest: Option<Batch>, error: Error) {
        let mut failed: VecDeque<(Batch, Error)> = oldest.map(|batch| (batch, error.clone())).into_iter().collect();
        while let Some((batch, mut reply)) = self.window.pop_front() {
            match read_answer(reply.wait().await) {
                Ok(produced) => batch.succeed(self.partition, &produced),
                Err(error) => failed.push_back((batch, error)),
            }
        }
        if failed.is_empty() {
            // Nothing was in flight: the oldest of the queue could not be sent.
            failed.extend(self.queue.pop_front().map(|batch| (batch, error.clone())));
        }
        let renumber = self.give_up(&mut failed);
        for (mut batch, error) in failed.into_iter().rev() {
            batch.maybe_written |= !error.is_definite();
            self.queue.push_front(batch);
        }
        if self.expire() || renumber {
            self.renumber();
        }
        self.router.learn(&self.topic, self.partition, &error);
        if !self.queue.is_empty() {
            self.backoff.wait(&error).await;
        }
    }

    /// Fails those that may not be sent again. Says whether the others need new numbers.
    fn give_up(&self, failed: &mut VecDeque<(Batch, Error)>) -> bool {
        let mut renumber = false;
        let mut index = 0;
        while index < failed.len() {
            let (batch, error) = &failed[index];
            let late = batch.begun.elapsed() >= self.options.delivery_timeout;
            // Behind one that was not written nobody's number fits; that is no reason to give up.
            let follows = error.code() == Some(ErrorCode::OutOfOrderSequence);
            let unknown_to_server = follows && index == 0 && !renumber;
            let again = if unknown_to_server {
                renumber |= !batch.maybe_written;
                !batch.maybe_written
            } else {
                follows || (error.is_retriable() && (error.is_definite() || self.options.idempotent))
            };
            if again && !late {
                index += 1;
                continue;
            }
            let (mut batch, error) = failed.remove(index).expect("the index is within");
            renumber |= batch.sequence.is_some();
            // A duplicate whose place is forgotten was written by an earlier try.
            let forgotten = error.code() == Some(ErrorCode::DuplicateSequence);
            batch.maybe_written |= forgotten || !error.is_definite();
            batch.fail(&error);
        }
        renumber
    }

    /// Fails what has waited too long to be sent at all. Says whether the others need new numbers.
    fn expire(&mut self) -> bool {
        let mut renumber = false;
        let late = |batch: &mut Batch| batch.begun.elapsed() >= self.options.delivery_timeout;
        while let Some(batch) = self.queue.pop_front_if(late) {
            renumber |= batch.sequence.is_some();
            batch.fail(&Error::expired());
        }
        renumber
    }

    /// Numbers what is queued under a new producer id; what may have been written under the old one fails.
    fn renumber(&mut self) {
        self.producer = None;
        for mut batch in std::mem::take(&mut self.queue) {
            if batch.maybe_written && batch.sequence.is_some() {
                batch.fail(&Error::lost("an earlier batch of this producer failed for good"));
            } else {
                batch.sequence = None;
                self.queue.push_back(batch);
            }
        }
    }
}

fn read_answer(answer: Result<response::Body>) -> Result<native::ProduceResponse> {
    match answer? {
        response::Body::Produce(produced) => Ok(produced),
        _ => Err(Error::protocol("another answer than to a produce")),
    }
}
