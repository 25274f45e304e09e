//! How repairs come into the core: what makes a replica one, what its steps lead to, how it ends.

use super::super::effect::Effect;
use super::super::group::Group;
use super::super::turn::Then;
use super::super::{Core, GroupStart, Slot, snapshot};
use super::message::RepairBody;
use super::{Cause, Repair, Stage, Steps};
use crate::raft::{Broken, Replica, ReplicaStart};
use crate::types::{HardState, LogId, LogIndex, Membership, RaftGroupId, ReplicaId};
use crate::wal::{GroupRecovery, GroupWrite, LogChange};

/// What was found wrong before a replica was opened.
fn diagnose(start: &GroupStart) -> Option<(Cause, String)> {
    if start.forgotten {
        let reason = "the log has lost turns, and may have forgotten what it promised in this group";
        return Some((Cause::Promises, reason.to_owned()));
    }
    let (damage, recovery) = (start.recovery.damage.as_ref(), &start.recovery);
    if let Some(damage) = damage.filter(|damage| damage.doubt) {
        return Some((Cause::Promises, damage.reason.clone()));
    }
    if let Some(reason) = &start.state_damage {
        return Some((Cause::State, reason.clone()));
    }
    if start.applied.index < recovery.start.index {
        let reason = format!("the state is as of entry {}, and the log begins after {}", start.applied, recovery.start);
        return Some((Cause::State, reason));
    }
    damage.map(|damage| (Cause::Entries, damage.reason.clone()))
}

impl Core {
    /// A group as it was found: one that takes part, or one that is to be repaired. `before`: a repair of it that has
    /// come so far.
    pub(in super::super) fn open(
        &mut self,
        mut start: GroupStart,
        known: Option<(Cause, String)>,
        before: Option<Box<Repair>>,
    ) -> Slot {
        let group = start.group;
        if let Some(change) = snapshot::resolve_install(&mut start.recovery, start.applied) {
            let hard_state = start.recovery.hard_state;
            self.queue.push_change(GroupWrite { group, hard_state, change }, Then::Nothing);
        }
        let found = known.or_else(|| diagnose(&start));
        let (cause, reason) = match found {
            Some(found) => found,
            None => match self.open_replica(&start) {
                Ok(opened) => return Slot::Live(Box::new(opened)),
                Err(Broken(reason)) => {
                    self.doubt((group, start.replica), &start.membership, start.recovery.hard_state);
                    (Cause::Promises, reason)
                }
            },
        };
        let new =
            || Box::new(self.new_repair((group, start.replica), (start.membership.clone(), None), reason.clone()));
        let mut repair = before.unwrap_or_else(new);
        repair.plan(start, cause, reason, self.next_nonce());
        if cause == Cause::State {
            self.keep_log(group, !repair.peers().is_empty());
        }
        self.flush_wanted |= repair.would_gain_by_flush();
        Slot::Quarantined(repair)
    }

    fn next_nonce(&mut self) -> u64 {
        self.attempts += 1;
        self.options.life.wrapping_add(self.attempts)
    }

    fn open_replica(&self, start: &GroupStart) -> Result<Group, Broken> {
        let replica = Replica::new(
            ReplicaStart {
                group: start.group,
                replica: start.replica,
                hard_state: start.recovery.hard_state,
                start: start.recovery.start,
                last: start.recovery.last,
                terms: start.recovery.terms.clone(),
                applied: start.applied.index,
                membership: start.membership.clone(),
            },
            self.options.replica_options(),
        )?;
        Ok(Group::new(start.group, replica, start.applied.index))
    }

    /// A replica that takes part finds that it must not. `lost`: entries that can't be read.
    pub(in super::super) fn quarantine(
        &mut self,
        id: RaftGroupId,
        reason: String,
        known: Option<Cause>,
        lost: Option<(LogIndex, LogIndex)>,
    ) {
        let Some(Slot::Live(group)) = self.groups.get(&id) else { return };
        let (own, members) = (group.replica.id(), group.replica.membership().clone());
        let mut repair = Box::new(self.new_repair((id, own), (members, known), reason.clone()));
        // One that has joined, and has had no snapshot, knows only who leads.
        repair.leader = group.replica.leader().filter(|leader| *leader != own);
        let has_peers = !repair.peers().is_empty();
        let Some(Slot::Live(mut group)) = self.groups.insert(id, Slot::Quarantined(repair)) else {
            unreachable!("the slot was just seen to be live")
        };
        group.abandon(&mut self.effects);
        self.forget(id);
        // Nor what has not left yet: whatever it says from now on is about its repair.
        self.outbox.values_mut().for_each(|messages| messages.retain(|(group, _)| *group != id));
        if known == Some(Cause::Promises) {
            self.doubt((id, own), group.replica.membership(), group.replica.hard_state());
        }
        if known == Some(Cause::State) {
            self.keep_log(id, has_peers);
        }
        self.effects.push(Effect::Quarantined { group: id, reason: reason.clone() });
        let lost = lost.map(|(first, last)| (first, last, reason));
        self.effects.push(Effect::Examine { group: id, lost });
    }

    /// The state of a replica that is being repaired is found to be damaged, or another one could not be switched to.
    pub(in super::super) fn state_failed(&mut self, id: RaftGroupId, reason: &str) {
        let Some(Slot::Quarantined(repair)) = self.groups.get_mut(&id) else { return };
        repair.state_failed(reason);
        let has_peers = !repair.peers().is_empty();
        self.keep_log(id, has_peers);
    }

