//! A whole cluster in one thread: the production core and log of every node, over simulated disks and a simulated
//! network, with one seed deciding everything that chance decides.
//!
//! Each step does one thing: deliver, lose or repeat a message, let a node tick, finish something that takes time on a
//! node, let a client write or read, crash a node or start it again. A node may crash before, during or after any
//! effect; what its disk and database had not synced is then lost, kept or torn. All the while, and once more at the
//! end when faults have stopped, the promises are checked.
//!
//! * [`effects`]: what takes time, and where a crash can hit.
//! * [`node`]: one node: core, log, applier, and the effects it has not finished.
//! * `requests`: what clients ask.
//! * [`client`]: who writes and reads, and what each was told.
//! * [`consumers`]: members of consumer groups, and what each was told.

pub mod client;
mod consume;
pub mod consumers;
pub mod effects;
pub mod node;
mod requests;

use super::Random;
use crate::coordinator::Coordinator;
use crate::multiraft::apply::transfer::SnapshotMessage;
use crate::multiraft::core::effect::{Effect, Input, Leadership};
use crate::raft::{RaftMessage, Role};
use crate::types::{NodeId, RaftGroupId, ReplicaId, Term};
use client::Client;
use consumers::Consumers;
use effects::{Crash, CrashPoint, describe};
use node::{Finished, Node};
use std::collections::{BTreeMap, BTreeSet};

/// What one run does.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// Nodes; every group has a replica on each.
    pub nodes: u32,
    /// Groups that are partitions.
    pub groups: u64,
    /// Further groups that coordinate consumer groups.
    pub coordinators: u64,
    /// Steps under faults.
    pub steps: usize,
    /// An effect meets a crash once in so many, on average; 0: never.
    pub crash_one_in: u64,
    /// A node that is down is started again once in so many chances, on average.
    pub restart_one_in: u64,
    /// A message is lost once in so many, on average; 0: never.
    pub loss_one_in: u64,
    /// The length of a record's key, in bytes.
    pub key_bytes: usize,
    /// Payload, and blocks of the log, after which state machines are flushed, in bytes.
    pub flush_after_bytes: usize,
    /// Log kept for replicas that were away, in bytes.
    pub retain_bytes: u64,
    /// Is given what happens, line by line.
    pub trace: Option<fn(&str)>,
    /// Negative controls: what to break on purpose.
    pub sabotage: Sabotage,
}

impl Scenario {
    /// The ordinary run of this seed. Every other one keeps little log and leaves nodes down for longer, so that they
    /// come back to a log that no longer reaches back to them.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let short_log = seed % 2 == 1;
        Self {
            seed,
            nodes: 3,
            groups: 2,
            coordinators: 0,
            steps: if short_log { 9_000 } else { 6_000 },
            restart_one_in: if short_log { 60 } else { 1 },
            crash_one_in: 400,
            loss_one_in: 50,
            key_bytes: if short_log { 20_000 } else { 0 },
            flush_after_bytes: if short_log { 120_000 } else { 40_000 },
            retain_bytes: if short_log { 0 } else { 512 << 10 },
            trace: None,
            sabotage: Sabotage::default(),
        }
    }
}

/// Promises broken on purpose, to show that the checks notice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sabotage {
    /// The disk says that it has synced, and has not.
    pub sync_nothing: bool,
    /// Hard states (terms and votes) are not written.
    pub forget_votes: bool,
    /// The log is freed up to what was applied, flushed or not.
    pub release_unflushed: bool,
    /// Snapshots of coordinators carry no offsets.
    pub snapshots_without_offsets: bool,
    /// Members are told their shares before these are committed: after a failover there are others.
    pub assignments_uncommitted: bool,
    /// Files below a log start are dropped before that log start is durable.
    pub reclaim_unflushed: bool,
    /// With what lies below a log start, a record at or above one is deleted.
    pub trim_too_much: bool,
}

/// Messages of one effect on their way.
#[derive(Clone, Debug)]
struct Packet {
    /// To whom.
    to: NodeId,
    /// What.
    cargo: Cargo,
}

