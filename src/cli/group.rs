//! `ackord group`: consumer groups, how far behind they are, and moving their offsets.

use super::output::{json, line, table};
use super::{Connect, Failure, values};
use crate::client::{Admin, Client, DescribedGroup, GroupOffset, Reader, ReaderOptions, Start};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Look at consumer groups, move their offsets, delete them
#[derive(Debug, Subcommand)]
pub(super) enum Group {
    /// All groups and where they are
    List(List),
    /// A group's partitions, how far each was read, and who reads it
    Describe(Describe),
    /// Delete groups that have no members, with their offsets
    Delete(Delete),
    /// Move what a group without members has stored; only shows what it would do, unless told to --execute
    ResetOffsets(ResetOffsets),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only groups in this state: Empty, PreparingRebalance, CompletingRebalance, Stable
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct Describe {
    /// The group
    group: String,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The groups
    #[arg(required = true)]
    groups: Vec<String>,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct ResetOffsets {
    /// The group
    group: String,
    /// A topic, or a partition of it as TOPIC:N; may be repeated. The default is everything the group has stored
    #[arg(long, short = 't', value_name = "TOPIC[:N]")]
    topic: Vec<String>,
    /// Where to go: earliest, latest, offset:N, time:2026-01-31T12:00:00Z, time:MILLISECONDS, ago:1h. An offset outside
    /// of the log becomes the nearest one within
    #[arg(long, value_name = "PLACE", value_parser = values::start)]
    to: Start,
    /// Do it
    #[arg(long)]
    execute: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

impl Group {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run().await,
            Self::Describe(describe) => describe.run().await,
            Self::Delete(delete) => {
                let client = delete.connect.client().await?;
                for group in &delete.groups {
                    client.admin().delete_group(group).await?;
                    line(&format!("{group} is deleted"))?;
                }
                Ok(())
            }
            Self::ResetOffsets(reset) => reset.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let mut groups = client.admin().groups().await?;
        if let Some(state) = &self.state {
            groups.retain(|group| group.state.eq_ignore_ascii_case(state));
        }
        if self.json {
            let object = |group: &crate::client::ListedGroup| {
                let (state, kind) = (&group.state, &group.protocol_type);
                json!({"group": group.group, "state": state, "protocol_type": kind})
            };
            return json(&groups.iter().map(object).collect());
        }
        let row = |group: &crate::client::ListedGroup| {
            vec![group.group.clone(), group.state.clone(), group.protocol_type.clone()]
        };
        table(&["group", "state", "type"], &groups.iter().map(row).collect::<Vec<_>>())
    }
}

/// How far a group has come in a partition.
struct Progress {
    /// The topic.
    topic: String,
    /// The partition.
    partition: u32,
    /// What is stored, if anything is.
    stored: Option<i64>,
    /// The log's end, if its leader could be asked.
    end: Option<i64>,
    /// Who reads it.
    reader: Option<(String, String)>,
}

impl Progress {
    fn lag(&self) -> Option<i64> {
        Some((self.end? - self.stored?).max(0))
    }
}

impl Describe {
    async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let admin = client.admin();
        let described = admin.group(&self.group).await?;
        let stored = admin.committed_offsets(&self.group).await?;
        if described.state == "Dead" && stored.is_empty() {
            return Err(Failure::new(format!("no group {}; `ackord group list` shows all", self.group)));
        }
        let progress = progress(&admin, &described, &stored).await;
        if self.json {
            return json(&as_json(&self.group, &described, &progress));
        }
        let members = described.members.len();
        line(&format!(
            "group {}: {}, generation {}, members {members}",
            self.group, described.state, described.generation
        ))?;
        let longest = progress.iter().filter_map(Progress::lag).max().unwrap_or(0);
        let known = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let row = |progress: &Progress| {
            let (member, host) = progress.reader.clone().unwrap_or_else(|| ("-".to_owned(), "-".to_owned()));
            vec![
                progress.topic.clone(),
                progress.partition.to_string(),
                known(progress.stored),
                known(progress.end),
                known(progress.lag()),
                bar(progress.lag().unwrap_or(0), longest),
                member,
                host,
            ]
        };
        let rows: Vec<_> = progress.iter().map(row).collect();
        table(&["topic", "partition", "offset", "end", "lag", "", "member", "host"], &rows)
    }
}

/// A number beside others, to look at.
fn bar(number: i64, longest: i64) -> String {
    const WIDTH: i64 = 20;
    if number == 0 || longest == 0 {
        return String::new();
    }
    "█".repeat(usize::try_from((number.saturating_mul(WIDTH) / longest).clamp(1, WIDTH)).unwrap_or(0))
}

/// Every partition that is assigned or has an offset, by topic and number.
async fn progress(admin: &Admin, described: &DescribedGroup, stored: &[GroupOffset]) -> Vec<Progress> {
    let mut readers = BTreeMap::new();
    for member in &described.members {
        let id = member.member.as_ref().map(|member| member.id.clone()).unwrap_or_default();
        let share = crate::client::assigned_partitions(member.assignment.clone()).unwrap_or_default();
        for (topic, partition) in share.iter().flat_map(|(topic, all)| all.iter().map(move |one| (topic, *one))) {
            readers.insert((topic.clone(), partition), (id.clone(), member.client_host.clone()));
        }
    }
    let offsets: BTreeMap<_, _> =
        stored.iter().map(|stored| ((stored.topic.clone(), stored.partition), stored.offset)).collect();
    let partitions: BTreeSet<_> = readers.keys().chain(offsets.keys()).cloned().collect();
    let mut all = Vec::with_capacity(partitions.len());
    for key in partitions {
        let end = admin.offsets(&key.0, key.1).await.ok().map(|offsets| offsets.high_watermark);
        let (stored, reader) = (offsets.get(&key).copied(), readers.get(&key).cloned());
        all.push(Progress { topic: key.0, partition: key.1, stored, end, reader });
    }
    all
}

fn as_json(group: &str, described: &DescribedGroup, progress: &[Progress]) -> Value {
    let partition = |progress: &Progress| {
        json!({
            "topic": progress.topic,
            "partition": progress.partition,
            "offset": progress.stored,
            "end": progress.end,
            "lag": progress.lag(),
            "member": progress.reader.as_ref().map(|reader| &reader.0),
            "host": progress.reader.as_ref().map(|reader| &reader.1),
        })
    };
    let member = |member: &crate::client::DescribedMember| {
        let identity = member.member.clone().unwrap_or_default();
        json!({
            "member": identity.id,
            "instance": identity.instance,
            "client": member.client_name,
            "host": member.client_host,
        })
    };
    json!({
        "group": group,
        "state": described.state,
        "protocol": described.protocol,
        "generation": described.generation,
        "members": described.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": progress.iter().map(partition).collect::<Vec<_>>(),
    })
}

impl ResetOffsets {
    async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let admin = client.admin();
        let described = admin.group(&self.group).await?;
        if !matches!(described.state.as_str(), "Empty" | "Dead") {
            let members = described.members.len();
            return Err(Failure::new(format!(
                "group {} is {} and has {members} members: its offsets can be moved when they have left",
                self.group, described.state
            )));
        }
        let stored = admin.committed_offsets(&self.group).await?;
        let partitions = self.partitions(&admin, &stored).await?;
        if partitions.is_empty() {
            return Err(Failure::new(format!("group {} has stored nothing; name topics with --topic", self.group)));
        }
        let before: BTreeMap<_, _> =
            stored.iter().map(|stored| ((stored.topic.clone(), stored.partition), stored.offset)).collect();
        let mut moved = Vec::new();
        for (topic, partition) in partitions {
            let offset = place(&client, &topic, partition, self.to).await?;
            moved.push(GroupOffset { topic, partition, offset, term: -1, metadata: String::new() });
        }
        if self.execute {
            admin.set_committed_offsets(&self.group, moved.clone()).await?;
        }
        self.show(&before, &moved)
    }

