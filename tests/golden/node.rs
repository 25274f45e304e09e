//! One node of a story: what production runs, with everything that takes time waiting for the script.

use ackord::machine::Outcome;
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::apply::transfer::SnapshotMessage;
use ackord::multiraft::apply::{Applier, NoObserver, Transferred};
use ackord::multiraft::core::effect::{Effect, Input, ReadFailure};
use ackord::multiraft::core::membership::WantedMembers;
use ackord::multiraft::core::repair::message::RepairMessage;
use ackord::multiraft::core::{BIRTH, Core, CoreOptions, GroupStart};
use ackord::partition::Partition;
use ackord::raft::{RaftMessage, Replica};
use ackord::sim::engine::SimEngine;
use ackord::sim::{Random, SimDisk};
use ackord::storage::{Engine, WriteBatch};
use ackord::types::{ClusterId, LogEntry, LogId, LogIndex, Membership, NodeId, RaftGroupId, ReplicaId};
use ackord::wal::{Identity, Log, Options, ReadError, prepare_spare};
use std::collections::VecDeque;

/// The one group of every story.
pub const GROUP: RaftGroupId = RaftGroupId(1);

/// What goes from node to node.
#[derive(Clone, Debug)]
pub enum Cargo {
    /// Raft's messages.
    Raft(RaftMessage),
    /// A piece of a state.
    Snapshot(SnapshotMessage),
    /// Something about a repair.
    Repair(RepairMessage),
}

/// A process.
struct Process {
    /// Decides.
    core: Core,
    /// Runs the state machine.
    applier: Applier<SimEngine>,
    /// Keeps the promises.
    log: Log<SimDisk>,
    /// What waits: everything that takes time, in order.
    waiting: VecDeque<Effect>,
}

/// One node.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// The members of the group.
    members: Membership,
    /// The log's disk.
    pub disk: SimDisk,
    /// The database.
    engine: SimEngine,
    /// Supplies segment identities.
    identities: Random,
    /// The process, if it runs.
    process: Option<Process>,
}

/// What a step leads to.
#[derive(Default)]
pub struct Step {
    /// Lines for the story.
    pub lines: Vec<String>,
    /// For other nodes.
    pub cargo: Vec<(NodeId, Cargo)>,
}

fn replica_on(node: NodeId) -> ReplicaId {
    ReplicaId::new(node, 0)
}

impl Node {
    /// A node that has never run, and was there when the group was born.
    pub fn new(id: NodeId, nodes: u32) -> Self {
        Self::with_members(id, Membership::of_voters((1..=nodes).map(|node| replica_on(NodeId(node)))))
    }

    /// A node that joins the group later.
    pub fn joining(id: NodeId) -> Self {
        Self::with_members(id, Membership::of_joining(replica_on(id)))
    }

    fn with_members(id: NodeId, members: Membership) -> Self {
        let (disk, engine, identities) = (SimDisk::new(), SimEngine::default(), Random::new(id.0.into()));
        Self { id, members, disk, engine, identities, process: None }
    }

