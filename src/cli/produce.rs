//! `ackord produce`: every line becomes a record.

use super::output::{self, line};
use super::{Connect, Failure, values};
use crate::client::{Commit, Delivery, ProducerOptions, Record, Result as ClientResult};
use bytes::Bytes;
use clap::Args;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// The longest line, in bytes: beyond every topic's limit, and no reason to fill the memory.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Lines that are read ahead.
const LINES_AHEAD: usize = 1024;
/// How much is read from a file at once.
const READ_BYTES: usize = 1 << 20;
/// Deliveries that may wait to be looked at.
const DELIVERIES_MAX: usize = 100_000;

/// Write lines to a topic.
///
/// Lines come from the standard input or a file; each becomes a record, its line break left out. The command ends when
/// every record is on the disks of a majority. If one fails it says so, and exits with 3 if a record's fate is unknown.
#[derive(Debug, Args)]
pub(super) struct Produce {
    /// The topic
    topic: String,
    /// Read lines from this file instead of the standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    file: Option<PathBuf>,
    /// What ends the key in a line; lines without it have no key
    #[arg(long, short = 'k', value_name = "TEXT")]
    key_separator: Option<String>,
    /// Write to this partition; otherwise keys decide, and lines without one take turns
    #[arg(long, short = 'p', value_name = "N")]
    partition: Option<u32>,
    /// How long a batch that is not full waits for more lines
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = values::duration)]
    linger: Duration,
    /// When a batch is full
    #[arg(long, value_name = "SIZE", default_value = "128KiB", value_parser = values::small_bytes)]
    batch_bytes: u32,
    /// Print every acknowledgement: partition, offset, term, log index
    #[arg(long)]
    acks: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

/// What came of all records.
#[derive(Default)]
struct Outcome {
    /// How many were acknowledged.
    acknowledged: u64,
    /// The first failure, and how many there were.
    failed: Option<(Failure, u64)>,
}

impl Produce {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let options = ProducerOptions {
            linger: self.linger,
            batch_bytes: self.batch_bytes as usize,
            delivery_timeout: self.connect.timeout.max(ProducerOptions::default().linger),
            ..ProducerOptions::default()
        };
        let producer = client.producer(options)?;
        let (deliveries, to_watch) = mpsc::channel(DELIVERIES_MAX);
        let watching = tokio::spawn(watch(to_watch, self.acks));
        let sent = self.send_all(&producer, deliveries).await;
        producer.flush().await;
        let outcome = watching.await.map_err(|error| Failure::new(error.to_string()))??;
        eprintln!("{} records acknowledged", outcome.acknowledged);
        if let Some((first, count)) = outcome.failed {
            return Err(Failure { message: format!("{count} records failed; the first: {}", first.message), ..first });
        }
        sent
    }

    async fn send_all(
        &self,
        producer: &crate::client::Producer,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Result<(), Failure> {
        let total = match &self.file {
            Some(file) => Some(fs::metadata(file).map_err(|error| Failure::io(file.display(), &error))?.len()),
            None => None,
        };
        let template = match total {
            Some(_) => "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{spinner} {bytes} sent, {bytes_per_sec}",
        };
        let bar = output::progress(total, self.acks, template);
        let mut lines = read_lines(self.file.as_deref())?;
        while let Some(text) = lines.recv().await {
            let text = text?;
            bar.inc(text.len() as u64 + 1);
            let delivery = producer.send(&self.topic, self.partition, self.record(text)).await?;
            if deliveries.send(delivery).await.is_err() {
                break; // watching has failed, and says why
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn record(&self, text: Bytes) -> Record {
        let Some(separator) = self.key_separator.as_ref().filter(|separator| !separator.is_empty()) else {
            return Record::new(None::<Bytes>, text);
        };
        let wanted = separator.as_bytes();
        match text.windows(wanted.len()).position(|window| window == wanted) {
            Some(at) => Record::new(Some(text.slice(..at)), text.slice(at + wanted.len()..)),
            None => Record::new(None::<Bytes>, text),
        }
    }
}

/// Lines of a file or of the standard input, read by a thread of their own: either may block.
fn read_lines(file: Option<&Path>) -> Result<mpsc::Receiver<Result<Bytes, Failure>>, Failure> {
    let mut input: Box<dyn BufRead + Send> = match file {
        Some(file) => {
            let opened = File::open(file).map_err(|error| Failure::io(file.display(), &error))?;
            Box::new(BufReader::with_capacity(READ_BYTES, opened))
        }
        None => Box::new(BufReader::with_capacity(READ_BYTES, io::stdin())),
    };
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        while let Some(line) = read_line(&mut *input).transpose() {
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    Ok(lines)
}

fn read_line(input: &mut (dyn BufRead + Send)) -> Result<Option<Bytes>, Failure> {
    let mut line = Vec::new();
    let read = (&mut *input).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
    if read.map_err(|error| Failure::io("reading lines", &error))? == 0 {
        return Ok(None);
    }
    if line.len() as u64 > LINE_BYTES_MAX {
        return Err(Failure::new(format!("a line is longer than {LINE_BYTES_MAX} bytes")));
    }
    if line.ends_with(b"\n") {
        line.pop();
    }
    Ok(Some(Bytes::from(line)))
}

async fn watch(mut deliveries: mpsc::Receiver<Delivery>, print: bool) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    while let Some(delivery) = deliveries.recv().await {
        let delivered: ClientResult<Commit> = delivery.await;
        match delivered {
            Ok(commit) => {
                outcome.acknowledged += 1;
                if print {
                    let Commit { partition, offset, term, log_index, .. } = commit;
                    line(&format!("partition {partition} offset {offset} term {term} index {log_index}"))?;
                }
            }
            Err(error) => {
                let indefinite = !error.is_definite();
                let (first, count) = outcome.failed.get_or_insert_with(|| (error.into(), 0));
                *count += 1;
                first.indefinite |= indefinite; // one whose fate is unknown decides how the command ends
            }
        }
    }
    Ok(outcome)
}
