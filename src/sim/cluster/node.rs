//! One simulated node: the production core, log and applier, and the effects that have not finished yet.

use super::Scenario;
use super::stub_log::NodeLog;
use crate::multiraft::apply::Applier;
use crate::multiraft::core::effect::{Effect, Input, ReadFailure};
use crate::multiraft::core::{BIRTH, Core, CoreOptions, GroupStart};
use crate::raft::Role;
use crate::raft::group_log::Wanted;
use crate::sim::engine::SimEngine;
use crate::sim::ledger::Ledger;
use crate::sim::random::Random;
use crate::storage::{Engine, WriteBatch};
use crate::types::{LogEntry, LogIndex, Membership, NodeId, RaftGroupId, ReplicaId};
use crate::wal::Turn;
use std::collections::{BTreeMap, VecDeque};

/// An effect that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A turn of the log.
    Append,
    /// Entries for a state machine.
    Apply,
    /// Old entries for a follower or a replay.
    Read,
    /// State machines made durable.
    Flush,
    /// Log to be freed.
    Release,
}

/// Where a crash hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// Nothing in particular was going on.
    Idle,
    /// Instead of sending.
    Send,
    /// Instead of answering a client.
    Reply,
    /// Before an effect began.
    Before(Kind),
    /// In the middle of it.
    During(Kind),
    /// After it was done and before its completion was heard.
    After(Kind),
}

/// A crash in the middle of an effect: after so many operations of the disk.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Operations that still happen.
    pub operations: usize,
}

/// Entries on their way to a state machine.
struct Apply {
    group: RaftGroupId,
    entries: Vec<LogEntry>,
    memberships: Vec<(LogIndex, Membership)>,
}

/// A process.
struct Running {
    core: Core,
    applier: Applier<SimEngine>,
    log: NodeLog,
    append: Option<Turn>,
    applies: VecDeque<Apply>,
    reads: VecDeque<(RaftGroupId, Wanted)>,
    flush: Option<Vec<(RaftGroupId, LogIndex)>>,
    releases: VecDeque<Vec<(RaftGroupId, LogIndex)>>,
}

/// One node: what survives a crash, and the process if it runs.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// The members of every group.
    members: Membership,
    /// The database, which survives.
    engine: SimEngine,
    /// The process.
    running: Option<Running>,
    disk: NodeLog,
}

impl Node {
    /// A node that has never run.
    pub fn new(id: NodeId, scenario: &Scenario, _seed: u64) -> Self {
        let members = Membership::of_voters((1..=scenario.nodes).map(|node| ReplicaId::new(NodeId(node), 0)));
        Self { id, members, engine: SimEngine::default(), running: None, disk: NodeLog::default() }
    }

    /// Starts the process: opens what is there, and creates the groups that are not.
    pub fn start(&mut self, scenario: &Scenario) -> Vec<Input> {
        assert!(self.running.is_none(), "a node runs once");
        let log = self.disk.clone();
        let recovery = log.recover();
        let mut machines: BTreeMap<RaftGroupId, Box<dyn crate::machine::StateMachine>> = BTreeMap::new();
        let mut starts = Vec::new();
        let mut inputs = Vec::new();
        for group in (1..=scenario.groups).map(RaftGroupId) {
            let ledger = self.open_ledger(group);
            let replica = self.replica_of(group);
            match recovery.groups.get(&group) {
                Some(recovered) => starts.push(GroupStart {
                    group,
                    replica,
                    recovery: recovered.clone(),
                    applied: crate::machine::StateMachine::applied(&ledger),
                    membership: crate::machine::StateMachine::membership(&ledger).clone(),
                }),
                None => inputs.push(Input::Create { group, replica, membership: self.members.clone() }),
            }
            machines.insert(group, Box::new(ledger));
        }
        self.running = Some(Running {
            core: Core::new(options(scenario), starts),
            applier: Applier::new(self.engine.clone(), machines),
            log,
            append: None,
            applies: VecDeque::new(),
            reads: VecDeque::new(),
            flush: None,
            releases: VecDeque::new(),
        });
        inputs
    }

    /// A group's state machine, made durable before anybody hears of the group.
    fn open_ledger(&self, group: RaftGroupId) -> Ledger {
        if let Some(ledger) = Ledger::open(&self.engine, group).expect("the simulated database reads") {
            return ledger;
        }
        let ledger = Ledger::born(group, BIRTH, self.members.clone());
        let mut batch = WriteBatch::default();
        ledger.save(&mut batch);
        self.engine.write(batch).expect("the simulated database writes");
        self.engine.flush().expect("the simulated database flushes");
        ledger
    }

    /// Ends the process. What was not synced is lost, or kept, or torn.
    pub fn crash(&mut self, random: &mut Random) {
        self.running = None;
        let kept = random.below(self.engine.unflushed() + 1);
        self.engine.crash(kept);
    }

    /// Whether the process runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// This node's replica of a group.
    pub fn replica_of(&self, _group: RaftGroupId) -> ReplicaId {
        ReplicaId::new(self.id, 0)
    }

    /// The part this node plays in a group.
    pub fn role(&self, group: RaftGroupId) -> Option<Role> {
        self.running.as_ref()?.core.replica(group).map(crate::raft::Replica::role)
    }

    /// The database.
    pub fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    /// A group's records as this node has them.
    pub fn records(&self, group: RaftGroupId) -> Vec<Vec<u8>> {
        Ledger::records(&self.engine, group).expect("the simulated database reads")
    }

