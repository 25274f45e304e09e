//! A data directory: the identity, the write-ahead log in `wal`, the state machines' database in `state`.
//!
//! Opening it decides, per group, whether its replica may take part: log and state machine must fit each other.

use super::identity::{self, Identity, IdentityError, NEW_LOG_FOLDER};
use crate::broker::node::views::Views;
use crate::config::{self, Config};
use crate::controller::view::{GroupPlan, MetadataView};
use crate::controller::{Controller, LoadError};
use crate::coordinator::Coordinator;
use crate::machine::{MachineError, own};
use crate::multiraft::apply::Applier;
use crate::multiraft::apply::machine::Machine;
use crate::multiraft::core::{BIRTH, GroupStart};
use crate::partition::Partition;
use crate::storage::rocks::damage::{self, SetAside};
use crate::storage::rocks::{RocksEngine, RocksOptions};
use crate::storage::{Engine, EngineError, WriteBatch};
use crate::types::{CONTROLLER_GROUP, ClusterId, GroupKind, LogId, Membership, NodeId, RaftGroupId, ReplicaId};
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
    /// The controller's state is damaged, and the log says that the group was never born here.
    #[error("the controller's state: {0}")]
    Controller(String),
    /// Another process has it open, or an earlier life of this node in this process that has not ended.
    #[error("{0} is in use: this node runs already, or has not ended yet; nothing was changed")]
    InUse(PathBuf),
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
    /// Group 0, if this node is one of its first voters, or was told to join it, and has not begun to take part.
    pub unborn_controller: Option<(ReplicaId, Machine)>,
    /// The node has no copy of the controller's state, and asks for a replica of its group; whether there may be one.
    pub joins: Option<bool>,
    /// Deleted groups whose rows may still be there.
    pub tombstones: Vec<RaftGroupId>,
    /// The highest turn that is durable, for peers to compare.
    pub durable_turn: TurnNumber,
    /// The log may have forgotten groups: one that could have been here before is repaired, not born.
    pub incomplete: bool,
    /// How many starts have found that the newest turns were lost, for peers to compare.
    pub losses: u8,
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
    let engine = open_engine(&config.data_dir.join(STATE_FOLDER))?;
    let views = Views::new(identity.cluster);
    let opened = open_groups(&identity, &engine, &recovery)?;
    let joins = opened.joins().then_some(opened.has_controllers() || recovery.incomplete);
    let OpenedGroups { machines, starts, unborn_controller } = opened;
    let applier = Applier::new(Arc::clone(&engine), identity.cluster, machines, Box::new(views.clone()));
    let Recovery { durable_turn, incomplete, losses, tombstones, .. } = recovery;
    if incomplete {
        tracing::error!("the log has lost turns: groups that it does not know are repaired from their peers");
    }
    Ok(Opened {
        identity,
        engine,
        views,
        log: (log, disk),
        applier,
        starts,
        unborn_controller,
        joins,
        tombstones,
        durable_turn,
        incomplete,
        losses,
    })
}

