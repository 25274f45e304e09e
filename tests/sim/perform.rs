//! How jobs are done: each when its time is over, as a whole or up to a crash.

mod states;

use crate::chance::{Chance, MILLISECOND};
use crate::coverage::Coverage;
use crate::jobs::{CrashPoint, Ended, Job, Kind, Outcome, Thread};
use crate::node::{Arrived, Process};
use crate::observe::Observation;
use crate::sabotage::{self, Sabotage};
use crate::watch::Watch;
use crate::world::{Event, World};
use ackord::controller::view::GroupPlan;
use ackord::machine::StateMachine as _;
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::core::effect::{Input, ReadFailure, Room};
use ackord::raft::group_log::Wanted;
use ackord::sim::engine::SimEngine;
use ackord::storage::Engine;
use ackord::types::{CONTROLLER_GROUP, LogIndex, NodeId, RaftGroupId};
use ackord::wal::{GroupWrite, LogChange, LogError, ReadError, RoomMade, Turn, prepare_spare};
use std::sync::Arc;

/// How often a full log tries again, and how long after a failure the next spare is ordered.
const SPACE_RETRY: u64 = 500 * MILLISECOND;
/// The longest that a slow disk makes anything take: what is begun before recovery ends within it.
const SLOWEST: u64 = 5_000 * MILLISECOND;
/// When an idle log is sealed.
const SEAL_AFTER: u64 = 20 * MILLISECOND;
/// With less room than this in the segment and no spare to go on in, the log takes no new entries. In production it is
/// a quarter of a segment.
const HEADROOM_BYTES_MIN: u64 = 64 << 10;

/// What doing a job needs of the world beside the process.
struct Around<'a> {
    /// Which node.
    node: NodeId,
    /// Its database.
    engine: &'a SimEngine,
    /// Who watches.
    watch: &'a mut Watch,
    /// What happened.
    coverage: &'a mut Coverage,
    /// What is broken on purpose.
    sabotage: Sabotage,
}

impl World {
    /// Gives a thread something to do.
    pub fn enqueue(&mut self, position: usize, job: Job) {
        let Some(process) = self.nodes[position].process.as_mut() else { return };
        let thread = job.thread();
        process.queues[thread as usize].jobs.push_back(job);
        self.begin_next(position, thread);
    }

    /// Lets a thread begin its next job, if it is idle.
    fn begin_next(&mut self, position: usize, thread: Thread) {
        let (node, slowness) = (self.nodes[position].id, self.nodes[position].slowness);
        let Some(process) = self.nodes[position].process.as_mut() else { return };
        if thread == Thread::Log {
            process.log.steps += 1;
        }
        let queue = &mut process.queues[thread as usize];
        let (Some(job), false) = (queue.jobs.front(), queue.busy) else { return };
        queue.busy = true;
        let kind = job.kind();
        if let Job::Append(turn) = job {
            self.watch.tell(&Observation::Writing { node, turn });
            self.nodes[position].begun = sabotage::begun(self.shape.sabotage, turn);
        }
        let took = self.duration(kind, slowness);
        let life = self.nodes[position].life;
        self.schedule(took, Event::Done { node, life, thread });
    }

    fn duration(&mut self, kind: Kind, slowness: u64) -> u64 {
        let speeds = &self.shape.speeds;
        let (low, high) = match kind {
            Kind::Append | Kind::Seal => speeds.append,
            Kind::Read | Kind::Prepare => speeds.disk,
            Kind::Apply | Kind::Build => speeds.apply,
            Kind::Flush | Kind::Install | Kind::Reclaim | Kind::Make => speeds.flush,
            Kind::Fetch | Kind::Release | Kind::Small => (1, 10),
        };
        let mut took = (self.chances.jobs.between(low, high) * slowness).min(SLOWEST);
        if !self.calm && kind != Kind::Small && self.chances.jobs.per_million(self.shape.faults.stall) {
            let (low, high) = self.shape.faults.stalled;
            took += self.chances.jobs.magnitude(low, high);
            self.coverage.hit(if kind == Kind::Append { "log stalled" } else { "job stalled" });
        }
        took
    }

