//! Heartbeat and LeaveGroup.

use super::{Inner, check_member, rejected, unexpected};
use crate::broker::{ErrorKind, Heartbeat, MemberIdentity, PerItem, Result};
use crate::coordinator::command::{Action, Answer, Leaver};
use crate::coordinator::group::Phase;
use crate::storage::Engine;
use std::sync::Arc;

/// Costs no entry of the log: it is answered from the published state.
pub(super) fn heartbeat<E: Engine + Clone + 'static>(inner: &Arc<Inner<E>>, request: &Heartbeat) -> Result<()> {
    let place = inner.place_of_named(&request.group)?;
    let group = inner.views.group(place.raft, &request.group).ok_or(ErrorKind::UnknownMember)?;
    check_member(&group, &request.member)?;
    if request.generation != group.generation {
        return Err(ErrorKind::IllegalGeneration.into());
    }
    inner.heard(&place, &request.group, &request.member.id);
    match group.phase {
        Phase::Empty => Err(ErrorKind::UnknownMember.into()),
        Phase::Preparing { .. } => Err(ErrorKind::RebalanceInProgress.into()),
        Phase::Completing | Phase::Stable => Ok(()),
    }
}

pub(super) async fn leave<E: Engine + Clone + 'static>(
    inner: &Arc<Inner<E>>,
    group: String,
    members: Vec<MemberIdentity>,
) -> PerItem {
    let place = inner.place_of_named(&group)?;
    let leaver = |member: MemberIdentity| Leaver { member: member.id, instance: member.instance };
    let action = Action::Leave { group: group.clone(), members: members.into_iter().map(leaver).collect() };
    match inner.decide_on(&place, Some(&group), action).await? {
        Answer::Left(each) => Ok(each.into_iter().map(|left| left.map_err(rejected)).collect()),
        _ => Err(unexpected()),
    }
}

impl<E: Engine + Clone + 'static> Inner<E> {
    /// A member was heard of.
    pub(super) fn heard(&self, place: &super::Place, group: &str, member: &str) {
        self.led.touch(&self.surroundings(), place, group, |now_ms, sessions| sessions.heard(now_ms, group, member));
    }
}
