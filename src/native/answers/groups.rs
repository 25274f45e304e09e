//! Consumer groups: membership, stored offsets, administration.

use super::{Failure, Outcome, partition};
use crate::broker::{
    Broker, CommitOffsets, CommittedOffset, DescribedMember, Edge, ErrorKind, FetchOffsets, GROUP_TEXT_BYTES_MAX,
    GroupState, Groups, Heartbeat, JoinGroup, Joined, MemberIdentity, OffsetToCommit, PartitionIndex, Reservation,
    SyncGroup, TopicName,
};
use crate::native::errors;
use crate::proto::native::{self, response};
use crate::types::{LeaderEpoch, Offset};
use std::time::Duration;

fn identity(member: Option<native::GroupMember>) -> MemberIdentity {
    let member = member.unwrap_or_default();
    MemberIdentity { id: member.id, instance: member.instance }
}

fn wire_member(identity: MemberIdentity) -> native::GroupMember {
    native::GroupMember { id: identity.id, instance: identity.instance }
}

fn index(partition: u32) -> Result<PartitionIndex, Failure> {
    let index = i32::try_from(partition).map_err(|_| errors::invalid("partitions end at 2147483647"))?;
    Ok(PartitionIndex(index))
}

/// Which node coordinates a group.
pub(super) fn find<B: Broker>(broker: &B, asked: &native::FindCoordinatorRequest) -> Outcome {
    let node = broker.coordinator(&asked.group)?;
    let cluster = broker.cluster(Edge::Native);
    let found = cluster.node(node).ok_or(Failure::Broker(ErrorKind::CoordinatorNotAvailable.into()))?;
    let address = native::Address { host: found.address.host.clone(), port: found.address.port.into() };
    Ok(response::Body::FindCoordinator(native::FindCoordinatorResponse { node: node.0, address: Some(address) }))
}

/// Joins a group. Who has neither an id nor a name is given an id first, and joins under it (KIP-394): of a client that
/// goes away before it knows its id, no member stays behind.
pub(super) async fn join<B: Groups>(
    broker: &B,
    asked: native::JoinGroupRequest,
    host: String,
    memory: Reservation,
) -> Outcome {
    let (joining, mut client_id) = (identity(asked.member), asked.client_name);
    let names = asked.protocols.iter().map(|protocol| &protocol.name).chain(&joining.instance);
    if names.chain([&joining.id, &asked.protocol_type]).any(|name| name.len() > GROUP_TEXT_BYTES_MAX) {
        return Err(errors::invalid("a name is too long").into());
    }
    client_id.truncate(client_id.floor_char_boundary(GROUP_TEXT_BYTES_MAX));
    let request = JoinGroup {
        group: asked.group,
        two_steps: joining.instance.is_none(),
        member: joining,
        client_id,
        client_host: host,
        session_timeout: Duration::from_millis(asked.session_timeout_ms.into()),
        rebalance_timeout: Duration::from_millis(asked.rebalance_timeout_ms.into()),
        protocol_type: asked.protocol_type,
        protocols: asked.protocols.into_iter().map(|protocol| (protocol.name, protocol.metadata)).collect(),
        can_skip_assignment: false,
    };
    let generation = match broker.join_group(request, Some(memory)).await? {
        Joined::In(generation) => generation,
        Joined::Again { member } => {
            let again = native::JoinGroupResponse { member, ..native::JoinGroupResponse::default() };
            return Ok(response::Body::JoinGroup(again));
        }
    };
    let members = generation
        .members
        .into_iter()
        .map(|other| native::GenerationMember { member: Some(wire_member(other.identity)), metadata: other.metadata });
    Ok(response::Body::JoinGroup(native::JoinGroupResponse {
        member: generation.member,
        generation: generation.generation,
        protocol: generation.protocol,
        leader: generation.leader,
        members: members.collect(),
    }))
}

/// Brings the leader's assignments and waits for the member's own.
pub(super) async fn sync<B: Groups>(broker: &B, asked: native::SyncGroupRequest, memory: Reservation) -> Outcome {
    let request = SyncGroup {
        group: asked.group,
        generation: asked.generation,
        member: identity(asked.member),
        protocol_type: None,
        protocol: None,
        assignments: asked.assignments.into_iter().map(|share| (share.member, share.assignment)).collect(),
    };
    let assignment = broker.sync_group(request, Some(memory)).await?.assignment;
    Ok(response::Body::SyncGroup(native::SyncGroupResponse { assignment }))
}

