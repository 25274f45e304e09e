//! How a group gets from the members it has to those it is to have, one safe step at a time.
//!
//! A replica that is to vote joins as a learner, catches up, and then takes the place of one that is to go in a single
//! joint change (Raft §6): at no moment does a replica that lacks entries count towards a majority, and at no moment
//! are there fewer voters than before. A leader that is to go hands its office over first.
//!
//! The decision is a pure function of what the leader knows, and whoever drives it asks again until it says `Done`.
//! Nothing is remembered between two steps, so a new leader goes on where its predecessor stopped.

use super::Core;
use super::group::Group;
use crate::raft::{Broken, FollowerProgress, MemberChange, Role};
use crate::types::{LogIndex, Membership, RaftGroupId, ReplicaId};

/// How many entries of the leader's log a replica may lack and still be promoted: those that arrive meanwhile are on
/// their way to everybody.
const CAUGHT_UP_ENTRIES: u64 = 1_000;

/// The members that a group is to have. Both sorted; none is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedMembers {
    /// Those that vote.
    pub voters: Vec<ReplicaId>,
    /// Those that only receive the log.
    pub learners: Vec<ReplicaId>,
}

impl WantedMembers {
    /// Whether a group with these members needs no change.
    #[must_use]
    pub fn are(&self, members: &Membership) -> bool {
        !members.is_joint() && members.voters == self.voters && members.learners == self.learners
    }
}

/// What a leader does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the members are those that are wanted.
    Done,
    /// Nothing now: a replica has to catch up, or to be reached.
    Wait,
    /// Hands the office to this voter, which stays.
    HandOver(ReplicaId),
    /// Proposes this.
    Change(MemberChange),
}

/// The next step of the leader `own`, whose log ends at `last`, while no change is on its way.
#[must_use]
pub fn next_step(
    present: &Membership,
    wanted: &WantedMembers,
    (own, last): (ReplicaId, LogIndex),
    followers: &[FollowerProgress],
) -> Step {
    if present.is_joint() {
        // raft-rs leaves it by itself, a new leader's included; this is for the case that it does not.
        return Step::Change(MemberChange::default());
    }
    let missing = wanted.voters.iter().chain(&wanted.learners).find(|replica| !present.contains(**replica));
    if let Some(replica) = missing {
        return Step::Change(MemberChange { learn: vec![*replica], ..MemberChange::default() });
    }
    let view = View { present, wanted, own, last, followers };
    if let Some(step) = view.exchange() {
        return step;
    }
    let is_wanted = |replica: &&ReplicaId| wanted.voters.contains(replica) || wanted.learners.contains(replica);
    match present.learners.iter().find(|replica| !is_wanted(replica)) {
        Some(surplus) => Step::Change(MemberChange { remove: vec![*surplus], ..MemberChange::default() }),
        None if wanted.are(present) => Step::Done,
        None => Step::Wait,
    }
}

/// What a leader decides from.
struct View<'a> {
    /// The members it has.
    present: &'a Membership,
    /// The members it is to have.
    wanted: &'a WantedMembers,
    /// Itself.
    own: ReplicaId,
    /// Its newest entry.
    last: LogIndex,
    /// What it knows of the others.
    followers: &'a [FollowerProgress],
}

impl View<'_> {
    /// Lets learners that are ready vote, and voters go in their place; `None` while nothing of that can be done.
    fn exchange(&self) -> Option<Step> {
        let Self { present, wanted, own, .. } = *self;
        let vote: Vec<_> = present.learners.iter().copied().filter(|replica| self.is_ready(*replica)).collect();
        let mut surplus: Vec<_> = present.voters.iter().copied().filter(|one| !wanted.voters.contains(one)).collect();
        // Those that are away go first, and the leader last.
        surplus.sort_by_key(|replica| (*replica == own, self.is_active(*replica), *replica));
        // One goes for each that comes. When all have come, the rest goes.
        let complete = wanted.voters.iter().all(|replica| present.voters.contains(replica) || vote.contains(replica));
        let mut remove = surplus;
        remove.truncate(if complete { usize::MAX } else { vote.len() });
        if remove.contains(&own) {
            if let Some(heir) = self.heir() {
                return Some(Step::HandOver(heir));
            }
            remove.retain(|replica| *replica != own); // its heir has to become a voter first
        }
        if vote.is_empty() && remove.is_empty() {
            return None;
        }
        let voters = present.voters.iter().filter(|replica| !remove.contains(replica)).chain(&vote);
        let (count, active) =
            voters.fold((0, 0), |(count, active), voter| (count + 1, active + usize::from(self.is_active(*voter))));
        // The leader's group must not stop because of what it does to it.
        (2 * active > count).then(|| Step::Change(MemberChange { vote, remove, ..MemberChange::default() }))
    }

    /// Who takes the office over: the most advanced of the voters that stay.
    fn heir(&self) -> Option<ReplicaId> {
        let stays = |progress: &&FollowerProgress| {
            let replica = progress.replica;
            self.wanted.voters.contains(&replica) && self.present.voters.contains(&replica)
        };
        let heirs = self.followers.iter().filter(stays).filter(|progress| self.is_close(progress));
        heirs.max_by_key(|progress| (progress.matched, progress.replica)).map(|progress| progress.replica)
    }

    /// Whether a learner is to vote, and may.
    fn is_ready(&self, learner: ReplicaId) -> bool {
        let progress = self.followers.iter().find(|progress| progress.replica == learner);
        self.wanted.voters.contains(&learner) && progress.is_some_and(|progress| self.is_close(progress))
    }

    fn is_close(&self, progress: &FollowerProgress) -> bool {
        let reached = progress.matched > LogIndex(0) && progress.matched.0 + CAUGHT_UP_ENTRIES >= self.last.0;
        progress.recently_active && !progress.snapshot && reached
    }

    fn is_active(&self, replica: ReplicaId) -> bool {
        let progress = self.followers.iter().find(|progress| progress.replica == replica);
        replica == self.own || progress.is_some_and(|progress| progress.recently_active)
    }
}

impl Core {
    /// One step towards these members, if this node leads the group.
    pub(super) fn change_members(&mut self, id: RaftGroupId, wanted: &WantedMembers) {
        self.with_group(id, |group, _| group.change_members(wanted));
    }
}

impl Group {
    fn change_members(&mut self, wanted: &WantedMembers) -> Result<(), Broken> {
        let replica = &mut self.replica;
        if replica.role() != Role::Leader || replica.has_pending_change() {
            return Ok(());
        }
        let followers = replica.followers();
        let own = (replica.id(), replica.log().last().index);
        match next_step(replica.membership(), wanted, own, &followers) {
            Step::Done | Step::Wait => Ok(()),
            Step::HandOver(heir) => replica.transfer_leader(heir),
            // Whether it was taken shows in the members.
            Step::Change(change) => replica.propose_change(&change).map(drop),
        }
    }
}

#[cfg(test)]
#[path = "membership/tests.rs"]
mod tests;
