//! How jobs are done: each when its time is over, as a whole or up to a crash.

use crate::chance::{Chance, MILLISECOND};
use crate::coverage::Coverage;
use crate::jobs::{CrashPoint, Ended, Job, Kind, Outcome, Thread};
use crate::node::{Arrived, CLUSTER, Process};
use crate::observe::Observation;
use crate::sabotage::{self, Sabotage};
use crate::trace::mix_bytes;
use crate::watch::Watch;
use crate::world::{Event, World};
use ackord::controller::view::GroupPlan;
use ackord::machine::StateMachine as _;
use ackord::multiraft::apply::Transferred;
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::core::BIRTH;
use ackord::multiraft::core::effect::{Input, ReadFailure, Room};
use ackord::partition::trim::Freed;
use ackord::raft::group_log::Wanted;
use ackord::server::data::{create_machines, destroy_machines, join_controller};
use ackord::sim::engine::SimEngine;
use ackord::storage::Engine;
use ackord::types::{CONTROLLER_GROUP, EntryKind, LogEntry, LogIndex, Membership, NodeId, RaftGroupId, ReplicaId};
use ackord::wal::{LogChange, LogError, ReadError, Turn, prepare_spare};
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
        }
        let (ended, outcome) = self.perform(position, thread);
        if interrupted {
            return self.crash(position, CrashPoint::During(kind));
        }
        match ended {
            Ended::Fatal(reason) => return self.process_ends(position, &reason),
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
                Err(_) => {
                    log.order_after = now + SPACE_RETRY;
                    self.coverage.hit("no room for a spare");
                }
            }
        }
        let mut order = None;
        if !log.ordered && now >= log.order_after {
            order = log.log.order_spare();
            log.ordered = order.is_some();
        }
        let headroom = log.log.headroom();
        let writable = headroom.spares >= 2 || headroom.bytes >= HEADROOM_BYTES_MIN;
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
        process.peers.follow(&now);
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
            self.coverage.hit("group adopted");
            let GroupPlan { group, replica, peers: membership, .. } = plan;
            self.arrive(position, Arrived::Input(Input::Adopt { group, replica, membership }));
        }
    }
}

impl Around<'_> {
    /// Tells how a group's state stands now.
    fn tell_state(&mut self, process: &mut Process, group: RaftGroupId) {
        let node = self.node;
        let Some(machine) = process.applier.machine(group) else { return };
        // A whole state is large, so only some are looked at; replicas mostly stop at the same entries.
        if machine.applied().index.0.is_multiple_of(8) && !machine.membership().is_joining() {
            let (meta, head) = machine.head();
            let digest = mix_bytes(0, &head);
            let (membership, log_start) = (&meta.membership, machine.log_start());
            self.watch.tell(&Observation::Digest { node, group, at: meta.at, log_start, digest, membership });
        }
        if let Machine::Partition(partition) = machine {
            let view = partition.view();
            let bounds = (view.log_start, view.high_watermark);
            if process.bounds.insert(group, bounds) != Some(bounds) {
                let (log_start, high_watermark) = bounds;
                self.watch.tell(&Observation::Bounds { node, group, log_start, high_watermark });
            }
        }
    }
}

impl Process {
    fn perform(&mut self, job: Job, around: &mut Around<'_>, outcome: &mut Outcome) -> Ended {
        let engine = around.engine;
        match job {
            Job::Append(turn) => return self.append(turn, around, outcome),
            Job::Seal => return self.seal(),
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
            Job::Apply { group, entries, memberships } => self.apply(group, &entries, &memberships, around, outcome),
            Job::BeginFlush => outcome.jobs.push(Job::Flush(self.applier.begin_flush().expect("it works"))),
            Job::Add { group, machine } => {
                self.applier.add(group, machine);
                outcome.metadata = true;
                around.tell_state(self, group);
            }
            Job::Remove { group } => {
                self.applier.remove(group);
                outcome.jobs.push(Job::Destroy([group].into()));
            }
            Job::Build { group } => {
                if let Some(meta) = self.applier.build_snapshot(group) {
                    around.coverage.hit("snapshot built");
                    outcome.input(Input::SnapshotBuilt { group, meta });
                }
            }
            Job::Fetch { group, own, from, meta } => {
                outcome.transferred(group, self.applier.fetch(group, own, from, meta));
            }
            Job::Install { group, at } => self.install(group, at, around, outcome),
            Job::Transferred(message) => {
                let group = message.group;
                let transferred = self.applier.transferred(message);
                outcome.transferred(group, transferred);
            }
            Job::Examine { group, lost } => {
                if let Some((first, last, reason)) = lost {
                    self.log.log.mark_lost(group, first, last, &reason);
                }
                let recovery = self.log.log.examine(group);
                outcome.arrived.push(Arrived::Examined { group, recovery });
            }
            Job::ExamineState { group, recovery } => {
                let machine = self.applier.machine(group);
                let state = machine.map(|machine| (machine.applied(), machine.membership().clone()));
                outcome.input(Input::Examined { group, recovery, state });
            }
            Job::Flush(plan) => self.flush(plan, around, outcome),
            Job::Reclaim(freed) => {
                around.coverage.hit("space given back");
                freed.iter().for_each(|freed| reclaim(freed, engine));
                engine.merge_deleted().expect("the simulated database merges");
            }
            Job::Make(plans) => make(plans, around, outcome),
            Job::Join { replica } => join(replica, around, outcome),
            Job::Destroy(groups) => destroy_machines(engine, &groups).expect("the simulated database deletes"),
        }
        Ended::Done
    }