    /// The log may go on from whatever state takes the place of the one that is lost: that of a peer, if there is one.
    fn keep_log(&mut self, group: RaftGroupId, has_peers: bool) {
        if has_peers {
            self.effects.push(Effect::Release(vec![(group, LogIndex(0))]));
        }
        if self.flushing {
            self.lost_while_flushing.insert(group);
        }
    }

    /// The log is to know that promises were lost: what shows it now may be gone at the next start. One whose promises
    /// bind nobody else may look again. Committed entries may not be here: nothing is said of them.
    fn doubt(&mut self, (group, own): (RaftGroupId, ReplicaId), members: &Membership, hard_state: HardState) {
        if members.voters != [own] || members.is_joint() {
            let hard_state = HardState { commit: LogIndex(0), ..hard_state };
            self.queue.push_change(GroupWrite { group, hard_state, change: LogChange::Doubt }, Then::Nothing);
        }
    }

    /// The controller says that a replica of this group is here, and the log may have forgotten it.
    pub(in super::super) fn adopt(&mut self, group: RaftGroupId, replica: ReplicaId, membership: Membership) {
        self.learn_replicas(group, replica, membership.clone());
        if self.groups.contains_key(&group) {
            return;
        }
        let recovery = GroupRecovery::default();
        let state_damage = Some("there is none".to_owned());
        let applied = LogId::default();
        self.add(GroupStart { group, replica, recovery, applied, membership, state_damage, forgotten: true });
    }

    /// The controller says who may be asked, now or when the replica here is damaged later.
    pub(in super::super) fn learn_replicas(&mut self, id: RaftGroupId, own: ReplicaId, replicas: Membership) {
        self.with_repair(id, |repair, _| repair.learn_members(own, replicas.clone()));
        self.planned.insert(id, (own, replicas));
    }

    /// A repair that begins, with what the controller has said of its group.
    fn new_repair(
        &self,
        (id, own): (RaftGroupId, ReplicaId),
        known: (Membership, Option<Cause>),
        why: String,
    ) -> Repair {
        let mut repair = Repair::new(id, own, known.0, why, known.1);
        if let Some((own, replicas)) = self.planned.get(&id) {
            repair.learn_members(*own, replicas.clone());
        }
        repair
    }

    /// What the driver has found of a replica that it was to look at.
    pub(in super::super) fn examined(
        &mut self,
        id: RaftGroupId,
        recovery: Option<GroupRecovery>,
        state: Option<(LogId, Membership)>,
    ) {
        let repair = match self.groups.remove(&id) {
            Some(Slot::Quarantined(repair)) if matches!(repair.stage, Stage::Examining) => repair,
            other => {
                self.groups.extend(other.map(|slot| (id, slot)));
                return;
            }
        };
        let known = repair.known.map(|cause| (cause, repair.reason.clone()));
        let state_damage = state.is_none().then(|| "the state machine is damaged or missing".to_owned());
        let (applied, membership) = state.unwrap_or_else(|| (LogId::default(), repair.membership.clone()));
        let start = GroupStart {
            group: id,
            replica: repair.own,
            forgotten: recovery.is_none(),
            recovery: recovery.unwrap_or_default(),
            applied,
            membership,
            state_damage,
        };
        let last = start.recovery.last;
        let slot = self.open(start, known, Some(repair));
        if matches!(slot, Slot::Live(_)) {
            self.effects.push(Effect::Repaired { group: id, last });
        }
        self.groups.insert(id, slot);
        self.touched.insert(id);
    }

    /// Does what repairs want done.
    pub(in super::super) fn take_steps(&mut self, steps: Steps) {
        self.effects.extend(steps.effects);
        for (write, then) in steps.writes {
            self.queue.push_change(write, then);
        }
    }

    /// Runs `act` on a replica that is being repaired.
    pub(in super::super) fn with_repair(&mut self, id: RaftGroupId, act: impl FnOnce(&mut Repair, &mut Steps)) {
        let Some(Slot::Quarantined(repair)) = self.groups.get_mut(&id) else { return };
        let mut steps = Steps::default();
        act(repair, &mut steps);
        self.take_steps(steps);
    }

    /// Entries are dropped beyond the limits: the repair asks again.
    pub(super) fn hear_answer(&mut self, group: RaftGroupId, (own, from): (ReplicaId, ReplicaId), body: RepairBody) {
        if matches!(body, RepairBody::Entries { .. }) && self.is_behind() {
            return;
        }
        self.with_repair(group, |repair, steps| {
            if repair.own == own {
                repair.hear(from, body, steps);
            }
        });
    }

    /// A flushed state makes lost entries below it needless.
    pub(in super::super) fn look_behind_flush(&mut self, id: RaftGroupId, flushed: LogIndex) {
        let Some(Slot::Quarantined(repair)) = self.groups.get(&id) else { return };
        if repair.needs_no_longer(flushed) {
            self.examine_again(id);
        }
    }

    /// What a repair has written is durable: another look decides what comes next.
    pub(in super::super) fn examine_again(&mut self, id: RaftGroupId) {
        let Some(Slot::Quarantined(repair)) = self.groups.get_mut(&id) else { return };
        repair.stage = Stage::Examining;
        self.effects.push(Effect::Examine { group: id, lost: None });
    }
}
