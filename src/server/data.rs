//! A data directory: the identity, the write-ahead log in `wal`, the state machines' database in `state`.
//!
//! Opening it decides, per group, whether its replica may take part: log and state machine must fit each other.

use super::identity::{self, Identity, IdentityError, NEW_LOG_FOLDER};
use crate::broker::node::views::Views;
use crate::config::{self, Config};
use crate::controller::Controller;
use crate::coordinator::Coordinator;
use crate::machine::MachineError;
use crate::multiraft::apply::Applier;
use crate::multiraft::apply::machine::Machine;
use crate::multiraft::core::{BIRTH, GroupStart};
use crate::partition::Partition;
use crate::storage::rocks::{RocksEngine, RocksOptions};
use crate::storage::{Engine, EngineError, WriteBatch};
use crate::types::{CONTROLLER_GROUP, GroupKind, LogId, Membership, NodeId, RaftGroupId, ReplicaId};
use crate::wal::real_disk::RealDisk;
use crate::wal::{self, GroupRecovery, Log, LogError, Recovery, TurnNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The log's folder within a data directory.
const WAL_FOLDER: &str = "wal";
/// The database's folder within a data directory.
const STATE_FOLDER: &str = "state";

/// Set to 1, the log's syncs are left out. Not a setting: it is there to prove that the fault harness notices.
const UNSAFE_NO_SYNC: &str = "ACKORD_UNSAFE_NO_SYNC";

/// The database as a node shares it.
pub type SharedEngine = Arc<RocksEngine>;

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It is not this node's, or nobody's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log.
    #[error("{path}: {error}")]
    Log { path: PathBuf, error: LogError },
    /// The database.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A state machine. The others could be opened, but a node without its controller's state is of no use.
    #[error("the controller's state: {0}")]
    Controller(String),
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// An opened data directory.
pub struct Opened {
    /// Who it is.
    pub identity: Identity,
    /// The database.
    pub engine: SharedEngine,
    /// What the state machines publish.
    pub views: Views,
    /// The log, and its disk to prepare spares on.
    pub log: (Log<RealDisk>, RealDisk),
    /// The state machines.
    pub applier: Applier<SharedEngine>,
    /// The groups as they start.
    pub starts: Vec<GroupStart>,
    /// Group 0, if this node is one of its first voters and has not been born into it yet.
    pub unborn_controller: Option<(ReplicaId, Machine)>,
    /// Deleted groups whose rows may still be there.
    pub tombstones: Vec<RaftGroupId>,
    /// The highest turn that is durable, for peers to compare.
    pub durable_turn: TurnNumber,
    /// The log may have forgotten groups: none may be born here, it could have been here before.
    pub incomplete: bool,
}

/// Makes an empty directory a node's: an empty log under another name, the identity, then the log's name. A crash
/// leaves a directory that can be formatted again, or one that can be opened.
pub fn format(config: &Config, identity: &Identity) -> Result<(), DataError> {
    let new = config.data_dir.join(NEW_LOG_FOLDER);
    let io_error = |error| DataError::Io { path: new.clone(), error };
    if !config.data_dir.join(identity::FILE_NAME).exists() {
        if new.exists() {
            std::fs::remove_dir_all(&new).map_err(io_error)?; // of a format that a crash interrupted
        }
        std::fs::create_dir_all(&new).map_err(io_error)?;
        open_log(config, identity, &new, true)?;
    }
    identity::format(&config.data_dir, identity)?;
    finish_format(&config.data_dir)
}

/// Gives the log of a new directory its name.
fn finish_format(data_dir: &Path) -> Result<(), DataError> {
    let (new, path) = (data_dir.join(NEW_LOG_FOLDER), data_dir.join(WAL_FOLDER));
    if path.exists() || !new.exists() {
        return Ok(());
    }
    let renamed = std::fs::rename(&new, &path).and_then(|()| std::fs::File::open(data_dir)?.sync_all());
    renamed.map_err(|error| DataError::Io { path, error })
}

/// Opens a node's data directory.
pub fn open(config: &Config) -> Result<Opened, DataError> {
    let cluster = config.cluster.id.map(|id| id.0);
    let identity = identity::open(&config.data_dir, config.node(), cluster)?;
    finish_format(&config.data_dir)?;
    let (log, disk, recovery) = open_log(config, &identity, &config.data_dir.join(WAL_FOLDER), false)?;
    for finding in &recovery.findings {
        tracing::warn!(finding, "found in the log");
    }
    let engine = Arc::new(RocksEngine::open(&config.data_dir.join(STATE_FOLDER), RocksOptions::default())?);
    let views = Views::new(identity.cluster);
    let OpenedGroups { machines, starts, unborn_controller } = open_groups(&identity, &engine, &recovery)?;
    let applier = Applier::new(Arc::clone(&engine), machines, Box::new(views.clone()));
    let durable_turn = recovery.durable_turn;
    let incomplete = recovery.incomplete;
    if incomplete {
        tracing::error!("the log has lost what it knew of some groups: no new ones are taken here; replace this node");
    }
    let tombstones = recovery.tombstones;
    Ok(Opened {
        identity,
        engine,
        views,
        log: (log, disk),
        applier,
        starts,
        unborn_controller,
        tombstones,
        durable_turn,
        incomplete,
    })
}

fn open_log(
    config: &Config,
    identity: &Identity,
    path: &Path,
    create: bool,
) -> Result<(Log<RealDisk>, RealDisk, Recovery), DataError> {
    let path = path.to_owned();
    let io_error = |error| DataError::Io { path: path.clone(), error };
    let disk = RealDisk::with_sync(&path, sync_wanted()).map_err(io_error)?;
    let owner = wal::Identity { cluster: identity.cluster.0, node: identity.node };
    let config::Wal { segment_bytes, retain_bytes, slack_bytes, recycled_segments_max } = config.wal;
    let recycled_max = recycled_segments_max.into();
    let options =
        wal::Options { segment_bytes, retain_bytes, slack_bytes, recycled_max, create, ..wal::Options::default() };
    let fresh_id = || identity::random_id().expect("the operating system has random numbers");
    let (log, recovery) =
        Log::open(disk.clone(), owner, options, fresh_id).map_err(|error| DataError::Log { path, error })?;
    Ok((log, disk, recovery))
}

/// Whether the log is synced: always, but in the control of the power-cut test, which must find what that loses.
fn sync_wanted() -> bool {
    let unsafe_wanted = std::env::var_os(UNSAFE_NO_SYNC).is_some_and(|value| value == "1");
    if unsafe_wanted {
        tracing::error!(
            "{UNSAFE_NO_SYNC}=1: THE LOG IS NOT SYNCED. A power cut loses acknowledged records; only for tests"
        );
    }
    !unsafe_wanted
}

/// The groups of an opened log and database.
pub struct OpenedGroups {
    /// The state machines.
    pub machines: BTreeMap<RaftGroupId, Machine>,
    /// The groups as they start.
    pub starts: Vec<GroupStart>,
    /// See [`Opened`].
    pub unborn_controller: Option<(ReplicaId, Machine)>,
}

/// Decides for every group that the log knows whether its replica may take part.
pub fn open_groups(identity: &Identity, engine: &dyn Engine, recovery: &Recovery) -> Result<OpenedGroups, DataError> {
    let mut machines = BTreeMap::new();
    let mut starts = Vec::new();
    let unborn_controller = open_controller(identity, engine, recovery, &mut machines, &mut starts)?;
    for (group, recovered) in recovery.groups.iter().filter(|(group, _)| **group != CONTROLLER_GROUP) {
        let opened = open_machine(engine, *group)?;
        let (start, machine) = fit(identity.node, *group, recovered.clone(), opened);
        starts.push(start);
        machines.extend(machine.map(|machine| (*group, machine)));
    }
    Ok(OpenedGroups { machines, starts, unborn_controller })
}

/// The controller's state must be readable: everything else depends on it.
fn open_controller(
    identity: &Identity,
    engine: &dyn Engine,
    recovery: &Recovery,
    machines: &mut BTreeMap<RaftGroupId, Machine>,
    starts: &mut Vec<GroupStart>,
) -> Result<Option<(ReplicaId, Machine)>, DataError> {
    let voters = Membership::of_voters(identity.voters.iter().map(|voter| ReplicaId::new(voter.node, 0)));
    let controller = Controller::open(engine, identity.cluster, (BIRTH, voters))
        .map_err(|error| DataError::Controller(error.to_string()))?;
    let machine = Machine::Controller(Box::new(controller));
    match recovery.groups.get(&CONTROLLER_GROUP) {
        Some(recovered) => {
            let (start, machine) = fit(identity.node, CONTROLLER_GROUP, recovered.clone(), Ok(Some(machine)));
            starts.push(start);
            machines.extend(machine.map(|machine| (CONTROLLER_GROUP, machine)));
            Ok(None)
        }
        None if recovery.incomplete => Ok(None),
        None => Ok(own_replica(machine.membership(), identity.node).map(|replica| (replica, machine))),
    }
}

/// A group's state machine; the inner error is damage, which concerns this group alone.
type OpenedMachine = Result<Option<Machine>, String>;

fn open_machine(engine: &dyn Engine, group: RaftGroupId) -> Result<OpenedMachine, DataError> {
    match find_machine(engine, group) {
        Ok(machine) => Ok(Ok(machine)),
        Err(MachineError::Engine(error)) => Err(error.into()),
        Err(damaged @ MachineError::Damaged { .. }) => Ok(Err(damaged.to_string())),
    }
}

/// The database tells by its rows which kind of state machine a group has.
fn find_machine(engine: &dyn Engine, group: RaftGroupId) -> Result<Option<Machine>, MachineError> {
    if let Some(partition) = Partition::open(engine, group)? {
        return Ok(Some(Machine::Partition(Box::new(partition))));
    }
    let coordinator = Coordinator::open(engine, group)?;
    Ok(coordinator.map(|coordinator| Machine::Coordinator(Box::new(coordinator))))
}

/// Log and state machine of one group. What does not fit is quarantined, with the reason, and repaired from its peers.
fn fit(
    node: NodeId,
    group: RaftGroupId,
    recovery: GroupRecovery,
    opened: OpenedMachine,
) -> (GroupStart, Option<Machine>) {
    let (machine, state_damage) = match opened {
        Ok(Some(machine)) => (Some(machine), None),
        Ok(None) => (None, Some("the log knows this group and the database does not".to_owned())),
        Err(damage) => (None, Some(damage)),
    };
    let membership = machine.as_ref().map(|machine| machine.membership().clone()).unwrap_or_default();
    let replica = own_replica(&membership, node).unwrap_or(ReplicaId::new(node, 0));
    let applied = machine.as_ref().map_or(LogId::default(), Machine::applied);
    (GroupStart { group, replica, recovery, applied, membership, state_damage, forgotten: false }, machine)
}

fn own_replica(members: &Membership, node: NodeId) -> Option<ReplicaId> {
    members.voters.iter().chain(&members.learners).copied().find(|replica| replica.node() == node)
}

/// Creates the state machines of new groups, durably; one that is there already is taken as it is.
pub fn create_machines(
    engine: &dyn Engine,
    plans: &[(RaftGroupId, GroupKind, Membership)],
) -> Result<Vec<Machine>, MachineError> {
    let mut batch = WriteBatch::default();
    let mut machines = Vec::with_capacity(plans.len());
    for (group, kind, members) in plans {
        let members = members.clone();
        machines.push(match (find_machine(engine, *group)?, kind) {
            (Some(machine), _) => machine,
            (None, GroupKind::Partition) => {
                Machine::Partition(Box::new(Partition::create(*group, BIRTH, members, &mut batch)))
            }
            (None, GroupKind::Coordinator) => {
                Machine::Coordinator(Box::new(Coordinator::create(*group, BIRTH, members, &mut batch)))
            }
        });
    }
    engine.write(batch)?;
    engine.flush()?;
    Ok(machines)
}

/// State machines for replicas that are to be repaired: an empty one where there is none that can be used, for the
/// state that comes from a peer. A group with a single voter has no peers: whatever rows it has stay as they are.
pub fn adopt_machines(
    engine: &dyn Engine,
    plans: &[(RaftGroupId, GroupKind, Membership)],
) -> Result<Vec<Option<Machine>>, MachineError> {
    let mut machines = Vec::with_capacity(plans.len());
    for plan @ (group, _, members) in plans {
        if members.voters.len() == 1 {
            machines.push(None);
            continue;
        }
        match find_machine(engine, *group) {
            Ok(Some(_)) => {}
            Ok(None) | Err(MachineError::Damaged { .. }) => destroy_machines(engine, &BTreeSet::from([*group]))?,
            Err(error) => return Err(error),
        }
        machines.extend(create_machines(engine, std::slice::from_ref(plan))?.into_iter().map(Some));
    }
    Ok(machines)
}

/// Deletes the rows of deleted groups and gives their space back.
pub fn destroy_machines(engine: &dyn Engine, groups: &BTreeSet<RaftGroupId>) -> Result<(), EngineError> {
    if groups.is_empty() {
        return Ok(());
    }
    let mut batch = WriteBatch::default();
    groups.iter().for_each(|group| Coordinator::destroy(*group, &mut batch));
    let freed: Vec<_> = groups.iter().map(|group| Partition::destroy(*group, &mut batch)).collect();
    engine.write(batch)?;
    engine.flush()?;
    freed.iter().try_for_each(|freed| freed.reclaim(engine))
}
