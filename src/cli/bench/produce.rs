//! `ackord bench produce`.

use super::disk::{self, Measured, WriteCounter};
use super::report::{Latencies, Stall};
use crate::cli::output::{self, bytes, duration, line};
use crate::cli::topic::exists;
use crate::cli::{Connect, Failure, values};
use crate::client::{Client, Delivery, NewTopic, ProducerOptions, Record};
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Write records as fast as possible, or at a rate.
///
/// Every acknowledgement counted is of a record on the disks of a majority. The disk is measured before and after, in
/// --disk-dir, so that a throughput can be compared with what the same disk could do in the same minutes.
#[derive(Debug, Args)]
pub(in crate::cli) struct Produce {
    /// The topic; created if it does not exist, and kept
    #[arg(long, short = 't', default_value = "bench")]
    topic: String,
    /// Partitions of the topic if it is created
    #[arg(long, short = 'p', value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Size of a record's value
    #[arg(long, short = 's', value_name = "SIZE", default_value = "1KiB", value_parser = values::small_bytes)]
    record_size: u32,
    /// Records per second; as fast as possible without
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long to write
    #[arg(long, short = 'd', value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    duration: Duration,
    /// Stop after so many bytes, if the duration is not over before
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    total: Option<u64>,
    /// When a batch is full
    #[arg(long, value_name = "SIZE", default_value = "128KiB", value_parser = values::small_bytes)]
    batch_bytes: u32,
    /// How long a batch that is not full waits
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = values::duration)]
    linger: Duration,
    /// Wait for every record's commit before the next is sent
    #[arg(long)]
    one_at_a_time: bool,
    /// Batches of one partition in flight, 1 to 5
    #[arg(long, value_name = "N", default_value_t = 5)]
    in_flight: usize,
    /// Bytes that may wait for their acknowledgement, all partitions together
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = values::small_bytes)]
    buffer: u32,
    /// A directory on the disk of the nodes' data: there the disk is measured, and its device's counter of what is
    /// written is read; neither if it does not exist
    #[arg(long, value_name = "DIRECTORY", default_value = "ackord-dev")]
    disk_dir: PathBuf,
    /// Do not measure the disk; its device's counter is still read
    #[arg(long)]
    no_disk: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

/// What all records came to.
struct Outcome {
    /// From the first record to the last acknowledgement.
    took: Duration,
    /// From a record's intended time to its acknowledgement.
    latencies: Latencies,
    /// The longest time in which a partition acknowledged nothing, with something waiting.
    stall: Duration,
    /// Records that were not acknowledged, and what the first was told.
    failed: Option<(u64, String)>,
    /// What the disk's device wrote meanwhile, for whomever, in bytes, if that is known.
    device_written: Option<u64>,
}

/// A record on its way.
struct Sent {
    /// When it was to be sent.
    intended: Instant,
    /// What becomes of it.
    delivery: Delivery,
}

/// What one partition's watcher saw.
struct Watched {
    /// Latencies of what was acknowledged.
    latencies: Latencies,
    /// The longest time without an acknowledgement, with something waiting for one.
    stall: Stall,
    /// Failures, and the first one's message.
    failed: Option<(u64, String)>,
}

