//! Looking at groups, moving and deleting their offsets.

use super::expect_answer;
use crate::client::admin::{Admin, reference};
use crate::client::error::{Error, Result};
use crate::client::routing::Repeat;
use crate::proto::native::{self, request, response};

impl Admin {
    /// Every group of the cluster, by name. A node that does not answer is an error, because its groups would be
    /// missing.
    pub async fn groups(&self) -> Result<Vec<native::ListedGroup>> {
        let mut groups = Vec::new();
        for node in self.cluster().await?.nodes {
            let address = node.native.as_ref().ok_or_else(|| Error::usage("the node has no native listener"))?;
            let body = request::Body::ListGroups(native::ListGroupsRequest {});
            groups.extend(expect_answer!(self.router.ask_node(address, body).await?, ListGroups)?.groups);
        }
        groups.sort_by(|left, right| left.group.cmp(&right.group));
        groups.dedup_by(|left, right| left.group == right.group);
        Ok(groups)
    }

    /// One group with its members. One that does not exist is in the state `Dead`.
    pub async fn group(&self, group: &str) -> Result<native::DescribeGroupResponse> {
        let body = request::Body::DescribeGroup(native::DescribeGroupRequest { group: group.to_owned() });
        let timeout = self.router.options.timeout;
        expect_answer!(self.router.ask_coordinator(group, body, Repeat::Harmless, timeout).await?, DescribeGroup)
    }

    /// What a group has stored.
    pub async fn committed_offsets(&self, group: &str) -> Result<Vec<native::GroupOffset>> {
        let body = request::Body::CommittedOffsets(native::CommittedOffsetsRequest { group: group.to_owned() });
        let timeout = self.router.options.timeout;
        let answer = self.router.ask_coordinator(group, body, Repeat::Harmless, timeout).await?;
        Ok(expect_answer!(answer, CommittedOffsets)?.offsets)
    }

    /// Stores offsets for a group without members, all of them or none.
    pub async fn set_committed_offsets(&self, group: &str, offsets: Vec<native::GroupOffset>) -> Result<()> {
        let member = Some(native::GroupMember::default());
        let commit = native::CommitOffsetsRequest { group: group.to_owned(), generation: -1, member, offsets };
        let (body, timeout) = (request::Body::CommitOffsets(commit), self.router.options.timeout);
        // The same offsets again are the same.
        let answer = self.router.ask_coordinator(group, body, Repeat::Harmless, timeout).await?;
        expect_answer!(answer, CommitOffsets).map(drop)
    }

    /// Drops offsets that a group has stored for partitions that it does not read any more.
    pub async fn delete_committed_offsets(&self, group: &str, partitions: &[(String, u32)]) -> Result<()> {
        let partitions = partitions.iter().filter_map(|(topic, partition)| reference(topic, *partition)).collect();
        let body = request::Body::DeleteOffsets(native::DeleteOffsetsRequest { group: group.to_owned(), partitions });
        let timeout = self.router.options.timeout;
        let answer = self.router.ask_coordinator(group, body, Repeat::Harmless, timeout).await?;
        expect_answer!(answer, DeleteOffsets).map(drop)
    }

    /// Deletes a group without members, with its offsets.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let body = request::Body::DeleteGroup(native::DeleteGroupRequest { group: group.to_owned() });
        let timeout = self.router.options.timeout;
        let answer = self.router.ask_coordinator(group, body, Repeat::Never, timeout).await?;
        expect_answer!(answer, DeleteGroup).map(drop)
    }
}