/// A member is alive.
pub(super) async fn heartbeat<B: Groups>(broker: &B, asked: native::HeartbeatRequest) -> Outcome {
    let native::HeartbeatRequest { group, generation, member } = asked;
    broker.heartbeat(Heartbeat { group, generation, member: identity(member) }).await?;
    Ok(response::Body::Heartbeat(native::HeartbeatResponse {}))
}

/// Takes a member out.
pub(super) async fn leave<B: Groups>(broker: &B, asked: native::LeaveGroupRequest) -> Outcome {
    for left in broker.leave_group(asked.group, vec![identity(asked.member)]).await? {
        left?;
    }
    Ok(response::Body::LeaveGroup(native::LeaveGroupResponse {}))
}

/// Stores offsets.
pub(super) async fn commit<B: Groups>(broker: &B, asked: native::CommitOffsetsRequest) -> Outcome {
    let mut offsets = Vec::with_capacity(asked.offsets.len());
    for offset in asked.offsets {
        offsets.push(OffsetToCommit {
            topic: TopicName::from(offset.topic.as_str()),
            partition: index(offset.partition)?,
            position: CommittedOffset {
                offset: Offset(offset.offset),
                leader_epoch: Some(LeaderEpoch(offset.term)).filter(|epoch| epoch.0 >= 0),
                metadata: offset.metadata,
            },
        });
    }
    let (group, generation, member) = (asked.group, asked.generation, identity(asked.member));
    // There is one answer for all, and a definite error says that nothing has happened.
    let commit = CommitOffsets { group, generation, member, offsets, all_or_none: true };
    for stored in broker.commit_offsets(commit).await? {
        stored?;
    }
    Ok(response::Body::CommitOffsets(native::CommitOffsetsResponse {}))
}

/// What a group has stored.
pub(super) async fn committed<B: Groups>(broker: &B, asked: native::CommittedOffsetsRequest) -> Outcome {
    let request = FetchOffsets { group: asked.group, partitions: None, require_stable: false };
    let mut offsets = Vec::new();
    for found in broker.fetch_offsets(request).await? {
        let Some(position) = found.committed else { continue };
        offsets.push(native::GroupOffset {
            topic: found.topic.as_str().to_owned(),
            partition: found.partition.0.unsigned_abs(),
            offset: position.offset.0,
            term: position.leader_epoch.map_or(-1, |epoch| epoch.0),
            metadata: position.metadata,
        });
    }
    Ok(response::Body::CommittedOffsets(native::CommittedOffsetsResponse { offsets }))
}

/// Drops stored offsets.
pub(super) async fn delete_offsets<B: Broker>(broker: &B, asked: native::DeleteOffsetsRequest) -> Outcome {
    let named = asked.partitions.into_iter().map(|asked| partition(broker, Some(asked)));
    let partitions = named.collect::<Result<Vec<_>, _>>()?;
    for deleted in broker.delete_offsets(asked.group, partitions).await? {
        deleted?;
    }
    Ok(response::Body::DeleteOffsets(native::DeleteOffsetsResponse {}))
}

/// The groups that this node coordinates.
pub(super) fn list<B: Groups>(broker: &B) -> Outcome {
    let groups = broker.list_groups()?.into_iter().map(|listed| native::ListedGroup {
        group: listed.group,
        state: listed.state.name().to_owned(),
        protocol_type: listed.protocol_type,
    });
    Ok(response::Body::ListGroups(native::ListGroupsResponse { groups: groups.collect() }))
}

/// One group in full.
pub(super) fn describe<B: Groups>(broker: &B, asked: native::DescribeGroupRequest) -> Outcome {
    let described = broker.describe_groups(&[asked.group]).pop();
    let described = described.ok_or_else(|| errors::internal("the broker did not answer"))??;
    let working = described.state == GroupState::Stable;
    let describe = |other: DescribedMember| native::DescribedMember {
        member: Some(wire_member(other.identity)),
        client_name: other.client_id,
        client_host: other.client_host,
        assignment: if working { other.assignment } else { bytes::Bytes::new() },
    };
    Ok(response::Body::DescribeGroup(native::DescribeGroupResponse {
        state: described.state.name().to_owned(),
        protocol_type: described.protocol_type,
        protocol: described.protocol,
        generation: described.generation,
        members: described.members.into_iter().map(describe).collect(),
    }))
}

/// Deletes a group with its offsets.
pub(super) async fn delete<B: Groups>(broker: &B, asked: native::DeleteGroupRequest) -> Outcome {
    for deleted in broker.delete_groups(vec![asked.group]).await {
        deleted?;
    }
    Ok(response::Body::DeleteGroup(native::DeleteGroupResponse {}))
}