    /// A thread's job is done now, or meets a crash.
    pub fn done(&mut self, position: usize, thread: Thread) {
        let process = self.nodes[position].process.as_mut().expect("it runs");
        let kind = process.queues[thread as usize].jobs.front().expect("it is being done").kind();
        if self.crash_instead(position, CrashPoint::Before(kind)) {
            return;
        }
        let interrupted = self.crash_due(position, CrashPoint::During(kind));
        if interrupted {
            self.nodes[position].disk.stop_after(1 + self.chances.points.below(6));
            self.nodes[position].engine.stop_after(self.chances.points.below(6));
        }
        let (ended, outcome) = self.perform(position, thread);
        if interrupted {
            if self.nodes[position].engine.is_stopped_halfway() {
                self.coverage.hit("database stopped within a job");
                self.coverage.hit(&format!("database stopped within {kind:?}"));
            }
            return self.crash(position, CrashPoint::During(kind));
        }
        match ended {
            Ended::Fatal(reason) => {
                if self.nodes[position].engine.failure().is_some() {
                    self.coverage.hit("database failed");
                }
                self.coverage.note_disk_failure(&reason);
                return self.process_ends(position, &reason);
            }
            Ended::Full(job) => return self.wait_for_room(position, job),
            Ended::Done => {}
        }
        if self.crash_instead(position, CrashPoint::After(kind)) {
            return;
        }
        let process = self.nodes[position].process.as_mut().expect("it runs");
        process.queues[thread as usize].busy = false;
        if kind == Kind::Append {
            self.nodes[position].begun = None;
        }
        self.take_outcome(position, outcome);
        self.after_job(position, thread);
    }

    fn perform(&mut self, position: usize, thread: Thread) -> (Ended, Outcome) {
        let here = &mut self.nodes[position];
        let (node, engine) = (here.id, here.engine.clone());
        let process = here.process.as_mut().expect("it runs");
        let job = process.queues[thread as usize].jobs.pop_front().expect("it is being done");
        let kind = job.kind();
        self.trace.note(self.now, "done", &[node.0.into(), kind as u64], || format!("node {node}: {}", job.describe()));
        let mut around = Around {
            node,
            engine: &engine,
            watch: &mut self.watch,
            coverage: &mut self.coverage,
            sabotage: self.shape.sabotage,
        };
        let mut outcome = Outcome::default();
        let ended = process.perform(job, &mut around, &mut outcome);
        (ended, outcome)
    }

    fn take_outcome(&mut self, position: usize, outcome: Outcome) {
        let node = self.nodes[position].id;
        for arrived in outcome.arrived {
            self.arrive(position, arrived);
        }
        if let Some(message) = outcome.send {
            self.send_snapshot(node, message);
        }
        for job in outcome.jobs {
            self.enqueue(position, job);
        }
        if outcome.metadata {
            self.follow_controller(position);
        }
    }

    /// What a thread does before it takes its next job.
    fn after_job(&mut self, position: usize, thread: Thread) {
        if thread == Thread::Log {
            self.keep_room(position);
        }
        let Some(process) = self.nodes[position].process.as_mut() else { return };
        if thread == Thread::Apply && process.applier.take_flush_wish() {
            self.arrive(position, Arrived::Input(Input::FlushWanted));
        }
        self.begin_next(position, thread);
        if matches!(thread, Thread::Log | Thread::Spare) {
            self.plan_log_idle(position);
        }
    }

    /// The log's thread wakes up by itself: to seal an idle log, and to look for room.
    pub fn plan_log_idle(&mut self, position: usize) {
        let (node, life) = (self.nodes[position].id, self.nodes[position].life);
        let Some(process) = self.nodes[position].process.as_ref() else { return };
        let (log, queue) = (&process.log, &process.queues[Thread::Log as usize]);
        if queue.busy || !queue.jobs.is_empty() {
            return;
        }
        let has_room = log.writable && log.log.headroom().spares >= 2;
        let patience = if log.log.is_unsealed() { SEAL_AFTER } else { SPACE_RETRY };
        if log.log.is_unsealed() || !has_room {
            let steps = log.steps;
            self.schedule(patience, Event::Idle { node, life, steps });
        }
    }

