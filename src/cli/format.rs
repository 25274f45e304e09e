//! `ackord format`: writes a data directory's identity.

use super::{Failure, output};
use crate::config::Config;
use crate::server::data;
use crate::server::identity::{self, FirstVoter, Identity};
use crate::types::{ClusterId, Incarnation, NodeId};
use clap::Args;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Make a data directory ready for a node.
///
/// A cluster of one node needs only --config. For more, `ackord format --new-cluster 1,2,3` draws the ids and prints
/// the command for every node; run each on its node. A node for a cluster that exists is formatted with --join, and so
/// is one whose disk was lost, after `ackord node replace`: it must not come back under its old incarnation, because
/// that disk's promises are lost with it. Formatting never overwrites anything.
#[derive(Debug, Args)]
pub(super) struct Format {
    /// The node's configuration file
    #[arg(long, value_name = "FILE", required_unless_present = "new_cluster")]
    config: Option<PathBuf>,
    /// The cluster's id. Drawn for a cluster of one node
    #[arg(long, value_name = "ID", requires = "members", allow_hyphen_values = true)]
    cluster_id: Option<ClusterId>,
    /// The cluster's first voters, each with its incarnation, the same on every node
    #[arg(long, value_name = "NODE:INCARNATION", value_delimiter = ',', value_parser = voter, requires = "cluster_id")]
    #[arg(group = "members")]
    voters: Vec<FirstVoter>,
    /// The node joins a cluster that exists; `ackord status` shows the cluster's id
    #[arg(long, requires = "cluster_id", group = "members")]
    join: bool,
    /// Only draw ids for a new cluster of these nodes, and print what to run on each
    #[arg(long, value_name = "NODE", value_delimiter = ',', conflicts_with_all = ["config", "cluster_id", "members"])]
    new_cluster: Vec<u32>,
}

fn voter(text: &str) -> Result<FirstVoter, String> {
    let wrong = || format!("{text:?} is not NODE:INCARNATION; `ackord format --new-cluster` prints them");
    let (node, incarnation) = text.split_once(':').ok_or_else(wrong)?;
    let node = NodeId(node.parse().map_err(|_| wrong())?);
    Ok(FirstVoter { node, incarnation: incarnation.parse().map_err(|_| wrong())? })
}

impl Format {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Some(file) = &self.config else { return print_plan(&self.new_cluster) };
        let config = read_config(file)?;
        let identity = match self.cluster_id {
            Some(cluster) => of_cluster(&config, cluster, self.voters)?,
            None => alone(&config)?,
        };
        data::format(&config, &identity).map_err(|error| Failure::new(error.to_string()))?;
        let place = config.data_dir.display();
        output::line(&format!("{place} is formatted: node {} of cluster {}", identity.node, identity.cluster))
    }
}

/// Reads a node's configuration file.
pub(super) fn read_config(file: &Path) -> Result<Config, Failure> {
    let text = fs::read_to_string(file).map_err(|error| Failure::io(file.display(), &error))?;
    Config::parse(&text).map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}

/// Draws the first voters of a new cluster.
pub(super) fn draw_voters(nodes: &[u32]) -> Result<(ClusterId, Vec<FirstVoter>), Failure> {
    let draw = || identity::random_id().map_err(|error| Failure::new(error.to_string()));
    let voter = |node: &u32| Ok(FirstVoter { node: NodeId(*node), incarnation: Incarnation(draw()?) });
    Ok((ClusterId(draw()?), nodes.iter().map(voter).collect::<Result<_, Failure>>()?))
}

fn print_plan(nodes: &[u32]) -> Result<(), Failure> {
    let distinct: BTreeSet<_> = nodes.iter().collect();
    if distinct.len() != nodes.len() || distinct.contains(&0) {
        return Err(Failure::new("--new-cluster takes distinct node numbers from 1, such as 1,2,3"));
    }
    let (cluster, voters) = draw_voters(nodes)?;
    let list: Vec<_> = voters.iter().map(|voter| format!("{}:{}", voter.node, voter.incarnation)).collect();
    let list = list.join(",");
    eprintln!("Run this on every node, with its own configuration file:");
    output::line(&format!("ackord format --config node.toml --cluster-id={cluster} --voters={list}"))
}

fn of_cluster(config: &Config, cluster: ClusterId, voters: Vec<FirstVoter>) -> Result<Identity, Failure> {
    if let Some(named) = config.cluster.id.filter(|named| named.0 != cluster) {
        return Err(Failure::new(format!("the configuration belongs to cluster {}, not to {cluster}", named.0)));
    }
    let node = config.node();
    let incarnation = match voters.iter().find(|voter| voter.node == node) {
        Some(voter) => voter.incarnation,
        // It joins later, so nobody has been told its incarnation.
        None => Incarnation(identity::random_id().map_err(|error| Failure::new(error.to_string()))?),
    };
    Ok(Identity { cluster, node, incarnation, voters })
}

fn alone(config: &Config) -> Result<Identity, Failure> {
    let others: Vec<_> = config.peers.iter().filter(|peer| peer.node != config.node()).collect();
    if !others.is_empty() {
        return Err(Failure::new(
            "the configuration names peers, so the cluster's id and first voters are needed: run `ackord format \
             --new-cluster 1,2,3` once, with the numbers of your nodes, and on every node what it prints",
        ));
    }
    let (drawn, voters) = draw_voters(&[config.node_id])?;
    let cluster = config.cluster.id.map_or(drawn, |named| named.0);
    Ok(Identity { cluster, node: config.node(), incarnation: voters[0].incarnation, voters })
}
