//! Random requests about consumer groups.

use super::Source;
use kafka_protocol::messages::*;

impl Source<'_> {
    pub(super) fn about_groups(mut self, key: ApiKey) -> RequestKind {
        match key {
            ApiKey::OffsetCommit => self.offset_commit().into(),
            ApiKey::OffsetFetch => self.offset_fetch().into(),
            ApiKey::JoinGroup => self.join_group().into(),
            ApiKey::Heartbeat => HeartbeatRequest::default()
                .with_group_id(self.text().into())
                .with_generation_id(self.rng.i32(..))
                .with_member_id(self.text())
                .with_group_instance_id(self.since(3, |source| source.maybe(Self::text)))
                .with_unknown_tagged_fields(self.tags())
                .into(),
            ApiKey::LeaveGroup => self.leave_group().into(),
            ApiKey::SyncGroup => self.sync_group().into(),
            ApiKey::DescribeGroups => DescribeGroupsRequest::default()
                .with_groups(self.list(|source| source.text().into()))
                .with_include_authorized_operations(self.since(3, |source| source.rng.bool()))
                .with_unknown_tagged_fields(self.tags())
                .into(),
            ApiKey::ListGroups => ListGroupsRequest::default()
                .with_states_filter(self.since(4, |source| source.list(Self::text)))
                .with_types_filter(self.since(5, |source| source.list(Self::text)))
                .with_unknown_tagged_fields(self.tags())
                .into(),
            ApiKey::DeleteGroups => DeleteGroupsRequest::default()
                .with_groups_names(self.list(|source| source.text().into()))
                .with_unknown_tagged_fields(self.tags())
                .into(),
            ApiKey::OffsetDelete => self.offset_delete().into(),
            other => panic!("no random {other:?} yet"),
        }
    }

    fn join_group(&mut self) -> JoinGroupRequest {
        use join_group_request::JoinGroupRequestProtocol;
        let protocols = self.list(|source| {
            JoinGroupRequestProtocol::default()
                .with_name(source.text())
                .with_metadata(source.bytes())
                .with_unknown_tagged_fields(source.tags())
        });
        JoinGroupRequest::default()
            .with_group_id(self.text().into())
            .with_session_timeout_ms(self.rng.i32(..))
            .with_rebalance_timeout_ms(if self.version >= 1 { self.rng.i32(..) } else { -1 })
            .with_member_id(self.text())
            .with_group_instance_id(self.since(5, |source| source.maybe(Self::text)))
            .with_protocol_type(self.text())
            .with_protocols(protocols)
            .with_reason(self.since(8, |source| source.maybe(Self::text)))
            .with_unknown_tagged_fields(self.tags())
    }

    fn sync_group(&mut self) -> SyncGroupRequest {
        use sync_group_request::SyncGroupRequestAssignment;
        let assignments = self.list(|source| {
            SyncGroupRequestAssignment::default()
                .with_member_id(source.text())
                .with_assignment(source.bytes())
                .with_unknown_tagged_fields(source.tags())
        });
        SyncGroupRequest::default()
            .with_group_id(self.text().into())
            .with_generation_id(self.rng.i32(..))
            .with_member_id(self.text())
            .with_group_instance_id(self.since(3, |source| source.maybe(Self::text)))
            .with_protocol_type(self.since(5, |source| source.maybe(Self::text)))
            .with_protocol_name(self.since(5, |source| source.maybe(Self::text)))
            .with_assignments(assignments)
            .with_unknown_tagged_fields(self.tags())
    }

    fn leave_group(&mut self) -> LeaveGroupRequest {
        use leave_group_request::MemberIdentity;
        let members = self.since(3, |source| {
            source.list(|source| {
                MemberIdentity::default()
                    .with_member_id(source.text())
                    .with_group_instance_id(source.maybe(Self::text))
                    .with_reason(source.since(5, |source| source.maybe(Self::text)))
                    .with_unknown_tagged_fields(source.tags())
            })
        });
        let request = LeaveGroupRequest::default()
            .with_group_id(self.text().into())
            .with_members(members)
            .with_unknown_tagged_fields(self.tags());
        if self.version <= 2 { request.with_member_id(self.text()) } else { request }
    }

    fn offset_commit(&mut self) -> OffsetCommitRequest {
        use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
        let topics = self.list(|source| {
            let partitions = source.list(|source| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(source.rng.i32(..))
                    .with_committed_offset(source.rng.i64(..))
                    .with_committed_leader_epoch(if source.version >= 6 { source.rng.i32(..) } else { -1 })
                    .with_committed_metadata(source.maybe(Self::text))
                    .with_unknown_tagged_fields(source.tags())
            });
            OffsetCommitRequestTopic::default()
                .with_name(source.text().into())
                .with_partitions(partitions)
                .with_unknown_tagged_fields(source.tags())
        });
        OffsetCommitRequest::default()
            .with_group_id(self.text().into())
            .with_generation_id_or_member_epoch(self.rng.i32(..))
            .with_member_id(self.text())
            .with_group_instance_id(self.since(7, |source| source.maybe(Self::text)))
            .with_retention_time_ms(if self.version <= 4 { self.rng.i64(..) } else { -1 })
            .with_topics(topics)
            .with_unknown_tagged_fields(self.tags())
    }

    fn offset_fetch(&mut self) -> OffsetFetchRequest {
        use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
        let all = self.version >= 2 && self.rng.u8(..) < 60;
        let request = OffsetFetchRequest::default()
            .with_require_stable(self.since(7, |source| source.rng.bool()))
            .with_unknown_tagged_fields(self.tags());
        if self.version <= 7 {
            let topics = self.list(|source| {
                OffsetFetchRequestTopic::default()
                    .with_name(source.text().into())
                    .with_partition_indexes(source.list(|source| source.rng.i32(..)))
                    .with_unknown_tagged_fields(source.tags())
            });
            return request.with_group_id(self.text().into()).with_topics((!all).then_some(topics));
        }
        let groups = self.list(|source| {
            let topics = source.list(|source| {
                OffsetFetchRequestTopics::default()
                    .with_name(source.text().into())
                    .with_partition_indexes(source.list(|source| source.rng.i32(..)))
                    .with_unknown_tagged_fields(source.tags())
            });
            OffsetFetchRequestGroup::default()
                .with_group_id(source.text().into())
                .with_member_id(source.since(9, |source| source.maybe(Self::text)))
                .with_member_epoch(if source.version >= 9 { source.rng.i32(..) } else { -1 })
                .with_topics((!all).then_some(topics))
                .with_unknown_tagged_fields(source.tags())
        });
        request.with_groups(groups)
    }

    fn offset_delete(&mut self) -> OffsetDeleteRequest {
        use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
        let topics = self.list(|source| {
            let partition =
                |source: &mut Self| OffsetDeleteRequestPartition::default().with_partition_index(source.rng.i32(..));
            OffsetDeleteRequestTopic::default().with_name(source.text().into()).with_partitions(source.list(partition))
        });
        OffsetDeleteRequest::default().with_group_id(self.text().into()).with_topics(topics)
    }
}
