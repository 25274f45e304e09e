//! A member joins, or joins again.

use super::NAME_BYTES_MAX;
use super::command::{Join, Joined, Rejection};
use super::group::{Group, Member, Phase};
use super::state::Editor;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most members of a group, whatever the configuration allows: every join copies a pointer for each.
pub const MEMBERS_MAX: usize = 10_000;

/// Most ids of a group that are handed out and have not joined.
pub const PENDING_MAX: usize = 2_000;

/// Most protocols of a member. Clients have a handful.
pub const PROTOCOLS_MAX: usize = 64;

/// Executes the command.
pub(super) fn join(editor: &mut Editor<'_>, mut join: Join) -> Result<Joined, Rejection> {
    let names = [&join.group, &join.member, &join.new_member, &join.client_id, &join.client_host, &join.protocol_type];
    let names = names.into_iter().chain(&join.instance).chain(join.protocols.iter().map(|(name, _)| name));
    if names.map(String::len).any(|length| length > NAME_BYTES_MAX) {
        return Err(Rejection::CoordinatorFull);
    }
    if join.protocols.len() > PROTOCOLS_MAX {
        return Err(Rejection::InconsistentProtocol);
    }
    let mut seen = BTreeSet::new();
    join.protocols.retain(|(name, _)| seen.insert(name.clone()));
    let group = match editor.state.group(&join.group) {
        Some(group) => Group::clone(group),
        None if join.member.is_empty() => Group::new(join.group.clone(), editor.now_ms),
        None => return Err(Rejection::UnknownMember),
    };
    editor.grow(group, |group, now_ms| group.join(join, now_ms))
}

impl Group {
    fn join(&mut self, join: Join, now_ms: i64) -> Result<Joined, Rejection> {
        if !self.has_room(&join) {
            // Members of a group that has become too large are shed where it prepares its next generation.
            let comes_late = self.check_member(&join.member, join.instance.as_deref()).is_ok();
            if comes_late && self.take_out(&join.member).is_some() {
                self.settle(true, now_ms);
            }
            return Err(Rejection::GroupFull);
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            return Err(Rejection::InconsistentProtocol);
        }
        if join.member.is_empty() {
            return self.join_new(join, now_ms);
        }
        if self.pending.contains(&join.member) {
            // Only dynamic members are given an id before they join.
            if join.instance.is_some() {
                return Err(Rejection::UnknownMember);
            }
            let id = join.member.clone();
            return Ok(self.add(id, join, now_ms));
        }
        self.check_member(&join.member, join.instance.as_deref())?;
        Ok(self.join_again(join, now_ms))
    }

    /// Whether who joins can be a member. As in Kafka, a preparation counts who has joined it: if the limit was
    /// lowered, the first come stay.
    fn has_room(&self, join: &Join) -> bool {
        let members_max = MEMBERS_MAX.min(join.members_max as usize);
        let known = match &join.instance {
            Some(instance) if join.member.is_empty() => self.member_of_instance(instance),
            _ => self.members.get(&join.member),
        };
        match self.phase {
            Phase::Empty => true,
            Phase::Preparing { .. } => known.is_some_and(|member| member.joined) || self.joined().count() < members_max,
            Phase::Completing | Phase::Stable => known.is_some() || self.members.len() < members_max,
        }
    }

    /// Somebody without an id.
    fn join_new(&mut self, join: Join, now_ms: i64) -> Result<Joined, Rejection> {
        let id = join.new_member.clone();
        if id.is_empty() || self.members.contains_key(&id) || self.pending.contains(&id) {
            return Err(Rejection::UnknownMember);
        }
        match &join.instance {
            Some(instance) => match self.member_of_instance(instance).map(|old| old.id.clone()) {
                Some(old) => Ok(self.replace_static(&old, join, now_ms)),
                None => Ok(self.add(id, join, now_ms)),
            },
            None if !join.two_steps => Ok(self.add(id, join, now_ms)),
            None if self.pending.len() < PENDING_MAX => {
                self.pending.insert(id.clone());
                Ok(Joined::Again { member: id })
            }
            None => Err(Rejection::GroupFull),
        }
    }

    fn add(&mut self, id: String, join: Join, now_ms: i64) -> Joined {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        if !matches!(self.phase, Phase::Preparing { .. }) {
            self.prepare(self.is_empty() && join.delay_first, now_ms);
        }
        let member = Member { id: id.clone(), instance: join.instance.clone(), joined: true, ..Member::default() };
        self.put(member, join);
        self.complete_if_all_joined(now_ms);
        self.in_as(id)
    }

    /// Puts a member in as it describes itself now.
    fn put(&mut self, mut member: Member, join: Join) {
        self.joins += 1;
        member.joins = self.joins;
        (member.client_id, member.client_host) = (join.client_id, join.client_host);
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.protocols = join.protocols;
        self.members.insert(member.id.clone(), Arc::new(member));
    }

    fn in_as(&self, member: String) -> Joined {
        Joined::In { member, generation: self.awaited_generation(), skip_assignment: false, leader: None }
    }

    /// A member joins again. One that lost its answer is told the generation as it is; a changed one, or a leader that
    /// wants to assign anew, begins another.
    fn join_again(&mut self, join: Join, now_ms: i64) -> Joined {
        let id = join.member.clone();
        let mut member = Member::clone(&self.members[&id]);
        let changed = member.protocols != join.protocols;
        let leads = self.leader.as_ref() == Some(&id);
        let rebalance = match self.phase {
            Phase::Preparing { .. } => false,
            Phase::Completing => changed,
            Phase::Stable => changed || leads,
            Phase::Empty => unreachable!("an empty group has no members"),
        };
        if rebalance {
            self.prepare(false, now_ms);
        }
        member.joined = matches!(self.phase, Phase::Preparing { .. });
        self.put(member, join);
        self.complete_if_all_joined(now_ms);
        self.in_as(id)
    }

    /// A static member comes back without its id: another takes its place, and the old id is fenced. The generation
    /// goes on if it is stable and would have chosen the same protocol with it (KIP-345). In one that waits for its
    /// assignment the leader may already have been told the old id: it begins again.
    fn replace_static(&mut self, old: &str, join: Join, now_ms: i64) -> Joined {
        let (id, can_skip) = (join.new_member.clone(), join.can_skip_assignment);
        let removed = self.members.remove(old).expect("the caller found it");
        let leads = self.leader.as_deref() == Some(old);
        if leads {
            self.leader = Some(id.clone());
        }
        self.put(Member { id: id.clone(), ..Member::clone(&removed) }, join);
        if self.phase == Phase::Stable && self.choose_protocol() == self.protocol {
            let skip_assignment = leads && can_skip;
            let leader = (leads && !can_skip).then(|| old.to_owned());
            return Joined::In { member: id, generation: self.generation, skip_assignment, leader };
        }
        if !matches!(self.phase, Phase::Preparing { .. }) {
            self.prepare(false, now_ms);
        }
        let member = self.members.get_mut(&id).expect("it was put there");
        Arc::make_mut(member).joined = true;
        self.complete_if_all_joined(now_ms);
        self.in_as(id)
    }
}
