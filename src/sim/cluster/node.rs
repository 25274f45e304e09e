//! One simulated node: the production core, log and applier, and the effects that have not finished yet.

use super::client::payload_of;
use super::effects::{Crash, Kind, Open};
use super::{Sabotage, Scenario};
use crate::coordinator::{Coordinator, offsets};
use crate::multiraft::apply::machine::Machine;
use crate::multiraft::apply::transfer::SnapshotMessage;
use crate::multiraft::apply::{Applier, NoObserver};
use crate::multiraft::core::effect::{Effect, Input, ReadFailure};
use crate::multiraft::core::{BIRTH, Core, CoreOptions, GroupStart};
use crate::partition::Partition;
use crate::partition::read::PartitionView;
use crate::partition::retention::Retention;
use crate::raft::{Replica, Role};
use crate::sim::engine::SimEngine;
use crate::sim::{Random, SimDisk};
use crate::storage::{Engine, Family, WriteBatch};
use crate::types::{ClusterId, LogEntry, LogIndex, Membership, NodeId, Offset, RaftGroupId, ReplicaId};
use crate::wal::{Identity, Log, LogChange, LogError, Options, ReadError, Turn, prepare_spare};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The cluster that every simulated node belongs to.
const CLUSTER: u128 = 0xac0d;

/// What finishing an effect leads to.
#[derive(Debug, Default)]
pub struct Finished {
    /// For the node's own core.
    pub inputs: Vec<Input>,
    /// For another node.
    pub send: Option<SnapshotMessage>,
}

/// A process.
struct Running {
    /// Decides.
    core: Core,
    /// Runs the state machines.
    applier: Applier<SimEngine>,
    /// Keeps the promises.
    log: Log<SimDisk>,
    /// The log's disk, to prepare spares on.
    disk: SimDisk,
    /// Effects that have not finished.
    open: Open,
}

/// One node: what survives a crash, and the process if it runs.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// The members of every group.
    members: Membership,
    /// The log's disk, which survives.
    disk: SimDisk,
    /// The database, which survives.
    engine: SimEngine,
    /// Supplies the log's segment identities.
    identities: Random,
    /// The process.
    running: Option<Running>,
    /// What the log found when it was last opened.
    pub findings: Vec<String>,
}

impl Node {
    /// A node that has never run.
    #[must_use]
    pub fn new(id: NodeId, scenario: &Scenario, seed: u64) -> Self {
        let disk = SimDisk::new();
        if scenario.sabotage.sync_nothing {
            disk.lie();
        }
        Self {
            id,
            members: Membership::of_voters((1..=scenario.nodes).map(|node| ReplicaId::new(NodeId(node), 0))),
            disk,
            engine: SimEngine::default(),
            identities: Random::new(seed),
            running: None,
            findings: Vec::new(),
        }
    }

    /// Starts the process: opens what is there, and creates the groups that are not.
    pub fn start(&mut self, scenario: &Scenario) -> Vec<Input> {
        assert!(self.running.is_none(), "a node runs once");
        let identity = Identity { cluster: CLUSTER, node: self.id };
        let mut identities = Random::new(self.identities.next_u64());
        let options = Options {
            segment_bytes: 256 << 10,
            retain_bytes: scenario.retain_bytes,
            slack_bytes: 256 << 10,
            spares: 2,
            recycled_max: 0,
            create: true,
            ..Options::default()
        };
        let (log, recovery) = Log::open(self.disk.clone(), identity, options, move || identities.next_u128())
            .unwrap_or_else(|error| panic!("seed {}: node {}: {error}", scenario.seed, self.id));
        self.findings = recovery.findings;
        let (mut machines, mut starts, mut inputs) = (BTreeMap::new(), Vec::new(), Vec::new());
        for group in (1..=scenario.groups + scenario.coordinators).map(RaftGroupId) {
            let machine = self.open_machine(group, group.0 > scenario.groups);
            let replica = self.replica_of(group);
            match recovery.groups.get(&group) {
                Some(recovered) => starts.push(GroupStart {
                    group,
                    replica,
                    recovery: recovered.clone(),
                    applied: machine.applied(),
                    membership: machine.membership().clone(),
                    state_damage: None,
                    forgotten: false,
                }),
                None => inputs.push(Input::Create {
                    group,
                    replica,
                    membership: self.members.clone(),
                    preferred: self.id.0 == 1,
                }),
            }
            machines.insert(group, machine);
        }
        let mut applier = Applier::new(self.engine.clone(), ClusterId(CLUSTER), machines, Box::new(NoObserver));
        inputs.extend(applier.take_flush_wish().then_some(Input::FlushWanted));
        self.running = Some(Running {
            core: Core::new(core_options(scenario), starts),
            applier,
            log,
            disk: self.disk.clone(),
            open: Open::default(),
        });
        inputs
    }

