//! What a node shows of itself over HTTP.

use super::data::SharedEngine;
use crate::broker::node::NodeBroker;
use crate::broker::{Broker, ReplicaReport, Role};
use crate::http::{Pages, Readiness};
use crate::metrics::{LAG_SERIES_MAX, Metrics, NodeSample, ReplicaSample, Status};
use crate::multiraft::handle::Handle;
use crate::transport::PeerSender;
use crate::types::CONTROLLER_GROUP;
use prometheus_client::registry::Registry;
use std::sync::{Arc, OnceLock};

/// The node's broker, once there is one: metrics are needed before.
pub type LateBroker = Arc<OnceLock<NodeBroker<SharedEngine>>>;

/// The metrics of a node, and the registry that shows them together with how its replicas stand.
pub fn metrics(broker: LateBroker, sender: PeerSender) -> (Metrics, Registry) {
    let runtime = tokio::runtime::Handle::current();
    let status: Status = Arc::new(move || {
        let replicas = broker.get().map(|broker| runtime.block_on(broker.replicas())).unwrap_or_default();
        let (groups, group_members) = broker.get().map(NodeBroker::count_groups).unwrap_or_default();
        let group_lags = broker.get().map(|broker| broker.group_lags(LAG_SERIES_MAX)).unwrap_or_default();
        let dropped = sender.peers().values().map(|peer| peer.dropped).sum::<u64>();
        NodeSample {
            replicas: replicas.iter().map(sample).collect(),
            dropped_peer_messages: dropped + sender.unaddressed(),
            groups,
            group_members,
            group_lags,
        }
    });
    Metrics::new(status)
}

fn sample(replica: &ReplicaReport) -> ReplicaSample {
    let (topic, partition) = match &replica.partition {
        Some((topic, partition)) => (topic.as_str().to_owned(), partition.0.unsigned_abs()),
        None => (String::new(), 0),
    };
    ReplicaSample {
        topic,
        partition,
        leads: replica.role == Some(Role::Leader),
        quarantined: replica.quarantine.is_some(),
        term: replica.term.0,
        uncommitted_entries: replica.last.0.saturating_sub(replica.commit.0),
        apply_lag_entries: replica.commit.0.saturating_sub(replica.applied.0),
        follower_lag_entries: replica.followers.iter().map(|follower| (follower.node.0, follower.lag)).collect(),
    }
}

/// The pages of a node. It is ready when it knows who leads the controller.
pub fn pages(registry: Registry, handle: Handle) -> Pages {
    let readiness: Readiness = Arc::new(move || {
        let status = handle.board().status(CONTROLLER_GROUP);
        match (status.quarantined, status.leadership.leader) {
            (Some(reason), _) => Err(format!("this node's replica of the controller is quarantined: {reason}")),
            (None, None) => Err("nobody is known to lead the controller: a majority of nodes may be away".to_owned()),
            (None, Some(_)) => Ok(()),
        }
    });
    Pages { registry: Arc::new(registry), readiness }
}
