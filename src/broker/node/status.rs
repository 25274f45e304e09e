//! How this node's replicas stand, in the broker's words.

use super::Inner;
use crate::broker::status::{FollowerReport, ReplicaReport, Role};
use crate::broker::{PartitionIndex, TopicName};
use crate::controller::view::{GroupFate, MetadataView};
use crate::multiraft::worker::status::GroupReport;
use crate::raft;
use crate::storage::Engine;
use crate::types::{NodeId, Offset};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long the Raft worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn replicas<E: Engine + Clone + 'static>(inner: Arc<Inner<E>>) -> Vec<ReplicaReport> {
    let metadata = inner.views.metadata();
    let reports = timeout(PATIENCE, inner.handle.report()).await.unwrap_or_default();
    let in_own_words = |report: GroupReport| {
        let log_start = inner.views.partition(report.group).map(|view| view.log_start).unwrap_or_default();
        ReplicaReport { log_start, ..in_own_words(inner.node, &metadata, report) }
    };
    reports.into_iter().map(in_own_words).collect()
}

fn in_own_words(node: NodeId, metadata: &MetadataView, report: GroupReport) -> ReplicaReport {
    let partition = match metadata.group(report.group) {
        GroupFate::Alive(topic, index) => Some((TopicName::from(topic.name.as_str()), PartitionIndex(index as i32))),
        GroupFate::Unborn | GroupFate::Deleted => None,
    };
    let role = report.role.map(|role| match role {
        raft::Role::Leader => Role::Leader,
        raft::Role::Candidate => Role::Candidate,
        raft::Role::Follower if report.is_learner(node) => Role::Learner,
        raft::Role::Follower => Role::Follower,
    });
    let last = report.last;
    // A node's newest replica only: an older one was lost with its disk, and is being replaced.
    let is_newest = |progress: &&raft::FollowerProgress| {
        let newer = |other: &raft::FollowerProgress| {
            other.replica.node() == progress.replica.node() && other.replica > progress.replica
        };
        !report.followers.iter().any(newer)
    };
    let follower = |progress: &raft::FollowerProgress| FollowerReport {
        node: progress.replica.node(),
        matched: progress.matched,
        lag: last.0.saturating_sub(progress.matched.0),
        reachable: progress.recently_active,
        needs_snapshot: progress.snapshot,
    };
    ReplicaReport {
        group: report.group,
        partition,
        role,
        term: report.term,
        leader: report.leader.map(|replica| replica.node()),
        last,
        commit: report.commit,
        applied: report.applied,
        log_start: Offset(0),
        followers: report.followers.iter().filter(is_newest).map(follower).collect(),
        quarantine: report.quarantined,
        repair: report.repair,
    }
}
