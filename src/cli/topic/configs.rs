//! `ackord topic configs` and `alter`: what is set on a topic, what holds without, and what comes of it.

use super::setting;
use crate::cli::output::{json, line, table};
use crate::cli::{Connect, Failure};
use crate::client::{Client, ConfigChanges, ConfigEffect, TopicConfig};
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(in crate::cli) struct Configs {
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
#[group(id = "changes", required = true, multiple = true, args = ["set", "delete"])]
pub(in crate::cli) struct Alter {
    /// The topic's name
    name: String,
    /// A setting and its new value, such as retention.ms=3600000; may be repeated
    #[arg(long, short = 's', value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// A setting that gets its default back; may be repeated
    #[arg(long, short = 'd', value_name = "NAME")]
    delete: Vec<String>,
    /// Only say whether it could be done
    #[arg(long)]
    dry_run: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

fn effect(config: &TopicConfig) -> &'static str {
    match config.effect() {
        ConfigEffect::Unknown => "?",
        ConfigEffect::Honoured => "honoured",
        ConfigEffect::Accepted => "none",
        ConfigEffect::Fixed => "fixed",
    }
}

impl Configs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let configs = client.admin().topic_configs(&self.name).await?;
        if self.json {
            return json(&Value::from(configs.iter().map(describe).collect::<Vec<_>>()));
        }
        let row = |config: &TopicConfig| {
            let (mark, default) = if config.is_set { ("*", &*config.default_value) } else { ("", "") };
            [mark, &config.name, &config.value, default, effect(config)].map(str::to_owned).to_vec()
        };
        table(&["set", "setting", "value", "default", "effect"], &configs.iter().map(row).collect::<Vec<_>>())
    }
}

fn describe(config: &TopicConfig) -> Value {
    json!({
        "name": config.name,
        "value": config.value,
        "set": config.is_set,
        "default": config.default_value,
        "effect": effect(config),
        "documentation": config.documentation,
    })
}

impl Alter {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let changes = ConfigChanges { set: self.set, delete: self.delete };
        client.admin().alter_topic(&self.name, &changes, self.dry_run).await?;
        let done = if self.dry_run { "would be" } else { "is" };
        for (name, value) in &changes.set {
            line(&format!("{}: {name} {done} set to {value}", self.name))?;
        }
        for name in &changes.delete {
            line(&format!("{}: {name} {done} back to its default", self.name))?;
        }
        warn_of_no_effect(&client, &self.name, &changes).await;
        Ok(())
    }
}

/// Whoever sets what changes nothing should hear of it. The change is made whether this can be said or not.
async fn warn_of_no_effect(client: &Client, topic: &str, changes: &ConfigChanges) {
    let Ok(configs) = client.admin().topic_configs(topic).await else { return };
    for config in configs.iter().filter(|config| config.effect() == ConfigEffect::Accepted) {
        if changes.set.iter().any(|(name, _)| *name == config.name) {
            eprintln!("ackord: {}: {}", config.name, config.documentation);
        }
    }
}
