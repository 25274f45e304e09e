//! A topic that keeps little is written many times as much.
//!
//! The disk must follow what is kept, not what was written; writes must not stall; a reader that is too slow must be
//! told where the log starts, and find everything from there on; and every replica must know the same log start, also
//! after all of them were killed and started again.

use super::{NODES, Options, START_MAX, format};
use crate::process::{Cluster, Setup};
use crate::report::{Report, Round};
use ackord::client::{
    Client, ClientOptions, NewTopic, Producer, ProducerOptions, Reader, ReaderOptions, Record, Start,
};
use ackord::proto::native::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Partitions of the topic; each keeps its part.
const PARTITIONS: u32 = 4;
/// The topic.
const TOPIC: &str = "bounded";
/// A record's value, in bytes.
const VALUE_BYTES: usize = 16 << 10;
/// Records of a partition that wait for their acknowledgements.
const IN_FLIGHT: usize = 128;
/// How often the disks are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the slow reader reads.
const SLOW_EVERY: Duration = Duration::from_millis(250);
/// What it reads at once, in bytes.
const SLOW_BYTES: u32 = 256 << 10;
/// How many times what is kept a node's data directory may hold: what is kept, as much again that is deleted and not
/// worth a merge yet, a merge's copy of what is kept, and what is written while it merges.
const DISK_FACTOR_MAX: u64 = 4;
/// What it may hold beside that, in bytes: the log with what is kept for replicas that were away, spare segments, and
/// files of the database that are not worth a merge.
const DISK_BESIDE_MAX: u64 = 1536 << 20;
/// Replicas must agree on their log starts within this time.
const AGREE_MAX: Duration = Duration::from_secs(60);
/// How many lines the disk's use over time takes.
const LINES: usize = 20;

/// How much goes through the topic.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// What it keeps, in bytes.
    pub limit_bytes: u64,
    /// What is written, in bytes.
    pub total_bytes: u64,
}

/// Runs every round, each on a cluster of its own. `progress` is told of each.
pub async fn run(options: &Options, sizes: Sizes, mut progress: impl FnMut(&Round)) -> io::Result<Report> {
    let mut report = Report::default();
    for number in 1..=options.rounds {
        let folder = options.folder.join(format!("retention-{number}"));
        let (mut cluster, data_dirs) = format(&folder, Setup::new(options.binary.clone()))?;
        let mut round = Round::new("retention", number, cluster.nodes.iter().map(|node| node.id.0));
        one_round(sizes, &mut cluster, &data_dirs, &mut round).await?;
        round.failures.extend(cluster.ended());
        progress(&round);
        report.rounds.push(round);
    }
    Ok(report)
}

async fn one_round(sizes: Sizes, cluster: &mut Cluster, data_dirs: &[PathBuf], round: &mut Round) -> io::Result<()> {
    cluster.start_all()?;
    let client = connect(cluster).await?;
    create_topic(&client, sizes.limit_bytes / u64::from(PARTITIONS)).await?;
    let (stop, stopped) = watch::channel(false);
    let disks = tokio::spawn(watch_disks(data_dirs.to_vec(), stopped.clone()));
    let slow = tokio::spawn(read_slowly(client.clone(), stopped));
    let begun = Instant::now();
    let written = write(&client, sizes.total_bytes).await?;
    let took = begun.elapsed();
    let starts = agreed_starts(&client).await;
    stop.send_replace(true);
    let (disks, slow) = (disks.await.map_err(io::Error::other)?, slow.await.map_err(io::Error::other)?);
    report_writes(&written, took, round);
    report_disks(&disks, sizes.limit_bytes, round);
    report_slow(&slow, round);
    let Some(starts) = starts else {
        round.failures.push(format!("replicas did not agree on their log starts in {AGREE_MAX:?}"));
        return Ok(());
    };
    round.notes.push(format!("every replica's log starts at {:?}", starts.values().collect::<Vec<_>>()));
    if starts.values().any(|start| *start == 0) {
        round.failures.push("a log was never trimmed".to_owned());
    }
    for position in 0..NODES {
        cluster.kill(position)?;
    }
    cluster.start_all()?;
    let client = connect(cluster).await?;
    match agreed_starts(&client).await {
        Some(after) if after == starts => round.notes.push("and so after all of them were killed".to_owned()),
        after => round.failures.push(format!("after a restart the logs start at {after:?}, before at {starts:?}")),
    }
    check_whole(&client, &starts, round).await
}

