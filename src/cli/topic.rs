//! `ackord topic`: creates, lists, describes, configures, grows, trims and deletes topics. One file per operation that
//! is more than a call.

mod configs;
mod create;
mod list;
mod trim;

pub(super) use create::exists;

use super::output::line;
use super::{Connect, Failure};
use clap::{Args, Subcommand};
use configs::{Alter, Configs};
use create::Create;
use list::{Describe, List};
use trim::Trim;

/// Create, list, describe, configure, grow, trim and delete topics
#[derive(Debug, Subcommand)]
pub(super) enum Topic {
    /// Create a topic
    Create(Create),
    /// List topics
    List(List),
    /// Show a topic's partitions: leaders, replicas, offsets
    Describe(Describe),
    /// Show all settings of a topic; those that were set are marked
    Configs(Configs),
    /// Change settings of a topic, all of them or none
    Alter(Alter),
    /// Add partitions; keys may belong to other partitions afterwards
    Grow(Grow),
    /// Delete the oldest records of a topic
    Trim(Trim),
    /// Delete a topic and its records
    Delete(Delete),
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
            Self::Configs(configs) => configs.run().await,
            Self::Alter(alter) => alter.run().await,
            Self::Trim(trim) => trim.run().await,
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