    /// The log's thread has had nothing to do.
    pub fn log_idle(&mut self, position: usize, steps: u64) {
        let process = self.nodes[position].process.as_mut().expect("it runs");
        let is_idle = process.queues[Thread::Log as usize].jobs.is_empty() && process.log.steps == steps;
        if !is_idle {
            return;
        }
        if process.log.log.is_unsealed() {
            return self.enqueue(position, Job::Seal);
        }
        process.log.steps += 1;
        self.keep_room(position);
        self.plan_log_idle(position);
    }

    /// A full log waits: nothing was written, and nothing may be promised before it is.
    fn wait_for_room(&mut self, position: usize, job: Job) {
        self.coverage.hit("log full");
        let (node, life) = (self.nodes[position].id, self.nodes[position].life);
        let process = self.nodes[position].process.as_mut().expect("it runs");
        process.queues[Thread::Log as usize].jobs.push_front(job);
        self.keep_room(position);
        self.schedule(SPACE_RETRY, Event::Done { node, life, thread: Thread::Log });
    }

    /// Takes spares that are ready, orders more, and says when there is too little room for new entries.
    pub fn keep_room(&mut self, position: usize) {
        let now = self.now;
        let Some(process) = self.nodes[position].process.as_mut() else { return };
        let log = &mut process.log;
        while let Some(spare) = log.spares.pop_front() {
            log.ordered = false;
            match spare {
                Ok(spare) => log.log.add_spare(spare),
                Err(error) => {
                    log.order_after = now + SPACE_RETRY;
                    if !self.coverage.note_disk_failure(&error.to_string()) {
                        self.coverage.hit("no room for a spare");
                    }
                }
            }
        }
        let mut order = None;
        if !log.ordered && now >= log.order_after {
            order = log.log.order_spare();
            log.ordered = order.is_some();
        }
        let writable = log.log.headroom().takes_entries(HEADROOM_BYTES_MIN);
        let changed = std::mem::replace(&mut log.writable, writable) != writable;
        if let Some(order) = order {
            self.enqueue(position, Job::Prepare(order));
        }
        if changed {
            self.coverage.hit(if writable { "room in the log again" } else { "no room in the log" });
            self.arrive(position, Arrived::Input(Input::Space { of: Room::Log, writable }));
        }
    }

    /// Creates and ends groups as the newest state of the controller wants it.
    pub fn follow_controller(&mut self, position: usize) {
        let here = &mut self.nodes[position];
        let Some(process) = here.process.as_mut() else { return };
        let Some(Machine::Controller(controller)) = process.applier.machine(CONTROLLER_GROUP) else {
            return;
        };
        let (now, at) = (controller.view(), controller.applied().index);
        if self.metadata.as_ref().is_none_or(|(newest, _)| *newest < at) {
            self.metadata = Some((at, Arc::clone(&now)));
        }
        if Arc::ptr_eq(&now, &process.seen) {
            return;
        }
        if now.cluster().retired.contains(&here.identity.incarnation) {
            return self.was_replaced(position);
        }
        let work = process.known.take_work(&process.seen, &now);
        let before = process.admission.own_registration();
        process.peers.send_replace(Arc::clone(&now));
        let is_news = process.admission.own_registration() != before;
        process.seen = now;
        process.board.retain(|group, _| !work.remove.contains(group));
        for group in work.remove {
            self.arrive(position, Arrived::Input(Input::Remove { group }));
            self.coverage.hit("group ended");
        }
        if !work.create.is_empty() {
            self.enqueue(position, Job::Make(work.create));
        }
        for plan in work.adopt {
            let GroupPlan { group, replica, peers: membership, .. } = plan;
            // At every start all groups of this node are; it matters to those that are not there, or are repaired.
            if self.nodes[position].replica(group).is_none() {
                self.coverage.hit("group adopted");
            }
            self.arrive(position, Arrived::Input(Input::Adopt { group, replica, membership }));
        }
        for GroupPlan { group, replica, peers: membership, .. } in work.others {
            self.arrive(position, Arrived::Input(Input::Replicas { group, replica, membership }));
        }
        if is_news {
            self.greet_again(position);
        }
    }
}

impl Around<'_> {
    fn note_room(&mut self, made: RoomMade) {
        self.coverage.add("segment reused", made.reused_segments);
        self.coverage.add("entries copied forward", u64::from(made.copied_bytes > 0));
    }
}