    fn show(&self, before: &BTreeMap<(String, u32), i64>, moved: &[GroupOffset]) -> Result<(), Failure> {
        let was = |moved: &GroupOffset| before.get(&(moved.topic.clone(), moved.partition)).copied();
        if self.json {
            let object = |moved: &GroupOffset| {
                let (topic, partition, after) = (&moved.topic, moved.partition, moved.offset);
                json!({"topic": topic, "partition": partition, "before": was(moved), "after": after})
            };
            let partitions: Vec<_> = moved.iter().map(object).collect();
            return json(&json!({"group": self.group, "executed": self.execute, "partitions": partitions}));
        }
        let row = |moved: &GroupOffset| {
            let before = was(moved).map_or_else(|| "-".to_owned(), |offset| offset.to_string());
            vec![moved.topic.clone(), moved.partition.to_string(), before, moved.offset.to_string()]
        };
        table(&["topic", "partition", "before", "after"], &moved.iter().map(row).collect::<Vec<_>>())?;
        if self.execute { Ok(()) } else { line("Nothing was changed; --execute does it.") }
    }

    /// What is to be moved.
    async fn partitions(&self, admin: &Admin, stored: &[GroupOffset]) -> Result<Vec<(String, u32)>, Failure> {
        if self.topic.is_empty() {
            return Ok(stored.iter().map(|stored| (stored.topic.clone(), stored.partition)).collect());
        }
        let mut partitions = BTreeSet::new();
        for named in &self.topic {
            // Topics' names have no colon.
            let (topic, one) = named.split_once(':').map_or((named.as_str(), None), |(topic, one)| (topic, Some(one)));
            let count = admin.topic(topic).await?.partitions.len() as u32;
            match one.map(str::parse::<u32>) {
                None => partitions.extend((0..count).map(|partition| (topic.to_owned(), partition))),
                Some(Ok(partition)) if partition < count => {
                    partitions.insert((topic.to_owned(), partition));
                }
                Some(_) => {
                    return Err(Failure::new(format!("{named}: {topic} has {count} partitions, numbered from 0")));
                }
            }
        }
        Ok(partitions.into_iter().collect())
    }
}

/// The offset at a place, within the log.
async fn place(client: &Client, topic: &str, partition: u32, to: Start) -> Result<i64, Failure> {
    let bounds = client.admin().offsets(topic, partition).await?;
    let offset = match to {
        Start::Offset(offset) => offset,
        Start::Beginning => bounds.log_start_offset,
        Start::End => bounds.high_watermark,
        Start::Time(_) => {
            let reader: Reader = client.reader(topic, partition, to, ReaderOptions::default()).await?;
            reader.position()
        }
    };
    Ok(offset.clamp(bounds.log_start_offset, bounds.high_watermark))
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn the_longest_lag_has_the_longest_bar_and_any_lag_shows() {
        assert_eq!(bar(0, 1000), "");
        assert_eq!(bar(1, 1000).chars().count(), 1);
        assert_eq!(bar(500, 1000).chars().count(), 10);
        assert_eq!(bar(1000, 1000).chars().count(), 20);
    }
}
