//! The apply thread: runs committed entries through the state machines and moves whole states between nodes. Beside it,
//! what takes long and needs nothing of the machines: flushes, and giving back the space of what a flush has made
//! durably deleted.

use super::Surroundings;
use crate::multiraft::apply::machine::Machine;
use crate::multiraft::apply::transfer::SnapshotMessage;
use crate::multiraft::apply::{Applier, FlushPlan, Transferred};
use crate::multiraft::core::effect::Input;
use crate::partition::trim::Freed;
use crate::raft::SnapshotMeta;
use crate::storage::Engine;
use crate::types::{LogEntry, LogId, LogIndex, Membership, RaftGroupId, ReplicaId};
use crate::wal::GroupRecovery;
use std::sync::mpsc::{Receiver, Sender};

/// What the apply thread is asked to do.
pub enum ApplyCommand {
    /// Apply committed entries.
    Apply { group: RaftGroupId, entries: Vec<LogEntry>, memberships: Vec<(LogIndex, Membership)> },
    /// Begin a flush.
    Flush,
    /// Take in the state machine of a new group; its rows are durable.
    Add { group: RaftGroupId, machine: Machine },
    /// Let go of a group whose end is durable.
    Remove { group: RaftGroupId },
    /// Take a state for followers.
    BuildSnapshot { group: RaftGroupId },
    /// Fetch a state from a peer.
    Fetch { group: RaftGroupId, own: ReplicaId, from: ReplicaId, meta: SnapshotMeta },
    /// Switch to the state that was fetched.
    Install { group: RaftGroupId, at: LogId },
    /// Readers found that the rows of this generation can't be read.
    Condemn { group: RaftGroupId, generation: u64, reason: String },
    /// Say how a group's state machine stands, beside what the log has of it.
    Examine { group: RaftGroupId, recovery: Option<GroupRecovery> },
    /// A peer says something about a state in transit.
    Transferred(SnapshotMessage),
}

/// Serves until nobody can ask any more.
pub(super) fn run<E: Engine>(
    mut applier: Applier<E>,
    inbox: &Receiver<ApplyCommand>,
    flushes: &Sender<FlushPlan>,
    surroundings: &Surroundings,
) {
    loop {
        if applier.take_flush_wish() {
            surroundings.tell(Input::FlushWanted);
        }
        let Ok(command) = inbox.recv() else { return };
        match command {
            ApplyCommand::Apply { group, entries, memberships } => {
                let bytes = entries.iter().map(LogEntry::payload_bytes).sum();
                match applier.apply(group, &entries, &memberships) {
                    Ok(outcomes) => surroundings.tell(Input::Applied { group, outcomes, bytes }),
                    Err(error) => {
                        applier.condemn(group, None);
                        fail(&applier, group, error.to_string(), bytes, surroundings);
                    }
                }
            }
            // What was applied before this moment is in the memtables that the flush thread will write.
            ApplyCommand::Flush => match applier.begin_flush() {
                Ok(mut plan) => {
                    for (group, reason) in std::mem::take(&mut plan.damaged) {
                        fail(&applier, group, reason, 0, surroundings);
                    }
                    drop(flushes.send(plan));
                }
                Err(error) => surroundings.outside.fatal(&error.to_string()),
            },
            ApplyCommand::Add { group, machine } => applier.add(group, machine),
            ApplyCommand::Remove { group } => {
                applier.remove(group);
                surroundings.outside.removed(group);
            }
            ApplyCommand::BuildSnapshot { group } => {
                if let Some(meta) = applier.build_snapshot(group) {
                    surroundings.tell(Input::SnapshotBuilt { group, meta });
                }
            }
            ApplyCommand::Fetch { group, own, from, meta } => {
                let next = applier.fetch(group, own, from, meta);
                transferred(&applier, group, next, surroundings);
            }
            ApplyCommand::Install { group, at } => match install(&mut applier, group, at) {
                Ok(()) => surroundings.tell(Input::SnapshotInstalled { group, at }),
                Err(reason) => fail(&applier, group, reason, 0, surroundings),
            },
            ApplyCommand::Condemn { group, generation, reason } => {
                if applier.condemn(group, Some(generation)) {
                    fail(&applier, group, reason, 0, surroundings);
                }
            }
            ApplyCommand::Examine { group, recovery } => {
                let state = applier.machine(group).map(|machine| (machine.applied(), machine.membership().clone()));
                surroundings.tell(Input::Examined { group, recovery, state });
            }
            ApplyCommand::Transferred(message) => {
                let group = message.group;
                let next = applier.transferred(message);
                transferred(&applier, group, next, surroundings);
            }
        }
    }
}

