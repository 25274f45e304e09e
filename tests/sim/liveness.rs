//! After the faults: a connected majority must do its work within a bounded time, whoever else stays away; and when
//! everybody is back, all replicas must become equal.

use crate::chance::{Chance, MILLISECOND, SECOND};
use crate::clients::Eyes;
use crate::node::Node;
use crate::observe::Observation;
use crate::trace::mix_bytes;
use crate::workload::probe::{Acknowledged, Probe};
use crate::world::{Event, World};
use ackord::controller::view::GroupFate;
use ackord::multiraft::apply::machine::Machine;
use ackord::types::{CONTROLLER_GROUP, GroupKind, Membership, NodeId, Offset, RaftGroupId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// How long recovery may take.
const RECOVERY_MAX: u64 = 60 * SECOND;
/// What is counted of a group that has too few nodes while a majority of all is up: nothing is asked of it.
pub const NO_MAJORITY: &str = "group without a majority";
/// What is counted of one that has enough of them, of which too few know that they are its voters.
pub const NOT_JUDGED: &str = "group not judged";
/// How often it is looked at.
const LOOK: u64 = 250 * MILLISECOND;

impl World {
    /// See the module.
    pub fn recover(&mut self) -> Result<(), String> {
        self.calm = true;
        self.heal_all();
        self.end_visits();
        let up = self.choose_majority();
        self.trace.note(self.now, "calm", &[up.len() as u64], || format!("{up:?} are up"));
        self.run_until(self.now + 10 * MILLISECOND)?;
        self.stop_actors();
        self.let_majority_work(&up)?;
        self.nemesis.down.clear();
        self.heal_all();
        for node in 1..=self.nodes.len() as u32 {
            self.schedule(0, Event::Start { node: NodeId(node) });
        }
        self.stop_actors();
        self.let_all_agree()?;
        self.tell_end();
        match self.watch.violation() {
            Some(violation) => Err(violation.to_owned()),
            None => Ok(()),
        }
    }

    fn stop_actors(&mut self) {
        for own in 0..self.actors.len() {
            self.with_actor(own, |actor, _| actor.stop());
        }
    }

    /// A random majority; the others stay down, or are cut off.
    fn choose_majority(&mut self) -> BTreeSet<NodeId> {
        let mut order = self.members();
        let count = order.len();
        self.chances.nemesis.shuffle(&mut order);
        if self.chances.nemesis.one_in(2) {
            // Those whose disks are whole: then every group has a majority.
            order.sort_by_key(|node| self.node(*node).damaged);
        }
        let majority = self.chances.nemesis.between(count as u64 / 2 + 1, count as u64) as usize;
        let away = order.split_off(majority);
        let up: BTreeSet<_> = order.into_iter().collect();
        for node in away {
            if self.chances.nemesis.one_in(2) {
                self.end_process(Self::position(node), true);
                self.nemesis.down.insert(node);
            }
            for other in &up {
                self.cut(node, *other);
                self.cut(*other, node);
            }
        }
        for node in &up {
            self.schedule(0, Event::Start { node: *node });
        }
        up
    }

    /// The members of a group, as the newest one's state has it.
    fn membership(&self, group: RaftGroupId) -> Membership {
        let machines = self.nodes.iter().filter_map(|node| node.machine(group));
        let newest = machines.max_by_key(|machine| machine.applied().index);
        newest.map(|machine| machine.membership().clone()).unwrap_or_default()
    }

    /// The replicas of a group that vote.
    fn voters(&self, group: RaftGroupId) -> Vec<ReplicaId> {
        self.membership(group).voters
    }

    fn let_majority_work(&mut self, up: &BTreeSet<NodeId>) -> Result<(), String> {
        let (mut probes, groups) = (Acknowledged::default(), self.groups());
        self.add_actor(Box::new(Probe::new(groups.clone(), Acknowledged::clone(&probes))));
        let deadline = self.now + RECOVERY_MAX;
        let mut left: BTreeSet<_> = groups.into_iter().collect();
        while self.now < deadline && !left.is_empty() {
            self.run_until(self.now + LOOK)?;
            left.retain(|group| self.may_recover(*group, up) && !self.has_recovered(*group, up, &mut probes));
        }
        for group in left {
            if self.is_deleted(group) {
                self.coverage.hit("group deleted in recovery");
                continue;
            }
            let whole = self.is_whole(group, up);
            if !whole && !self.has_majority(group, up) {
                self.coverage.hit(NOT_JUDGED);
                continue;
            }
            let progress = probes.borrow().contains_key(&group);
            self.watch.tell(&Observation::Liveness { group, up, progress });
            let what = match progress {
                true if whole => "has replicas that are not repaired or do not catch up",
                true => "has replicas that do not catch up",
                false => "acknowledges no write",
            };
            let standing = self.describe(group);
            self.watch.object(|| format!("liveness: group {group} {what}, {up:?} are up:\n{standing}"));
        }
        Ok(())
    }

    fn is_deleted(&self, group: RaftGroupId) -> bool {
        let gone = |view: &std::sync::Arc<ackord::controller::view::MetadataView>| {
            matches!(view.group(group), GroupFate::Deleted)
        };
        group != CONTROLLER_GROUP && self.newest_metadata().is_some_and(gone)
    }

    /// Whether enough of a group's nodes are up, if all of their replicas take part some day.
    fn may_recover(&mut self, group: RaftGroupId, up: &BTreeSet<NodeId>) -> bool {
        let voters = self.voters(group);
        let there = |voter: &&ReplicaId| up.contains(&voter.node()) && self.node(voter.node()).refused.is_none();
        let may = voters.is_empty() || voters.iter().filter(there).count() > voters.len() / 2;
        if !may {
            self.coverage.hit(NO_MAJORITY);
        }
        may
    }

    /// Whether all voters of a group are up, so that whatever they have lost can be repaired, and of the controller's
    /// group, which says who they are.
    fn is_whole(&self, group: RaftGroupId, up: &BTreeSet<NodeId>) -> bool {
        let there = |voter: &ReplicaId| up.contains(&voter.node()) && self.node(voter.node()).refused.is_none();
        let all = |group| {
            let voters = self.voters(group);
            !voters.is_empty() && voters.iter().all(there)
        };
        self.office.open().is_none() && all(group) && all(CONTROLLER_GROUP)
    }

    /// Whether a majority is up, of the members as those know them: that a change is over may be known only to others.
    fn has_majority(&self, group: RaftGroupId, up: &BTreeSet<NodeId>) -> bool {
        let machines = up.iter().filter_map(|node| self.node(*node).machine(group));
        let newest = machines.max_by_key(|machine| machine.applied().index);
        let members = newest.map(|machine| machine.membership().clone()).unwrap_or_default();
        // Who has lost the controller's state may know nobody until the controller names the others.
        let knows_others = |node| {
            self.node(node).quarantined(CONTROLLER_GROUP).is_none()
                || (group != CONTROLLER_GROUP && self.has_majority(CONTROLLER_GROUP, up))
        };
        let there = |voter: &&ReplicaId| {
            let node = voter.node();
            let is_voter = |replica: &ackord::raft::Replica| replica.id() == **voter;
            up.contains(&node) && self.node(node).replica(group).is_some_and(is_voter) && knows_others(node)
        };
        let majority = |voters: &[ReplicaId]| voters.iter().filter(there).count() > voters.len() / 2;
        majority(&members.voters) && (members.voters_outgoing.is_empty() || majority(&members.voters_outgoing))
    }

    /// Whether a probe was acknowledged and everybody who takes part has applied it.
    fn has_recovered(&mut self, group: RaftGroupId, up: &BTreeSet<NodeId>, probes: &mut Acknowledged) -> bool {
        let Some(at) = probes.borrow().get(&group).copied() else { return false };
        let voters = self.voters(group);
        let is_quarantined = |voter: &ReplicaId| self.node(voter.node()).quarantined(group).is_some();
        if self.is_whole(group, up) && voters.iter().any(is_quarantined) {
            return false;
        }
        // A node's next disk may have another replica, which the group does not know yet.
        let behind = |voter: &ReplicaId| {
            let node = self.node(voter.node());
            let applied = node.machine(group).map(|machine| machine.applied().index);
            node.replica(group).is_some_and(|replica| replica.id() == *voter)
                && applied.is_some_and(|applied| applied < at)
        };
        let recovered = !voters.iter().filter(|voter| up.contains(&voter.node())).any(behind);
        if recovered {
            self.watch.tell(&Observation::Liveness { group, up, progress: true });
        }
        recovered
    }

    fn let_all_agree(&mut self) -> Result<(), String> {
        let deadline = self.now + RECOVERY_MAX;
        loop {
            self.run_until(self.now + LOOK)?;
            self.read_damaged();
            let open = self.disagreement();
            let Some(open) = open else { return Ok(()) };
            if self.now >= deadline {
                return Err(format!("liveness: after everybody has come back, {open}"));
            }
        }
    }

    /// Reads all that there is on disks that were damaged: what nobody has met yet is to be repaired, too.
    fn read_damaged(&mut self) {
        for position in 0..self.nodes.len() {
            let node = &self.nodes[position];
            let Some(process) = node.process.as_ref().filter(|_| node.damaged) else { continue };
            let error = |group| Some((group, node.read_all(group).err()?));
            let unreadable: Vec<_> = process.core.group_ids().filter_map(error).collect();
            for (group, reason) in unreadable {
                self.condemn(position, group, &reason);
            }
        }
    }

    /// Why the cluster is not done yet, if so.
    fn disagreement(&mut self) -> Option<String> {
        for own in 0..self.actors.len() {
            let actor = self.actors[own].take().expect("it is nobody's turn");
            let settled = actor.is_settled(&Eyes { world: self, own });
            let waiting = (!settled).then(|| actor.describe());
            self.actors[own] = Some(actor);
            if waiting.is_some() {
                return waiting;
            }
        }
        let is_down = |node: &&Node| node.process.is_none() && node.refused.is_none();
        let down = self.nodes.iter().find(|node| is_down(node) && !self.office.is_gone(node.id));
        if let Some(node) = down {
            return Some(format!("node {} is down", node.id));
        }
        if let Some(open) = self.office.open() {
            let all: Vec<_> = self.groups().into_iter().map(|group| self.describe(group)).collect();
            return Some(format!("{open}\n{}", all.join("\n")));
        }
        // Whole states are compared once nobody is behind.
        let (groups, describe) =
            (self.groups(), |group, reason| format!("group {group}: {reason}:\n{}", self.describe(group)));
        let behind = groups.iter().find_map(|group| Some(describe(*group, self.is_behind(*group)?)));
        behind.or_else(|| groups.iter().find_map(|group| Some(describe(*group, self.differ(*group)?))))
    }

    /// The voters that the controller wants a group to have.
    fn wanted(&self, group: RaftGroupId) -> Vec<ReplicaId> {
        let Some(view) = self.newest_metadata() else { return Vec::new() };
        let members = &view.cluster().controllers.members;
        match view.group(group) {
            _ if group == CONTROLLER_GROUP && !members.replicas.is_empty() => members.wanted(),
            GroupFate::Alive(topic, partition) => topic.partitions[partition].wanted(),
            _ => self.voters(group),
        }
    }

    /// Why a group is not what it should be, before its replicas are compared.
    fn is_behind(&self, group: RaftGroupId) -> Option<String> {
        let members = self.membership(group);
        let wanted = self.wanted(group);
        if members.is_joint() || members.voters.iter().any(|voter| !wanted.contains(voter)) {
            return Some(format!("the members are {members:?}, and should be {wanted:?}"));
        }
        let hosts = self.nodes.iter().filter_map(|node| node.replica(group));
        if let Some(removed) = hosts.map(ackord::raft::Replica::id).find(|replica| !members.contains(*replica)) {
            return Some(format!("{removed} was removed, and is still there"));
        }
        let newest = self.hosts(group).filter_map(|node| node.machine(group)).map(|machine| machine.applied()).max();
        self.hosts(group).find_map(|node| match (node.quarantined(group), node.machine(group)) {
            (Some(_), _) if self.waits_for_word(group, node) => None,
            (Some(_), _) => Some(format!("node {} is not repaired", node.id)),
            // Which groups its log has forgotten is in the controller's state.
            (None, None) if self.waits_for_word(CONTROLLER_GROUP, node) => None,
            (None, None) => Some(format!("node {} has it not", node.id)),
            (None, Some(machine)) if Some(machine.applied()) < newest => Some(format!("node {} is behind", node.id)),
            _ => None,
        })
    }

    /// Whether a replica does not know its promises and one of the voters can't say its term, because its node does not
    /// start: that one has to be replaced first. Or it does not know whom to ask, and waits for the controller's
    /// replica of its node, which waits so.
    fn waits_for_word(&self, group: RaftGroupId, node: &Node) -> bool {
        let step = node.process.as_ref().and_then(|process| process.core.repair_step(group)).unwrap_or_default();
        let silent = |voter: ReplicaId| self.node(voter.node()).refused.is_some();
        if group != CONTROLLER_GROUP && step.contains("who else has it is lost here") {
            return self.waits_for_word(CONTROLLER_GROUP, node);
        }
        step.contains("say of their terms") && self.voters(group).into_iter().any(silent)
    }

    /// The nodes of a group's voters, but for those that have refused to start.
    fn hosts(&self, group: RaftGroupId) -> impl Iterator<Item = &Node> {
        self.voters(group).into_iter().map(|voter| self.node(voter.node())).filter(|node| node.process.is_some())
    }

    /// How the replicas of a group differ, if they do.
    fn differ(&self, group: RaftGroupId) -> Option<String> {
        let whole = self.hosts(group).filter(|node| node.replica(group).is_some());
        let mut all = whole.map(|node| (node.id, node.digest(group)));
        let (first, expected) = all.next()?;
        let (other, _) = all.find(|(_, digest)| *digest != expected)?;
        Some(format!("nodes {first} and {other} differ"))
    }

    /// How the replicas of a group stand.
    pub fn describe(&self, group: RaftGroupId) -> String {
        self.nodes.iter().map(|node| node.describe_group(group)).collect::<Vec<_>>().join("\n")
    }

    /// The final contents.
    fn tell_end(&mut self) {
        for group in self.groups_of(GroupKind::Partition) {
            let hosts = self.nodes.iter().filter(|node| node.replica(group).is_some());
            let read: Result<BTreeMap<NodeId, (Offset, Vec<u64>)>, String> =
                hosts.map(|node| node.records(group).map(|records| (node.id, records))).collect();
            match read {
                Ok(records) => self.watch.tell(&Observation::Final { group, records: &records }),
                Err(reason) => self.watch.object(|| format!("group {group} can't be read in the end: {reason}")),
            }
        }
        for raft in self.groups_of(GroupKind::Coordinator) {
            for node in &self.nodes {
                let Some(coordinator) = node.coordinator(raft) else { continue };
                for name in coordinator.groups().keys() {
                    let Ok(offsets) = node.stored_offsets(raft, name) else { continue };
                    let group = (raft, name.as_str());
                    self.watch.tell(&Observation::FinalOffsets { node: node.id, group, offsets: &offsets });
                }
            }
        }
    }
}

impl Node {
    /// Reads whatever rows a group has here; the error is the first that can't be read.
    fn read_all(&self, group: RaftGroupId) -> Result<(), String> {
        match self.machine(group) {
            Some(Machine::Partition(_)) => self.records(group).map(drop),
            Some(Machine::Coordinator(coordinator)) => {
                coordinator.groups().keys().try_for_each(|name| self.stored_offsets(group, name).map(drop))
            }
            _ => Ok(()),
        }
    }

    /// The whole state of a group here, as a number.
    pub fn digest(&self, group: RaftGroupId) -> Option<u64> {
        let machine = self.machine(group)?;
        let (_, head) = machine.head();
        let mut digest = mix_bytes(0, &head);
        if let Machine::Partition(_) = machine {
            let (start, values) = self.records(group).ok()?;
            digest = crate::trace::mix(digest, start.0.cast_unsigned());
            digest = values.into_iter().fold(digest, crate::trace::mix);
        }
        Some(digest)
    }
}