    /// Whether its process runs.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Starts the process.
    pub fn start(&mut self) -> Step {
        let identity = Identity { cluster: 1, node: self.id };
        let mut identities = Random::new(self.identities.next_u64());
        let (segment_bytes, create) = (256 << 10, self.disk.changes() == 0);
        let options = Options { segment_bytes, retain_bytes: 0, slack_bytes: 0, create, ..Options::default() };
        let (log, recovery) =
            Log::open(self.disk.clone(), identity, options, move || identities.next_u128()).expect("the log opens");
        let mut batch = WriteBatch::default();
        let opened = Partition::open(&self.engine, GROUP).expect("the database reads");
        let begin = if self.members.is_joining() { LogId::default() } else { BIRTH };
        let partition = opened.unwrap_or_else(|| Partition::create(GROUP, begin, self.members.clone(), &mut batch));
        self.engine.write(batch).expect("it writes");
        self.engine.flush().expect("it flushes");
        let machine = Machine::Partition(Box::new(partition));
        let start = recovery.groups.get(&GROUP).map(|recovery| GroupStart {
            group: GROUP,
            replica: replica_on(self.id),
            recovery: recovery.clone(),
            applied: machine.applied(),
            membership: machine.membership().clone(),
            state_damage: None,
            forgotten: false,
        });
        let is_new = start.is_none();
        let mut options = CoreOptions { tail_bytes_per_group: 0, life: self.disk.changes(), ..CoreOptions::default() };
        options.replica.seed = 7;
        let applier = Applier::new(self.engine.clone(), ClusterId(1), [(GROUP, machine)].into(), Box::new(NoObserver));
        let core = Core::new(options, start.into_iter().collect());
        self.process = Some(Process { core, applier, log, waiting: VecDeque::new() });
        let mut step = Step::default();
        step.lines.extend(recovery.findings.iter().map(|finding| format!("finds: {finding}")));
        if is_new {
            let (replica, membership) = (replica_on(self.id), self.members.clone());
            self.tell(Input::Create { group: GROUP, replica, membership, preferred: false }, &mut step);
        } else {
            self.poll(&mut step);
        }
        step
    }

    /// Cuts its power: what is not synced is gone.
    pub fn crash(&mut self) {
        self.process = None;
        self.disk.crash(&mut Random::new(3));
        self.engine.crash(0);
    }

    /// Tells the core something.
    pub fn tell(&mut self, input: Input, step: &mut Step) {
        if let Some(process) = self.process.as_mut() {
            process.core.handle(input);
            self.poll(step);
        }
    }

    fn poll(&mut self, step: &mut Step) {
        let Some(process) = self.process.as_mut() else { return };
        for effect in process.core.poll() {
            match effect {
                Effect::Send { to, messages } => {
                    let cargo = messages.into_iter().map(|(_, message)| (to, Cargo::Raft(message)));
                    step.cargo.extend(cargo);
                }
                Effect::Repair(message) => step.cargo.push((message.to.node(), Cargo::Repair(message))),
                Effect::Publish { leadership, .. } => {
                    let leader = leadership.leader.map_or("nobody".to_owned(), |leader| leader.node().to_string());
                    let serving = if leadership.serving { ", and serves" } else { "" };
                    step.lines.push(format!("term {}: leader {leader}{serving}", leadership.term));
                }
                Effect::Reply { reply, .. } => step.lines.push(format!("answers: {reply:?}")),
                Effect::Quarantined { reason, .. } => step.lines.push(format!("QUARANTINED: {reason}")),
                Effect::Repairing { step: what, .. } => step.lines.push(format!("repairing: {what}")),
                Effect::Repaired { last, .. } => step.lines.push(format!("REPAIRED, its log ends at {last}")),
                effect => {
                    step.lines.push(format!("wants to {}", describe(&effect)));
                    process.waiting.push_back(effect);
                }
            }
        }
    }

    /// Makes its state durable, so that the log behind it can be let go.
    pub fn flush(&mut self, step: &mut Step) {
        let Some(process) = self.process.as_mut() else { return };
        let plan = process.applier.begin_flush().expect("the database works");
        self.engine.flush().expect("it flushes");
        self.tell(Input::Flushed { applied: plan.applied }, step);
    }

    /// Takes in what another node sent.
    pub fn receive(&mut self, cargo: Cargo, step: &mut Step) {
        match cargo {
            Cargo::Raft(message) => self.tell(Input::Messages(vec![(GROUP, message)]), step),
            Cargo::Repair(message) => self.tell(Input::Repair(message), step),
            Cargo::Snapshot(message) => {
                let Some(process) = self.process.as_mut() else { return };
                let transferred = process.applier.transferred(message);
                self.transferred(transferred, step);
            }
        }
    }

    fn transferred(&mut self, transferred: Transferred, step: &mut Step) {
        if let Some(message) = transferred.send {
            step.cargo.push((message.to.node(), Cargo::Snapshot(message)));
        }
        if let Some(by) = transferred.pulled_by {
            self.tell(Input::SnapshotPulled { group: GROUP, by }, step);
        }
        if let Some((at, generation)) = transferred.done {
            self.tell(Input::SnapshotFetched { group: GROUP, at, generation }, step);
        }
    }

