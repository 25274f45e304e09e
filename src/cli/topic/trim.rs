//! `ackord topic trim`: deletes the oldest records of a topic, on every replica.

use crate::cli::output::line;
use crate::cli::{Connect, Failure, values};
use crate::client::{Client, ReaderOptions, Start};
use clap::Args;

#[derive(Debug, Args)]
#[group(id = "place", required = true, args = ["before_offset", "before_time", "to_high_watermark"])]
pub(in crate::cli) struct Trim {
    /// The topic's name
    name: String,
    /// Only this partition; all of them without
    #[arg(long, short = 'p', value_name = "PARTITION")]
    partition: Option<u32>,
    /// Delete the records below this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    before_offset: Option<i64>,
    /// Delete the records before the first one of this time or later: 2026-01-31T12:00:00Z, MILLISECONDS or ago:1h
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    before_time: Option<i64>,
    /// Delete every record that is committed now
    #[arg(long)]
    to_high_watermark: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

impl Trim {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let partitions: Vec<u32> = match self.partition {
            Some(partition) => vec![partition],
            None => {
                let topic = client.admin().topic(&self.name).await?;
                topic.partitions.iter().map(|partition| partition.partition).collect()
            }
        };
        if self.before_offset.is_some() && partitions.len() > 1 {
            return Err(Failure::new("an offset means another record in every partition; name one with --partition"));
        }
        for partition in partitions {
            let begin = client.admin().offsets(&self.name, partition).await?.log_start_offset;
            let place = self.place(&client, partition).await?;
            let now = match place {
                place if place <= begin => begin,
                place => client.admin().delete_records(&self.name, partition, place).await?,
            };
            let deleted = now.saturating_sub(begin);
            line(&format!("{}/{partition}: {deleted} records are deleted, it begins at offset {now}", self.name))?;
        }
        Ok(())
    }

    /// The first offset that is to be kept.
    async fn place(&self, client: &Client, partition: u32) -> Result<i64, Failure> {
        let start = match (self.before_offset, self.before_time) {
            (Some(offset), _) => return Ok(offset),
            (None, Some(time)) => Start::Time(time),
            (None, None) => Start::End,
        };
        Ok(client.reader(&self.name, partition, start, ReaderOptions::default()).await?.position())
    }
}
