//! One simulated node: its disk and its database, which survive, and its process, which is what production runs but
//! for the threads.

use crate::batch::values_of;
use crate::chance::Chance;
use crate::clients::Ticketed;
use crate::jobs::{Job, Queue, Thread};
use crate::sabotage::{self, Sabotage};
use crate::swarm::Shape;
use crate::workload::Request;
use crate::world::Event;
use ackord::broker::node::members::Keeper;
use ackord::controller::Controller;
use ackord::controller::view::{MetadataView, Topic};
use ackord::coordinator::{Coordinator, offsets};
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::apply::transfer::SnapshotMessage;
use ackord::multiraft::apply::{Applier, NoObserver};
use ackord::multiraft::core::effect::{Input, Leadership, Proposal, Source, Ticket};
use ackord::multiraft::core::repair::message::RepairMessage;
use ackord::multiraft::core::{Core, CoreOptions};
use ackord::multiraft::handle::order::{Order, Sequence};
use ackord::partition::read::PartitionView;
use ackord::raft::{RaftMessage, Replica};
use ackord::server::data::{OpenedGroups, destroy_machines, is_in_doubt, open_groups};
use ackord::server::groups::Known;
use ackord::server::identity::{FirstVoter, Identity};
use ackord::server::outside::Disks;
use ackord::sim::engine::SimEngine;
use ackord::sim::{Random, SimDisk};
use ackord::transport::Own;
use ackord::transport::admission::Admission;
use ackord::types::{
    CONTROLLER_GROUP, ClusterId, Incarnation, LogIndex, NodeId, Offset, RaftGroupId, ReplicaId, Term, TopicId,
};
use ackord::wal::{self, GroupRecovery, Log, LogError, Reader, Recovery, Spare, Turn};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::watch;

/// The cluster that every simulated node belongs to.
pub const CLUSTER: ClusterId = ClusterId(0xac0d);

/// Something that reaches the worker.
pub enum Arrived {
    /// A completion, or what else the core is told.
    Input(Input),
    /// What a peer says of a state in transit.
    Snapshot(SnapshotMessage),
    /// What a peer says of a repair.
    Repair(RepairMessage),
    /// What the log has of a group whose state machine is to be examined next.
    Examined { group: RaftGroupId, recovery: Option<GroupRecovery> },
    /// Messages of a peer.
    Messages(Vec<(RaftGroupId, RaftMessage)>),
    /// A command that was admitted.
    Propose { group: RaftGroupId, proposal: Proposal },
    /// A refusal that is known now.
    RefusalKnown { group: RaftGroupId, source: Source },
}

/// Who waits for an answer of this process.
pub struct Waiting {
    /// The room it takes in the mailbox.
    pub bytes: usize,
    /// Which batch of whom it is.
    pub sequence: Option<(RaftGroupId, Sequence)>,
}

/// The log's thread.
pub struct LogState {
    /// The log.
    pub log: Log<SimDisk>,
    /// Its disk, to prepare spares on.
    pub disk: SimDisk,
    /// A spare is being prepared.
    pub ordered: bool,
    /// No spare is ordered before this moment.
    pub order_after: u64,
    /// Spares that were prepared and not taken yet.
    pub spares: VecDeque<io::Result<Spare<ackord::sim::disk::SimFile>>>,
    /// What the worker was told of the room in the log.
    pub writable: bool,
    /// Counts what the thread has done, to know an outdated timer.
    pub steps: u64,
}

impl LogState {
    fn new(log: Log<SimDisk>, disk: SimDisk) -> Self {
        let spares = VecDeque::new();
        Self { log, disk, ordered: false, order_after: 0, spares, writable: true, steps: 0 }
    }
}

/// What a process remembers of another node's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The highest turn that was said to be durable since the newest loss that it knows of itself.
    pub turn: u64,
    /// How many such losses it has told of.
    pub losses: u32,
    /// Its process that was let in last.
    pub life: u64,
}

