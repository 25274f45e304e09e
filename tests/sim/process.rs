//! How processes begin and end.

use crate::chance::{Chance, MILLISECOND, SECOND};
use crate::damage::segments;
use crate::jobs::{CrashPoint, Kind};
use crate::node::{Arrived, Copy, Opened};
use crate::observe::Observation;
use crate::world::{Event, TICK, World};
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::core::effect::{Input, Room};
use ackord::server::space::is_writable;
use ackord::sim::SimDisk;
use ackord::sim::engine::SimEngine;
use ackord::types::NodeId;
use ackord::wal::LogError;

/// How often a node looks how much room its disk has.
const LOOK_AT_ROOM: u64 = 500 * MILLISECOND;
/// What is counted of a node that does not start on a disk that is too damaged: nothing is asked of it.
pub const REFUSED_DAMAGED: &str = "refused: damaged disk";
/// Earlier states that are kept of a disk which may be rolled back.
const COPIES_MAX: usize = 3;

impl World {
    /// Starts a node's process, if it is down and may be up.
    pub fn start(&mut self, node: NodeId) {
        let position = Self::position(node);
        let may = self.office.may_start(node) && !self.nemesis.keeps_down(node);
        if self.nodes[position].process.is_some() || !may {
            return;
        }
        // Whoever starts has forgotten what others had on their disks, and would let a rolled back one in.
        let forgets = |other: &crate::node::Node| other.rolled_back && other.process.is_some();
        let old_disk = self.watch.deaf_to.is_some_and(|other| other != node);
        if old_disk || self.nodes.iter().any(|other| forgets(other) && other.id != node) {
            return self.schedule(200 * MILLISECOND, Event::Start { node });
        }
        if self.nodes[position].engine.is_condemned() {
            // As `storage::rocks::damage` has it: every state is fetched from peers.
            self.coverage.hit("database set aside");
            self.watch.tell(&Observation::Damaged { node });
            self.nodes[position].engine = SimEngine::default();
        }
        let interrupted = self.crash_due(position, CrashPoint::Start);
        if interrupted {
            self.nodes[position].disk.stop_after(1 + self.chances.points.below(25));
        }
        let shape = self.shape.clone();
        match self.nodes[position].start(&shape) {
            Ok(opened) => {
                self.started(position, opened);
                if interrupted {
                    self.crash(position, CrashPoint::Start);
                }
            }
            Err(_) if interrupted => {
                self.coverage.hit("crash Start");
                self.trace.note(self.now, "crash", &[node.0.into()], || format!("node {node} while it started"));
                self.end_disk(position, true);
                self.restart_later(node);
            }
            Err(error) => self.not_started(position, &error),
        }
    }

    fn not_started(&mut self, position: usize, error: &LogError) {
        let node = self.nodes[position].id;
        self.trace.note(self.now, "refused", &[node.0.into()], || format!("node {node} does not start: {error}"));
        self.nodes[position].disk.kill();
        let reason = error.to_string();
        match error {
            LogError::Full => {
                self.coverage.hit("not started: full disk");
                return self.schedule(SECOND, Event::Start { node });
            }
            LogError::Empty => self.coverage.hit("refused: wiped disk"),
            LogError::Foreign { .. } => self.coverage.hit("refused: foreign disk"),
            _ => self.coverage.hit(REFUSED_DAMAGED),
        }
        self.watch.tell(&Observation::RefusedStart { node, reason: &reason });
        self.nodes[position].refused = Some(reason);
    }

    fn started(&mut self, position: usize, opened: Opened) {
        let Opened { recovery, jobs, inputs } = opened;
        let (node, life) = (self.nodes[position].id, self.nodes[position].life);
        self.nodes[position].refused = None;
        // A disk that was rolled back is its own node's: only its peers can know.
        if self.nodes[position].right.is_some() && !self.nodes[position].rolled_back {
            self.watch.object(|| format!("node {node} starts on a disk that is wiped, or another node's"));
        }
        self.coverage.hit("started");
        self.trace.note(self.now, "start", &[node.0.into(), recovery.durable_turn.0], || {
            let findings = recovery.findings.join("; ");
            format!("node {node}, turn {}, incomplete {}; {findings}", recovery.durable_turn.0, recovery.incomplete)
        });
        if recovery.findings.iter().any(|finding| finding.contains("torn")) {
            self.coverage.hit("torn turn dropped");
        }
        if recovery.groups.values().any(|group| group.installing.is_some()) {
            self.coverage.hit("snapshot interrupted");
        }
        self.watch.tell(&Observation::Started { node, groups: &recovery.groups });
        self.tell_opened(position);
        jobs.into_iter().for_each(|job| self.enqueue(position, job));
        inputs.into_iter().for_each(|input| self.arrive(position, Arrived::Input(input)));
        let first_tick = self.chances.jobs.between(1, TICK);
        self.schedule(first_tick, Event::Tick { node, life });
        self.schedule(LOOK_AT_ROOM, Event::Room { node, life });
        self.follow_controller(position);
        self.keep_room(position);
        self.plan_log_idle(position);
        self.begin_connecting(node);
        if self.nodes[position].process.is_none() {
            return; // it has found out that it was replaced
        }
        // The core may have something to do at once, as at a start of production's worker.
        self.round(position, false);
    }

    fn tell_opened(&mut self, position: usize) {
        let node = self.nodes[position].id;
        let process = self.nodes[position].process.as_mut().expect("it has started");
        if process.applier.take_flush_wish() {
            process.inbox.push_back(Arrived::Input(Input::FlushWanted));
        }
        for group in process.core.group_ids() {
            let Some(machine) = process.applier.machine(group) else { continue };
            self.watch.tell(&Observation::Opened { node, group, applied: machine.applied() });
            if let Machine::Partition(partition) = machine {
                let view = partition.view();
                let (log_start, high_watermark) = (view.log_start, view.high_watermark);
                process.bounds.insert(group, (log_start, high_watermark));
                self.watch.tell(&Observation::Bounds { node, group, log_start, high_watermark });
            }
        }
    }

