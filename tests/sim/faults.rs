//! The nemesis: what goes wrong beside what meets single effects and messages. It does one thing after another, and
//! each of them ends by itself after a while.

use crate::chance::{Chance, MILLISECOND, SECOND};
use crate::jobs::CrashPoint;
use crate::node::{Arrived, Copy};
use crate::observe::Observation;
use crate::swarm::Shape;
use crate::world::{Event, World};
use ackord::multiraft::core::effect::Input;
use ackord::sim::SimDisk;
use ackord::sim::engine::SimEngine;
use ackord::types::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// One process ends.
    Crash,
    /// The power of several nodes is cut at once.
    PowerCut,
    /// A process does nothing, and goes on later.
    Pause,
    /// Two parts that do not hear each other.
    Split,
    /// One part does not hear the other.
    OneWay,
    /// Everybody hears two neighbours.
    Ring,
    /// Two parts, and one node that hears both.
    Bridge,
    /// One node hears nobody.
    Isolate,
    /// Nothing arrives for a while, and then all of it.
    Clog,
    /// A connection ends, and what is on its way is lost.
    Reset,
    /// A sync of the log fails.
    FailSync,
    /// A write of the log fails.
    FailWrite,
    /// A disk takes many times as long.
    SlowDisk,
    /// A disk has no room.
    FullDisk,
    /// A leader hands over.
    Transfer,
    /// A disk is damaged while its node is down.
    DamageDown,
    /// A disk is damaged under a running process.
    DamageRunning,
    /// The segment that is written to is damaged in front of its newest turn.
    DamageNewest,
    /// A sync of the log says that it is done, and is not.
    LoseSync,
    /// Rows of a database can't be read, or all of it.
    DamageState,
    /// A database takes no more writes.
    FailDatabase,
    /// A disk is empty.
    Wipe,
    /// A disk is another node's.
    Foreign,
    /// A disk is as it was before.
    RollBack,
    /// A node is given up for good, and replaced.
    Replace,
}

impl Fault {
    /// Every one.
    pub const ALL: [Self; 25] = [
        Self::Crash,
        Self::PowerCut,
        Self::Pause,
        Self::Split,
        Self::OneWay,
        Self::Ring,
        Self::Bridge,
        Self::Isolate,
        Self::Clog,
        Self::Reset,
        Self::FailSync,
        Self::FailWrite,
        Self::SlowDisk,
        Self::FullDisk,
        Self::Transfer,
        Self::DamageDown,
        Self::DamageRunning,
        Self::DamageNewest,
        Self::LoseSync,
        Self::DamageState,
        Self::FailDatabase,
        Self::Wipe,
        Self::Foreign,
        Self::RollBack,
        Self::Replace,
    ];
}

/// What ends a fault.
pub enum Healing {
    /// These links are whole again.
    Links(Vec<(NodeId, NodeId)>),
    /// The disk is as fast as before.
    Speed(NodeId),
    /// The disk has room again.
    Room(NodeId),
    /// The operator puts the right disk back.
    RightDisk(NodeId),
    /// Another node is away now, and the disk of a third is damaged so.
    Turnabout(NodeId, Fault),
    /// The new disk takes the place of the old one again.
    NewDisk(NodeId),
}

/// See the module.
#[derive(Default)]
pub struct Nemesis {
    /// What will end.
    healing: BTreeMap<u64, Healing>,
    /// Counts them.
    number: u64,
    /// Nothing crashes before this moment.
    pub quiet_until: u64,
    /// Nodes that are to stay down.
    pub down: BTreeSet<NodeId>,
}

impl Nemesis {
    /// Nothing has gone wrong yet.
    pub fn new(_shape: &Shape) -> Self {
        Self::default()
    }

    /// Whether a node is to stay down.
    pub fn keeps_down(&self, node: NodeId) -> bool {
        self.down.contains(&node)
    }
}

impl World {
    /// Plans the next thing.
    pub fn plan_nemesis(&mut self) {
        let every = self.shape.faults.every;
        if every > 0 {
            let after = self.chances.nemesis.between(every / 4, every * 7 / 4);
            self.schedule(after, Event::Nemesis);
        }
    }

