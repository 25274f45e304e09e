//! ListGroups, DescribeGroups and DeleteGroups.

use super::{Inner, NodeBroker, Phase, Place, join, rejected, unexpected};
use crate::broker::{DescribedGroup, DescribedMember, ErrorKind, GroupState, ListedGroup, MemberIdentity, Result};
use crate::coordinator::command::{Action, Answer};
use crate::coordinator::group::{Group, Member};
use crate::storage::Engine;
use crate::types::RaftGroupId;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

fn state(phase: &Phase) -> GroupState {
    match phase {
        Phase::Empty => GroupState::Empty,
        Phase::Preparing { .. } => GroupState::PreparingRebalance,
        Phase::Completing => GroupState::CompletingRebalance,
        Phase::Stable => GroupState::Stable,
    }
}

fn describe(group: &Group) -> DescribedGroup {
    let is_stable = group.phase == Phase::Stable;
    let protocol = group.protocol.clone().filter(|_| is_stable).unwrap_or_default();
    let described = |member: &Arc<Member>| DescribedMember {
        identity: MemberIdentity { id: member.id.clone(), instance: member.instance.clone() },
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: if is_stable { join::metadata(member, &protocol) } else { Bytes::new() },
        assignment: if is_stable { Bytes::copy_from_slice(&member.assignment) } else { Bytes::new() },
    };
    DescribedGroup {
        group: group.name.clone(),
        state: state(&group.phase),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        members: group.members.values().map(described).collect(),
        protocol,
        generation: group.generation,
    }
}

fn dead(group: &str) -> DescribedGroup {
    DescribedGroup {
        group: group.to_owned(),
        state: GroupState::Dead,
        protocol_type: String::new(),
        protocol: String::new(),
        generation: 0,
        members: Vec::new(),
    }
}

/// Deletes groups, those of one coordinator with one command.
pub(super) async fn delete_groups<E: Engine + Clone + 'static>(
    inner: &Arc<Inner<E>>,
    groups: Vec<String>,
) -> Vec<Result<()>> {
    let mut outcomes: Vec<Result<()>> = Vec::with_capacity(groups.len());
    let mut by_coordinator: BTreeMap<RaftGroupId, (Place, Vec<usize>)> = BTreeMap::new();
    for (at, group) in groups.iter().enumerate() {
        let place = inner.place(group);
        outcomes.push(place.as_ref().map(|_| ()).map_err(Clone::clone));
        if let Ok(place) = place {
            by_coordinator.entry(place.raft).or_insert_with(|| (place, Vec::new())).1.push(at);
        }
    }
    for (place, positions) in by_coordinator.into_values() {
        let named = positions.iter().map(|at| groups[*at].clone()).collect();
        let deleted = match inner.decide_on(&place, None, Action::DeleteGroups { groups: named }).await {
            Ok(Answer::GroupsDeleted(each)) if each.len() == positions.len() => {
                each.into_iter().map(|deleted| deleted.map_err(rejected)).collect()
            }
            Ok(_) => vec![Err(unexpected()); positions.len()],
            Err(error) => vec![Err(error); positions.len()],
        };
        positions.into_iter().zip(deleted).for_each(|(at, deleted)| outcomes[at] = deleted);
    }
    outcomes
}

impl<E: Engine + Clone + 'static> NodeBroker<E> {
    /// How many groups this node coordinates, by state, and how many members they have.
    #[must_use]
    pub fn count_groups(&self) -> (Vec<(&'static str, u64)>, u64) {
        use GroupState::{CompletingRebalance, Empty, PreparingRebalance, Stable};
        let mut states: BTreeMap<_, u64> =
            [Empty, PreparingRebalance, CompletingRebalance, Stable].map(|s| (s, 0)).into();
        let mut members = 0;
        let led = self.0.coordinators().into_iter().filter(|raft| self.0.place_of(*raft).is_ok());
        for group in led.filter_map(|raft| self.0.views.groups(raft)).flatten() {
            *states.entry(state(&group.phase)).or_default() += 1;
            members += group.members.len() as u64;
        }
        (states.into_iter().map(|(state, count)| (state.name(), count)).collect(), members)
    }
}

impl<E: Engine + Clone + 'static> Inner<E> {
    pub(super) fn list_groups(&self) -> Result<Vec<ListedGroup>> {
        let mut listed = Vec::new();
        for raft in self.coordinators() {
            match self.place_of(raft) {
                Ok(_) => listed.extend(self.views.groups(raft).unwrap_or_default().iter().map(|group| ListedGroup {
                    group: group.name.clone(),
                    protocol_type: group.protocol_type.clone().unwrap_or_default(),
                    state: state(&group.phase),
                })),
                Err(error) if error.kind == ErrorKind::CoordinatorLoading => return Err(error),
                Err(_) => {}
            }
        }
        listed.sort_unstable_by(|one, other| one.group.cmp(&other.group));
        Ok(listed)
    }

    pub(super) fn describe_group(&self, name: &str) -> Result<DescribedGroup> {
        let place = self.place(name)?;
        let group = self.views.group(place.raft, name);
        Ok(group.map_or_else(|| dead(name), |group| describe(&group)))
    }
}