impl Process {
    fn perform(&mut self, job: Job, around: &mut Around<'_>, outcome: &mut Outcome) -> Ended {
        match job {
            Job::Append(turn) => return self.append(turn, around, outcome),
            Job::Seal => return self.seal(),
            Job::Settle => self.log.log.settle(),
            Job::Release(bounds) => bounds.into_iter().for_each(|(group, below)| self.log.log.release(group, below)),
            Job::Locate { group, wanted } => self.locate(group, wanted, outcome),
            Job::Read { group, wanted, locations } => {
                let read = self.reader.read(&locations, wanted.max_bytes);
                match read {
                    Ok(entries) => outcome.input(Input::EntriesRead { group, wanted, result: Ok(entries) }),
                    Err(ReadError::Released { .. }) => outcome.jobs.push(Job::Locate { group, wanted }),
                    Err(error) => outcome.input(read_failed(group, wanted, &error)),
                }
            }
            Job::Prepare(order) => {
                let spare = prepare_spare(&self.log.disk, order);
                self.log.spares.push_back(spare);
            }
            Job::Examine { group, lost } => {
                if let Some((first, last, reason)) = lost {
                    self.log.log.mark_lost(group, first, last, &reason);
                }
                let recovery = self.log.log.examine(group);
                outcome.arrived.push(Arrived::Examined { group, recovery });
            }
            job => return self.perform_on_states(job, around, outcome),
        }
        Ended::Done
    }

    fn append(&mut self, mut turn: Turn, around: &mut Around<'_>, outcome: &mut Outcome) -> Ended {
        sabotage::write(around.sabotage, &mut turn);
        let cut_off = turn.writes.iter().any(|write| self.cuts_own_entries(write));
        match self.log.log.append(&turn) {
            Ok(number) => {
                around.note_room(self.log.log.take_room_made());
                if cut_off {
                    around.coverage.hit("deposed leader's tail cut off");
                }
                self.durable_turn.store(number.0, std::sync::atomic::Ordering::Release);
                for write in &turn.writes {
                    around.watch.tell(&Observation::Persisted { node: around.node, write });
                    if let LogChange::Refill(_) = write.change {
                        around.coverage.hit("repaired by entries");
                    }
                }
                outcome.input(Input::Appended);
                Ended::Done
            }
            Err(LogError::Full) => Ended::Full(Job::Append(turn)),
            Err(error) => Ended::Fatal(error.to_string()),
        }
    }

    /// Whether a replica that led the term of its last entry gives that entry up.
    fn cuts_own_entries(&self, write: &GroupWrite) -> bool {
        let LogChange::Append(entries) = &write.change else { return false };
        let (Some(first), Some((_, last))) = (entries.first(), self.log.log.bounds(write.group)) else { return false };
        first.id.index <= last.index && self.led.get(&write.group) == Some(&last.term)
    }

    fn seal(&mut self) -> Ended {
        match self.log.log.seal() {
            Ok(()) | Err(LogError::Full) => Ended::Done,
            Err(error) => Ended::Fatal(error.to_string()),
        }
    }

    fn locate(&mut self, group: RaftGroupId, wanted: Wanted, outcome: &mut Outcome) {
        let log = &self.log.log;
        match log.locate(group, wanted.low, wanted.high, wanted.max_bytes) {
            Ok(locations) => outcome.jobs.push(Job::Read { group, wanted, locations }),
            Err(ReadError::Released { .. }) => {
                let first = log.bounds(group).map_or(LogIndex(1), |(start, _)| start.index.next());
                outcome.input(Input::EntriesRead { group, wanted, result: Err(ReadFailure::Released { first }) });
            }
            Err(error) => outcome.input(read_failed(group, wanted, &error)),
        }
    }
}

fn read_failed(group: RaftGroupId, wanted: Wanted, error: &ReadError) -> Input {
    let result = match error {
        ReadError::Damaged { first, last, .. } => {
            Err(ReadFailure::Damaged { first: *first, last: *last, reason: error.to_string() })
        }
        ReadError::Released { .. } => unreachable!("what was released is looked for again"),
    };
    Input::EntriesRead { group, wanted, result }
}

impl Outcome {
    fn input(&mut self, input: Input) {
        self.arrived.push(Arrived::Input(input));
    }
}
