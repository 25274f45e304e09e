//! `ackord consume`: a topic's records, from any place on.

use super::stop::Stop;
use super::{Connect, Failure, output, values};
use crate::client::{Client, Error, MemberOptions, Reader, ReaderOptions, Received, Start};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Chunks of records that partitions may have read ahead.
const AHEAD: usize = 8;

/// Read a topic's records.
///
/// All partitions are read at once: records of one partition come in order, those of different ones do not. Without
/// --follow, the command ends at the end that each partition had when it began.
///
/// With --group, the partitions are shared with the group's other members, whatever client these use; what was printed
/// is stored for the group, and the command goes on until it is stopped.
#[derive(Debug, Args)]
pub(super) struct Consume {
    /// The topic
    topic: String,
    /// Where to begin: beginning, end, offset:N, time:2026-01-31T12:00:00Z, time:MILLISECONDS, ago:1h. The default is
    /// the beginning, and with --follow the end
    #[arg(long, value_name = "PLACE", value_parser = values::start)]
    from: Option<Start>,
    /// Read only this partition
    #[arg(long, short = 'p', value_name = "N")]
    partition: Option<u32>,
    /// Read as a member of this consumer group; --from then counts where the group has stored nothing
    #[arg(long, short = 'g', value_name = "GROUP", conflicts_with_all = ["partition", "follow"])]
    group: Option<String>,
    /// Go on as records are written
    #[arg(long, short = 'F')]
    follow: bool,
    /// Stop after so many records
    #[arg(long, short = 'n', value_name = "N")]
    max: Option<u64>,
    /// What is printed of a record
    #[arg(long, short = 'o', value_enum, default_value_t = Format::Value)]
    format: Format,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The value and a line break
    Value,
    /// Key, tab, value and a line break
    Keyed,
    /// Partition, offset, term, time, key and value, separated by tabs
    Full,
    /// An object per line; what is not UTF-8 is in hexadecimal
    Json,
}

/// What a partition's reader has to tell.
type Chunk = Result<(u32, Vec<Received>), Error>;

impl Consume {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        if let Some(group) = &self.group {
            return self.run_in_group(&client, group).await;
        }
        let partitions = match self.partition {
            Some(partition) => vec![partition],
            None => (0..client.admin().topic(&self.topic).await?.partitions.len() as u32).collect(),
        };
        let start = self.from.unwrap_or(if self.follow { Start::End } else { Start::Beginning });
        let mut chunks = self.begin(&client, &partitions, start);
        let mut left = self.max.unwrap_or(u64::MAX);
        let mut text = Vec::new();
        while left > 0
            && let Some(chunk) = chunks.recv().await
        {
            let (partition, records) = chunk?;
            text.clear();
            for record in records.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                self.format.write(partition, record, &mut text);
                left -= 1;
            }
            output::print(&text)?;
        }
        Ok(())
    }

    /// Reads what the group assigns, until the command is stopped or has printed enough; then leaves.
    async fn run_in_group(&self, client: &Client, group: &str) -> Result<(), Failure> {
        let options = MemberOptions { start: self.from.unwrap_or(Start::End), ..MemberOptions::default() };
        let mut stop = Stop::new()?; // a word that comes while a chunk is printed counts, too
        let mut member = client.group_member(group, &[&self.topic], options);
        let (mut left, mut text) = (self.max.unwrap_or(u64::MAX), Vec::new());
        while left > 0 {
            let chunk = tokio::select! {
                chunk = member.next() => chunk?,
                () = stop.told() => break,
            };
            text.clear();
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.records.len());
            for record in &chunk.records[..take] {
                self.format.write(chunk.partition, record, &mut text);
            }
            output::print(&text)?;
            left -= take as u64;
            member.processed(&chunk, take);
        }
        member.close().await?;
        Ok(())
    }

    fn begin(&self, client: &Client, partitions: &[u32], start: Start) -> mpsc::Receiver<Chunk> {
        let (sender, chunks) = mpsc::channel(AHEAD);
        for partition in partitions.iter().copied() {
            let (client, topic, sender) = (client.clone(), self.topic.clone(), sender.clone());
            let follow = self.follow;
            tokio::spawn(async move {
                if let Err(error) = read(&client, &topic, partition, start, follow, &sender).await {
                    drop(sender.send(Err(error)).await); // nobody listens any more: enough was read
                }
            });
        }
        chunks
    }
}

async fn read(
    client: &Client,
    topic: &str,
    partition: u32,
    start: Start,
    follow: bool,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), Error> {
    let end = client.admin().offsets(topic, partition).await?.high_watermark;
    let mut reader: Reader = client.reader(topic, partition, start, ReaderOptions::default()).await?;
    while follow || reader.position() < end {
        let mut records = reader.read().await?;
        if !follow {
            records.retain(|record| record.offset < end);
        }
        if !records.is_empty() && chunks.send(Ok((partition, records))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl Format {
    fn write(self, partition: u32, record: &Received, out: &mut Vec<u8>) {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        match self {
            Self::Value => out.extend_from_slice(value.unwrap_or_default()),
            Self::Keyed => {
                out.extend_from_slice(key.unwrap_or_default());
                out.push(b'\t');
                out.extend_from_slice(value.unwrap_or_default());
            }
            Self::Full => {
                let Received { offset, term, timestamp_ms, .. } = record;
                out.extend_from_slice(format!("{partition}\t{offset}\t{term}\t{timestamp_ms}\t").as_bytes());
                return Self::Keyed.write(partition, record, out);
            }
            Self::Json => out.extend_from_slice(json(partition, record).to_string().as_bytes()),
        }
        out.push(b'\n');
    }
}

fn json(partition: u32, record: &Received) -> Value {
    let mut object = json!({
        "partition": partition,
        "offset": record.offset,
        "term": record.term,
        "timestamp_ms": record.timestamp_ms,
    });
    let mut put = |name: &str, bytes: Option<&[u8]>| match bytes.map(std::str::from_utf8) {
        Some(Ok(text)) => object[name] = text.into(),
        Some(Err(_)) => object[format!("{name}_hex")] = hex(bytes.unwrap_or_default()).into(),
        None => object[name] = Value::Null,
    };
    put("key", record.key.as_deref());
    put("value", record.value.as_deref());
    if !record.headers.is_empty() {
        let header = |(key, value): &(bytes::Bytes, Option<bytes::Bytes>)| {
            json!([String::from_utf8_lossy(key), value.as_deref().map(String::from_utf8_lossy)])
        };
        object["headers"] = record.headers.iter().map(header).collect();
    }
    object
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_shows_a_record() {
        let record = Received {
            offset: 7,
            term: 3,
            timestamp_ms: 99,
            key: Some("k".into()),
            value: Some(vec![0xff, 1].into()),
            headers: vec![("h".into(), None)],
        };
        let shown = |format: Format| {
            let mut out = Vec::new();
            format.write(2, &record, &mut out);
            out
        };
        assert_eq!(shown(Format::Value), [0xff, 1, b'\n']);
        assert_eq!(shown(Format::Keyed), [b'k', b'\t', 0xff, 1, b'\n']);
        assert_eq!(shown(Format::Full), [&b"2\t7\t3\t99\tk\t"[..], &[0xff, 1, b'\n']].concat());
        let json: Value = serde_json::from_slice(&shown(Format::Json)).unwrap();
        assert_eq!(
            json,
            json!({"partition": 2, "offset": 7, "term": 3, "timestamp_ms": 99, "key": "k", "value_hex": "ff01",
                   "headers": [["h", null]]})
        );
    }
}