/// A process.
pub struct Process {
    /// Decides.
    pub core: Core,
    /// Runs the state machines.
    pub applier: Applier<SimEngine>,
    /// Keeps the promises.
    pub log: LogState,
    /// Reads old entries.
    pub reader: Reader<SimDisk>,
    /// What every thread has to do.
    pub queues: [Queue; Thread::COUNT],
    /// The worker's mailbox.
    pub inbox: VecDeque<Arrived>,
    /// The worker will look into it.
    pub work_due: bool,
    /// What there is of what the controller wants.
    pub known: Known,
    /// The controller's state that was followed last.
    pub seen: Arc<MetadataView>,
    /// Keeps what producers propose in order.
    pub order: Order,
    /// Who waits for an answer.
    pub waiting: BTreeMap<Ticket, Waiting>,
    /// The room that those take, in bytes.
    pub admitted_bytes: usize,
    /// Requests that wait for room.
    pub at_the_door: VecDeque<(Ticket, Ticketed)>,
    /// Who may talk to it.
    pub admission: Admission,
    /// Who the others are.
    pub peers: watch::Sender<Arc<MetadataView>>,
    /// The newest durable turn.
    pub durable_turn: Arc<AtomicU64>,
    /// What is published of each group.
    pub board: BTreeMap<RaftGroupId, Leadership>,
    /// In which term it has led each group last.
    pub led: BTreeMap<RaftGroupId, Term>,
    /// What was told of commits.
    pub commits: BTreeMap<RaftGroupId, LogIndex>,
    /// What was told of the bounds of partitions.
    pub bounds: BTreeMap<RaftGroupId, (Offset, Offset)>,
    /// What the worker was told of the room on the disk.
    pub disk_writable: bool,
    /// The most that was ever used of what is bounded, by its name.
    pub peaks: BTreeMap<&'static str, usize>,
    /// Followers that have answered in this round.
    pub answered: Vec<(RaftGroupId, ReplicaId)>,
    /// The most that may wait to be durable or applied, in bytes.
    pub pinned_max: usize,
    /// The most payload that it has had from peers uncommitted, in bytes.
    pub uncommitted_max: usize,
    /// The durable turn with which it began.
    pub first_turn: u64,
    /// What each other node that greeted it has told of its log.
    pub remembers: BTreeMap<NodeId, Remembered>,
    /// Peers that have let it in, and do not know that its node has this disk.
    pub unknown_to: BTreeSet<NodeId>,
    /// It has no copy of the controller's state, and asks for one; whether there may be one.
    pub joins: Option<bool>,
    /// The controller has said that it knows this node.
    pub registered: bool,
    /// The controller has refused it, and is not asked before this moment.
    pub refused_until: u64,
    /// Decides about members.
    pub keeper: Keeper,
}

/// A copy of everything durable of a node, as it was at an earlier crash.
pub struct Copy {
    /// The log's disk.
    pub disk: SimDisk,
    /// The database.
    pub engine: SimEngine,
}

/// One node.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// What its data directory says.
    pub identity: Identity,
    /// The log's disk.
    pub disk: SimDisk,
    /// The database.
    pub engine: SimEngine,
    /// Counts its processes.
    pub life: u64,
    /// The process, while there is one.
    pub process: Option<Process>,
    /// Until when the process does nothing.
    pub paused_until: u64,
    /// What has happened to it meanwhile.
    pub held_up: VecDeque<Event>,
    /// Its disk was damaged in this run.
    pub damaged: bool,
    /// How, when that was done last.
    pub harms: BTreeSet<String>,
    /// Its own disk, while a wrong one is in its place.
    pub right: Option<Copy>,
    /// Whether that wrong one is an older state of its own.
    pub rolled_back: bool,
    /// Earlier states.
    pub copies: Vec<Copy>,
    /// Why it refused to start.
    pub refused: Option<String>,
    /// The room on its disk, if that is bounded now.
    pub capacity: Option<u64>,
    /// Its disk takes so many times as long.
    pub slowness: u64,
    /// The turn that its process began to write last, and has not finished.
    pub begun: Option<Turn>,
    /// What it had promised at earlier starts, for a control.
    pub older: sabotage::Promises,
    /// Supplies the log's segment identities.
    identities: Random,
}

/// What a start came to.
pub struct Opened {
    /// What the log remembers.
    pub recovery: Recovery,
    /// What is to be told to the core, and begun.
    pub jobs: Vec<Job>,
    /// What the core is told first.
    pub inputs: Vec<Input>,
}

