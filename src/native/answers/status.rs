//! How the cluster, a partition and this node's replicas stand.

use super::{Failure, Outcome, find_topic, partition as partition_of};
use crate::broker::{Broker, Edge, FollowerReport, ReplicaReport, Role, TopicRef};
use crate::native::errors;
use crate::proto::native::{self, ErrorCode, response};

/// The cluster as this node knows it.
pub(super) fn cluster<B: Broker>(broker: &B) -> response::Body {
    let (cluster, kafka) = (broker.cluster(Edge::Native), broker.cluster(Edge::Kafka));
    let address = |address: &crate::broker::Address| native::Address {
        host: address.host.clone(),
        port: u32::from(address.port),
    };
    let nodes = cluster.nodes.iter().map(|node| native::Node {
        node: node.id.0,
        rack: node.rack.clone().unwrap_or_default(),
        native: Some(address(&node.address)),
        kafka: kafka.node(node.id).map(|node| address(&node.address)),
    });
    response::Body::ClusterStatus(native::ClusterStatusResponse {
        nodes: nodes.collect(),
        controller: cluster.controller.map_or(0, |node| node.0),
        cluster_id: cluster.id,
    })
}

/// Who leads a partition, and how this node's replica of it stands.
pub(super) async fn partition<B: Broker>(broker: &B, asked: native::PartitionStatusRequest) -> Outcome {
    let (topic, index) = partition_of(broker, asked.partition)?;
    let known = find_topic(broker, TopicRef::Name(topic.clone()))?;
    let Some(known) = known.partitions.iter().find(|partition| partition.index == index) else {
        let message = format!("topic {topic} has no partition {}", index.0);
        let unknown = native::Error { code: ErrorCode::UnknownPartition.into(), ..errors::invalid(&message) };
        return Err(Failure::from(native::Error { retriable: true, ..unknown }));
    };
    let cluster = broker.cluster(Edge::Native);
    let mut replicas = broker.replicas().await.into_iter();
    let own = replicas.find(|report| report.partition.as_ref() == Some(&(topic.clone(), index)));
    Ok(response::Body::PartitionStatus(native::PartitionStatusResponse {
        leader: known.leader.map(|leader| errors::leader(&cluster, leader)),
        replica: own.map(replica),
    }))
}

/// Every replica of this node.
pub(super) async fn replicas<B: Broker>(broker: &B) -> Outcome {
    let replicas = broker.replicas().await.into_iter().map(replica).collect();
    Ok(response::Body::Replicas(native::ReplicasResponse { replicas }))
}

fn replica(report: ReplicaReport) -> native::Replica {
    let (topic, partition) = match report.partition {
        Some((topic, index)) => (topic.as_str().to_owned(), index.0.unsigned_abs()),
        None => (String::new(), 0),
    };
    let role = match report.role {
        None => native::Role::Unknown,
        Some(Role::Leader) => native::Role::Leader,
        Some(Role::Follower) => native::Role::Follower,
        Some(Role::Candidate) => native::Role::Candidate,
        Some(Role::Learner) => native::Role::Learner,
    };
    let follower = |follower: FollowerReport| native::Follower {
        node: follower.node.0,
        matched_index: follower.matched.0,
        lag: follower.lag,
        reachable: follower.reachable,
        needs_snapshot: follower.needs_snapshot,
    };
    native::Replica {
        group: report.group.0,
        topic,
        partition,
        role: role.into(),
        term: report.term.0,
        leader: report.leader.map_or(0, |node| node.0),
        last_index: report.last.0,
        commit_index: report.commit.0,
        applied_index: report.applied.0,
        followers: report.followers.into_iter().map(follower).collect(),
        quarantine: report.quarantine.unwrap_or_default(),
        repair: report.repair.unwrap_or_default(),
        log_start_offset: report.log_start.0,
    }
}
