//! `ackord bench consume`.

use super::report::{Latencies, Stall};
use crate::cli::output::{self, bytes, duration, line};
use crate::cli::{Connect, Failure, values};
use crate::client::{Client, Error, ReaderOptions, Start};
use clap::Args;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Read records as fast as possible.
///
/// All partitions are read at once, each from its place to the end it had at the beginning. Every batch is checked
/// against its CRC-32C and decoded.
#[derive(Debug, Args)]
pub(in crate::cli) struct Consume {
    /// The topic
    #[arg(long, short = 't', default_value = "bench")]
    topic: String,
    /// Where to begin; as in `ackord consume`
    #[arg(long, value_name = "PLACE", default_value = "beginning", value_parser = values::start)]
    from: Start,
    /// How long to read at most
    #[arg(long, short = 'd', value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    duration: Duration,
    /// Stop after so many bytes of keys and values
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    total: Option<u64>,
    /// How much one request asks for
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = values::small_bytes)]
    fetch_bytes: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

/// What one read returned.
struct Step {
    /// How many records.
    records: u64,
    /// Their keys and values, in bytes.
    bytes: u64,
    /// How long it took, in the client's eyes.
    took: Duration,
}

impl Consume {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let partitions = client.admin().topic(&self.topic).await?.partitions.len() as u32;
        let begun = Instant::now();
        let mut steps = self.begin(&client, partitions);
        let (mut records, mut read, mut latencies) = (0_u64, 0_u64, Latencies::new());
        let mut stall = Stall::new(begun);
        let bar = output::progress(None, self.json, "{spinner} {elapsed} {bytes} read, {bytes_per_sec}");
        while let Some(step) = steps.recv().await {
            let step = step?;
            records += step.records;
            read += step.bytes;
            bar.inc(step.bytes);
            latencies.record(step.took);
            stall.progress(Instant::now());
            if begun.elapsed() >= self.duration || self.total.is_some_and(|total| read >= total) {
                break;
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let (rate, per_second) = (read as f64 / seconds, records as f64 / seconds);
        if self.json {
            return output::json(&json!({
                "records": records, "bytes": read, "partitions": partitions, "seconds": seconds,
                "bytes_per_second": rate, "records_per_second": per_second, "fetch_latency": latencies.json(),
                "longest_stall_us": stall.longest().as_micros() as u64,
            }));
        }
        line(&format!("{records} records, {} of {partitions} partitions in {seconds:.1} s", bytes(read as f64)))?;
        line(&format!("throughput: {}/s, {per_second:.0} records/s", bytes(rate)))?;
        line(&format!("latency of a fetch: {}", latencies.text()))?;
        line(&format!("longest time without records: {}", duration(stall.longest())))
    }

    fn begin(&self, client: &Client, partitions: u32) -> mpsc::Receiver<Result<Step, Error>> {
        let (sender, steps) = mpsc::channel(64);
        let left = Arc::new(AtomicU64::new(self.total.unwrap_or(u64::MAX)));
        for partition in 0..partitions {
            let (client, topic, from, sender) = (client.clone(), self.topic.clone(), self.from, sender.clone());
            let options = ReaderOptions { bytes_max: self.fetch_bytes, ..ReaderOptions::default() };
            let left = Arc::clone(&left);
            tokio::spawn(async move {
                if let Err(error) = read(&client, &topic, partition, from, options, &left, &sender).await {
                    drop(sender.send(Err(error)).await); // nobody listens any more: the time is over
                }
            });
        }
        steps
    }
}

async fn read(
    client: &Client,
    topic: &str,
    partition: u32,
    from: Start,
    options: ReaderOptions,
    left: &AtomicU64,
    steps: &mpsc::Sender<Result<Step, Error>>,
) -> Result<(), Error> {
    let end = client.admin().offsets(topic, partition).await?.high_watermark;
    let mut reader = client.reader(topic, partition, from, options).await?;
    while reader.position() < end && left.load(Ordering::Relaxed) > 0 {
        let before = Instant::now();
        let records = reader.read().await?;
        let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
        let bytes = records.iter().map(|record| (length(&record.key) + length(&record.value)) as u64).sum();
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes))).ok();
        let step = Step { records: records.len() as u64, bytes, took: before.elapsed() };
        if steps.send(Ok(step)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