impl Node {
    /// One of the first nodes, which was formatted and has never run.
    pub fn new(id: NodeId, shape: &Shape, random: &mut Random) -> Self {
        let incarnation = |node: u32| Incarnation(0x1000 + u128::from(node));
        let voters = (1..=sabotage::first_voters(shape))
            .map(|node| FirstVoter { node: NodeId(node), incarnation: incarnation(node) });
        let voters = voters.collect();
        Self::formatted(Identity { cluster: CLUSTER, node: id, incarnation: incarnation(id.0), voters }, shape, random)
    }

    /// A node that was formatted to join.
    pub fn joining(id: NodeId, incarnation: Incarnation, shape: &Shape, random: &mut Random) -> Self {
        Self::formatted(Identity { cluster: CLUSTER, node: id, incarnation, voters: Vec::new() }, shape, random)
    }

    fn formatted(identity: Identity, shape: &Shape, random: &mut Random) -> Self {
        let id = identity.node;
        let disk = SimDisk::new();
        let mut identities = random.fork();
        let mut fresh = identities.fork();
        let options = wal::Options { create: true, ..shape.log.clone() };
        let owner = wal::Identity { cluster: CLUSTER.0, node: id };
        drop(
            Log::open(disk.clone(), owner, options, move || fresh.next_u128()).expect("an empty disk can be formatted"),
        );
        disk.kill();
        Self {
            id,
            identity,
            disk,
            engine: SimEngine::default(),
            life: 0,
            process: None,
            paused_until: 0,
            held_up: VecDeque::new(),
            damaged: false,
            harms: BTreeSet::new(),
            right: None,
            rolled_back: false,
            copies: Vec::new(),
            refused: None,
            capacity: None,
            slowness: 1,
            begun: None,
            older: sabotage::Promises::default(),
            identities,
        }
    }

    /// Whose log it writes.
    pub fn owner(&self) -> wal::Identity {
        wal::Identity { cluster: CLUSTER.0, node: self.id }
    }

    /// Opens a log on a disk, as a start does.
    pub fn open_log(&mut self, disk: &SimDisk, options: wal::Options) -> Result<(Log<SimDisk>, Recovery), LogError> {
        let mut fresh = self.identities.fork();
        Log::open(disk.clone(), self.owner(), options, move || fresh.next_u128())
    }

    /// What tells this life of its process from others.
    fn process_id(&self) -> u128 {
        u128::from(self.life) << 32 | u128::from(self.id.0)
    }

    /// Looks at every group's state. A database whose damage is in the way of a start is set aside, as in production.
    fn open_groups(&mut self, recovery: &Recovery) -> OpenedGroups {
        let opened = open_groups(&self.identity, &self.engine, recovery).or_else(|error| {
            assert!(self.engine.is_condemned(), "the simulated database reads: {error}");
            self.engine = SimEngine::default();
            open_groups(&self.identity, &self.engine, recovery)
        });
        opened.expect("an empty database reads")
    }