    /// A group's state machine, made durable before anybody hears of the group.
    fn open_machine(&self, group: RaftGroupId, coordinates: bool) -> Machine {
        let mut batch = WriteBatch::default();
        let members = self.members.clone();
        let machine = if coordinates {
            let opened = Coordinator::open(&self.engine, group).expect("the simulated database reads");
            let coordinator = opened.unwrap_or_else(|| Coordinator::create(group, BIRTH, members, &mut batch));
            Machine::Coordinator(Box::new(coordinator))
        } else {
            let opened = Partition::open(&self.engine, group).expect("the simulated database reads");
            let partition = opened.unwrap_or_else(|| Partition::create(group, BIRTH, members, &mut batch));
            Machine::Partition(Box::new(partition))
        };
        if !batch.changes.is_empty() {
            self.engine.write(batch).expect("the simulated database writes");
            self.engine.flush().expect("the simulated database flushes");
        }
        machine
    }

    /// A group's state, if it coordinates consumer groups and the node runs.
    #[must_use]
    pub fn coordinator(&self, group: RaftGroupId) -> Option<&Coordinator> {
        match self.running.as_ref()?.applier.machine(group)? {
            Machine::Coordinator(coordinator) => Some(coordinator),
            _ => None,
        }
    }

    /// The offsets that a consumer group has stored here, by partition.
    #[must_use]
    pub fn stored_offsets(&self, raft: RaftGroupId, group: &str) -> BTreeMap<i32, i64> {
        let stored = offsets::read_all(&self.engine, raft, group).expect("the simulated database reads");
        stored.into_iter().map(|(_, partition, committed)| (partition, committed.offset)).collect()
    }

    /// The offset that a consumer group has stored here.
    #[must_use]
    pub fn stored_offset(&self, raft: RaftGroupId, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let stored = offsets::read(&self.engine, raft, group, topic, partition);
        stored.expect("the simulated database reads").map(|committed| committed.offset)
    }

    /// A negative control: leaves of an installed state what a snapshot without offsets would have brought.
    fn forget_offsets(&mut self, group: RaftGroupId) {
        let Some(running) = self.running.as_mut() else { return };
        if !matches!(running.applier.machine(group), Some(Machine::Coordinator(_))) {
            return;
        }
        let rows = |kind: u8| [&group.0.to_be_bytes()[..], &[kind]].concat();
        let mut batch = WriteBatch::default();
        batch.delete_range(Family::Groups, rows(b'o'), rows(b'o' + 1));
        self.engine.write(batch).expect("the simulated database writes");
        let coordinator = Coordinator::open(&self.engine, group).expect("it reads").expect("the coordinator is there");
        running.applier.add(group, Machine::Coordinator(Box::new(coordinator)));
    }

    /// Ends the process. What was not synced is lost, or kept, or torn.
    pub fn crash(&mut self, random: &mut Random) {
        self.running = None;
        self.disk.crash(random);
        let kept = random.below(self.engine.unflushed() as u64 + 1);
        self.engine.crash(kept as usize);
    }

    /// Whether the process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// This node's replica of a group.
    #[must_use]
    pub fn replica_of(&self, _group: RaftGroupId) -> ReplicaId {
        ReplicaId::new(self.id, 0)
    }

    fn replica(&self, group: RaftGroupId) -> Option<&Replica> {
        self.running.as_ref()?.core.replica(group)
    }

    /// The part this node plays in a group.
    #[must_use]
    pub fn role(&self, group: RaftGroupId) -> Option<Role> {
        self.replica(group).map(Replica::role)
    }

    /// What readers know of a group here.
    #[must_use]
    pub fn view(&self, group: RaftGroupId) -> Option<PartitionView> {
        match self.running.as_ref().and_then(|running| running.applier.machine(group)) {
            Some(Machine::Partition(partition)) => Some(partition.view()),
            _ => None,
        }
    }