/// What travels.
#[derive(Clone, Debug)]
enum Cargo {
    /// Messages between replicas.
    Raft(Vec<(RaftGroupId, RaftMessage)>),
    /// A piece of a state.
    Snapshot(SnapshotMessage),
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The hash of everything that happened, in order.
    pub trace_hash: u64,
    /// Writes acknowledged.
    pub acknowledged: usize,
    /// Reads served.
    pub reads: usize,
    /// Shares that consumers were given, offsets acknowledged to them, reads of offsets served.
    pub consumers: [usize; 3],
    /// Trims acknowledged.
    pub trims: usize,
    /// How often each kind of crash happened.
    pub crashes: BTreeMap<CrashPoint, usize>,
}

/// See the module.
pub struct Cluster {
    /// What is being run.
    scenario: Scenario,
    /// Chance.
    random: Random,
    /// The nodes, by position.
    nodes: Vec<Node>,
    /// Messages on their way, in no order.
    network: Vec<Packet>,
    /// Who writes and reads.
    client: Client,
    /// Who reads in groups.
    consumers: Consumers,
    /// Which node answers clients for which group.
    serving: BTreeSet<(NodeId, RaftGroupId)>,
    /// Which replica led a term, to notice two.
    leaders: BTreeMap<(RaftGroupId, Term), ReplicaId>,
    /// Faults are on.
    faults: bool,
    /// See the type.
    report: Report,
}

impl Cluster {
    /// The messages that may be on their way at once; beyond that some are lost.
    const NETWORK_PACKETS_MAX: usize = 2_000;

    /// A cluster whose nodes have been started for the first time.
    #[must_use]
    pub fn new(scenario: Scenario) -> Self {
        let mut random = Random::new(scenario.seed);
        let nodes = (1..=scenario.nodes).map(|id| Node::new(NodeId(id), &scenario, random.next_u64())).collect();
        let mut cluster = Self {
            random,
            nodes,
            network: Vec::new(),
            client: Client::default(),
            consumers: Consumers::new((scenario.groups + 1..=scenario.groups + scenario.coordinators).map(RaftGroupId)),
            serving: BTreeSet::new(),
            leaders: BTreeMap::new(),
            faults: true,
            report: Report { trace_hash: 0xcbf2_9ce4_8422_2325, ..Report::default() },
            scenario,
        };
        for position in 0..cluster.nodes.len() {
            cluster.start(position);
        }
        cluster
    }

    /// Runs the scenario: faults, then healing, then the last checks. Panics where a promise was broken.
    #[must_use]
    pub fn run(mut self) -> Report {
        for _ in 0..self.scenario.steps {
            self.step();
        }
        self.heal();
        self.check_contents();
        self.report.acknowledged = self.client.acknowledged();
        self.report.reads = self.client.reads_served();
        self.report.consumers = self.consumers.counts;
        self.report.trims = self.client.trims();
        self.report
    }