    fn append(&mut self, mut turn: Turn, around: &mut Around<'_>, outcome: &mut Outcome) -> Ended {
        sabotage::write(around.sabotage, &mut turn);
        match self.log.log.append(&turn) {
            Ok(number) => {
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

    fn apply(
        &mut self,
        group: RaftGroupId,
        entries: &[LogEntry],
        memberships: &[(LogIndex, Membership)],
        around: &mut Around<'_>,
        outcome: &mut Outcome,
    ) {
        let node = around.node;
        let bytes = entries.iter().map(LogEntry::payload_bytes).sum();
        let mut was_joint = self.applier.machine(group).is_some_and(|machine| machine.membership().is_joint());
        match self.applier.apply(group, entries, memberships) {
            Ok(outcomes) => {
                let skipped = entries.len() - outcomes.len();
                for (entry, (_, outcome)) in entries[skipped..].iter().zip(&outcomes) {
                    around.watch.tell(&Observation::Applied { node, group, entry, outcome });
                    if entry.kind == EntryKind::ConfChange
                        && let Some((_, membership)) = memberships.iter().find(|(index, _)| *index == entry.id.index)
                    {
                        around.watch.tell(&Observation::Members { group, at: entry.id, membership });
                        around.coverage.hit("conf change applied");
                        let is_joint = membership.is_joint();
                        match std::mem::replace(&mut was_joint, is_joint) {
                            false if is_joint => around.coverage.hit("joint configuration entered"),
                            true if !is_joint => around.coverage.hit("joint configuration left"),
                            _ => {}
                        }
                    }
                }
                if around.sabotage == Sabotage::ReleaseUnflushed
                    && let Some((last, _)) = outcomes.last()
                {
                    self.log.log.release(group, last.index.next());
                }
                outcome.metadata = group == CONTROLLER_GROUP;
                outcome.input(Input::Applied { group, outcomes, bytes });
                around.tell_state(self, group);
            }
            Err(error) => {
                self.applier.remove(group);
                outcome.input(Input::ApplyFailed { group, reason: error.to_string(), bytes });
            }
        }
    }

    fn install(
        &mut self,
        group: RaftGroupId,
        at: ackord::types::LogId,
        around: &mut Around<'_>,
        outcome: &mut Outcome,
    ) {
        let freed = match self.applier.install(group, at) {
            Ok(freed) => freed,
            Err(reason) => return outcome.input(Input::ApplyFailed { group, reason, bytes: 0 }),
        };
        around.engine.flush().expect("the simulated database flushes");
        freed.iter().for_each(|freed| reclaim(freed, around.engine));
        around.coverage.hit("snapshot installed");
        if self.core.quarantine_reason(group).is_some() {
            around.coverage.hit("repaired by a state");
        }
        let node = around.node;
        around.watch.tell(&Observation::Restored { node, group, at });
        sabotage::installed(around.sabotage, &mut self.applier, group, around.engine);
        outcome.metadata = group == CONTROLLER_GROUP;
        outcome.input(Input::SnapshotInstalled { group });
        around.tell_state(self, group);
    }

    fn flush(&mut self, plan: ackord::multiraft::apply::FlushPlan, around: &mut Around<'_>, outcome: &mut Outcome) {
        let (node, engine) = (around.node, around.engine);
        if around.sabotage == Sabotage::ReclaimUnflushed {
            plan.freed.iter().for_each(|freed| reclaim(freed, engine));
        }
        if around.sabotage == Sabotage::TrimTooMuch && !plan.freed.is_empty() {
            sabotage::trim_too_much(engine);
        }
        engine.flush().expect("the simulated database flushes");
        around.coverage.hit("flushed");
        for (group, applied) in &plan.applied {
            around.watch.tell(&Observation::Flushed { node, group: *group, applied: *applied });
        }
        outcome.input(Input::Flushed { applied: plan.applied });
        if !plan.freed.is_empty() {
            outcome.jobs.push(Job::Reclaim(plan.freed));
        }
    }
}

fn make(plans: Vec<(GroupPlan, bool)>, around: &mut Around<'_>, outcome: &mut Outcome) {
    let wanted: Vec<_> = plans.iter().map(|(plan, _)| (plan.group, plan.kind, plan.members.clone())).collect();
    let machines = create_machines(around.engine, &wanted).expect("the simulated database writes");
    for ((plan, preferred), machine) in plans.into_iter().zip(machines) {
        let (group, replica, membership) = (plan.group, plan.replica, machine.membership().clone());
        if plan.members.is_joining() {
            around.coverage.hit("group joined");
        } else {
            around.watch.tell(&Observation::Members { group, at: BIRTH, membership: &plan.members });
            around.coverage.hit("group made");
        }
        outcome.jobs.push(Job::Add { group, machine });
        outcome.input(Input::Create { group, replica, membership, preferred });
    }
}

fn join(replica: ReplicaId, around: &mut Around<'_>, outcome: &mut Outcome) {
    let group = CONTROLLER_GROUP;
    let made = join_controller(around.engine, CLUSTER, replica).expect("the simulated database writes");
    let Some(machine) = made else { return };
    let membership = machine.membership().clone();
    around.coverage.hit("controller's group joined");
    outcome.jobs.push(Job::Add { group, machine });
    outcome.input(Input::Create { group, replica, membership, preferred: false });
}

fn reclaim(freed: &Freed, engine: &SimEngine) {
    freed.reclaim(engine).expect("the simulated database reclaims");
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

    fn transferred(&mut self, group: RaftGroupId, transferred: Transferred) {
        if let Some(reason) = transferred.damaged {
            self.input(Input::ApplyFailed { group, reason, bytes: 0 });
        }
        if let Some(by) = transferred.pulled_by {
            self.input(Input::SnapshotPulled { group, by });
        }
        if let Some((at, generation)) = transferred.done {
            self.input(Input::SnapshotFetched { group, at, generation });
        }
        self.send = transferred.send;
    }
}