    /// A group's log start as this node has it, and the payloads of the records from there on, by offset.
    #[must_use]
    pub fn records(&self, group: RaftGroupId) -> (Offset, Vec<u64>) {
        let Some(view) = self.view(group) else { return (Offset(0), Vec::new()) };
        let start = view.log_start;
        let batches = view.fetch(&self.engine, start, usize::MAX, true).expect("what a view covers can be read");
        (start, batches.iter().map(|batch| payload_of(&batch.batch)).collect())
    }

    /// Where a group's log should start as this node, its leader, sees it.
    #[must_use]
    pub fn retained_start(&self, group: RaftGroupId, retention: &Retention) -> Option<Offset> {
        self.view(group)?.retained_start(&self.engine, retention, 0).expect("the simulated database reads")
    }

    /// Where a group's log ends here.
    #[must_use]
    pub fn record_count(&self, group: RaftGroupId) -> usize {
        self.view(group).map_or(0, |view| view.high_watermark.0 as usize)
    }

    /// One line for a failure's report.
    #[must_use]
    pub fn describe_group(&self, group: RaftGroupId) -> String {
        let Some(replica) = self.replica(group) else {
            return format!("node {}: not running", self.id);
        };
        format!(
            "node {}: {:?} term {} start {} last {} commit {} handed {} records {}",
            self.id,
            replica.role(),
            replica.term(),
            replica.log().start(),
            replica.log().last(),
            replica.commit(),
            replica.handed(),
            self.record_count(group)
        )
    }

    /// Hands an input to the core; `None` while the node is down.
    pub fn input(&mut self, input: Input) -> Option<Vec<Effect>> {
        let running = self.running.as_mut()?;
        running.core.handle(input);
        Some(running.core.poll())
    }

    /// Keeps an effect until chance finishes it.
    pub fn defer(&mut self, effect: Effect) {
        if let Some(running) = self.running.as_mut() {
            running.open.add(effect, || running.applier.begin_flush().expect("the simulated database works"));
        }
    }

    /// Chooses one of the effects that could finish now.
    #[must_use]
    pub fn pick(&self, random: &mut Random) -> Option<Kind> {
        self.running.as_ref()?.open.pick(random)
    }

    /// Does an effect; `None` if the process ended in the middle.
    pub fn finish(&mut self, kind: Kind, crash: Option<Crash>, scenario: &Scenario) -> Option<Finished> {
        let running = self.running.as_mut().expect("only a running node finishes anything");
        if let Some(crash) = crash {
            self.disk.stop_after(crash.operations);
        }
        let installs = running.open.installs.front().map(|(group, _)| *group).filter(|_| kind == Kind::Install);
        let finished = running.finish(kind, crash.is_some(), &self.engine, scenario);
        if let Some(group) = installs.filter(|_| scenario.sabotage.snapshots_without_offsets) {
            self.forget_offsets(group);
        }
        // A crash in the middle of something that the disk has no part in leaves it half said.
        if crash.is_some() { None } else { finished }
    }

    /// What another node says of a state in transit.
    pub fn transferred(&mut self, message: SnapshotMessage) -> Finished {
        let Some(running) = self.running.as_mut() else { return Finished::default() };
        let group = message.group;
        let transferred = running.applier.transferred(message);
        super::effects::after_transfer(group, transferred)
    }
}

