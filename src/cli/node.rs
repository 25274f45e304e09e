//! `ackord node`: lists the cluster's nodes, and replaces lost ones.

use super::output::{self, line, table};
use super::{Connect, Failure};
use crate::client::{Admin, NodeList, NodeReplacement, NodeStatus};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// How often a replacement is looked at while somebody waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// List the cluster's nodes, and replace lost ones
#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// List all nodes: who is alive, what they have, and which replacements are on their way
    List(List),
    /// Replace a node that is lost, or whose disk is
    ///
    /// Every replica of OLD gets a successor on NEW, one group after the other: it receives the group's state, and then
    /// takes the old one's place. Writes go on meanwhile. Format and start the new node first:
    /// `ackord format --config node.toml --cluster-id=ID --join`, then `ackord serve`.
    ///
    /// NEW may be OLD itself, with an empty disk: run this command first, then format that node with --join and start
    /// it. The old disk is refused from then on. With another NEW, OLD leaves the cluster when all its replicas have
    /// found their places. A partition most of whose replicas are lost waits until they are back or its topic is
    /// deleted.
    Replace(Replace),
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
pub(super) struct Replace {
    /// The lost node's number
    #[arg(value_name = "OLD")]
    old: u32,
    /// The number of the node that takes its replicas
    #[arg(long, value_name = "NEW")]
    by: u32,
    /// Even if the old node is alive
    #[arg(long)]
    force: bool,
    /// Wait until it is done, however long that takes
    #[arg(long)]
    wait: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

impl Node {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run().await,
            Self::Replace(replace) => replace.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let nodes = self.connect.client().await?.admin().nodes().await?;
        if self.json { output::json(&as_json(&nodes)) } else { show(&nodes) }
    }
}

fn show(list: &NodeList) -> Result<(), Failure> {
    let row = |node: &NodeStatus| {
        let alive = if node.alive { "alive" } else { "away" };
        let controller = if node.controller_voter { "voter" } else { "copy" };
        let numbers = [node.replicas, node.leaders].map(|number| number.to_string());
        let words = [node.node.to_string(), alive.to_owned(), node.rack.clone(), controller.to_owned()];
        words.into_iter().chain(numbers).collect::<Vec<_>>()
    };
    let rows: Vec<_> = list.nodes.iter().map(row).collect();
    table(&["node", "", "rack", "metadata", "replicas", "leaders"], &rows)?;
    list.replacements.iter().try_for_each(|open| line(&progress(open)))
}

fn progress(open: &NodeReplacement) -> String {
    let by = if open.old_node == open.new_node {
        "itself, with another disk".to_owned()
    } else {
        format!("node {}", open.new_node)
    };
    format!("node {} is being replaced by {by}: {} of {} groups are done", open.old_node, open.groups_done, open.groups)
}

fn as_json(list: &NodeList) -> Value {
    let node = |node: &NodeStatus| {
        json!({"node": node.node, "rack": node.rack, "alive": node.alive, "controller_voter": node.controller_voter,
               "replicas": node.replicas, "leaders": node.leaders})
    };
    let replacement = |open: &NodeReplacement| {
        let (groups, done) = (open.groups, open.groups_done);
        json!({"old": open.old_node, "new": open.new_node, "groups": groups, "groups_done": done})
    };
    json!({
        "nodes": list.nodes.iter().map(node).collect::<Vec<_>>(),
        "replacements": list.replacements.iter().map(replacement).collect::<Vec<_>>(),
    })
}

impl Replace {
    async fn run(self) -> Result<(), Failure> {
        let Self { old, by, force, wait, connect } = self;
        let admin = connect.client().await?.admin();
        let groups = admin.replace_node(old, by, force).await?;
        line(&format!("{groups} replicas of node {old} are to be replaced"))?;
        if old == by {
            line(&format!("now format node {old} on its new disk with --join, and start it"))?;
        }
        if wait { follow(&admin, old, by).await } else { line("`ackord node list` shows how far it is") }
    }
}

/// Shows how far a replacement is until it is complete.
async fn follow(admin: &Admin, old: u32, new: u32) -> Result<(), Failure> {
    let mut said = None;
    loop {
        let list = admin.nodes().await?;
        let ours = |open: &&NodeReplacement| (open.old_node, open.new_node) == (old, new);
        let Some(open) = list.replacements.iter().find(ours) else {
            // A node that lags behind may not know of it yet.
            if said.is_some() || list.nodes.iter().all(|node| node.node != old || old == new) {
                return line("done");
            }
            sleep(LOOK_EVERY).await;
            continue;
        };
        if said != Some(open.groups_done) {
            said = Some(open.groups_done);
            line(&progress(open))?;
        }
        sleep(LOOK_EVERY).await;
    }
}
