//! `ackord status`: the cluster, and every replica of it.
//!
//! Every node is asked about its own replicas, because only leaders know how far the others are, and only a node itself
//! knows why its replica is quarantined. What the nodes say is of slightly different moments.

use super::output::{self, line, table};
use super::{Connect, Failure};
use crate::client::{Client, ClusterStatus, Node, Replica, Role};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

/// Show the cluster: leaders, terms, how far every replica is.
///
/// LAG is how many entries of the leader's log a replica lacks. Exit code 1 if a group has no leader, or a replica is
/// quarantined or not to be reached.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Only this topic's partitions
    #[arg(long, short = 't', value_name = "TOPIC")]
    topic: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the cluster is.
    #[command(flatten)]
    connect: Connect,
}

/// A leader forgets once in an election timeout who answers, until the next heartbeat (Raft's check quorum), and an
/// election takes a moment: what is wrong is said only if it stays so.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// How often everybody is asked at most.
const ASKED_MAX: usize = 4;

/// What all nodes said.
struct Seen {
    /// The nodes.
    cluster: ClusterStatus,
    /// The groups, by number.
    groups: BTreeMap<u64, Group>,
    /// What is wrong.
    troubles: Vec<String>,
}

/// One Raft group, as its replicas see it.
#[derive(Default)]
struct Group {
    /// The topic and partition, or the controller.
    name: String,
    /// Every node's own view, by node.
    replicas: BTreeMap<u32, Replica>,
}

impl Group {
    /// The leader of the newest term.
    fn leader(&self) -> Option<(u32, &Replica)> {
        let leaders = self.replicas.iter().filter(|(_, replica)| replica.role() == Role::Leader);
        leaders.max_by_key(|(_, replica)| replica.term).map(|(node, replica)| (*node, replica))
    }
}

impl Status {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connect.client().await?;
        let mut seen = self.ask(&client).await?;
        for _ in 1..ASKED_MAX {
            if seen.troubles.is_empty() {
                break;
            }
            sleep(ASK_AGAIN).await;
            let mut again = self.ask(&client).await?;
            again.troubles.retain(|trouble| seen.troubles.contains(trouble));
            seen = again;
        }
        let Seen { cluster, groups, troubles } = seen;
        match self.json {
            true => output::json(&as_json(&cluster, &groups, &troubles))?,
            false => show(&cluster, &groups, &troubles)?,
        }
        if troubles.is_empty() { Ok(()) } else { Err(Failure::new("")) }
    }

    async fn ask(&self, client: &Client) -> Result<Seen, Failure> {
        let cluster = client.admin().cluster().await?;
        let (mut groups, mut silent) = (BTreeMap::<u64, Group>::new(), Vec::new());
        for node in &cluster.nodes {
            match client.admin().replicas(node).await {
                Ok(replicas) => replicas.into_iter().for_each(|replica| self.take(node.node, replica, &mut groups)),
                Err(error) => silent.push(format!("node {} does not answer: {error}", node.node)),
            }
        }
        let troubles = silent.into_iter().chain(groups.values().flat_map(troubles)).collect();
        Ok(Seen { cluster, groups, troubles })
    }

    fn take(&self, node: u32, replica: Replica, groups: &mut BTreeMap<u64, Group>) {
        if self.topic.as_ref().is_some_and(|topic| *topic != replica.topic) {
            return;
        }
        let group = groups.entry(replica.group).or_default();
        group.name = match replica.topic.as_str() {
            "" => "(controller)".to_owned(),
            topic => format!("{topic}/{}", replica.partition),
        };
        group.replicas.insert(node, replica);
    }
}

/// What is wrong with a group.
fn troubles(group: &Group) -> Vec<String> {
    let mut troubles = Vec::new();
    match group.leader() {
        None => troubles.push(format!("{} has no leader", group.name)),
        Some((_, leader)) => {
            for follower in leader.followers.iter().filter(|follower| !follower.reachable) {
                troubles.push(format!("{}: its replica on node {} is not to be reached", group.name, follower.node));
            }
        }
    }
    for (node, replica) in group.replicas.iter().filter(|(_, replica)| !replica.quarantine.is_empty()) {
        troubles.push(format!("{}: the replica on node {node} is quarantined: {}", group.name, replica.quarantine));
        if !replica.repair.is_empty() {
            troubles.push(format!("{}: node {node} is repairing it: {}", group.name, replica.repair));
        }
    }
    troubles
}

fn show(cluster: &ClusterStatus, groups: &BTreeMap<u64, Group>, troubles: &[String]) -> Result<(), Failure> {
    let controller = match cluster.controller {
        0 => "nobody".to_owned(),
        node => format!("node {node}"),
    };
    line(&format!("cluster {}, controller: {controller}", cluster.cluster_id))?;
    let address = |address: &Option<crate::proto::native::Address>| {
        address.as_ref().map_or_else(|| "?".to_owned(), |address| format!("{}:{}", address.host, address.port))
    };
    let row = |node: &Node| vec![node.node.to_string(), address(&node.kafka), address(&node.native), node.rack.clone()];
    table(&["node", "kafka", "native", "rack"], &cluster.nodes.iter().map(row).collect::<Vec<_>>())?;
    line("")?;
    let rows: Vec<_> = groups.values().flat_map(rows).collect();
    table(&["group", "node", "role", "term", "last", "commit", "applied", "matched", "lag", ""], &rows)?;
    if !troubles.is_empty() {
        line("")?;
    }
    troubles.iter().try_for_each(|trouble| line(&format!("! {trouble}")))
}

