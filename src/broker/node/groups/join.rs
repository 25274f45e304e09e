//! JoinGroup: proposed with a fresh member id, answered when the generation is made up.

use super::led::Waiting;
use super::{DECISION_WAIT, Inner, Place, rejected, unexpected};
use crate::broker::{
    Error, ErrorKind, Generation, GenerationMember, JoinGroup, Joined, MemberIdentity, Reservation, Result,
};
use crate::coordinator::command::{Action, Answer, Join, Joined as In};
use crate::coordinator::group::{Group, Member};
use crate::storage::Engine;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How much longer than members may take to join, and an empty group may be waited for, the answer is waited for: what
/// has run out has to be proposed and committed.
const GRACE: Duration = Duration::from_secs(60);

/// What of a client's name is in the id of its member, in bytes.
const NAME_IN_ID_BYTES_MAX: usize = 255;

pub(super) async fn join<E: Engine + Clone + 'static>(
    inner: Arc<Inner<E>>,
    request: JoinGroup,
    memory: Option<Reservation>,
) -> Result<Joined> {
    let place = inner.place_of_named(&request.group)?;
    let settings = &inner.settings.groups;
    if !(settings.session_timeout_min..=settings.session_timeout_max).contains(&request.session_timeout) {
        return Err(ErrorKind::InvalidSessionTimeout.into());
    }
    let (session_timeout, instance) = (request.session_timeout, request.member.instance.clone());
    let deadline = Instant::now() + request.rebalance_timeout + settings.initial_rebalance_delay + GRACE;
    let group = request.group.clone();
    let action = Action::Join(command(request, settings.members_max, !settings.initial_rebalance_delay.is_zero()));
    let decided_by = Instant::now() + DECISION_WAIT;
    let pending = inner.admit(&place, action, decided_by).await?;
    drop(memory); // nothing is left of the request but its place in the log
    match inner.answer(&place, Some(&group), pending, decided_by).await? {
        Answer::Joined(Ok(In::Again { member })) => {
            inner.led.touch(&inner.surroundings(), &place, &group, |now_ms, sessions| {
                let timeout_ms = u64::try_from(session_timeout.as_millis()).unwrap_or(u64::MAX);
                sessions.handed_out(now_ms, &group, &member, timeout_ms);
            });
            Ok(Joined::Again { member })
        }
        Answer::Joined(Ok(In::In { member, generation, skip_assignment, leader })) => {
            let member = MemberIdentity { id: member, instance };
            let made_up = wait(&inner, &place, (&group, &member), generation, deadline).await?;
            Ok(Joined::In(match leader {
                // Told that another leads, it does not assign again.
                Some(leader) => Generation { leader, members: Vec::new(), ..made_up },
                None => Generation { skip_assignment, ..made_up },
            }))
        }
        Answer::Joined(Err(why)) => Err(rejected(why)),
        _ => Err(unexpected()),
    }
}

fn command(request: JoinGroup, members_max: u32, delay_first: bool) -> Join {
    let millis = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
    let name = request.member.instance.as_deref().unwrap_or(&request.client_id);
    let name = &name[..name.floor_char_boundary(NAME_IN_ID_BYTES_MAX)];
    Join {
        group: request.group,
        member: request.member.id,
        new_member: format!("{name}-{}", uuid::Uuid::new_v4()),
        instance: request.member.instance,
        two_steps: request.two_steps,
        can_skip_assignment: request.can_skip_assignment,
        client_id: request.client_id,
        client_host: request.client_host,
        session_timeout_ms: millis(request.session_timeout),
        rebalance_timeout_ms: millis(request.rebalance_timeout),
        protocol_type: request.protocol_type,
        protocols: request.protocols.into_iter().map(|(name, metadata)| (name, metadata.into())).collect(),
        delay_first,
        members_max,
    }
}

/// Waits until a member is part of `generation` or a later one.
async fn wait<E: Engine + Clone + 'static>(
    inner: &Arc<Inner<E>>,
    place: &Place,
    (name, member): (&str, &MemberIdentity),
    generation: i32,
    deadline: Instant,
) -> Result<Generation> {
    let _waiting = Waiting::begin(inner, place, (name, &member.id), false);
    let look = |group: Option<&Arc<Group>>| {
        let Some(group) = group else { return Some(Err(ErrorKind::UnknownMember.into())) };
        match group.members.get(&member.id) {
            Some(known) if known.generation >= generation => Some(told(group, known)),
            Some(_) => None,
            None => Some(Err(missing(group, member))),
        }
    };
    inner.wait_for(place, name, deadline, look).await
}

/// Why a member that was in a group no longer is.
pub(super) fn missing(group: &Group, member: &MemberIdentity) -> Error {
    let is_taken = |other: &Arc<Member>| other.instance.is_some() && other.instance == member.instance;
    let taken = group.members.values().any(is_taken);
    if taken { ErrorKind::FencedInstance.into() } else { ErrorKind::UnknownMember.into() }
}

/// The group's generation, as one of its members is told.
fn told(group: &Group, member: &Member) -> Result<Generation> {
    // A generation was made up, so there are these; they stay until the next is.
    let (Some(protocol_type), Some(protocol), Some(leader)) = (&group.protocol_type, &group.protocol, &group.leader)
    else {
        return Err(ErrorKind::RebalanceInProgress.into());
    };
    let in_generation = |member: &&Arc<Member>| member.generation == group.generation;
    let members = group.members.values().filter(in_generation).map(|member| GenerationMember {
        identity: MemberIdentity { id: member.id.clone(), instance: member.instance.clone() },
        metadata: metadata(member, protocol),
    });
    Ok(Generation {
        generation: member.generation,
        protocol_type: protocol_type.clone(),
        protocol: protocol.clone(),
        leader: leader.clone(),
        member: member.id.clone(),
        skip_assignment: false,
        members: if *leader == member.id { members.collect() } else { Vec::new() },
    })
}

/// A member's metadata for a protocol.
pub(super) fn metadata(member: &Member, protocol: &str) -> Bytes {
    let found = member.protocols.iter().find(|(name, _)| name == protocol);
    found.map(|(_, metadata)| Bytes::copy_from_slice(metadata)).unwrap_or_default()
}
