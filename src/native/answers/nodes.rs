//! The cluster's nodes: listing them, and replacing lost ones.

use super::Outcome;
use crate::broker::{Broker, NodeReport, ReplaceNode, ReplacementReport};
use crate::proto::native::{self, response};
use crate::types::NodeId;
use std::time::Duration;

/// Every registered node, and the replacements that are not complete.
pub(super) fn list<B: Broker>(broker: &B) -> response::Body {
    let list = broker.nodes();
    let node = |node: NodeReport| native::NodeStatus {
        node: node.id.0,
        rack: node.rack.unwrap_or_default(),
        alive: node.alive,
        controller_voter: node.controller_voter,
        replicas: node.replicas,
        leaders: node.leaders,
    };
    let replacement = |open: ReplacementReport| native::NodeReplacement {
        old_node: open.old.0,
        new_node: open.new.0,
        groups: open.groups,
        groups_done: open.done,
    };
    response::Body::ListNodes(native::ListNodesResponse {
        nodes: list.nodes.into_iter().map(node).collect(),
        replacements: list.replacements.into_iter().map(replacement).collect(),
    })
}

/// Has another node take a lost one's replicas.
pub(super) async fn replace<B: Broker>(broker: &B, asked: native::ReplaceNodeRequest, time: Duration) -> Outcome {
    let native::ReplaceNodeRequest { old_node, new_node, force } = asked;
    let asked = ReplaceNode { old: NodeId(old_node), new: NodeId(new_node), force };
    let groups = broker.replace_node(asked, time).await?;
    Ok(response::Body::ReplaceNode(native::ReplaceNodeResponse { groups }))
}
