//! Nodes that are given up for good, and what takes their place: another node, or the same number with another disk.
//!
//! The operator asks the controller for the replacement; the new node registers and asks which replica of the
//! controller's group it is to have; leaders change the members of their groups and report. All of them decide with
//! production's functions. What was given up may come back, and must be refused.

use crate::chance::{Chance, MILLISECOND, SECOND};
use crate::faults::Healing;
use crate::jobs::Job;
use crate::node::{Arrived, Copy, Node};
use crate::observe::Observation;
use crate::workload::{Answer, Request};
use crate::world::{Event, World};
use ackord::broker::node::members::{Led, Work};
use ackord::controller::command::{Answer as Decided, Command, Finished, Registration};
use ackord::controller::view::MetadataView;
use ackord::machine::Outcome;
use ackord::multiraft::core::effect::{Input, Reply, Ticket};
use ackord::raft::Role;
use ackord::server::identity::Identity;
use ackord::server::joining::{Begin, begin};
use ackord::types::{CONTROLLER_GROUP, Incarnation, NodeId, RaftGroupId, ReplicaId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whose questions these are: no actor's.
pub const OFFICE: usize = usize::MAX;
/// How often the operator looks.
const LOOK: u64 = 200 * MILLISECOND;
/// How long a node waits that was refused.
const REFUSED_PAUSE: u64 = SECOND;
/// What is counted when a damaged disk has forgotten its newest turns, and only its peers notice.
pub const FORGOT_UNNOTICED: &str = "damage that only peers notice";
/// Nodes that a run has at most, those that were given up included.
const NODES_MAX: usize = 12;

/// What the controller is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    /// The operator: a replacement.
    Replace,
    /// A new node: to be known.
    Register,
    /// A new node: a replica of the controller's group.
    Join,
    /// A leader: word of what is done.
    Finish,
}

/// A question on its way.
#[derive(Clone, Copy, Debug)]
struct Asking {
    /// The node that asks, and its process; nobody if the operator does.
    who: Option<(NodeId, u64)>,
    /// For what.
    errand: Errand,
}

/// A replacement.
#[derive(Clone, Copy, Debug)]
struct Replacing {
    /// The node that is given up.
    old: NodeId,
    /// Its disk.
    incarnation: Incarnation,
    /// The node that takes its place.
    new: NodeId,
    /// The controller has begun it.
    begun: bool,
}

/// A disk that was given up.
pub struct OldDisk {
    /// What it says of itself.
    identity: Identity,
    /// What is on it.
    copy: Copy,
}

/// See the module.
#[derive(Default)]
pub struct Office {
    /// Questions that are not answered.
    asking: BTreeMap<Ticket, Asking>,
    /// The replacement that is open.
    open: Option<Replacing>,
    /// Nodes that are given up.
    gone: BTreeSet<NodeId>,
    /// Those of them that run all the same.
    visiting: BTreeSet<NodeId>,
    /// Disks that were given up, by the node that has another one now.
    old_disks: BTreeMap<NodeId, OldDisk>,
    /// What lies in the place of an old disk that is back for a while.
    put_aside: BTreeMap<NodeId, OldDisk>,
    /// Disks that were formatted.
    formatted: u128,
}

impl Office {
    /// Whether a node was given up, and another one has taken its place, or is to.
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.gone.contains(&node)
    }

    /// Whether a node's process may be started.
    pub fn may_start(&self, node: NodeId) -> bool {
        !self.gone.contains(&node) || self.visiting.contains(&node)
    }

    /// What is open, if anything.
    pub fn open(&self) -> Option<String> {
        self.open.map(|open| format!("the replacement is not complete: {open:?}"))
    }

    fn is_asking(&self, who: Option<(NodeId, u64)>, errand: Errand) -> bool {
        self.asking.values().any(|asking| (asking.who, asking.errand) == (who, errand))
    }
}

/// The replicas that were on a node's disk before the one that it is to have now.
fn replicas_before(view: &MetadataView, node: NodeId) -> BTreeMap<RaftGroupId, ReplicaId> {
    let before = |now: ReplicaId| Some(ReplicaId::new(node, now.generation().checked_sub(1)?));
    view.all_groups().filter_map(|known| Some((known.group, before(known.replica_on(node)?)?))).collect()
}