/// Opens the database. A damaged one is set aside, and every group's state fetched from its peers: what was promised is
/// in the log.
fn open_engine(path: &Path) -> Result<SharedEngine, DataError> {
    let (engine, set_aside) = damage::open_or_set_aside(path, RocksOptions::default())?;
    if let Some(SetAside { reason, path, deleted }) = set_aside {
        tracing::error!(
            reason,
            kept_as = %path.display(),
            "the database is damaged and was set aside: every state is fetched from its peers"
        );
        if let Some(deleted) = deleted {
            tracing::warn!(path = %deleted.display(), "the oldest database that was set aside is deleted");
        }
    }
    Ok(Arc::new(engine))
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
    // Opening a log rewrites its end: of one that somebody writes to, that would tear what is acknowledged.
    if !disk.lock().map_err(io_error)? {
        return Err(DataError::InUse(config.data_dir.clone()));
    }
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

/// Decides for every group that the log knows whether its replica may take part. A log that may have forgotten groups
/// hosts, too, those that the controller's state, as it is here, says are here: they are repaired, never born.
pub fn open_groups(identity: &Identity, engine: &dyn Engine, recovery: &Recovery) -> Result<OpenedGroups, DataError> {
    let (controller, unborn_controller) = open_controller(identity, engine, recovery)?;
    let plans = match controller.as_ref().and_then(|(_, machine)| machine.as_ref()).or(unborn_controller.as_ref()) {
        Some(Machine::Controller(controller)) => plans(&controller.view(), identity.node),
        _ => BTreeMap::new(),
    };
    let mut groups = OpenedGroups { machines: BTreeMap::new(), starts: Vec::new(), unborn_controller: None };
    groups.unborn_controller =
        unborn_controller.and_then(|machine| Some((newest_replica(machine.membership(), identity.node)?, machine)));
    groups.extend(controller);
    let is_unknown = |group: &RaftGroupId| !recovery.groups.contains_key(group) && !recovery.tombstones.contains(group);
    let unknown = plans.keys().copied().filter(is_unknown).map(|group| (group, None));
    let known = recovery.groups.iter().map(|(group, recovered)| (*group, Some(recovered.clone())));
    for (group, recovered) in known.chain(unknown).filter(|(group, _)| *group != CONTROLLER_GROUP) {
        let (own, machine) = (read_own(engine, group)?, open_machine(engine, group)?);
        if recovered.is_none() && !recovery.incomplete && !has_lived(&machine) {
            continue; // it is yet to be born
        }
        let members = plans.get(&group).map(|plan| (plan.replica, plan.peers.clone()));
        groups.extend(Some(fit((identity.node, own), group, recovered, machine, members)));
    }
    Ok(groups)
}

/// Whether all that the log's groups had promised is in doubt, because its newest turns are lost: none of them takes
/// part before it is repaired.
#[must_use]
pub fn is_in_doubt(incomplete: bool, starts: &[GroupStart]) -> bool {
    let in_doubt =
        |start: &GroupStart| start.forgotten || start.recovery.damage.as_ref().is_some_and(|damage| damage.doubt);
    incomplete && starts.iter().all(in_doubt)
}

impl OpenedGroups {
    /// Whether the node has no copy of the controller's state that knows of others: it asks for a replica.
    #[must_use]
    pub fn joins(&self) -> bool {
        let started = self.controllers().map(|start| &start.membership);
        let unborn = self.unborn_controller.as_ref().map(|(_, machine)| machine.membership());
        started.or(unborn).is_none_or(Membership::is_joining)
    }

    /// Whether the node has a replica of the controller's group.
    #[must_use]
    pub fn has_controllers(&self) -> bool {
        self.controllers().is_some() || self.unborn_controller.is_some()
    }

    fn controllers(&self) -> Option<&GroupStart> {
        self.starts.iter().find(|start| start.group == CONTROLLER_GROUP)
    }

    fn extend(&mut self, opened: Option<(GroupStart, Option<Machine>)>) {
        let Some((start, machine)) = opened else { return };
        self.machines.extend(machine.map(|machine| (start.group, machine)));
        self.starts.push(start);
    }
}

/// Every group that the controller's state wants on a node.
fn plans(view: &MetadataView, node: NodeId) -> BTreeMap<RaftGroupId, GroupPlan> {
    let changes = view.changes_since(&MetadataView::empty(view.cluster().id), node);
    changes.create.into_iter().map(|plan| (plan.group, plan)).collect()
}

/// Group 0 as it starts, or its machine if it has not been born here yet. One whose state is damaged is repaired by the
/// first voters.
#[expect(clippy::type_complexity, reason = "said once, in the caller")]
fn open_controller(
    identity: &Identity,
    engine: &dyn Engine,
    recovery: &Recovery,
) -> Result<(Option<(GroupStart, Option<Machine>)>, Option<Machine>), DataError> {
    let voters = Membership::of_voters(identity.voters.iter().map(|voter| ReplicaId::new(voter.node, 0)));
    let opened = match Controller::open(engine, identity.cluster, (BIRTH, voters.clone())) {
        Ok(controller) => Ok(Some(Machine::Controller(Box::new(controller)))),
        Err(LoadError::Engine(error)) if !error.damage => return Err(error.into()),
        Err(damage) => Err(damage.to_string()),
    };
    let recovered = recovery.groups.get(&CONTROLLER_GROUP).cloned();
    if recovered.is_none() && !recovery.incomplete && !has_lived(&opened) {
        // Nothing was promised yet, so an empty database does as well.
        let damaged = |reason: String| {
            engine.condemn(&reason);
            DataError::Controller(reason)
        };
        return opened.map(|machine| (None, machine)).map_err(damaged);
    }
    // A first voter's disk has its node's first replica, and no other's has.
    let first = newest_replica(&voters, identity.node);
    let own = read_own(engine, CONTROLLER_GROUP)?.or(first);
    let members = first.map(|replica| (replica, voters));
    let is_named = |machine: &Machine| newest_replica(machine.membership(), identity.node).is_some();
    let is_hosted = recovered.is_some()
        || members.is_some()
        || opened.as_ref().is_ok_and(|machine| machine.as_ref().is_some_and(is_named));
    let fit = || fit((identity.node, own), CONTROLLER_GROUP, recovered, opened, members);
    Ok((is_hosted.then(fit), None))
}

/// A group's state machine; the inner error is damage, which concerns this group alone.
type OpenedMachine = Result<Option<Machine>, String>;

/// Whether a group's state machine has taken in more than its birth, which is in the log before: a log that does not
/// know the group has forgotten it.
fn has_lived(opened: &OpenedMachine) -> bool {
    matches!(opened, Ok(Some(machine)) if machine.applied().index > BIRTH.index)
}

/// The replica of a group that this disk has, if its database says so: a row that can't be read says nothing.
fn read_own(engine: &dyn Engine, group: RaftGroupId) -> Result<Option<ReplicaId>, DataError> {
    match own::get(engine, group) {
        Err(damaged) if damaged.is_damage() => Ok(None),
        Err(MachineError::Engine(error)) => Err(error.into()),
        read => Ok(read.unwrap_or_default()),
    }
}

fn open_machine(engine: &dyn Engine, group: RaftGroupId) -> Result<OpenedMachine, DataError> {
    match find_machine(engine, group) {
        Ok(machine) => Ok(Ok(machine)),
        Err(damaged) if damaged.is_damage() => Ok(Err(damaged.to_string())),
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

/// Log and state machine of one group; a log without it has forgotten it. What does not fit is quarantined, with the
/// reason, and repaired from its peers: the members that its own state names, or those that the controller's does.
/// `own`: which replica this is, if the database says so; if not, the members do as far as they can.
fn fit(
    (node, own): (NodeId, Option<ReplicaId>),
    group: RaftGroupId,
    recovery: Option<GroupRecovery>,
    opened: OpenedMachine,
    planned: Option<(ReplicaId, Membership)>,
) -> (GroupStart, Option<Machine>) {
    let (machine, state_damage) = match opened {
        Ok(Some(machine)) => (Some(machine), None),
        Ok(None) => (None, Some("the database does not know this group".to_owned())),
        Err(damage) => (None, Some(damage)),
    };
    let (planned_replica, planned_members) = planned.unzip();
    let membership = match &machine {
        Some(machine) => machine.membership().clone(),
        None => planned_members.unwrap_or_default(),
    };
    let told = || newest_replica(&membership, node).or(planned_replica);
    let replica = own.or_else(told).unwrap_or(ReplicaId::unknown(node));
    let applied = machine.as_ref().map_or(LogId::default(), Machine::applied);
    let forgotten = recovery.is_none();
    let recovery = recovery.unwrap_or_default();
    (GroupStart { group, replica, recovery, applied, membership, state_damage, forgotten }, machine)
}

fn newest_replica(members: &Membership, node: NodeId) -> Option<ReplicaId> {
    // Its newest, while that one takes the place of one that was lost with an earlier disk.
    members.all().filter(|replica| replica.node() == node).max()
}

/// Creates the state machines of new groups, durably; one that is there already is taken as it is. Damage to what an
/// earlier creation has left would be in the way of every start: the next one sets the database aside.
pub fn create_machines(engine: &dyn Engine, plans: &[GroupPlan]) -> Result<Vec<Machine>, MachineError> {
    make_machines(engine, plans).inspect_err(|error| {
        if error.is_damage() {
            engine.condemn(&error.to_string());
        }
    })
}

fn make_machines(engine: &dyn Engine, plans: &[GroupPlan]) -> Result<Vec<Machine>, MachineError> {
    let mut batch = WriteBatch::default();
    let mut machines = Vec::with_capacity(plans.len());
    for GroupPlan { group, replica, kind, members, .. } in plans {
        if let Some(machine) = find_machine(engine, *group)? {
            machines.push(machine);
            continue;
        }
        own::put(&mut batch, *group, *replica);
        let members = members.clone();
        let start = if members.is_joining() { LogId::default() } else { BIRTH };
        machines.push(match kind {
            GroupKind::Partition => Machine::Partition(Box::new(Partition::create(*group, start, members, &mut batch))),
            GroupKind::Coordinator => {
                Machine::Coordinator(Box::new(Coordinator::create(*group, start, members, &mut batch)))
            }
        });
    }
    engine.write(batch)?;
    engine.flush()?;
    Ok(machines)
}

/// The state of the controller's group on a node that joins it, durably; `None` if the node has one.
pub fn join_controller(
    engine: &dyn Engine,
    cluster: ClusterId,
    replica: ReplicaId,
) -> Result<Option<Machine>, EngineError> {
    let controller = Controller::join(engine, cluster, replica).inspect_err(|error| {
        if error.damage {
            engine.condemn(&error.to_string());
        }
    })?;
    engine.flush()?;
    Ok(controller.map(|controller| Machine::Controller(Box::new(controller))))
}

/// Deletes the rows of deleted groups and gives their space back.
pub fn destroy_machines(engine: &dyn Engine, groups: &BTreeSet<RaftGroupId>) -> Result<(), EngineError> {
    if groups.is_empty() {
        return Ok(());
    }
    let mut batch = WriteBatch::default();
    for group in groups {
        Coordinator::destroy(*group, &mut batch);
        own::delete(&mut batch, *group);
    }
    let freed: Vec<_> = groups.iter().map(|group| Partition::destroy(*group, &mut batch)).collect();
    engine.write(batch)?;
    engine.flush()?;
    freed.iter().try_for_each(|freed| freed.reclaim(engine))
}