    /// Whether a crash hits here; what comes seldom is hit more often.
    pub fn crash_due(&mut self, position: usize, point: CrashPoint) -> bool {
        if self.calm || self.now < self.nemesis.quiet_until {
            return false;
        }
        let faults = &self.shape.faults;
        let rate = faults.crash * point.weight(faults.crash_rare);
        let due = self.chances.points.per_million(rate) || self.sabotage_crashes(position, point);
        due && self.nodes[position].paused_until <= self.now
    }

    /// Crashes the process here, if that is due; sometimes the power of several nodes is cut.
    pub fn crash_instead(&mut self, position: usize, point: CrashPoint) -> bool {
        let due = self.nodes[position].process.is_some() && self.crash_due(position, point);
        if due {
            self.crash(position, point);
            if self.chances.points.one_in(5) {
                self.coverage.hit("crash of several");
                for other in 0..self.nodes.len() {
                    if self.nodes[other].process.is_some() && self.chances.points.one_in(2) {
                        self.crash(other, CrashPoint::Idle);
                    }
                }
            }
        }
        due
    }

    /// Ends a process without warning, and starts it again after a while.
    pub fn crash(&mut self, position: usize, point: CrashPoint) {
        let node = self.nodes[position].id;
        if self.nodes[position].process.is_none() {
            return;
        }
        if self.nodes[position].is_joining() {
            self.coverage.hit("crash of the joining node");
        }
        let power_cut = self.chances.points.below(100) >= self.shape.faults.kill_percent;
        self.coverage.hit(&format!("crash {point:?}"));
        self.coverage.hit(if power_cut { "power cut" } else { "process killed" });
        self.trace.note(self.now, "crash", &[node.0.into(), u64::from(power_cut)], || {
            format!("node {node}, {point:?}, power cut {power_cut}")
        });
        self.end_process(position, power_cut);
        self.restart_later(node);
    }

    /// Something failed that makes it unsafe to go on: the process ends itself.
    pub fn process_ends(&mut self, position: usize, reason: &str) {
        let node = self.nodes[position].id;
        self.coverage.hit("process ended itself");
        self.trace.note(self.now, "fatal", &[node.0.into()], || format!("node {node}: {reason}"));
        self.end_process(position, false);
        self.restart_later(node);
    }

    fn restart_later(&mut self, node: NodeId) {
        let (low, high) = self.shape.faults.down;
        let after = if self.calm { SECOND } else { self.chances.points.magnitude(low, high) };
        self.schedule(after, Event::Start { node });
    }

    /// Ends a process: whoever waits for it waits in vain.
    pub fn end_process(&mut self, position: usize, power_cut: bool) {
        let node = self.nodes[position].id;
        if self.nodes[position].process.is_none() {
            return;
        }
        self.turn_away(position);
        self.lose_asked(node);
        self.watch.tell(&Observation::Crashed { node });
        self.end_disk(position, power_cut);
        let here = &mut self.nodes[position];
        here.paused_until = 0;
        if self.shape.is_fragile(node) && here.right.is_none() && here.copies.len() < COPIES_MAX {
            here.copies.push(Copy { disk: here.disk.duplicate(), engine: here.engine.duplicate() });
        }
        self.schedule(0, Event::Resume { node });
        self.end_connections(node, power_cut);
    }

    /// Ends what runs on a disk and a database. A power cut takes what the disk has only said that it had synced.
    fn end_disk(&mut self, position: usize, power_cut: bool) {
        let here = &mut self.nodes[position];
        let (node, loses) = (here.id, power_cut && here.disk.has_lost_writes());
        // Not always, for a look at a disk takes its time.
        let before = (power_cut && here.life.is_multiple_of(8)).then(|| here.disk.duplicate());
        if here.end(power_cut, &mut self.chances.crash) {
            self.coverage.hit("unflushed state lost");
        }
        if before.is_some_and(|before| !is_same_log(&before, &here.disk)) {
            self.coverage.hit("unsynced writes lost in a power cut");
        }
        if loses {
            self.note_damage(node, "LostSync");
        }
    }

    /// Says when the disk has too little room for new entries, and when it has enough again.
    pub fn look_at_room(&mut self, position: usize) {
        let reserve = self.shape.reserve_bytes;
        let here = &mut self.nodes[position];
        let (node, life) = (here.id, here.life);
        let free = here.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(here.disk.used()));
        let process = here.process.as_mut().expect("it runs");
        let writable = is_writable(free, reserve, process.disk_writable);
        if process.disk_writable != writable {
            process.disk_writable = writable;
            self.coverage.hit(if writable { "room on the disk again" } else { "no room on the disk" });
            self.arrive(position, Arrived::Input(Input::Space { of: Room::Disk, writable }));
        }
        self.schedule(LOOK_AT_ROOM, Event::Room { node, life });
    }
}

/// Whether the files of two logs are the same.
fn is_same_log(before: &SimDisk, after: &SimDisk) -> bool {
    before.kill();
    let names = segments(before);
    names == segments(after) && names.iter().all(|name| before.contents(name) == after.contents(name))
}

impl CrashPoint {
    fn weight(self, rare: u64) -> u64 {
        match self {
            // Half an append is what a log is made for.
            Self::During(Kind::Append) => 3,
            Self::Before(kind) | Self::During(kind) | Self::After(kind) => kind.weight(rare),
            Self::Start => rare,
            Self::Idle | Self::Send | Self::Reply => 1,
        }
    }
}
