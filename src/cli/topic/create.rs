//! `ackord topic create`.

use super::setting;
use crate::cli::output::line;
use crate::cli::{Connect, Failure};
use crate::client::{self, NewTopic};
use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
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

impl Create {
    pub(super) async fn run(self) -> Result<(), Failure> {
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
pub(in crate::cli) fn exists(error: &client::Error) -> bool {
    error.code() == Some(crate::proto::native::ErrorCode::TopicExists)
}