    /// One line for a failure's report.
    pub fn describe_group(&self, group: RaftGroupId) -> String {
        let Some(replica) = self.running.as_ref().and_then(|running| running.core.replica(group)) else {
            return format!("node {}: not running", self.id);
        };
        format!(
            "node {}: {:?} term {} last {} commit {} handed {} records {}",
            self.id,
            replica.role(),
            replica.term(),
            replica.log().last(),
            replica.commit(),
            replica.handed(),
            self.records(group).len()
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
        let Some(running) = self.running.as_mut() else { return };
        match effect {
            Effect::Append(turn) => {
                assert!(running.append.is_none(), "one turn is in flight at a time");
                running.append = Some(turn);
            }
            Effect::Apply { group, entries, memberships } => {
                running.applies.push_back(Apply { group, entries, memberships });
            }
            Effect::ReadEntries { group, wanted } => running.reads.push_back((group, wanted)),
            Effect::Flush => running.flush = Some(running.applier.begin_flush()),
            Effect::Release(bounds) => running.releases.push_back(bounds),
            other => unreachable!("{} takes no time", describe(&other)),
        }
    }

    /// Chooses one of the effects that could finish now.
    pub fn pick(&self, random: &mut Random) -> Option<Kind> {
        let running = self.running.as_ref()?;
        let open = [
            (Kind::Append, running.append.is_some()),
            (Kind::Apply, !running.applies.is_empty()),
            (Kind::Read, !running.reads.is_empty()),
            (Kind::Flush, running.flush.is_some()),
            (Kind::Release, !running.releases.is_empty()),
        ];
        let open: Vec<_> = open.into_iter().filter(|(_, is_open)| *is_open).map(|(kind, _)| kind).collect();
        (!open.is_empty()).then(|| open[random.below(open.len())])
    }

    /// Does an effect and gives the inputs that tell of it; `None` if the process ended in the middle.
    pub fn finish(&mut self, kind: Kind, crash: Option<Crash>) -> Option<Vec<Input>> {
        let running = self.running.as_mut().expect("only a running node finishes anything");
        match kind {
            Kind::Append => {
                let turn = running.append.take().expect("an append is open");
                if crash.is_some_and(|crash| crash.operations < 2) {
                    return None;
                }
                running.log.append(&turn);
                self.disk = running.log.clone();
                if crash.is_some() {
                    return None;
                }
                Some(vec![Input::Appended])
            }
            Kind::Apply => {
                let apply = running.applies.pop_front().expect("an apply is open");
                let bytes = apply.entries.iter().map(LogEntry::payload_bytes).sum();
                let outcomes = running
                    .applier
                    .apply(apply.group, &apply.entries, &apply.memberships)
                    .expect("the simulated state machine applies");
                if crash.is_some() {
                    return None;
                }
                Some(vec![Input::Applied { group: apply.group, outcomes, bytes }])
            }
            Kind::Read => {
                let (group, wanted) = running.reads.pop_front().expect("a read is open");
                let result: Result<_, ReadFailure> =
                    Ok(running.log.entries(group, wanted.low, wanted.high, wanted.max_bytes));
                Some(vec![Input::EntriesRead { group, wanted, result }])
            }
            Kind::Flush => {
                let applied = running.flush.take().expect("a flush is open");
                self.engine.flush().expect("the simulated database flushes");
                if crash.is_some() {
                    return None;
                }
                Some(vec![Input::Flushed { applied }])
            }
            Kind::Release => {
                running.releases.pop_front();
                Some(Vec::new())
            }
        }
    }
}

fn options(scenario: &Scenario) -> CoreOptions {
    let mut options = CoreOptions { flush_after_bytes: 80, tail_bytes_per_group: 64, ..CoreOptions::default() };
    options.replica.seed = scenario.seed;
    options
}

/// One line for the trace.
pub fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Send { to, messages } => {
            let each: Vec<_> = messages
                .iter()
                .map(|(group, message)| {
                    format!(
                        "{group}:{:?} t{} i{} lt{} n{} c{} r{}",
                        message.kind,
                        message.term,
                        message.index,
                        message.log_term,
                        message.entries.len(),
                        message.commit,
                        message.reject
                    )
                })
                .collect();
            format!("send to {to}: {}", each.join(", "))
        }
        Effect::Append(turn) => format!("append {} writes", turn.writes.len()),
        Effect::Apply { group, entries, .. } => format!("apply {} entries of group {group}", entries.len()),
        Effect::ReadEntries { group, wanted } => format!("read {}..{} of group {group}", wanted.low, wanted.high),
        Effect::BuildSnapshot { group } => format!("build a snapshot of group {group}"),
        Effect::FetchSnapshot { group, meta, .. } => format!("fetch a snapshot of group {group} at {}", meta.at),
        Effect::InstallSnapshot { group, meta, .. } => format!("install a snapshot of group {group} at {}", meta.at),
        Effect::Removed { group } => format!("removed group {group}"),
        Effect::Flush => "flush".to_owned(),
        Effect::Release(bounds) => format!("release {bounds:?}"),
        Effect::Reply { ticket, reply } => format!("reply to {}: {reply:?}", ticket.0),
        Effect::Publish { group, leadership } => format!("group {group}: {leadership:?}"),
        Effect::Quarantined { group, reason } => format!("quarantined group {group}: {reason}"),
    }
}
