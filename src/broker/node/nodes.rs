//! The nodes of the cluster: listing them, and replacing lost ones.

use super::Inner;
use super::admin::rejected;
use crate::broker::nodes::{NodeList, NodeReport, ReplaceNode, ReplacementReport};
use crate::broker::{ErrorKind, Result};
use crate::controller::command::{Answer, Command};
use crate::storage::Engine;
use crate::types::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn list<E: Engine + Clone + 'static>(inner: &Inner<E>) -> NodeList {
    let metadata = inner.views.metadata();
    let (mut replicas, mut leaders) = (BTreeMap::<NodeId, u32>::new(), BTreeMap::<NodeId, u32>::new());
    for partition in metadata.topics().flat_map(|topic| &topic.partitions) {
        for replica in partition.wanted() {
            *replicas.entry(replica.node()).or_default() += 1;
        }
        if let Some(leader) = inner.leader(partition.group) {
            *leaders.entry(leader.node).or_default() += 1;
        }
    }
    let live = inner.live_nodes();
    let controllers = metadata.cluster().controllers.members.wanted();
    let node = |broker: &Arc<crate::controller::view::Broker>| NodeReport {
        id: broker.node,
        rack: broker.rack.clone(),
        alive: live.contains(&broker.node),
        controller_voter: controllers.iter().any(|replica| replica.node() == broker.node),
        replicas: replicas.get(&broker.node).copied().unwrap_or(0),
        leaders: leaders.get(&broker.node).copied().unwrap_or(0),
    };
    let replacement = |open: &crate::controller::view::NodeReplacement| {
        let left = u32::try_from(metadata.unfinished(open)).unwrap_or(u32::MAX);
        ReplacementReport { old: open.old, new: open.new, groups: open.groups, done: open.groups.saturating_sub(left) }
    };
    NodeList {
        nodes: metadata.brokers().map(node).collect(),
        replacements: metadata.cluster().replacements.iter().map(replacement).collect(),
    }
}

pub(super) async fn replace<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    asked: ReplaceNode,
    timeout: Duration,
) -> Result<u32> {
    let ReplaceNode { old, new, force } = asked;
    let disk = inner.views.metadata().broker(old).map(|broker| broker.incarnation);
    let command = Command::ReplaceNode { old, new, disk, live: inner.live_nodes(), force };
    match inner.controller.decide(&command, timeout).await? {
        Answer::Replacing(result) => result.map_err(rejected),
        _ => Err(ErrorKind::Internal.into()),
    }
}
