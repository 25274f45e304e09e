//! `ackord topic`: creates, lists, describes, grows and deletes topics.

use super::output::{json, line, table};
use super::{Connect, Failure};
use crate::client::{self, NewTopic, Partition};
use crate::types::TopicId;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Create, list, describe, grow and delete topics
#[derive(Debug, Subcommand)]
pub(super) enum Topic {
    /// Create a topic
    Create(Create),
    /// List topics
    List(List),
    /// Show a topic's partitions: leaders, replicas, offsets
    Describe(Describe),
    /// Add partitions; keys may belong to other partitions afterwards
    Grow(Grow),
    /// Delete a topic and its records
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The topic's name
    name: String,
    /// How many partitions; the cluster's default without
    #[arg(long, short = 'p', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// How many replicas of each; the cluster's default without
    #[arg(long, short = 'r', alias = "replication-factor", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    replicas: Option<u16>,
    /// A setting that differs from its default, such as retention.ms=3600000; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    config: Vec<(String, String)>,
    /// Succeed if the topic exists already, whatever it looks like
    #[arg(long)]
    if_not_exists: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct Describe {
    /// The topic's name
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct Grow {
    /// The topic's name
    name: String,
    /// How many partitions there are to be then
    #[arg(long, short = 'p', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The topics' names
    #[arg(required = true)]
    names: Vec<String>,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Topic {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run().await,
            Self::List(list) => list.run().await,
            Self::Describe(describe) => describe.run().await,
            Self::Grow(grow) => {
                let client = grow.connect.client().await?;
                client.admin().grow_topic(&grow.name, grow.partitions).await?;
                line(&format!("{} has {} partitions now", grow.name, grow.partitions))
            }
            Self::Delete(delete) => {
                let client = delete.connect.client().await?;
                for name in &delete.names {
                    client.admin().delete_topic(name).await?;
                    line(&format!("{name} is deleted"))?;
                }
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let topic = NewTopic {
            name: self.name,
            partitions: self.partitions,
            replication_factor: self.replicas,
            configs: self.config,
        };
        match client.admin().create_topic(&topic).await {
            Ok((partitions, replicas)) => {
                line(&format!("{} is created: partitions {partitions}, replicas of each {replicas}", topic.name))
            }
            Err(error) if self.if_not_exists && exists(&error) => line(&format!("{} exists already", topic.name)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a topic could not be created because it is there.
pub(super) fn exists(error: &client::Error) -> bool {
    error.code() == Some(crate::proto::native::ErrorCode::TopicExists)
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let mut topics = client.admin().topics().await?;
        topics.sort_by(|left, right| left.name.cmp(&right.name));
        if self.json {
            let topics: Vec<_> = topics.iter().map(describe).collect();
            return json(&Value::from(topics));
        }
        let row = |topic: &client::Topic| {
            let leaderless = topic.partitions.iter().filter(|partition| partition.leader.is_none()).count();
            let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
            let numbers = [topic.partitions.len(), replicas, leaderless].map(|number| number.to_string());
            [vec![topic.name.clone()], numbers.to_vec()].concat()
        };
        let rows: Vec<_> = topics.iter().map(row).collect();
        table(&["topic", "partitions", "replicas", "without leader"], &rows)
    }
}

impl Describe {
    async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let topic = client.admin().topic(&self.name).await?;
        let mut described = describe(&topic);
        let mut rows = Vec::new();
        for (index, partition) in topic.partitions.iter().enumerate() {
            let offsets = match &partition.leader {
                Some(_) => client.admin().offsets(&topic.name, partition.partition).await.ok(),
                None => None,
            };
            if let Some(offsets) = &offsets {
                described["partitions"][index]["log_start_offset"] = offsets.log_start_offset.into();
                described["partitions"][index]["high_watermark"] = offsets.high_watermark.into();
            }
            let known = |number: Option<i64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
            rows.push(vec![
                partition.partition.to_string(),
                partition.leader.as_ref().map_or_else(|| "none".to_owned(), |leader| leader.node.to_string()),
                partition.leader.as_ref().map_or_else(|| "?".to_owned(), |leader| leader.term.to_string()),
                list(&partition.replicas),
                list(&partition.in_sync),
                known(offsets.as_ref().map(|offsets| offsets.log_start_offset)),
                known(offsets.as_ref().map(|offsets| offsets.high_watermark)),
            ]);
        }
        if self.json {
            return json(&described);
        }
        line(&format!("topic {} (id {})", topic.name, id(&topic)))?;
        for config in &topic.configs {
            line(&format!("  {} = {}", config.name, config.value))?;
        }
        table(&["partition", "leader", "term", "replicas", "in sync", "start", "end"], &rows)
    }
}

fn list(nodes: &[u32]) -> String {
    nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn id(topic: &client::Topic) -> String {
    crate::proto::read_id(&topic.id).map_or_else(|_| "?".to_owned(), |id| TopicId(id).to_string())
}

fn describe(topic: &client::Topic) -> Value {
    let partition = |partition: &Partition| {
        json!({
            "partition": partition.partition,
            "leader": partition.leader.as_ref().map(|leader| leader.node),
            "term": partition.leader.as_ref().map(|leader| leader.term),
            "replicas": partition.replicas,
            "in_sync": partition.in_sync,
        })
    };
    let configs = topic.configs.iter().map(|config| (config.name.clone(), Value::from(config.value.clone())));
    json!({
        "name": topic.name,
        "id": id(topic),
        "partitions": topic.partitions.iter().map(partition).collect::<Vec<_>>(),
        "configs": configs.collect::<serde_json::Map<_, _>>(),
    })
}