    fn step(&mut self) {
        match self.random.below(100) as usize {
            0..40 => self.deliver(),
            40..50 => self.tick(),
            75..97 if self.scenario.coordinators > 0 && !self.random.one_in(4) => self.consume(),
            50..85 => self.finish_something(),
            85..92 => self.write(),
            92 => self.trim(),
            93..97 => self.read(),
            _ => self.restart_something(),
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        for byte in line.bytes() {
            self.report.trace_hash = (self.report.trace_hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(print) = self.scenario.trace {
            print(&line);
        }
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let index = self.pick(self.network.len());
        let loss = self.scenario.loss_one_in;
        let packet = if self.faults && loss > 0 && self.random.one_in(loss) {
            if self.random.one_in(2) {
                self.network.swap_remove(index);
                return;
            }
            self.network[index].clone() // and once more later
        } else {
            self.network.swap_remove(index)
        };
        self.note(|| format!("deliver to {}", packet.to));
        self.arrive(packet);
    }

    fn arrive(&mut self, packet: Packet) {
        let position = packet.to.0 as usize - 1;
        match packet.cargo {
            Cargo::Raft(messages) => self.input(position, Input::Messages(messages)),
            Cargo::Snapshot(message) => {
                self.note(|| format!("{message:?}"));
                let finished = self.nodes[position].transferred(message);
                self.finished(position, finished);
            }
        }
    }

    fn finished(&mut self, position: usize, finished: Finished) {
        if let Some(message) = finished.send {
            self.network.push(Packet { to: message.to.node(), cargo: Cargo::Snapshot(message) });
        }
        for input in finished.inputs {
            self.input(position, input);
        }
    }

    fn pick(&mut self, count: usize) -> usize {
        self.random.below(count as u64) as usize
    }

    fn tick(&mut self) {
        let position = self.pick(self.nodes.len());
        self.input(position, Input::Tick);
    }

    /// Hands an input to a node and starts its effects.
    fn input(&mut self, position: usize, input: Input) {
        let Some(effects) = self.nodes[position].input(input) else { return };
        for effect in effects {
            self.begin(position, effect);
        }
    }

    /// What takes no time happens at once; the rest waits on the node until chance finishes it.
    fn begin(&mut self, position: usize, effect: Effect) {
        let node = self.nodes[position].id;
        self.note(|| format!("{node}: {}", describe(&effect)));
        match effect {
            Effect::Send { to, messages } => {
                if self.crash_instead(position, CrashPoint::Send) {
                    return;
                }
                if self.network.len() < Self::NETWORK_PACKETS_MAX {
                    self.network.push(Packet { to, cargo: Cargo::Raft(messages) });
                }
            }
            Effect::Reply { ticket, reply } => self.answer(position, ticket, &reply),
            Effect::Publish { group, leadership } => self.check_leader(position, group, leadership),
            Effect::Quarantined { group, reason } => {
                panic!("seed {}: node {node} quarantined group {group}: {reason}", self.scenario.seed)
            }
            effect => self.nodes[position].defer(effect),
        }
    }

    fn check_leader(&mut self, position: usize, group: RaftGroupId, leadership: Leadership) {
        if !leadership.serving {
            self.serving.remove(&(self.nodes[position].id, group));
            return;
        }
        self.serving.insert((self.nodes[position].id, group));
        let own = self.nodes[position].replica_of(group);
        let first = *self.leaders.entry((group, leadership.term)).or_insert(own);
        assert_eq!(first, own, "seed {}: two leaders of group {group} in term {}", self.scenario.seed, leadership.term);
    }

    /// Finishes one effect of one node, or crashes before, during or after it.
    fn finish_something(&mut self) {
        let position = self.pick(self.nodes.len());
        let Some(kind) = self.nodes[position].pick(&mut self.random) else { return };
        if self.crash_instead(position, CrashPoint::Before(kind)) {
            return;
        }
        let during = self.crash_due(CrashPoint::During(kind)).then(|| Crash { operations: 1 + self.random.below(6) });
        let interrupted = during.is_some();
        let done = self.nodes[position].finish(kind, during, &self.scenario);
        match done {
            None => {
                let point = if interrupted { CrashPoint::During(kind) } else { CrashPoint::Before(kind) };
                self.crash(position, point);
            }
            Some(finished) => {
                if !self.crash_instead(position, CrashPoint::After(kind)) {
                    self.finished(position, finished);
                }
            }
        }
    }

    /// What happens rarely is interrupted more often, so that it is interrupted at all.
    fn crash_due(&mut self, point: CrashPoint) -> bool {
        let times = if point.is_rare() { self.scenario.crash_one_in.div_ceil(40) } else { self.scenario.crash_one_in };
        self.faults && times > 0 && self.random.one_in(times)
    }

    fn crash_instead(&mut self, position: usize, point: CrashPoint) -> bool {
        let due = self.nodes[position].is_running() && self.crash_due(point);
        if due {
            self.crash(position, point);
            // Power goes out in whole racks, too.
            if self.random.one_in(4) {
                for other in 0..self.nodes.len() {
                    if self.nodes[other].is_running() {
                        self.crash(other, CrashPoint::Idle);
                    }
                }
            }
        }
        due
    }

    fn crash(&mut self, position: usize, point: CrashPoint) {
        let node = self.nodes[position].id;
        self.note(|| format!("{node}: crash {point:?}"));
        *self.report.crashes.entry(point).or_default() += 1;
        self.nodes[position].crash(&mut self.random);
        self.client.lost_node(node);
        self.consumers.lost_node(node);
        self.serving.retain(|(serving, _)| *serving != node);
    }

    fn restart_something(&mut self) {
        let position = self.pick(self.nodes.len());
        if !self.nodes[position].is_running() && self.random.one_in(self.scenario.restart_one_in) {
            self.start(position);
        }
    }

    fn start(&mut self, position: usize) {
        let node = self.nodes[position].id;
        let inputs = self.nodes[position].start(&self.scenario);
        let findings = self.nodes[position].findings.join("; ");
        self.note(|| format!("{node}: start; {findings}"));
        for input in inputs {
            self.input(position, input);
        }
    }

    /// Faults stop; within a bounded time every group must have a leader that accepts a write, and be the same
    /// everywhere.
    fn heal(&mut self) {
        self.faults = false;
        for position in 0..self.nodes.len() {
            if !self.nodes[position].is_running() {
                self.start(position);
            }
        }
        const ROUNDS_MAX: usize = 400;
        self.client.begin_probes();
        for _ in 0..ROUNDS_MAX {
            self.fair_round();
            let open: Vec<_> = self.groups().filter(|group| !self.client.probed(*group)).collect();
            if open.is_empty() && self.all_equal() && self.is_settled() {
                return;
            }
            self.let_all_consume();
            for group in open {
                if let Some(position) = self.leader_of(group) {
                    self.write_at(position, group, 1);
                }
            }
        }
        let what = if self.all_equal() { "the cluster did not recover" } else { "the replicas differ" };
        panic!("seed {}: {what} after {ROUNDS_MAX} rounds: {}", self.scenario.seed, self.describe());
    }

    /// Everything that can happen, happens once: each message arrives, each effect finishes, each node ticks.
    fn fair_round(&mut self) {
        for packet in std::mem::take(&mut self.network) {
            self.arrive(packet);
        }
        for position in 0..self.nodes.len() {
            while let Some(kind) = self.nodes[position].pick(&mut self.random) {
                let finished = self.nodes[position].finish(kind, None, &self.scenario);
                self.finished(position, finished.expect("nothing interrupts a healthy node"));
            }
            self.input(position, Input::Tick);
        }
    }

    fn leader_of(&self, group: RaftGroupId) -> Option<usize> {
        (0..self.nodes.len()).find(|position| self.nodes[*position].role(group) == Some(Role::Leader))
    }

    fn groups(&self) -> impl Iterator<Item = RaftGroupId> + use<> {
        (1..=self.scenario.groups).map(RaftGroupId)
    }

    fn all_equal(&self) -> bool {
        let same_records = self.groups().all(|group| {
            let first = self.nodes[0].records(group);
            self.nodes.iter().all(|node| node.records(group) == first)
        });
        same_records
            && self.coordinators().all(|raft| {
                let state = |node: &Node| node.coordinator(raft).map(Coordinator::snapshot);
                self.nodes.iter().all(|node| state(node) == state(&self.nodes[0]))
            })
    }

    fn describe(&self) -> String {
        let group = |group: RaftGroupId| {
            let roles: Vec<_> = self.nodes.iter().map(|node| node.describe_group(group)).collect();
            format!("group {group}: {}", roles.join("; "))
        };
        let partitions: Vec<_> = self.groups().map(group).collect();
        let consumers = self.coordinators().filter_map(|raft| {
            let leader = self.leader_of(raft)?;
            let groups = self.nodes[leader].coordinator(raft)?.groups();
            Some(format!("group {raft}: {groups:?}\n{}", self.consumers.describe()))
        });
        partitions.into_iter().chain(consumers).collect::<Vec<_>>().join("\n")
    }

    /// Every acknowledged record is there, at its offset; no refused record is; none is there twice.
    fn check_contents(&self) {
        for group in self.groups() {
            let (start, records) = self.nodes[0].records(group);
            self.client.check(group, start, &records, self.scenario.seed);
        }
        let offset = |(raft, group): &(RaftGroupId, String), partition| {
            self.nodes[0].stored_offset(*raft, group, consumers::TOPIC, partition)
        };
        self.consumers.check(offset, self.scenario.seed);
    }
}
