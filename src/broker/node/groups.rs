//! Consumer groups that this node coordinates.

use super::NodeBroker;
use crate::broker::{
    CommitOffsets, DescribedGroup, ErrorKind, FetchOffsets, FetchedOffset, Groups, Heartbeat, JoinGroup, Joined,
    ListedGroup, MemberIdentity, PartitionIndex, PerItem, Result, SyncGroup, Synced, TopicName,
};
use crate::storage::Engine;
use crate::types::NodeId;

impl<E: Engine + Clone + 'static> Groups for NodeBroker<E> {
    fn coordinator(&self, _group: &str) -> Result<NodeId> {
        Ok(self.0.node)
    }

    async fn join_group(&self, _request: JoinGroup) -> Result<Joined> {
        Err(ErrorKind::CoordinatorNotAvailable.into())
    }

    async fn sync_group(&self, _request: SyncGroup) -> Result<Synced> {
        Err(ErrorKind::CoordinatorNotAvailable.into())
    }

    async fn heartbeat(&self, _request: Heartbeat) -> Result<()> {
        Err(ErrorKind::CoordinatorNotAvailable.into())
    }

    async fn leave_group(&self, _group: String, _members: Vec<MemberIdentity>) -> PerItem {
        Err(ErrorKind::CoordinatorNotAvailable.into())
    }

    async fn commit_offsets(&self, _request: CommitOffsets) -> PerItem {
        Err(ErrorKind::CoordinatorNotAvailable.into())
    }

    async fn fetch_offsets(&self, _request: FetchOffsets) -> Result<Vec<FetchedOffset>> {
        Err(ErrorKind::CoordinatorNotAvailable.into())
    }

    async fn delete_offsets(&self, _group: String, _partitions: Vec<(TopicName, PartitionIndex)>) -> PerItem {
        Err(ErrorKind::CoordinatorNotAvailable.into())
    }

    fn list_groups(&self) -> Result<Vec<ListedGroup>> {
        Err(ErrorKind::CoordinatorNotAvailable.into())
    }

    fn describe_groups(&self, groups: &[String]) -> Vec<Result<DescribedGroup>> {
        groups.iter().map(|_| Err(ErrorKind::CoordinatorNotAvailable.into())).collect()
    }

    async fn delete_groups(&self, groups: Vec<String>) -> Vec<Result<()>> {
        groups.iter().map(|_| Err(ErrorKind::CoordinatorNotAvailable.into())).collect()
    }
}