fn rows(group: &Group) -> Vec<Vec<String>> {
    let followers = group.leader().map(|(_, leader)| &leader.followers[..]).unwrap_or_default();
    let mut rows = Vec::new();
    for (node, replica) in &group.replicas {
        let progress = followers.iter().find(|follower| follower.node == *node);
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let note = match (replica.quarantine.is_empty(), progress) {
            (false, _) => "quarantined",
            (true, Some(progress)) if progress.needs_snapshot => "snapshot",
            _ => "",
        };
        let numbers = [replica.term, replica.last_index, replica.commit_index, replica.applied_index];
        let mut row = vec![group.name.clone(), node.to_string(), role(replica).to_owned()];
        row.extend(numbers.iter().map(u64::to_string));
        row.extend([number(progress.map(|seen| seen.matched_index)), number(progress.map(|seen| seen.lag))]);
        row.push(note.to_owned());
        rows.push(row);
    }
    for away in followers.iter().filter(|follower| !group.replicas.contains_key(&follower.node)) {
        let mut row = vec![group.name.clone(), away.node.to_string(), "away".to_owned()];
        row.extend(std::iter::repeat_n("?".to_owned(), 4));
        row.extend([away.matched_index.to_string(), away.lag.to_string(), "unreachable".to_owned()]);
        rows.push(row);
    }
    rows
}

fn role(replica: &Replica) -> &'static str {
    match replica.role() {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Unknown => "none",
    }
}

fn as_json(cluster: &ClusterStatus, groups: &BTreeMap<u64, Group>, troubles: &[String]) -> Value {
    let address = |address: &Option<crate::proto::native::Address>| {
        address.as_ref().map(|address| format!("{}:{}", address.host, address.port))
    };
    let node = |node: &Node| {
        let (kafka, native) = (address(&node.kafka), address(&node.native));
        json!({"node": node.node, "rack": node.rack, "kafka": kafka, "native": native})
    };
    let follower = |follower: &crate::client::Follower| {
        json!({"node": follower.node, "matched_index": follower.matched_index, "lag": follower.lag,
               "reachable": follower.reachable, "needs_snapshot": follower.needs_snapshot})
    };
    let replica = |(node, replica): (&u32, &Replica)| {
        json!({
            "node": node, "role": role(replica), "term": replica.term, "last_index": replica.last_index,
            "commit_index": replica.commit_index, "applied_index": replica.applied_index,
            "quarantine": Some(&replica.quarantine).filter(|reason| !reason.is_empty()),
            "repair": Some(&replica.repair).filter(|step| !step.is_empty()),
            "followers": replica.followers.iter().map(follower).collect::<Vec<_>>(),
        })
    };
    let group = |(number, group): (&u64, &Group)| {
        json!({
            "group": number, "name": group.name, "leader": group.leader().map(|(node, _)| node),
            "replicas": group.replicas.iter().map(replica).collect::<Vec<_>>(),
        })
    };
    json!({
        "cluster_id": cluster.cluster_id,
        "controller": Some(cluster.controller).filter(|node| *node != 0),
        "nodes": cluster.nodes.iter().map(node).collect::<Vec<_>>(),
        "groups": groups.iter().map(group).collect::<Vec<_>>(),
        "troubles": troubles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Follower;

    fn group(replicas: Vec<(u32, Replica)>) -> Group {
        Group { name: "orders/0".to_owned(), replicas: replicas.into_iter().collect() }
    }

    fn leader(term: u64, followers: Vec<Follower>) -> Replica {
        Replica { role: Role::Leader.into(), term, followers, ..Default::default() }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let away = Follower { node: 3, reachable: false, ..Default::default() };
        let (quarantine, repair) = ("segment 7 is damaged".to_owned(), "asking for entries 5 to 9".to_owned());
        let lame = Replica { quarantine, repair, ..Default::default() };
        let said = troubles(&group(vec![(1, leader(4, vec![away])), (2, lame)]));
        assert_eq!(said.len(), 3);
        assert!(said[0].contains("node 3 is not to be reached") && said[1].contains("segment 7"), "{said:?}");
        assert!(said[2].contains("node 2 is repairing it: asking for entries 5 to 9"), "{said:?}");
        assert_eq!(troubles(&group(vec![(1, Replica::default())])), ["orders/0 has no leader"]);
        assert!(troubles(&group(vec![(1, leader(4, vec![]))])).is_empty());
    }

    #[test]
    fn the_newest_terms_leader_counts() {
        let both = group(vec![(1, leader(4, vec![])), (2, leader(5, vec![]))]);
        assert_eq!(both.leader().map(|(node, _)| node), Some(2));
    }

    #[test]
    fn a_replica_on_a_node_that_is_away_is_shown() {
        let away = Follower { node: 3, lag: 12, ..Default::default() };
        let rows = rows(&group(vec![(1, leader(4, vec![away]))]));
        assert_eq!(rows.len(), 2);
        assert!(rows[1].contains(&"12".to_owned()) && rows[1].contains(&"away".to_owned()));
    }
}