    /// Starts the process, or says why it can't be started.
    pub fn start(&mut self, shape: &Shape) -> Result<Opened, LogError> {
        assert!(self.process.is_none(), "a node runs once");
        if shape.sabotage == Sabotage::SyncNothing {
            self.disk.lie();
        }
        let (log, mut recovery) = self.open_log(&self.disk.clone(), shape.log.clone())?;
        self.life += 1;
        let opened = self.open_groups(&recovery);
        let engine = self.engine.clone();
        let joins = opened.joins() && shape.sabotage != Sabotage::OneVoter;
        let joins = joins.then_some(opened.has_controllers() || recovery.incomplete);
        let OpenedGroups { machines, mut starts, mut unborn_controller } = opened;
        sabotage::start(shape.sabotage, self, (&mut starts, &mut recovery, &mut unborn_controller));
        let ended: BTreeSet<_> = recovery.tombstones.iter().copied().collect();
        destroy_machines(&engine, &ended).expect("the simulated database deletes");
        let (mut jobs, mut inputs) = (Vec::new(), Vec::new());
        if let Some((replica, machine)) = unborn_controller {
            let membership = machine.membership().clone();
            let preferred = self.identity.voters.first().is_some_and(|voter| voter.node == self.id);
            jobs.push(Job::Add { group: CONTROLLER_GROUP, machine });
            inputs.push(Input::Create { group: CONTROLLER_GROUP, replica, membership, preferred });
        }
        let (losses, in_doubt) = (recovery.losses, is_in_doubt(recovery.incomplete, &starts));
        let (known, first_turn) = (starts.iter().map(|start| start.group).collect(), recovery.durable_turn.0);
        let durable_turn = Arc::new(AtomicU64::new(first_turn));
        let metadata = match machines.get(&CONTROLLER_GROUP) {
            Some(Machine::Controller(controller)) => controller.view(),
            _ => Arc::new(MetadataView::empty(CLUSTER)),
        };
        let (peers, metadata) = watch::channel(metadata);
        let registry = Arc::new(Disks::new(self.identity.clone(), metadata));
        let (cluster, node, incarnation, life) = (CLUSTER, self.id, self.identity.incarnation, self.process_id());
        let (turn, address) = (Arc::clone(&durable_turn), format!("node-{node}"));
        let own = Own { cluster, node, incarnation, durable_turn: turn, life, first_turn, losses, in_doubt, address };
        self.process = Some(Process {
            core: Core::new(CoreOptions { life: self.identities.next_u64(), ..sabotage::limits(shape) }, starts),
            applier: Applier::new(engine, CLUSTER, machines, Box::new(NoObserver)),
            reader: log.reader(),
            log: LogState::new(log, self.disk.clone()),
            queues: Default::default(),
            inbox: VecDeque::new(),
            work_due: false,
            known: Known::new(self.id, known, ended, recovery.incomplete),
            seen: Arc::new(MetadataView::empty(CLUSTER)),
            order: Order::default(),
            waiting: BTreeMap::new(),
            admitted_bytes: 0,
            at_the_door: VecDeque::new(),
            admission: Admission::new(own, registry),
            peers,
            durable_turn,
            board: BTreeMap::new(),
            led: BTreeMap::new(),
            commits: BTreeMap::new(),
            bounds: BTreeMap::new(),
            disk_writable: true,
            peaks: BTreeMap::new(),
            answered: Vec::new(),
            pinned_max: 0,
            uncommitted_max: 0,
            first_turn,
            remembers: BTreeMap::new(),
            unknown_to: BTreeSet::new(),
            joins,
            registered: false,
            refused_until: 0,
            keeper: Keeper::default(),
        });
        Ok(Opened { recovery, jobs, inputs })
    }

    /// Ends the process; what was not synced is lost, kept or torn after a power cut, and all there otherwise. The
    /// database keeps some prefix either way: it has no log of its own. Whether it has lost something.
    pub fn end(&mut self, power_cut: bool, random: &mut Random) -> bool {
        self.process = None;
        if power_cut {
            self.disk.crash(random);
        } else {
            self.disk.kill();
        }
        let unflushed = self.engine.unflushed();
        let kept = random.below(unflushed as u64 + 1) as usize;
        self.engine.crash(kept);
        kept < unflushed
    }

    /// A copy of its disk and database.
    pub fn copy(&self) -> Copy {
        Copy { disk: self.disk.duplicate(), engine: self.engine.duplicate() }
    }

    /// Whether it runs and has no copy of the controller's state yet.
    pub fn is_joining(&self) -> bool {
        let knows_others = self.machine(CONTROLLER_GROUP).is_some_and(|machine| !machine.membership().is_joining());
        self.process.is_some() && !knows_others
    }

    /// A group's replica here.
    pub fn replica(&self, group: RaftGroupId) -> Option<&Replica> {
        self.process.as_ref()?.core.replica(group)
    }

    /// Whether this node leads the group and answers clients for it.
    pub fn serves(&self, group: RaftGroupId) -> bool {
        let leadership = self.process.as_ref().and_then(|process| process.board.get(&group));
        leadership.is_some_and(|leadership| leadership.serving)
    }

    /// A group's state machine.
    pub fn machine(&self, group: RaftGroupId) -> Option<&Machine> {
        self.process.as_ref()?.applier.machine(group)
    }