    /// Does the next thing.
    pub fn disturb(&mut self) {
        if self.calm {
            return;
        }
        self.plan_nemesis();
        let all: u64 = self.shape.faults.weights.iter().sum();
        if all == 0 || self.now < self.nemesis.quiet_until {
            return;
        }
        let mut drawn = self.chances.nemesis.below(all);
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            let weight = self.shape.faults.weights[place];
            if drawn < weight {
                if self.inflict(fault) {
                    self.coverage.hit(&format!("fault {fault:?}"));
                }
                return;
            }
            drawn -= weight;
        }
    }

    /// Whether it could be done now.
    fn inflict(&mut self, fault: Fault) -> bool {
        let node = NodeId(1 + self.chances.nemesis.below(self.nodes.len() as u64) as u32);
        let position = Self::position(node);
        let is_up = self.nodes[position].process.is_some();
        self.trace.note(self.now, "nemesis", &[fault as u64, node.0.into()], || format!("{fault:?}, node {node}"));
        match fault {
            Fault::Crash if is_up => self.crash(position, CrashPoint::Idle),
            Fault::PowerCut => return self.cut_power(),
            Fault::Pause if is_up => self.pause(position),
            Fault::Split | Fault::OneWay | Fault::Ring | Fault::Bridge | Fault::Isolate => {
                return self.partition(fault, node);
            }
            Fault::Clog => self.clog(),
            Fault::Reset => return self.reset(node),
            Fault::FailSync if is_up => {
                let count = self.chances.nemesis.between(1, 6);
                self.nodes[position].disk.fail_sync(count);
            }
            Fault::FailWrite if is_up => {
                let count = self.chances.nemesis.between(1, 6);
                self.nodes[position].disk.fail_write(count);
            }
            Fault::SlowDisk => {
                self.nodes[position].slowness = self.chances.nemesis.magnitude(5, 500);
                self.heal_later(Healing::Speed(node));
            }
            Fault::FullDisk => self.fill(node),
            Fault::Transfer if is_up => return self.transfer(position),
            Fault::DamageDown | Fault::DamageNewest if self.shape.bad_moments => self.begin_bad_moment(fault),
            Fault::FailDatabase if is_up => self.nodes[position].engine.fail("the simulated database has failed"),
            Fault::DamageDown | Fault::DamageRunning | Fault::DamageNewest | Fault::LoseSync | Fault::DamageState => {
                return self.damage(fault);
            }
            Fault::Wipe | Fault::Foreign | Fault::RollBack => return self.replace_disk(fault),
            Fault::Replace => return self.give_up(),
            _ => return false,
        }
        true
    }

    fn heal_later(&mut self, healing: Healing) {
        let (low, high) = self.shape.faults.lasts;
        let after = self.chances.nemesis.magnitude(low, high);
        self.heal_after(after, healing);
    }

    /// Ends it after so many microseconds.
    pub fn heal_after(&mut self, after: u64, healing: Healing) {
        self.nemesis.number += 1;
        let number = self.nemesis.number;
        self.nemesis.healing.insert(number, healing);
        self.schedule(after, Event::Heal { number });
    }

    /// A fault is over.
    pub fn heal(&mut self, number: u64) {
        let Some(healing) = self.nemesis.healing.remove(&number) else { return };
        match healing {
            Healing::Links(links) => {
                self.trace.note(self.now, "heal", &[number], || format!("{} links", links.len()));
                for (from, to) in links {
                    let link = self.network.link_mut(from, to);
                    link.cuts = link.cuts.saturating_sub(1);
                }
            }
            Healing::Speed(node) => self.node_mut(node).slowness = 1,
            Healing::Room(node) => {
                let here = self.node_mut(node);
                here.capacity = None;
                here.disk.set_capacity(None);
            }
            Healing::RightDisk(node) => self.put_right_disk(node),
            Healing::Turnabout(node, fault) => self.turn_about(node, fault),
            Healing::NewDisk(node) => self.put_new_disk_back(node),
        }
    }

    /// Everything that was broken on purpose is whole again, but for damage.
    pub fn heal_all(&mut self) {
        for number in self.nemesis.healing.keys().copied().collect::<Vec<_>>() {
            self.heal(number);
        }
        self.network.heal();
        for node in &mut self.nodes {
            (node.slowness, node.capacity) = (1, None);
            node.paused_until = node.paused_until.min(self.now);
            node.disk.behave();
        }
        for node in self.nodes.iter().map(|node| node.id).collect::<Vec<_>>() {
            self.schedule(0, Event::Resume { node });
        }
    }

    /// Whether a process was hit.
    fn cut_power(&mut self) -> bool {
        let (share, mut hit) = (self.chances.nemesis.between(1, 2), false);
        for position in 0..self.nodes.len() {
            if self.chances.nemesis.below(2) < share && self.nodes[position].process.is_some() {
                self.crash(position, CrashPoint::Idle);
                hit = true;
            }
        }
        hit
    }

    fn pause(&mut self, position: usize) {
        let (low, high) = self.shape.faults.lasts;
        let lasts = self.chances.nemesis.magnitude(low, high);
        self.nodes[position].paused_until = self.now + lasts;
    }

    /// Whether it leads one that can be handed over.
    fn transfer(&mut self, position: usize) -> bool {
        let Some(process) = self.nodes[position].process.as_ref() else { return false };
        let led: Vec<_> =
            process.board.iter().filter(|(_, leadership)| leadership.serving).map(|(id, _)| *id).collect();
        let Some(group) = led.first().map(|_| *self.chances.nemesis.pick(&led)) else { return false };
        let Some(replica) = self.nodes[position].replica(group) else { return false };
        let to = *self.chances.nemesis.pick(&replica.membership().voters);
        self.coverage.hit("leader asked to hand over");
        self.arrive(position, Arrived::Input(Input::TransferLeader { group, to }));
        true
    }

    fn fill(&mut self, node: NodeId) {
        let spare = self.chances.nemesis.below(2 * self.shape.log.segment_bytes);
        let here = self.node_mut(node);
        let capacity = here.disk.used() + spare;
        here.capacity = Some(capacity);
        here.disk.set_capacity(Some(capacity));
        let lasts = self.chances.nemesis.between(2 * SECOND, 15 * SECOND);
        self.heal_after(lasts, Healing::Room(node));
    }

    fn clog(&mut self) {
        let (low, high) = self.shape.faults.lasts;
        let until = self.now + self.chances.nemesis.magnitude(low, high);
        for (from, to) in self.pairs() {
            if self.chances.nemesis.one_in(3) {
                let link = self.network.link_mut(from, to);
                link.clogged_until = link.clogged_until.max(until);
            }
        }
    }

    fn pairs(&self) -> Vec<(NodeId, NodeId)> {
        let all = || (1..=self.nodes.len() as u32).map(NodeId);
        all().flat_map(|from| all().map(move |to| (from, to))).filter(|(from, to)| from != to).collect()
    }

    fn partition(&mut self, fault: Fault, one: NodeId) -> bool {
        let count = self.nodes.len();
        let least = if fault == Fault::Ring {
            4
        } else if fault == Fault::Bridge {
            3
        } else {
            2
        };
        if count < least {
            return false;
        }
        let mut order: Vec<_> = (1..=count as u32).map(NodeId).collect();
        self.chances.nemesis.shuffle(&mut order);
        let half = self.chances.nemesis.between(1, count as u64 - 1) as usize;
        let place = |node: NodeId| order.iter().position(|other| *other == node).expect("every node is in it");
        let apart = |(from, to): &(NodeId, NodeId)| {
            let (from, to) = (*from, *to);
            let split = (place(from) < half) != (place(to) < half);
            match fault {
                Fault::OneWay => place(from) < half && place(to) >= half,
                Fault::Isolate => from == one || to == one,
                Fault::Bridge => split && from != order[0] && to != order[0],
                Fault::Ring => {
                    let distance = place(from).abs_diff(place(to));
                    distance != 1 && distance != count - 1
                }
                _ => split,
            }
        };
        let links: Vec<_> = self.pairs().into_iter().filter(apart).collect();
        links.iter().for_each(|(from, to)| self.cut(*from, *to));
        self.heal_later(Healing::Links(links));
        true
    }

    /// One of the nodes whose disks are whole is away for a while, and then another one; between the two a disk is
    /// damaged. What that node has forgotten is what they needed.
    fn begin_bad_moment(&mut self, fault: Fault) {
        let mut whole: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        whole.retain(|node| !self.shape.is_fragile(*node));
        self.chances.nemesis.shuffle(&mut whole);
        if let [first, second, ..] = whole[..] {
            let lasts = self.chances.nemesis.between(SECOND, 2 * SECOND);
            self.isolate(first, lasts);
            self.heal_after(lasts, Healing::Turnabout(second, fault));
        }
    }

    fn turn_about(&mut self, node: NodeId, fault: Fault) {
        if !self.calm {
            self.isolate(node, 2 * SECOND);
            self.damage(fault);
        }
    }

    fn isolate(&mut self, node: NodeId, lasts: u64) {
        let links: Vec<_> = self.pairs().into_iter().filter(|(from, to)| *from == node || *to == node).collect();
        links.iter().for_each(|(from, to)| self.cut(*from, *to));
        self.heal_after(lasts, Healing::Links(links));
    }

    /// A fragile node, if any.
    pub fn pick_fragile(&mut self) -> Option<NodeId> {
        let usable = |node: &&NodeId| !self.office.is_gone(**node) && self.watch.deaf_to != Some(**node);
        let fragile: Vec<_> = self.shape.fragile.iter().filter(usable).copied().collect();
        fragile.first().map(|_| *self.chances.nemesis.pick(&fragile))
    }

    /// Gives a node a disk that is not its own, or not as it was.
    fn replace_disk(&mut self, fault: Fault) -> bool {
        let Some(node) = self.pick_fragile() else { return false };
        let position = Self::position(node);
        if self.nodes[position].right.is_some() || self.nodes[position].refused.is_some() {
            return false;
        }
        if fault == Fault::RollBack && self.watch.deaf_to.is_some() {
            return false;
        }
        let wrong = match fault {
            Fault::Wipe => Copy { disk: SimDisk::new(), engine: SimEngine::default() },
            Fault::Foreign => {
                let other = (position + 1) % self.nodes.len();
                let copy = self.nodes[other].copy();
                copy.disk.kill();
                copy
            }
            _ => match self.rollback_that_is_noticed(position) {
                Some(copy) => copy,
                None => return false,
            },
        };
        self.end_process(position, false);
        self.trace.note(self.now, "disk", &[node.0.into(), fault as u64], || format!("node {node}: {fault:?}"));
        self.watch.tell(&Observation::Damaged { node });
        let here = &mut self.nodes[position];
        let disk = std::mem::replace(&mut here.disk, wrong.disk);
        let engine = std::mem::replace(&mut here.engine, wrong.engine);
        here.right = Some(Copy { disk, engine });
        here.rolled_back = fault == Fault::RollBack;
        self.schedule(5 * MILLISECOND, Event::Start { node });
        let lasts = self.chances.nemesis.between(SECOND, 4 * SECOND);
        if fault == Fault::RollBack {
            // Whoever remembers must live on until the right disk is back.
            self.nemesis.quiet_until = self.now + lasts + MILLISECOND;
        }
        self.heal_after(lasts, Healing::RightDisk(node));
        true
    }

    /// An earlier state that every other node would know for one: all of them run, and each has been told of a later
    /// turn. What nobody remembers can't be found out, and is not Ackord's promise. Nor is what comes of a disk that is
    /// put back after an earlier state of it was repaired in its place, as one is that was in doubt already.
    fn rollback_that_is_noticed(&mut self, position: usize) -> Option<Copy> {
        let here = &self.nodes[position];
        let node = here.id;
        let copy = here.copies.first()?;
        let copy = Copy { disk: copy.disk.duplicate(), engine: copy.engine.duplicate() };
        let options = self.shape.log.clone();
        let (_, recovery) = self.nodes[position].open_log(&copy.disk.duplicate(), options).ok()?;
        if recovery.incomplete {
            return None;
        }
        let first = recovery.durable_turn.0;
        // Who was given up, and still runs, may not have been told, and would let it in.
        let counts = |other: &crate::node::Node| !self.office.is_gone(other.id) || other.process.is_some();
        let others = || self.nodes.iter().filter(|other| other.id != node && counts(other));
        let remembers =
            |process: &crate::node::Process| process.remembers.get(&node).is_some_and(|known| known.turn > first);
        let all = others().all(|other| other.process.as_ref().is_some_and(remembers) && other.paused_until <= self.now);
        (all && others().count() > 0).then_some(copy)
    }

    fn put_right_disk(&mut self, node: NodeId) {
        let position = Self::position(node);
        if self.nodes[position].right.is_none() {
            return; // it was given up meanwhile
        }
        self.end_process(position, false);
        let here = &mut self.nodes[position];
        let Some(right) = here.right.take() else { return };
        if here.rolled_back {
            // What it has promised meanwhile is gone again; nobody has heard of it.
            self.watch.tell(&Observation::Damaged { node });
        }
        let here = &mut self.nodes[position];
        (here.disk, here.engine) = (right.disk, right.engine);
        (here.rolled_back, here.refused) = (false, None);
        self.coverage.hit("right disk put back");
        self.trace.note(self.now, "disk", &[node.0.into()], || format!("node {node}: the right one again"));
        self.schedule(10 * MILLISECOND, Event::Start { node });
    }
}