    /// Does the first thing of a kind that waits; whether there was one.
    pub fn finish(&mut self, wanted: impl Fn(&Effect) -> bool, step: &mut Step) -> bool {
        let Some(process) = self.process.as_mut() else { return false };
        let Some(position) = process.waiting.iter().position(wanted) else { return false };
        let effect = process.waiting.remove(position).expect("it was just found");
        step.lines.push(format!("has done: {}", describe(&effect)));
        for input in self.perform(effect, step) {
            self.tell(input, step);
        }
        true
    }

    fn perform(&mut self, effect: Effect, step: &mut Step) -> Vec<Input> {
        let process = self.process.as_mut().expect("it runs");
        match effect {
            Effect::Append(turn) => {
                process.log.append(&turn).expect("the disk works");
                while let Some(order) = process.log.order_spare() {
                    process.log.add_spare(prepare_spare(&self.disk, order).expect("there is room"));
                }
                vec![Input::Appended]
            }
            Effect::Apply { group, entries, memberships } => {
                let bytes = entries.iter().map(LogEntry::payload_bytes).sum();
                let outcomes = process.applier.apply(group, &entries, &memberships).expect("it applies");
                for (_, members) in &memberships {
                    step.lines.push(format!("knows the members: {}", describe_members(members)));
                }
                for (at, outcome) in &outcomes {
                    if let Outcome::Appended { base_offset, .. } = outcome {
                        step.lines.push(format!("entry {at} is the record at offset {base_offset}"));
                    }
                }
                vec![Input::Applied { group, outcomes, bytes }]
            }
            Effect::Flush => {
                let plan = process.applier.begin_flush().expect("the database works");
                self.engine.flush().expect("it flushes");
                vec![Input::Flushed { applied: plan.applied }]
            }
            Effect::Release(bounds) => {
                bounds.into_iter().for_each(|(group, below)| process.log.release(group, below));
                Vec::new()
            }
            Effect::ReadEntries { group, wanted } => {
                let read = process.log.entries(group, wanted.low, wanted.high, wanted.max_bytes);
                let result = read.map_err(|error| match error {
                    ReadError::Released { group } => {
                        let first = process.log.bounds(group).map_or(LogIndex(1), |(start, _)| start.index.next());
                        ReadFailure::Released { first }
                    }
                    ReadError::Damaged { first, last, reason, .. } => ReadFailure::Damaged { first, last, reason },
                });
                vec![Input::EntriesRead { group, wanted, result }]
            }
            Effect::BuildSnapshot { group } => {
                let meta = process.applier.build_snapshot(group).expect("the group is here");
                vec![Input::SnapshotBuilt { group, meta }]
            }
            Effect::FetchSnapshot { group, own, from, meta } => {
                let transferred = process.applier.fetch(group, own, from, meta);
                self.transferred(transferred, step);
                Vec::new()
            }
            Effect::InstallSnapshot { group, meta, .. } => {
                process.applier.install(group, meta.at).expect("it can be installed");
                self.engine.flush().expect("it flushes");
                vec![Input::SnapshotInstalled { group, at: meta.at }]
            }
            Effect::Examine { group, lost } => {
                if let Some((first, last, reason)) = lost {
                    process.log.mark_lost(group, first, last, &reason);
                }
                let recovery = process.log.examine(group);
                let machine = process.applier.machine(group);
                let state = machine.map(|machine| (machine.applied(), machine.membership().clone()));
                vec![Input::Examined { group, recovery, state }]
            }
            other => unreachable!("{} takes no time", describe(&other)),
        }
    }

    /// The replica, if it takes part.
    fn replica(&self) -> Option<&Replica> {
        self.process.as_ref()?.core.replica(GROUP)
    }