impl Produce {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let partitions = self.prepare_topic(&client).await?;
        let before = self.measure_disk()?;
        let outcome = self.write(&client, partitions).await?;
        let after = self.measure_disk()?;
        match self.json {
            true => self.print_json(partitions, &outcome, before.as_ref(), after.as_ref())?,
            false => self.print(partitions, &outcome, before.as_ref(), after.as_ref())?,
        }
        match outcome.failed {
            Some((count, first)) => Err(Failure::new(format!("{count} records failed; the first: {first}"))),
            None => Ok(()),
        }
    }

    async fn prepare_topic(&self, client: &Client) -> Result<u32, Failure> {
        let topic = NewTopic { name: self.topic.clone(), partitions: Some(self.partitions), ..NewTopic::default() };
        match client.admin().create_topic(&topic).await {
            Ok((partitions, _)) => Ok(partitions),
            Err(error) if exists(&error) => Ok(client.admin().topic(&self.topic).await?.partitions.len() as u32),
            Err(error) => Err(error.into()),
        }
    }

    fn measure_disk(&self) -> Result<Option<Measured>, Failure> {
        if self.no_disk || !self.disk_dir.is_dir() {
            return Ok(None);
        }
        let bar = output::progress(None, self.json, "{spinner} measuring the disk");
        let measured = tokio::task::block_in_place(|| disk::measure(&self.disk_dir));
        bar.finish_and_clear();
        measured.map(Some)
    }

    async fn write(&self, client: &Client, partitions: u32) -> Result<Outcome, Failure> {
        let counter = WriteCounter::of(&self.disk_dir);
        let written_before = counter.as_ref().and_then(WriteCounter::bytes);
        let bar = output::progress(None, self.json, "{spinner} {elapsed} {bytes} acknowledged, {bytes_per_sec}");
        let begun = Instant::now();
        let mut watching = JoinSet::new();
        let watchers: Vec<_> = (0..partitions)
            .map(|_| {
                let (sender, sent) = mpsc::unbounded_channel(); // bounded by the producer's memory
                watching.spawn(watch(sent, Stall::new(begun), bar.clone(), self.record_size.into()));
                sender
            })
            .collect();
        self.send_all(client, watchers, begun).await?;
        let mut outcome = Outcome {
            took: Duration::ZERO,
            latencies: Latencies::new(),
            stall: Duration::ZERO,
            failed: None,
            device_written: None,
        };
        while let Some(watched) = watching.join_next().await {
            let watched = watched.map_err(|error| Failure::new(error.to_string()))?;
            outcome.latencies.add(&watched.latencies)?;
            outcome.stall = outcome.stall.max(watched.stall.longest());
            if let Some((count, first)) = watched.failed {
                outcome.failed.get_or_insert((0, first)).0 += count;
            }
        }
        outcome.took = begun.elapsed();
        let written_after = counter.as_ref().and_then(WriteCounter::bytes);
        outcome.device_written =
            written_after.zip(written_before).and_then(|(after, before)| after.checked_sub(before));
        bar.finish_and_clear();
        Ok(outcome)
    }

    /// Sends records at their times, whole batches to one partition after the other. Returns when all have been sent.
    async fn send_all(
        &self,
        client: &Client,
        watchers: Vec<mpsc::UnboundedSender<Sent>>,
        begun: Instant,
    ) -> Result<(), Failure> {
        let options = ProducerOptions {
            linger: self.linger,
            batch_bytes: self.batch_bytes as usize,
            in_flight: self.in_flight,
            buffer_bytes: self.buffer,
            ..ProducerOptions::default()
        };
        let producer = client.producer(options)?;
        let value = noise(self.record_size as usize);
        let records = self.total.map_or(u64::MAX, |total| total.div_ceil(u64::from(self.record_size.max(1))));
        let per_batch = u64::from(self.batch_bytes / self.record_size.max(1)).max(1);
        for number in 0..records {
            let intended = match self.rate {
                Some(rate) => begun + Duration::from_secs_f64(number as f64 / f64::from(rate)),
                None => Instant::now(),
            };
            // What a stall has delayed is still sent, or the stall would hide it. A rate that is never reached ends.
            if intended - begun >= self.duration || begun.elapsed() >= 2 * self.duration {
                break;
            }
            if intended > Instant::now() {
                tokio::time::sleep_until(intended.into()).await;
            }
            // With a rate every partition has its share at any time; without, a batch is filled before the next.
            let turn = if self.rate.is_some() { number } else { number / per_batch };
            let partition = (turn % watchers.len() as u64) as u32;
            let record = Record::new(None::<Bytes>, value.clone());
            let delivery = producer.send(&self.topic, Some(partition), record).await?;
            drop(watchers[partition as usize].send(Sent { intended, delivery }));
            if self.one_at_a_time {
                producer.flush().await;
            }
        }
        producer.flush().await;
        Ok(())
    }

    fn print(
        &self,
        partitions: u32,
        outcome: &Outcome,
        before: Option<&Measured>,
        after: Option<&Measured>,
    ) -> Result<(), Failure> {
        let (records, user) = (outcome.latencies.count(), self.user_bytes(outcome));
        let seconds = outcome.took.as_secs_f64();
        let size = bytes(f64::from(self.record_size));
        line(&format!("{records} records of {size} to {partitions} partitions in {seconds:.1} s"))?;
        line(&format!("throughput: {}/s, {:.0} records/s", bytes(user / seconds), records as f64 / seconds))?;
        line(&format!("latency from the intended time to the commit: {}", outcome.latencies.text()))?;
        line(&format!("longest time that one partition acknowledged nothing: {}", duration(outcome.stall)))?;
        line(&written_text(outcome.device_written, user))?;
        before.map_or(Ok(()), |disk| disk.print("before"))?;
        after.map_or(Ok(()), |disk| disk.print("after"))
    }

    fn print_json(
        &self,
        partitions: u32,
        outcome: &Outcome,
        before: Option<&Measured>,
        after: Option<&Measured>,
    ) -> Result<(), Failure> {
        let (records, user) = (outcome.latencies.count(), self.user_bytes(outcome));
        let seconds = outcome.took.as_secs_f64();
        output::json(&json!({
            "records": records, "record_bytes": self.record_size, "partitions": partitions, "seconds": seconds,
            "rate": self.rate, "batch_bytes": self.batch_bytes, "in_flight": self.in_flight,
            "bytes_per_second": user / seconds, "records_per_second": records as f64 / seconds,
            "latency": outcome.latencies.json(), "longest_stall_us": outcome.stall.as_micros() as u64,
            "failed": outcome.failed.as_ref().map_or(0, |(count, _)| *count),
            "device_written_bytes": outcome.device_written,
            "device_written_per_user_byte": outcome.device_written.map(|written| written as f64 / user.max(1.0)),
            "disk_before": before.map(Measured::json), "disk_after": after.map(Measured::json),
        }))
    }

    fn user_bytes(&self, outcome: &Outcome) -> f64 {
        outcome.latencies.count() as f64 * f64::from(self.record_size)
    }
}

/// What the device wrote, beside what was sent.
fn written_text(device_written: Option<u64>, user: f64) -> String {
    let Some(written) = device_written else {
        return "written to the disk's device: unknown (--disk-dir is not on one block device)".to_owned();
    };
    let (factor, written) = (written as f64 / user.max(1.0), bytes(written as f64));
    format!("written to the disk's device, other writers included: {written}, {factor:.2} for every byte sent")
}

/// Bytes that no disk and no codec can make smaller.
fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Acknowledgements of one partition come in order, so each is seen when it comes.
async fn watch(mut sent: mpsc::UnboundedReceiver<Sent>, stall: Stall, bar: ProgressBar, record_bytes: u64) -> Watched {
    let mut watched = Watched { latencies: Latencies::new(), stall, failed: None };
    while let Some(Sent { intended, delivery }) = sent.recv().await {
        match delivery.await {
            Ok(_) => {
                let now = Instant::now();
                watched.latencies.record(now.saturating_duration_since(intended));
                watched.stall.progress(intended, now);
                bar.inc(record_bytes);
            }
            Err(error) => watched.failed.get_or_insert_with(|| (0, error.to_string())).0 += 1,
        }
    }
    watched
}