/// A group's state machine can't go on: it is repaired. If the database can't either, or what is damaged in it stays in
/// the way of a repair, only another start helps.
fn fail<E: Engine>(
    applier: &Applier<E>,
    group: RaftGroupId,
    reason: String,
    bytes: usize,
    surroundings: &Surroundings,
) {
    if applier.is_beyond_repair(group) {
        applier.engine().condemn(&reason);
        let verdict = format!("group {group} is damaged again, whatever is fetched: {reason}; start this node again");
        surroundings.outside.fatal(&verdict);
    } else if let Some(failure) = applier.engine().failure() {
        surroundings.outside.fatal(&failure);
    }
    surroundings.tell(Input::ApplyFailed { group, reason, bytes });
}

fn transferred<E: Engine>(
    applier: &Applier<E>,
    group: RaftGroupId,
    transferred: Transferred,
    surroundings: &Surroundings,
) {
    if let Some(reason) = transferred.failed {
        fail(applier, group, reason, 0, surroundings);
    }
    if let Some(message) = transferred.send {
        surroundings.outside.send_snapshot(message);
    }
    if let Some(by) = transferred.pulled_by {
        surroundings.tell(Input::SnapshotPulled { group, by });
    }
    if let Some((at, generation)) = transferred.done {
        surroundings.tell(Input::SnapshotFetched { group, at, generation });
    }
}

/// The switch is durable before anybody hears of it, and the old state's space comes back only then.
fn install<E: Engine>(applier: &mut Applier<E>, group: RaftGroupId, at: LogId) -> Result<(), String> {
    let freed = applier.install(group, at)?;
    applier.engine().flush().map_err(|error| error.to_string())?;
    match freed {
        Some(freed) => freed.reclaim(applier.engine()).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

/// A database that can't be flushed has lost writes it had accepted: only a restart, which replays the log, is safe.
pub(super) fn run_flushes<E: Engine>(
    engine: &E,
    inbox: &Receiver<FlushPlan>,
    reclaims: &Sender<Vec<Freed>>,
    surroundings: &Surroundings,
) {
    while let Ok(FlushPlan { applied, freed, .. }) = inbox.recv() {
        match engine.flush() {
            Ok(()) => {
                surroundings.tell(Input::Flushed { applied });
                if !freed.is_empty() {
                    // At most so many as there were flushes meanwhile, and each is small. A thread that has ended
                    // has said why.
                    let _gone = reclaims.send(freed);
                }
            }
            Err(error) => {
                surroundings.outside.fatal(&error.to_string());
                return;
            }
        }
    }
}

/// Gives space back, which may mean to rewrite what shares files with it. The log is not freed any later for that.
pub(super) fn run_reclaims<E: Engine>(engine: &E, inbox: &Receiver<Vec<Freed>>, surroundings: &Surroundings) {
    while let Ok(mut freed) = inbox.recv() {
        freed.extend(inbox.try_iter().flatten());
        let reclaimed = freed.iter().try_for_each(|freed| freed.reclaim(engine)).and_then(|()| engine.merge_deleted());
        if let Err(error) = reclaimed {
            surroundings.outside.fatal(&error.to_string());
            return;
        }
    }
}
