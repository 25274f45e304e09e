//! `ackord topic list` and `describe`: where partitions are, who leads them, and how far they reach.

use crate::cli::output::{json, line, table};
use crate::cli::{Connect, Failure};
use crate::client::{self, Partition};
use crate::types::TopicId;
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Describe {
    /// The topic's name
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

impl List {
    pub(super) async fn run(self) -> Result<(), Failure> {
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
    pub(super) async fn run(self) -> Result<(), Failure> {
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