async fn connect(cluster: &Cluster) -> io::Result<Client> {
    let deadline = Instant::now() + START_MAX;
    loop {
        match Client::connect(&cluster.native_addresses(), ClientOptions::default()).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => return Err(io::Error::other(error)),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

async fn create_topic(client: &Client, bytes_per_partition: u64) -> io::Result<()> {
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: Some(PARTITIONS),
        replication_factor: Some(NODES as u16),
        configs: vec![("retention.bytes".to_owned(), bytes_per_partition.to_string())],
    };
    let deadline = Instant::now() + START_MAX;
    loop {
        match client.admin().create_topic(&topic).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Some(ErrorCode::TopicExists) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(io::Error::other(error)),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// What a writer saw.
#[derive(Debug, Default)]
struct Written {
    /// Records acknowledged.
    records: usize,
    /// Records that were not.
    failures: Vec<String>,
    /// The longest time between two acknowledgements.
    stall: Duration,
}

/// Writes to every partition, as fast as it goes.
async fn write(client: &Client, total_bytes: u64) -> io::Result<Written> {
    let producer = Arc::new(client.producer(ProducerOptions::default()).map_err(io::Error::other)?);
    let records = total_bytes / u64::from(PARTITIONS) / VALUE_BYTES as u64;
    let mut writers = JoinSet::new();
    for partition in 0..PARTITIONS {
        writers.spawn(write_to(Arc::clone(&producer), partition, records));
    }
    let mut all = Written::default();
    while let Some(written) = writers.join_next().await {
        let written = written.map_err(io::Error::other)?;
        all.records += written.records;
        all.stall = all.stall.max(written.stall);
        all.failures.extend(written.failures);
    }
    Ok(all)
}

async fn write_to(producer: Arc<Producer>, partition: u32, records: u64) -> Written {
    let mut written = Written::default();
    let mut pending = std::collections::VecDeque::new();
    let mut last = Instant::now();
    for number in 0..records {
        let mut value = vec![number as u8; VALUE_BYTES];
        fastrand::Rng::with_seed(number).fill(&mut value);
        match producer.send(TOPIC, Some(partition), Record::new(None::<Vec<u8>>, value)).await {
            Ok(delivery) => pending.push_back(delivery),
            Err(error) => written.failures.push(error.to_string()),
        }
        while pending.len() >= IN_FLIGHT || (number + 1 == records && !pending.is_empty()) {
            let delivery = pending.pop_front().expect("just seen");
            match delivery.await {
                Ok(_) => written.records += 1,
                Err(error) => written.failures.push(error.to_string()),
            }
            written.stall = written.stall.max(last.elapsed());
            last = Instant::now();
        }
    }
    written
}

/// The bytes of each data directory at some moment.
type Usage = (Duration, Vec<u64>);

async fn watch_disks(data_dirs: Vec<PathBuf>, stopped: watch::Receiver<bool>) -> Vec<Usage> {
    let begun = Instant::now();
    let mut usage = Vec::new();
    while !*stopped.borrow() {
        let dirs = data_dirs.clone();
        let bytes = tokio::task::spawn_blocking(move || dirs.iter().map(|dir| allocated(dir)).collect());
        usage.push((begun.elapsed(), bytes.await.unwrap_or_default()));
        sleep(LOOK_EVERY).await;
    }
    usage
}

/// The bytes that a directory's files really take. What goes while it is looked at counts nothing.
fn allocated(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => allocated(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// What the slow reader saw.
#[derive(Debug, Default)]
struct Slow {
    /// Records read.
    records: u64,
    /// How often it was told that its offset is gone.
    told: usize,
    /// Records it has missed for that.
    missed: i64,
    /// What was wrong.
    failures: Vec<String>,
}

/// Reads a partition more slowly than it is written.
async fn read_slowly(client: Client, stopped: watch::Receiver<bool>) -> Slow {
    let mut slow = Slow::default();
    let mut next = 0;
    while !*stopped.borrow() {
        if let Err(problem) = read_some(&client, &mut next, &mut slow).await {
            slow.failures.push(problem);
        }
        sleep(SLOW_EVERY).await;
    }
    slow
}

async fn read_some(client: &Client, next: &mut i64, slow: &mut Slow) -> Result<(), String> {
    let options = ReaderOptions { bytes_max: SLOW_BYTES, wait: Duration::ZERO };
    let mut reader = client.reader(TOPIC, 0, Start::Offset(*next), options).await.map_err(|error| error.to_string())?;
    match reader.read().await {
        Ok(records) => {
            for record in records {
                if record.offset != *next {
                    let what = format!("record {} came where {next} was due", record.offset);
                    *next = record.offset + 1;
                    return Err(what);
                }
                *next += 1;
                slow.records += 1;
            }
            Ok(())
        }
        Err(error) if error.code() == Some(ErrorCode::OffsetOutOfRange) => {
            let start = error.log_start().ok_or("it was not told where the log starts")?;
            let now = client.admin().offsets(TOPIC, 0).await.map_err(|error| error.to_string())?.log_start_offset;
            if !(*next < start && start <= now) {
                return Err(format!("offset {next} is gone, it was told {start}, and the log starts at {now}"));
            }
            slow.told += 1;
            slow.missed += start - *next;
            *next = start;
            Ok(())
        }
        // A leader that changes is asked again.
        Err(error) if error.is_retriable() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Where every replica of each partition starts, once all agree and stay so for a moment.
async fn agreed_starts(client: &Client) -> Option<BTreeMap<u32, i64>> {
    let deadline = Instant::now() + AGREE_MAX;
    let mut before = None;
    while Instant::now() < deadline {
        let agreed = starts(client).await;
        if agreed.is_some() && agreed == before {
            return agreed;
        }
        before = agreed;
        sleep(LOOK_EVERY * 2).await;
    }
    None
}

async fn starts(client: &Client) -> Option<BTreeMap<u32, i64>> {
    let nodes = client.admin().cluster().await.ok()?.nodes;
    let mut starts: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    for node in &nodes {
        for replica in client.admin().replicas(node).await.ok()?.iter().filter(|replica| replica.topic == TOPIC) {
            starts.entry(replica.partition).or_default().push(replica.log_start_offset);
        }
    }
    let agreed = |starts: &Vec<i64>| starts.len() == NODES && BTreeSet::from_iter(starts).len() == 1;
    let all = starts.len() == PARTITIONS as usize && starts.values().all(agreed);
    all.then(|| starts.into_iter().map(|(partition, starts)| (partition, starts[0])).collect())
}

/// Everything from the log starts to the ends is there.
async fn check_whole(client: &Client, starts: &BTreeMap<u32, i64>, round: &mut Round) -> io::Result<()> {
    for (partition, start) in starts {
        let end = client.admin().offsets(TOPIC, *partition).await.map_err(io::Error::other)?.high_watermark;
        let reader = client.reader(TOPIC, *partition, Start::Offset(*start), ReaderOptions::default()).await;
        let mut reader: Reader = reader.map_err(io::Error::other)?;
        let mut next = *start;
        while next < end {
            let records = reader.read().await.map_err(io::Error::other)?;
            if records.is_empty() || records.iter().zip(next..).any(|(record, offset)| record.offset != offset) {
                round.failures.push(format!("partition {partition} has a hole at {next}, before its end {end}"));
                return Ok(());
            }
            next += records.len() as i64;
        }
    }
    round.notes.push("all records from there to the ends were read".to_owned());
    Ok(())
}

fn report_writes(written: &Written, took: Duration, round: &mut Round) {
    round.acknowledged = written.records;
    round.failed = written.failures.len();
    let rate = written.records as f64 * VALUE_BYTES as f64 / took.as_secs_f64() / f64::from(1 << 20);
    let stall = written.stall.as_millis();
    round.notes.push(format!("{rate:.0} MiB/s for {} s; the longest stall took {stall} ms", took.as_secs()));
    round.failures.extend(written.failures.first().map(|error| format!("a record was not written: {error}")));
}

fn report_disks(usage: &[Usage], limit_bytes: u64, round: &mut Round) {
    let mib = |bytes: &u64| bytes >> 20;
    for (at, bytes) in usage.iter().step_by(usage.len().div_ceil(LINES).max(1)) {
        let each: Vec<_> = bytes.iter().map(|bytes| mib(bytes).to_string()).collect();
        round.notes.push(format!("{:>5} s: {} MiB", at.as_secs(), each.join(" ")));
    }
    let max = usage.iter().flat_map(|(_, bytes)| bytes).max().copied().unwrap_or(0);
    let factor = max as f64 / limit_bytes as f64;
    round.notes.push(format!("{} MiB at most in a data directory, {factor:.1} times what is kept", mib(&max)));
    let allowed = DISK_FACTOR_MAX * limit_bytes + DISK_BESIDE_MAX;
    if max > allowed {
        round.failures.push(format!("that is more than the {} MiB allowed", mib(&allowed)));
    }
}

fn report_slow(slow: &Slow, round: &mut Round) {
    let Slow { records, told, missed, .. } = slow;
    let what = format!(
        "the slow reader read {records} records, was told {told} times where the log starts, and missed {missed}"
    );
    round.notes.push(what);
    if *told == 0 {
        round.failures.push("the slow reader was not slow enough: this round has shown nothing of it".to_owned());
    }
    round.failures.extend(slow.failures.iter().take(3).map(|failure| format!("the slow reader: {failure}")));
}
