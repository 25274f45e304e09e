//! What the state machines have to do, as production's apply thread does it, and those beside it.

use super::Around;
use crate::jobs::{Ended, Job, Outcome};
use crate::node::{CLUSTER, Process};
use crate::observe::Observation;
use crate::sabotage::{self, Sabotage};
use crate::trace::{mix, mix_bytes};
use ackord::controller::view::GroupPlan;
use ackord::machine::MachineError;
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::apply::{FlushPlan, Transferred};
use ackord::multiraft::core::BIRTH;
use ackord::multiraft::core::effect::Input;
use ackord::partition::read::PartitionView;
use ackord::server::data::{create_machines, destroy_machines, join_controller};
use ackord::sim::engine::SimEngine;
use ackord::storage::{Engine, EngineError};
use ackord::types::{CONTROLLER_GROUP, EntryKind, LogEntry, LogId, LogIndex, Membership, RaftGroupId, ReplicaId};

impl Around<'_> {
    pub(super) fn tell_state(&mut self, process: &mut Process, group: RaftGroupId) {
        let node = self.node;
        let Some(machine) = process.applier.machine(group) else { return };
        // A whole state is large, so only some are looked at; replicas mostly stop at the same entries.
        if machine.applied().index.0.is_multiple_of(8) && !machine.membership().is_joining() {
            let (meta, head) = machine.head();
            let mut digest = Some(mix_bytes(0, &head));
            if let Machine::Partition(partition) = machine
                && meta.at.index.0.is_multiple_of(64)
            {
                digest = mix_records(self.engine, &partition.view(), digest.unwrap_or_default());
            }
            let (membership, log_start) = (&meta.membership, machine.log_start());
            if let Some(digest) = digest {
                self.watch.tell(&Observation::Digest { node, group, at: meta.at, log_start, digest, membership });
            }
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

/// All records of a partition, mixed into a hash; nothing if they can't be read, which is whoever reads them's to tell.
fn mix_records(engine: &SimEngine, view: &PartitionView, digest: u64) -> Option<u64> {
    let mut digest = digest;
    for batch in view.fetch(engine, view.log_start, usize::MAX, true).ok()? {
        digest = mix_bytes(mix(digest, batch.base_offset.0.cast_unsigned()), batch.batch.bytes());
    }
    Some(digest)
}

impl Process {
    /// What is not the log's.
    pub(super) fn perform_on_states(&mut self, job: Job, around: &mut Around<'_>, outcome: &mut Outcome) -> Ended {
        let engine = around.engine;
        match job {
            Job::Apply { group, entries, memberships } => {
                return self.apply(group, &entries, &memberships, around, outcome).into();
            }
            Job::BeginFlush => return self.begin_flush(around, outcome).into(),
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
                let next = self.applier.fetch(group, own, from, meta);
                return self.transferred(group, next, around, outcome).into();
            }
            Job::Install { group, at } => return self.install(group, at, around, outcome).into(),
            Job::Condemn { group, generation, reason } => {
                if self.applier.condemn(group, Some(generation)) {
                    around.coverage.hit("damaged state met by a reader");
                    return self.fail(group, reason, 0, around, outcome).into();
                }
            }
            Job::Transferred(message) => {
                let group = message.group;
                let next = self.applier.transferred(message);
                return self.transferred(group, next, around, outcome).into();
            }
            Job::ExamineState { group, recovery } => {
                let machine = self.applier.machine(group);
                let state = machine.map(|machine| (machine.applied(), machine.membership().clone()));
                outcome.input(Input::Examined { group, recovery, state });
            }
            Job::Flush(plan) => return self.flush(plan, around, outcome).into(),
            Job::Reclaim(freed) => {
                around.coverage.hit("space given back");
                let reclaimed = freed.iter().try_for_each(|freed| freed.reclaim(engine));
                return reclaimed.and_then(|()| engine.merge_deleted()).into();
            }
            Job::Make(plans) => return make(plans, around, outcome).into(),
            Job::Join { replica } => return join(replica, around, outcome).into(),
            Job::Destroy(groups) => return destroy_machines(engine, &groups).into(),
            Job::Append(_) | Job::Seal | Job::Settle | Job::Release(_) | Job::Prepare(_) => unreachable!("the log's"),
            Job::Locate { .. } | Job::Read { .. } | Job::Examine { .. } => unreachable!("the log's"),
        }
        Ended::Done
    }

    fn apply(
        &mut self,
        group: RaftGroupId,
        entries: &[LogEntry],
        memberships: &[(LogIndex, Membership)],
        around: &mut Around<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
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
                Ok(())
            }
            Err(error) => {
                self.applier.condemn(group, None);
                self.fail(group, error.to_string(), bytes, around, outcome)
            }
        }
    }

    /// A group's state machine can't go on, as production's worker has it. The error ends the process.
    fn fail(
        &self,
        group: RaftGroupId,
        reason: String,
        bytes: usize,
        around: &mut Around<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        if self.applier.is_beyond_repair(group) {
            around.coverage.hit("database condemned");
            around.engine.condemn(&reason);
            return Err(format!("group {group} is damaged again, whatever is fetched: {reason}"));
        }
        around.engine.failure().map_or(Ok(()), Err)?;
        outcome.input(Input::ApplyFailed { group, reason, bytes });
        Ok(())
    }

    fn begin_flush(&mut self, around: &mut Around<'_>, outcome: &mut Outcome) -> Result<(), String> {
        let mut plan = self.applier.begin_flush().map_err(|error| error.to_string())?;
        for (group, reason) in std::mem::take(&mut plan.damaged) {
            around.coverage.hit("damaged state met by a flush");
            self.fail(group, reason, 0, around, outcome)?;
        }
        outcome.jobs.push(Job::Flush(plan));
        Ok(())
    }

    fn transferred(
        &mut self,
        group: RaftGroupId,
        transferred: Transferred,
        around: &mut Around<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        if let Some(reason) = transferred.failed {
            around.coverage.hit("state failed in a transfer");
            self.fail(group, reason, 0, around, outcome)?;
        }
        outcome.send = transferred.send;
        if let Some(by) = transferred.pulled_by {
            outcome.input(Input::SnapshotPulled { group, by });
        }
        if let Some((at, generation)) = transferred.done {
            outcome.input(Input::SnapshotFetched { group, at, generation });
        }
        Ok(())
    }

    fn install(
        &mut self,
        group: RaftGroupId,
        at: LogId,
        around: &mut Around<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        around.watch.tell(&Observation::Installing { node: around.node, group });
        let freed = self.applier.install(group, at);
        let durable = freed.and_then(|freed| {
            let flushed = around.engine.flush();
            let reclaimed = flushed.and_then(|()| freed.iter().try_for_each(|freed| freed.reclaim(around.engine)));
            reclaimed.map_err(|error| error.to_string())
        });
        if let Err(reason) = durable {
            return self.fail(group, reason, 0, around, outcome);
        }
        around.coverage.hit("snapshot installed");
        if self.core.quarantine_reason(group).is_some() {
            around.coverage.hit("repaired by a state");
        }
        let node = around.node;
        around.watch.tell(&Observation::Restored { node, group, at });
        sabotage::installed(around.sabotage, &mut self.applier, group, around.engine);
        outcome.metadata = group == CONTROLLER_GROUP;
        outcome.input(Input::SnapshotInstalled { group, at });
        around.tell_state(self, group);
        Ok(())
    }

    fn flush(&mut self, plan: FlushPlan, around: &mut Around<'_>, outcome: &mut Outcome) -> Result<(), EngineError> {
        let (node, engine) = (around.node, around.engine);
        if around.sabotage == Sabotage::ReclaimUnflushed {
            plan.freed.iter().try_for_each(|freed| freed.reclaim(engine))?;
        }
        if around.sabotage == Sabotage::TrimTooMuch && !plan.freed.is_empty() {
            sabotage::trim_too_much(engine)?;
        }
        engine.flush()?;
        around.coverage.hit("flushed");
        for (group, applied) in &plan.applied {
            around.watch.tell(&Observation::Flushed { node, group: *group, applied: *applied });
        }
        outcome.input(Input::Flushed { applied: plan.applied });
        if !plan.freed.is_empty() {
            outcome.jobs.push(Job::Reclaim(plan.freed));
        }
        Ok(())
    }
}

/// Makes the state machines of new groups.
fn make(plans: Vec<(GroupPlan, bool)>, around: &mut Around<'_>, outcome: &mut Outcome) -> Result<(), MachineError> {
    let wanted: Vec<_> = plans.iter().map(|(plan, _)| plan.clone()).collect();
    let machines = create_machines(around.engine, &wanted)?;
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
    Ok(())
}

/// Begins a replica of the controller's group.
fn join(replica: ReplicaId, around: &mut Around<'_>, outcome: &mut Outcome) -> Result<(), EngineError> {
    let group = CONTROLLER_GROUP;
    let Some(machine) = join_controller(around.engine, CLUSTER, replica)? else { return Ok(()) };
    let membership = machine.membership().clone();
    around.coverage.hit("controller's group joined");
    outcome.jobs.push(Job::Add { group, machine });
    outcome.input(Input::Create { group, replica, membership, preferred: false });
    Ok(())
}
