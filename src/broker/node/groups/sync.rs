//! SyncGroup: the leader brings the assignments, everybody waits for their own.

use super::led::Waiting;
use super::{Inner, check_member, join, rejected, unexpected};
use crate::broker::{ErrorKind, MemberIdentity, Reservation, Result, SyncGroup, Synced};
use crate::coordinator::command::{Action, Answer, Assign};
use crate::coordinator::group::{Group, Phase};
use crate::storage::Engine;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How much longer than the slowest member may take to bring the assignments they are waited for.
const GRACE: Duration = Duration::from_secs(60);

pub(super) async fn sync<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    request: SyncGroup,
    memory: Option<Reservation>,
) -> Result<Synced> {
    let place = inner.place_of_named(&request.group)?;
    let group = inner.views.group(place.raft, &request.group).ok_or(ErrorKind::UnknownMember)?;
    check(&group, &request)?;
    match group.phase {
        Phase::Empty => return Err(ErrorKind::UnknownMember.into()),
        Phase::Preparing { .. } => return Err(ErrorKind::RebalanceInProgress.into()),
        Phase::Completing | Phase::Stable => {}
    }
    let SyncGroup { group: name, generation, member, assignments, .. } = request;
    let _waiting = Waiting::begin(&inner, &place, (&name, &member.id), true);
    if group.phase == Phase::Completing && group.leader.as_deref() == Some(member.id.as_str()) {
        let assignments = assignments.into_iter().map(|(member, share)| (member, share.into())).collect();
        let (group, instance) = (name.clone(), member.instance.clone());
        let assign = Assign { group, generation, member: member.id.clone(), instance, assignments };
        match inner.decide_on(&place, Some(&name), Action::Assign(assign)).await? {
            Answer::Done(Ok(())) => {}
            Answer::Done(Err(why)) => return Err(rejected(why)),
            _ => return Err(unexpected()),
        }
    } else {
        drop(assignments); // nobody else's count
    }
    drop(memory);
    let slowest_ms = group.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(slowest_ms).unwrap_or(0)) + GRACE;
    inner.wait_for(&place, &name, deadline, |group| share(group, generation, &member)).await
}

/// Whether the member is one of the generation that it believes in, in Kafka's order.
fn check(group: &Group, request: &SyncGroup) -> Result<()> {
    check_member(group, &request.member)?;
    if request.generation != group.generation {
        return Err(ErrorKind::IllegalGeneration.into());
    }
    let differs = |told: &Option<String>, known: &Option<String>| told.is_some() && told != known;
    if differs(&request.protocol_type, &group.protocol_type) || differs(&request.protocol, &group.protocol) {
        return Err(ErrorKind::InconsistentGroupProtocol.into());
    }
    Ok(())
}

/// The member's share, or why there will be none; nothing while the leader has yet to assign.
fn share(group: Option<&Arc<Group>>, generation: i32, member: &MemberIdentity) -> Option<Result<Synced>> {
    let Some(group) = group else { return Some(Err(ErrorKind::UnknownMember.into())) };
    let Some(known) = group.members.get(&member.id) else { return Some(Err(join::missing(group, member))) };
    if group.generation != generation {
        return Some(Err(ErrorKind::RebalanceInProgress.into()));
    }
    match group.phase {
        Phase::Empty => Some(Err(ErrorKind::UnknownMember.into())),
        Phase::Preparing { .. } => Some(Err(ErrorKind::RebalanceInProgress.into())),
        Phase::Completing => None,
        Phase::Stable => Some(Ok(Synced {
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol: group.protocol.clone().unwrap_or_default(),
            assignment: Bytes::copy_from_slice(&known.assignment),
        })),
    }
}