impl Running {
    fn finish(&mut self, kind: Kind, may_fail: bool, engine: &SimEngine, scenario: &Scenario) -> Option<Finished> {
        let mut finished = Finished::default();
        match kind {
            Kind::Append => {
                let turn = self.open.append.take().expect("an append is open");
                if let Err(error) = self.append(turn, scenario) {
                    assert!(may_fail, "seed {}: the log fails by itself: {error}", scenario.seed);
                    return None;
                }
                finished.inputs.push(Input::Appended);
            }
            Kind::Apply => {
                let (group, entries, memberships) = self.open.applies.pop_front().expect("an apply is open");
                let bytes = entries.iter().map(LogEntry::payload_bytes).sum();
                let outcomes =
                    self.applier.apply(group, &entries, &memberships).expect("the simulated state machine applies");
                if scenario.sabotage.release_unflushed
                    && let Some((last, _)) = outcomes.last()
                {
                    self.log.release(group, last.index.next());
                }
                finished.inputs.push(Input::Applied { group, outcomes, bytes });
                finished.inputs.extend(self.applier.take_flush_wish().then_some(Input::FlushWanted));
            }
            Kind::Read => {
                let (group, wanted) = self.open.reads.pop_front().expect("a read is open");
                let read = self.log.entries(group, wanted.low, wanted.high, wanted.max_bytes);
                let result = read.map_err(|error| match error {
                    ReadError::Released { group } => ReadFailure::Released {
                        first: self.log.bounds(group).map_or(LogIndex(1), |(start, _)| start.index.next()),
                    },
                    ReadError::Damaged { first, last, reason, .. } => ReadFailure::Damaged { first, last, reason },
                });
                finished.inputs.push(Input::EntriesRead { group, wanted, result });
            }
            Kind::Flush => {
                let applied = self.flush(engine, scenario.sabotage);
                finished.inputs.push(Input::Flushed { applied });
            }
            Kind::Reclaim => {
                let freed = self.open.reclaims.pop_front().expect("a reclaim is open");
                freed.iter().for_each(|freed| freed.reclaim(engine).expect("the simulated database reclaims"));
            }
            Kind::Release => {
                for (group, below) in self.open.releases.pop_front().expect("a release is open") {
                    self.log.release(group, below);
                }
            }
            Kind::Build => {
                let group = self.open.builds.pop_front().expect("a build is open");
                let meta = self.applier.build_snapshot(group).expect("the group is there");
                finished.inputs.push(Input::SnapshotBuilt { group, meta });
            }
            Kind::Fetch => {
                let (group, own, from, meta) = self.open.fetches.pop_front().expect("a fetch is open");
                return Some(super::effects::after_transfer(group, self.applier.fetch(group, own, from, meta)));
            }
            Kind::Install => {
                let (group, meta) = self.open.installs.pop_front().expect("an install is open");
                let freed = self.applier.install(group, meta.at).expect("what was fetched can be installed");
                engine.flush().expect("the simulated database flushes");
                if let Some(freed) = freed {
                    freed.reclaim(engine).expect("the simulated database reclaims");
                }
                finished.inputs.push(Input::SnapshotInstalled { group });
            }
        }
        Some(finished)
    }

    fn flush(&mut self, engine: &SimEngine, sabotage: Sabotage) -> Vec<(RaftGroupId, LogIndex)> {
        let plan = self.open.flushes.pop_front().expect("a flush is open");
        if sabotage.reclaim_unflushed {
            plan.freed.iter().for_each(|freed| freed.reclaim(engine).expect("it reclaims"));
        }
        if sabotage.trim_too_much && !plan.freed.is_empty() {
            self.trim_too_much(engine);
        }
        engine.flush().expect("the simulated database flushes");
        if !plan.freed.is_empty() {
            self.open.reclaims.push_back(plan.freed);
        }
        plan.applied
    }

    /// Loses the first record that is still in the log of some group.
    fn trim_too_much(&self, engine: &SimEngine) {
        let mut first = None;
        let visit = &mut |key: &[u8], _: &[u8]| {
            first = Some(key.to_vec());
            ControlFlow::Break(())
        };
        engine.scan(Family::Records, &[], &[0xff; 32], visit).expect("the simulated database reads");
        let mut batch = WriteBatch::default();
        first.into_iter().for_each(|key| batch.delete(Family::Records, key));
        engine.write(batch).expect("the simulated database writes");
    }

    fn append(&mut self, mut turn: Turn, scenario: &Scenario) -> Result<(), LogError> {
        if scenario.sabotage.forget_votes {
            turn.writes.iter_mut().for_each(|write| write.hard_state.vote = None);
            turn.writes.retain(|write| write.change != LogChange::None);
        }
        self.log.append(&turn)?;
        if let Some(order) = self.log.order_spare()
            && let Ok(spare) = prepare_spare(&self.disk, order)
        {
            self.log.add_spare(spare);
        }
        Ok(())
    }
}

fn core_options(scenario: &Scenario) -> CoreOptions {
    let mut options = CoreOptions {
        flush_after_bytes: scenario.flush_after_bytes,
        tail_bytes_per_group: 512,
        turn_bytes_max: 64 << 10,
        space_flush_ticks: 20,
        ..CoreOptions::default()
    };
    options.replica.seed = scenario.seed;
    options
}