    /// What readers know of a partition here.
    pub fn view(&self, group: RaftGroupId) -> Option<PartitionView> {
        match self.machine(group)? {
            Machine::Partition(partition) => Some(partition.view()),
            _ => None,
        }
    }

    /// A group's state, if it coordinates consumer groups and the node runs.
    pub fn coordinator(&self, group: RaftGroupId) -> Option<&Coordinator> {
        match self.machine(group)? {
            Machine::Coordinator(coordinator) => Some(coordinator),
            _ => None,
        }
    }

    /// The controller's state here.
    pub fn controller(&self) -> Option<&Controller> {
        match self.machine(CONTROLLER_GROUP)? {
            Machine::Controller(controller) => Some(controller),
            _ => None,
        }
    }

    /// The topics that there are, as this node has it.
    pub fn topics(&self) -> BTreeMap<TopicId, Vec<RaftGroupId>> {
        let Some(view) = self.controller().map(Controller::view) else { return BTreeMap::new() };
        let groups = |topic: &Topic| topic.partitions.iter().map(|partition| partition.group).collect();
        view.topics().map(|topic| (topic.id, groups(topic))).collect()
    }

    /// The offsets that a consumer group has stored here, by partition.
    pub fn stored_offsets(&self, raft: RaftGroupId, group: &str) -> Result<BTreeMap<i32, i64>, String> {
        let stored = offsets::read_all(&self.engine, raft, group).map_err(|error| error.to_string())?;
        Ok(stored.into_iter().map(|(_, partition, committed)| (partition, committed.offset)).collect())
    }

    /// Records from `from` on, of about so many bytes; the error is what a reader would be told.
    pub fn read(&self, group: RaftGroupId, from: Offset, bytes_max: usize) -> Result<Vec<(Offset, u64)>, String> {
        let view = self.view(group).ok_or("the group is not here")?;
        let batches = view.fetch(&self.engine, from, bytes_max, true).map_err(|error| error.to_string())?;
        let mut records = Vec::new();
        for batch in &batches {
            let offsets = (batch.base_offset.0..).map(Offset);
            let all = offsets.zip(values_of(&batch.batch));
            records.extend(all.filter(|(offset, _)| *offset >= from && *offset < view.high_watermark));
        }
        Ok(records)
    }

    /// All records of a group, and where its log starts.
    pub fn records(&self, group: RaftGroupId) -> Result<(Offset, Vec<u64>), String> {
        let view = self.view(group).ok_or("the group is not here")?;
        let records = self.read(group, view.log_start, usize::MAX)?;
        Ok((view.log_start, records.into_iter().map(|(_, value)| value).collect()))
    }

    /// Why a group takes no part here, if so.
    pub fn quarantined(&self, group: RaftGroupId) -> Option<&str> {
        self.process.as_ref()?.core.quarantine_reason(group)
    }

    /// One line for a failure's report.
    pub fn describe_group(&self, group: RaftGroupId) -> String {
        let id = self.id;
        let Some(process) = &self.process else {
            return format!("node {id}: down {}", self.refused.as_deref().unwrap_or_default());
        };
        if let Some(reason) = process.core.quarantine_reason(group) {
            return format!("node {id}: quarantined, {reason}");
        }
        let Some(replica) = process.core.replica(group) else { return format!("node {id}: not here") };
        let machine = process.applier.machine(group).map(|machine| machine.applied());
        format!(
            "node {id}: {:?} term {} start {} last {} commit {} handed {} applied {machine:?}",
            replica.role(),
            replica.term(),
            replica.log().start(),
            replica.log().last(),
            replica.commit(),
            replica.handed(),
        )
    }
}

impl Process {
    /// Room for a request, as the mailbox counts it.
    pub fn room_of(request: &Request) -> usize {
        ackord::multiraft::core::PROPOSAL_OVERHEAD_BYTES
            + match request {
                Request::Produce { batch, .. } => batch.bytes().len() + 16,
                Request::Command { context, data } => context.len() + data.len(),
                Request::Trim { .. } | Request::Read { .. } | Request::Offsets { .. } | Request::Topics => 0,
            }
    }
}
