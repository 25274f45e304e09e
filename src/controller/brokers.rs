//! Commands about nodes, and what nodes ask for themselves.

use super::command::{ProducerIds, Reason, Registration, Rejection, reject};
use super::rows::Editor;
use super::view::{Broker, Cluster, Topic};
use crate::types::{Incarnation, LogIndex, NodeId};
use std::collections::BTreeSet;

/// Most nodes of a cluster.
pub const BROKERS_MAX: usize = 256;
/// Longest host name and rack, in bytes (DNS names are at most 253).
pub const HOST_BYTES_MAX: usize = 255;
/// How many producer ids a node is given at once, as in Kafka (KIP-730).
pub const PRODUCER_IDS_PER_BLOCK: i32 = 1000;

type Done = Result<(), Rejection>;

pub(super) fn register(editor: &mut Editor<'_>, registration: Registration, at: LogIndex) -> Done {
    let Registration { node, incarnation, rack, listeners, feature_level_max } = registration;
    if node.0 == 0 || node.0 > i32::MAX.cast_unsigned() {
        return reject(Reason::InvalidRequest, format!("node {node}: a node's number is 1 to {}", i32::MAX));
    }
    let kinds: BTreeSet<_> = listeners.iter().map(|listener| listener.kind).collect();
    if kinds.len() < listeners.len() {
        return reject(Reason::InvalidRequest, "a node has at most one listener of each kind");
    }
    let fits = |text: &str| (1..=HOST_BYTES_MAX).contains(&text.len());
    if !listeners.iter().all(|listener| fits(&listener.host)) || !rack.as_deref().is_none_or(fits) {
        return reject(Reason::InvalidRequest, format!("hosts and racks have 1 to {HOST_BYTES_MAX} bytes"));
    }
    if feature_level_max < editor.view.cluster().feature_level {
        let needed = editor.view.cluster().feature_level;
        let what = format!("node {node} knows features up to level {feature_level_max}, the cluster uses {needed}");
        return reject(Reason::InvalidFeatureLevel, what);
    }
    if editor.view.cluster().retired.contains(&incarnation) {
        let what = format!("this data directory of node {node} was replaced: use a new one, under a new number");
        return reject(Reason::DuplicateBroker, what);
    }
    match editor.view.broker(node) {
        Some(known) if known.incarnation != incarnation => {
            let what =
                format!("node {node} is registered with another data directory; if that one is lost, replace it");
            return reject(Reason::DuplicateBroker, what);
        }
        None if editor.view.brokers().len() >= BROKERS_MAX => {
            return reject(Reason::PolicyViolation, format!("a cluster has at most {BROKERS_MAX} nodes"));
        }
        _ => {}
    }
    editor.set_broker(Broker { node, incarnation, rack, listeners, feature_level_max, registered: at });
    Ok(())
}

pub(super) fn unregister(editor: &mut Editor<'_>, node: NodeId) -> Done {
    if editor.view.broker(node).is_none() {
        return reject(Reason::UnknownBroker, format!("node {node} is not registered"));
    }
    if editor.view.cluster().controllers.members.replica_on(node).is_some() {
        return reject(Reason::InvalidRequest, format!("node {node} votes in the controller's group; replace it"));
    }
    let hosts_any = |topic: &Topic| topic.partitions.iter().any(|partition| partition.replica_on(node).is_some());
    if editor.view.topics().any(|topic| hosts_any(topic)) {
        return reject(Reason::InvalidRequest, format!("node {node} still has replicas; reassign them first"));
    }
    let mut cluster = editor.view.cluster().clone();
    if cluster.controllers.learners.iter().any(|learner| learner.node() == node) {
        cluster.forget_learner(node);
        editor.set_cluster(cluster);
    }
    editor.remove_broker(node);
    Ok(())
}

pub(super) fn allocate_producer_ids(
    editor: &mut Editor<'_>,
    node: NodeId,
    incarnation: Incarnation,
) -> Result<ProducerIds, Rejection> {
    if editor.view.broker(node).is_none_or(|known| known.incarnation != incarnation) {
        return reject(Reason::UnknownBroker, format!("node {node} is not registered with this data directory"));
    }
    let first = editor.view.cluster().next_producer_id;
    let Some(next_producer_id) = first.checked_add(PRODUCER_IDS_PER_BLOCK.into()) else {
        return reject(Reason::PolicyViolation, "all producer ids have been given out");
    };
    let cluster = Cluster { next_producer_id, ..editor.view.cluster().clone() };
    editor.set_cluster(cluster);
    Ok(ProducerIds { first, count: PRODUCER_IDS_PER_BLOCK })
}

pub(super) fn raise_feature_level(editor: &mut Editor<'_>, level: u32) -> Done {
    let current = editor.view.cluster().feature_level;
    if level < current {
        let what = format!("the feature level is {current} and is never lowered: newer formats are on the disks");
        return reject(Reason::InvalidFeatureLevel, what);
    }
    if let Some(older) = editor.view.brokers().find(|broker| broker.feature_level_max < level) {
        let what = format!("node {} knows features up to level {}", older.node, older.feature_level_max);
        return reject(Reason::InvalidFeatureLevel, what);
    }
    let cluster = Cluster { feature_level: level, ..editor.view.cluster().clone() };
    editor.set_cluster(cluster);
    Ok(())
}