    /// The voters that there are to be when some go and others come, as this node knows the members.
    pub fn wanted(&self, go: &[u32], come: &[u32]) -> WantedMembers {
        let on = |node: &u32| replica_on(NodeId(*node));
        let mut voters = self.replica().expect("it takes part").membership().voters.clone();
        voters.extend(come.iter().map(on));
        voters.retain(|voter| !go.iter().any(|node| on(node) == *voter));
        voters.sort_unstable();
        voters.dedup();
        WantedMembers { voters, learners: Vec::new() }
    }

    /// One line about how it stands.
    pub fn show(&self) -> String {
        let Some(process) = &self.process else { return "down".to_owned() };
        match self.replica() {
            None => format!("quarantined; {}", process.core.repair_step(GROUP).unwrap_or_default()),
            Some(replica) => format!(
                "{:?}, term {}, log {} to {}, committed {}, applied {}",
                replica.role(),
                replica.term(),
                replica.log().start(),
                replica.log().last(),
                replica.commit(),
                process.applier.machine(GROUP).map(Machine::applied).unwrap_or_default(),
            ),
        }
    }
}

fn describe_members(members: &Membership) -> String {
    let list = |replicas: &[ReplicaId]| {
        let mut nodes: Vec<_> = replicas.iter().map(|replica| replica.node().0).collect();
        nodes.sort_unstable();
        nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("{} vote", list(&members.voters));
    if members.is_joint() {
        text += &format!(", and so do {}, each side for itself", list(&members.voters_outgoing));
    }
    if !members.learners.is_empty() {
        text += &format!("; {} learns", list(&members.learners));
    }
    text
}

/// One effect in a few words.
pub fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Append(turn) => {
            let writes: Vec<_> = turn.writes.iter().map(describe_write).collect();
            format!("write {}", writes.join("; "))
        }
        Effect::Apply { entries, .. } => match (entries.first(), entries.last()) {
            (Some(first), Some(last)) if first.id != last.id => format!("apply {} to {}", first.id, last.id),
            (Some(first), _) => format!("apply {}", first.id),
            _ => "apply nothing".to_owned(),
        },
        Effect::ReadEntries { wanted, .. } => format!("read entries {} to {}", wanted.low, wanted.high.previous()),
        Effect::BuildSnapshot { .. } => "take its state for others".to_owned(),
        Effect::FetchSnapshot { from, meta, .. } => format!("fetch the state at {} from node {}", meta.at, from.node()),
        Effect::InstallSnapshot { meta, .. } => format!("switch to the state at {}", meta.at),
        Effect::Flush => "flush its state".to_owned(),
        Effect::Release(bounds) => {
            let below: Vec<_> = bounds.iter().map(|(_, below)| below.to_string()).collect();
            format!("let go of the log below {}", below.join(", "))
        }
        Effect::Examine { .. } => "look at its log and its state".to_owned(),
        other => format!("{other:?}"),
    }
}

fn describe_write(write: &ackord::wal::GroupWrite) -> String {
    use ackord::wal::LogChange;
    let state = write.hard_state;
    let vote = state.vote.map_or(String::new(), |vote| format!(", vote for node {}", vote.node()));
    let promise = format!("term {}{vote}, commit {}", state.term, state.commit);
    let range = |entries: &[LogEntry]| match (entries.first(), entries.last()) {
        (Some(first), Some(last)) if first.id != last.id => format!("{} to {}", first.id, last.id),
        (Some(first), _) => first.id.to_string(),
        _ => "nothing".to_owned(),
    };
    match &write.change {
        LogChange::None => promise,
        LogChange::Append(entries) => format!("entries {} ({promise})", range(entries)),
        LogChange::Refill(entries) => format!("lost entries {} ({promise})", range(entries)),
        LogChange::Born { start } => format!("its birth at {start} ({promise})"),
        LogChange::Installing { at, .. } => format!("that it will switch to the state at {at} ({promise})"),
        LogChange::Installed { at, .. } => format!("that it has switched to the state at {at} ({promise})"),
        LogChange::Doubt => format!("that it may have promised more ({promise})"),
        LogChange::Tombstone => "its end".to_owned(),
    }
}