impl World {
    /// Nodes that are not given up.
    pub fn members(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).filter(|node| !self.office.is_gone(*node)).collect()
    }

    /// Gives a fragile node up, if none is being replaced.
    pub fn give_up(&mut self) -> bool {
        if self.office.open.is_some() || !self.is_set_up() || self.nodes.iter().any(|node| node.rolled_back) {
            return false;
        }
        let refused = self.shape.fragile.iter().copied().find(|node| self.is_refused(*node));
        let picked = self.pick_fragile();
        let Some(old) = refused.or(picked) else { return false };
        let position = Self::position(old);
        let other = self.chances.nemesis.one_in(2) && self.nodes.len() < NODES_MAX;
        let stays = other && self.chances.nemesis.one_in(3);
        if let Some(right) = self.nodes[position].right.take() {
            self.end_process(position, false);
            let here = &mut self.nodes[position];
            (here.disk, here.engine, here.refused) = (right.disk, right.engine, None);
        }
        let leads = self.nodes[position]
            .process
            .as_ref()
            .is_some_and(|process| process.board.values().any(|leadership| leadership.serving));
        self.coverage.hit(if leads { "replaced leader" } else { "replaced follower" });
        if !stays {
            self.end_process(position, true);
        }
        let incarnation = self.nodes[position].identity.incarnation;
        let new = if other { NodeId(self.nodes.len() as u32 + 1) } else { old };
        self.trace.note(self.now, "give up", &[old.0.into(), new.0.into()], || format!("node {old}, for node {new}"));
        self.office.gone.insert(old);
        self.office.open = Some(Replacing { old, incarnation, new, begun: false });
        if other {
            if stays {
                self.office.visiting.insert(old);
                self.schedule(MILLISECOND, Event::Start { node: old });
            }
            self.add_node(new);
        }
        self.schedule(LOOK, Event::Office);
        true
    }

    /// Whether the first nodes and topics are there.
    fn is_set_up(&mut self) -> bool {
        let actor = self.actors[0].take().expect("it is nobody's turn");
        let settled = actor.is_settled(&crate::clients::Eyes { world: self, own: 0 });
        self.actors[0] = Some(actor);
        settled
    }

    /// A node formatted to join the cluster.
    fn format(&mut self, id: NodeId) -> Node {
        self.office.formatted += 1;
        let incarnation = Incarnation(0x1_0000 + self.office.formatted);
        let shape = self.shape.clone();
        Node::joining(id, incarnation, &shape, &mut self.chances.nemesis)
    }

    fn add_node(&mut self, id: NodeId) {
        let node = self.format(id);
        self.nodes.push(node);
        self.network.grow();
        for other in self.members().into_iter().filter(|other| *other != id) {
            self.connect_later(other, id, MILLISECOND);
        }
        self.schedule(MILLISECOND, Event::Start { node: id });
    }

    /// The node has another disk from now on, and what was on the old one is no more.
    fn put_new_disk(&mut self, id: NodeId) {
        let position = Self::position(id);
        let replicas = self.newest_metadata().map(|view| replicas_before(view, id)).unwrap_or_default();
        self.end_process(position, true);
        let mut node = self.format(id);
        node.life = self.nodes[position].life;
        // Who has asked a process that stood still waits for an answer.
        node.held_up = std::mem::take(&mut self.nodes[position].held_up);
        let old = std::mem::replace(&mut self.nodes[position], node);
        let (identity, copy) = (old.identity, Copy { disk: old.disk, engine: old.engine });
        self.office.old_disks.insert(id, OldDisk { identity, copy });
        self.office.gone.remove(&id);
        for other in self.nodes.iter_mut().filter_map(|other| other.process.as_mut()) {
            other.remembers.remove(&id); // that was the old disk
        }
        self.watch.tell(&Observation::Damaged { node: id });
        self.watch.tell(&Observation::Replaced { node: id, replicas: &replicas });
        self.trace.note(self.now, "disk", &[id.0.into()], || format!("node {id}: a new one"));
        self.schedule(MILLISECOND, Event::Start { node: id });
    }

    /// The operator looks how far the replacement is, and old disks may come back.
    pub fn look_after_replacement(&mut self) {
        if !self.calm && self.chances.nemesis.one_in(25) {
            self.bring_back();
        }
        let Some(open) = self.office.open else {
            if !self.calm {
                self.schedule(5 * LOOK, Event::Office);
            }
            return;
        };
        self.schedule(LOOK, Event::Office);
        let Some(view) = self.newest_metadata().cloned() else { return };
        let is_open = view.cluster().replacements.iter().any(|known| known.old == open.old);
        let is_over = !is_open && view.cluster().retired.contains(&open.incarnation);
        // The answer may have been lost, and all of it done since.
        if open.begun || (is_over && open.old != open.new) {
            if is_over {
                self.finish_replacement(open);
            } else if self.is_refused(open.new) || self.is_registered_otherwise(open, &view) {
                self.give_up_again(open, &view);
            }
            return;
        }
        if self.office.is_asking(None, Errand::Replace) {
            return;
        }
        let (old, new) = (open.old, open.new);
        let live: Vec<_> = self.nodes.iter().filter(|node| node.process.is_some()).map(|node| node.id).collect();
        let force = live.contains(&old);
        let disk = view.broker(old).map(|broker| broker.incarnation);
        self.ask_controller(None, Errand::Replace, &Command::ReplaceNode { old, new, disk, live, force });
    }

    /// Whether a node can't be started with the disk that it has.
    fn is_refused(&self, node: NodeId) -> bool {
        let here = self.node(node);
        here.refused.is_some() && here.right.is_none() && self.watch.deaf_to != Some(node)
    }

    /// Whether a disk that was lost was registered after the next one was put in its place.
    fn is_registered_otherwise(&self, open: Replacing, view: &MetadataView) -> bool {
        let here = self.node(open.new);
        let present = [open.incarnation, here.identity.incarnation];
        let is_its_own = here.right.is_none() && self.watch.deaf_to != Some(open.new);
        is_its_own && view.broker(open.new).is_some_and(|known| !present.contains(&known.incarnation))
    }

    /// The disk that was to take a lost one's place is lost, too.
    fn give_up_again(&mut self, open: Replacing, view: &MetadataView) {
        self.coverage.hit("new disk lost, too");
        match view.broker(open.new) {
            None => self.put_new_disk(open.new),
            Some(known) => {
                self.office.gone.insert(open.new);
                let incarnation = known.incarnation;
                self.office.open = Some(Replacing { old: open.new, incarnation, begun: false, ..open });
            }
        }
    }

    fn finish_replacement(&mut self, open: Replacing) {
        self.coverage.hit("replacement finished");
        self.trace.note(self.now, "replaced", &[open.old.0.into(), open.new.0.into()], || format!("{open:?}"));
        self.office.open = None;
        if open.old != open.new {
            // All that the old one had is on the new one, whose disk may be the next.
            self.shape.fragile.retain(|node| *node != open.old);
            self.shape.fragile.push(open.new);
        }
    }

    /// Something that was given up comes back with its old disk.
    fn bring_back(&mut self) {
        let gone: Vec<_> = self.office.gone.iter().copied().collect();
        let replaced_by_others = self.office.open.is_none_or(|open| open.old != open.new);
        if !gone.is_empty() && replaced_by_others && self.chances.nemesis.one_in(2) {
            let node = *self.chances.nemesis.pick(&gone);
            if self.office.visiting.insert(node) {
                self.coverage.hit("old node back");
                self.schedule(0, Event::Start { node });
            }
            return;
        }
        let disks: Vec<_> = self.office.old_disks.keys().copied().collect();
        if self.watch.deaf_to.is_none() && !disks.is_empty() {
            let node = *self.chances.nemesis.pick(&disks);
            self.bring_old_disk(node);
        }
    }

    /// The old disk takes the place of the new one for a while, when everybody knows that it was replaced.
    fn bring_old_disk(&mut self, node: NodeId) {
        let position = Self::position(node);
        let Some(incarnation) = self.office.old_disks.get(&node).map(|disk| disk.identity.incarnation) else { return };
        let now = self.now;
        let knows = |other: &Node| {
            let process = other.process.as_ref().filter(|_| other.paused_until <= now);
            process.is_some_and(|process| process.seen.cluster().retired.contains(&incarnation))
        };
        let others = self.nodes.iter().filter(|other| other.id != node && !self.office.is_gone(other.id));
        let all_know = others.into_iter().all(knows);
        let disturbed = self.nodes.iter().any(|other| other.rolled_back) || self.nodes[position].right.is_some();
        if !all_know || disturbed || !self.office.visiting.is_empty() || self.office.is_gone(node) {
            return;
        }
        let Some(old) = self.office.old_disks.remove(&node) else { return };
        self.end_process(position, false);
        self.watch.deaf_to = Some(node);
        let new = self.swap_disk(position, old);
        self.office.put_aside.insert(node, new);
        self.coverage.hit("old disk back");
        let lasts = self.chances.nemesis.between(SECOND, 3 * SECOND);
        self.nemesis.quiet_until = self.now + lasts + MILLISECOND;
        self.schedule(MILLISECOND, Event::Start { node });
        self.heal_after(lasts, Healing::NewDisk(node));
    }

    /// The old disk goes again.
    pub fn put_new_disk_back(&mut self, node: NodeId) {
        let position = Self::position(node);
        self.end_process(position, false);
        if let Some(new) = self.office.put_aside.remove(&node) {
            let old = self.swap_disk(position, new);
            self.office.old_disks.insert(node, old);
        }
        self.watch.deaf_to = None;
        self.schedule(10 * MILLISECOND, Event::Start { node });
    }

    fn swap_disk(&mut self, position: usize, OldDisk { identity, copy }: OldDisk) -> OldDisk {
        let node = self.nodes[position].id;
        self.trace.note(self.now, "disk", &[node.0.into()], || format!("node {node}: that of {identity:?}"));
        let here = &mut self.nodes[position];
        here.copies.clear(); // they are of that disk
        let identity = std::mem::replace(&mut here.identity, identity);
        let disk = std::mem::replace(&mut here.disk, copy.disk);
        let engine = std::mem::replace(&mut here.engine, copy.engine);
        here.refused = None;
        OldDisk { identity, copy: Copy { disk, engine } }
    }

    /// A process learns that its disk was replaced: it ends for good.
    pub fn was_replaced(&mut self, position: usize) {
        let node = self.nodes[position].id;
        if !self.office.is_gone(node) {
            self.watch.object(|| format!("node {node} was replaced, and nobody wanted that"));
        }
        self.coverage.hit("old node ended itself");
        self.trace.note(self.now, "refused", &[node.0.into()], || format!("node {node} was replaced"));
        self.end_process(position, false);
        self.office.visiting.remove(&node);
    }

    /// The faults are over: what was given up stays away.
    pub fn end_visits(&mut self) {
        for node in std::mem::take(&mut self.office.visiting) {
            self.end_process(Self::position(node), false);
        }
    }

    /// A greeting with an old disk was refused; or let in, which is a violation once everybody knows.
    pub fn note_greeting(&mut self, from: NodeId, to: NodeId, result: &Result<(), String>) {
        let deaf = self.watch.deaf_to;
        match result {
            Ok(()) if deaf == Some(from) || deaf == Some(to) => {
                self.watch.object(|| format!("nodes {from} and {to} greet each other with a replaced disk"));
            }
            Err(reason) if reason.contains("was replaced") => {
                self.coverage.hit("old disk refused after replacement");
            }
            Err(reason) if reason.contains("rolled back") => {
                let about = |node: NodeId| reason.starts_with(&format!("node {node} had"));
                [from, to].into_iter().filter(|node| about(*node)).for_each(|node| self.take_out(node, reason));
            }
            _ => {}
        }
    }

    /// Damage that came together has taken the newest turns and whatever tells of them, so that only the peers know:
    /// the operator does what they say, and does not start the node again.
    fn take_out(&mut self, node: NodeId, reason: &str) {
        let here = self.node(node);
        if here.rolled_back || !here.damaged || self.watch.deaf_to == Some(node) {
            return; // the right disk comes back, or the peers are wrong
        }
        let position = Self::position(node);
        self.end_process(position, false);
        self.coverage.hit(FORGOT_UNNOTICED);
        self.nodes[position].refused = Some(reason.to_owned());
    }

    /// What a node asks of the controller by itself, looked at with every tick.
    pub fn run_errands(&mut self, position: usize) {
        let here = &self.nodes[position];
        let (node, life) = (here.id, here.life);
        if self.watch.deaf_to == Some(node) {
            return;
        }
        let who = Some((node, life));
        let Some(process) = here.process.as_ref() else { return };
        if process.joins.is_some() && self.now >= process.refused_until {
            let Identity { incarnation, .. } = here.identity;
            if !self.office.is_asking(who, Errand::Register) && !self.office.is_asking(who, Errand::Join) {
                let (errand, command) = match process.registered {
                    true => (Errand::Join, Command::JoinController { node, incarnation }),
                    false => (Errand::Register, Command::RegisterBroker(registration(node, incarnation))),
                };
                self.ask_controller(who, errand, &command);
            }
        }
        self.keep_members(position);
    }

    /// What `broker::node::members` does.
    fn keep_members(&mut self, position: usize) {
        let here = &mut self.nodes[position];
        let who = Some((here.id, here.life));
        let Some(process) = here.process.as_mut() else { return };
        let serving = process.board.iter().filter(|(_, leadership)| leadership.serving);
        let served = serving.map(|(group, leadership)| (*group, leadership.term));
        if !process.keeper.is_due(&process.seen, served) {
            return;
        }
        let view = Arc::clone(&process.seen);
        let core = &process.core;
        let replicas = core.group_ids().filter_map(|group| Some((group, core.replica(group)?)));
        let leads = replicas.filter(|(_, replica)| replica.role() == Role::Leader);
        let led = leads.map(|(group, replica)| Led { group, term: replica.term(), members: replica.membership() });
        let Work { change, finished } = process.keeper.look(&view, led);
        for (group, wanted) in change {
            self.arrive(position, Arrived::Input(Input::ChangeMembers { group, wanted }));
        }
        if !finished.is_empty() && !self.office.is_asking(who, Errand::Finish) {
            let finished: Vec<Finished> = finished;
            self.ask_controller(who, Errand::Finish, &Command::FinishReplacements { finished });
        }
    }

    fn ask_controller(&mut self, who: Option<(NodeId, u64)>, errand: Errand, command: &Command) {
        let to = self.guess(CONTROLLER_GROUP);
        let reaches =
            |from: NodeId| from == to || (self.network.is_connected(from, to) && !self.network.is_cut(from, to));
        if !who.is_none_or(|(from, _)| reaches(from)) {
            return;
        }
        let data = command.encode().expect("the command is short");
        let ticket = self.ask(OFFICE, to, CONTROLLER_GROUP, Request::Command { context: Bytes::new(), data });
        self.office.asking.insert(ticket, Asking { who, errand });
    }

    /// The controller has answered, or nobody ever will.
    pub fn office_answered(&mut self, ticket: Ticket, answer: Answer) {
        let Some(Asking { who, .. }) = self.office.asking.remove(&ticket) else { return };
        let Answer::Reply(Reply::Applied { outcome: Outcome::Answer(bytes), .. }) = answer else { return };
        let decided = Decided::decode(&bytes).expect("the controller's answer can be read");
        let Some((node, life)) = who else { return self.operator_told(&decided) };
        let position = Self::position(node);
        if self.nodes[position].process.is_some() && self.nodes[position].life == life {
            self.node_told(position, decided);
        }
    }

    fn operator_told(&mut self, decided: &Decided) {
        let Decided::Replacing(result) = decided else { return };
        let Some(open) = self.office.open.as_mut() else { return };
        match result {
            Ok(_) if !open.begun => {
                open.begun = true;
                let Replacing { old, new, .. } = *open;
                self.coverage.hit(if old == new { "disk replacement begun" } else { "replacement begun" });
                if old == new {
                    self.put_new_disk(new);
                }
            }
            Ok(_) => {}
            Err(rejection) => {
                self.coverage.hit("replacement refused");
                let reason = rejection.message.clone();
                self.trace.note(self.now, "rejected", &[], || reason);
            }
        }
    }

    fn node_told(&mut self, position: usize, decided: Decided) {
        let now = self.now;
        let node = self.nodes[position].id;
        let process = self.nodes[position].process.as_mut().expect("it runs");
        match decided {
            Decided::Done(Ok(())) => process.registered = true,
            Decided::Done(Err(rejection)) => {
                process.refused_until = now + REFUSED_PAUSE;
                self.trace.note(now, "rejected", &[node.0.into()], || rejection.message);
            }
            Decided::Joining(Ok(joining)) => {
                let Some(may_be_there) = process.joins.take() else { return };
                let (replica, begun) = (joining.replica, begin(&joining, may_be_there));
                self.trace
                    .note(now, "join", &[node.0.into(), replica.0], || format!("node {node} as {replica}: {begun:?}"));
                match begun {
                    Begin::New => self.enqueue(position, Job::Join { replica }),
                    Begin::Adopt(membership) => {
                        let group = CONTROLLER_GROUP;
                        self.arrive(position, Arrived::Input(Input::Adopt { group, replica, membership }));
                    }
                    Begin::Lost => {
                        self.watch.object(|| format!("node {node} has lost its replica of the controller's"));
                    }
                }
            }
            Decided::Joining(Err(rejection)) => {
                (process.registered, process.refused_until) = (false, now + REFUSED_PAUSE);
                self.trace.note(now, "rejected", &[node.0.into()], || rejection.message);
            }
            _ => {}
        }
    }
}

fn registration(node: NodeId, incarnation: Incarnation) -> Registration {
    Registration { node, incarnation, rack: None, listeners: Vec::new(), feature_level_max: 1 }
}
