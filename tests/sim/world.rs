//! The world: nodes, network, clients and faults in one thread and one virtual time.
//!
//! Everything that happens is an event in a heap, ordered by time and then by when it was planned. A run is a function
//! of its shape: no clock, no other thread, no order that depends on addresses.

use crate::chance::{Chance, MILLISECOND};
use crate::clients::{Asked, Ticketed};
use crate::coverage::Coverage;
use crate::faults::Nemesis;
use crate::jobs::Thread;
use crate::network::{Network, Packet};
use crate::node::Node;
use crate::observe::{Invariant, Observation};
use crate::replace::{OFFICE, Office};
use crate::sabotage::{self, Sabotage};
use crate::sight::Actor;
use crate::swarm::Shape;
use crate::trace::{Keep, Trace};
use crate::watch::Watch;
use crate::workload::Answer;
use crate::workload::admin::Admin;
use crate::workload::consume::Consume;
use crate::workload::produce::Produce;
use crate::workload::read::Read;
use crate::workload::topics::Topics;
use crate::workload::trim::Trim;
use ackord::controller::view::MetadataView;
use ackord::multiraft::core::BIRTH;
use ackord::multiraft::core::effect::Ticket;
use ackord::sim::Random;
use ackord::types::{CONTROLLER_GROUP, LogIndex, Membership, NodeId, RaftGroupId, ReplicaId, Term};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// A tick, as in production.
pub const TICK: u64 = 100 * MILLISECOND;

/// Something that happens at a moment.
pub enum Event {
    /// A node's tick.
    Tick { node: NodeId, life: u64 },
    /// The worker looks into its mailbox.
    Work { node: NodeId, life: u64 },
    /// A thread is done with its first job.
    Done { node: NodeId, life: u64, thread: Thread },
    /// The log's thread has been idle since it had done so many steps.
    Idle { node: NodeId, life: u64, steps: u64 },
    /// The node looks how much room its disk has.
    Room { node: NodeId, life: u64 },
    /// Something arrives.
    Deliver(Box<Packet>),
    /// A node tries to connect to another one.
    Connect { from: NodeId, to: NodeId, life: u64 },
    /// A connection has been silent for too long, if it still is the one opened with this number.
    Silent { from: NodeId, to: NodeId, opened: u64 },
    /// A node learns that its connection is broken.
    Broken { from: NodeId, to: NodeId, life: u64 },
    /// A process that stood still goes on, if it is time.
    Resume { node: NodeId },
    /// A client's request reaches a node.
    Request { node: NodeId, ticket: Ticket, ticketed: Box<Ticketed> },
    /// An answer reaches its client.
    Answer { owner: usize, ticket: Ticket, answer: Box<Answer> },
    /// A workload is woken.
    Wake { owner: usize, tag: u64 },
    /// A node is started, if it is down.
    Start { node: NodeId },
    /// The nemesis does the next thing.
    Nemesis,
    /// The operator looks after a replacement.
    Office,
    /// Something that it did ends.
    Heal { number: u64 },
}

/// An event in the heap.
struct Planned {
    /// When.
    at: u64,
    /// In which order among those at the same time.
    sequence: u64,
    /// What.
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// Chance, for each part of the world its own.
pub struct Chances {
    /// Of disks and databases at a crash.
    pub crash: Random,
    /// Whether an effect meets a crash.
    pub points: Random,
    /// How long jobs take.
    pub jobs: Random,
    /// What happens to messages.
    pub network: Random,
    /// What the nemesis does.
    pub nemesis: Random,
    /// What clients do.
    pub clients: Random,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The hash of everything that happened.
    pub trace_hash: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Messages between replicas.
    pub messages: u64,
    /// Changes of a group's leader.
    pub leader_changes: u64,
    /// Virtual time, in microseconds.
    pub virtual_us: u64,
    /// Events.
    pub events: u64,
    /// What happened how often.
    pub coverage: Coverage,
}

/// See the module.
pub struct World {
    /// What this run is about.
    pub shape: Shape,
    /// Virtual time, in microseconds.
    pub now: u64,
    /// What is planned.
    heap: BinaryHeap<Planned>,
    /// How much was planned.
    sequence: u64,
    /// The nodes, by position.
    pub nodes: Vec<Node>,
    /// What is between them.
    pub network: Network,
    /// What goes wrong.
    pub nemesis: Nemesis,
    /// What is replaced.
    pub office: Office,
    /// Chance.
    pub chances: Chances,
    /// Who watches.
    pub watch: Watch,
    /// What happened.
    pub trace: Trace,
    /// What happened how often.
    pub coverage: Coverage,
    /// What the run comes to.
    pub report: Report,
    /// Who asks; nothing in a place while it is that one's turn.
    pub actors: Vec<Option<Box<dyn Actor>>>,
    /// What was asked and not answered yet.
    pub asked: BTreeMap<Ticket, Asked>,
    /// When the last thing between an actor and a node arrives, each way.
    pub on_the_way: BTreeMap<(usize, NodeId, bool), u64>,
    /// The newest state of the controller, and the entry as of which it is.
    pub metadata: Option<(LogIndex, Arc<MetadataView>)>,
    /// The last ticket.
    pub last_ticket: u64,
    /// Who led which group last, for counting changes.
    pub leaders: BTreeMap<RaftGroupId, (Term, ReplicaId)>,
    /// The faults are over.
    pub calm: bool,
}

impl World {
    /// A cluster that was formatted and is about to be started.
    pub fn new(shape: Shape, invariants: Vec<Box<dyn Invariant>>, keep: Keep) -> Self {
        let mut random = Random::new(shape.seed);
        let chances = Chances {
            crash: random.fork(),
            points: random.fork(),
            jobs: random.fork(),
            network: random.fork(),
            nemesis: random.fork(),
            clients: random.fork(),
        };
        let nodes: Vec<_> = (1..=shape.nodes).map(|id| Node::new(NodeId(id), &shape, &mut random)).collect();
        let mut world = Self {
            now: 0,
            heap: BinaryHeap::new(),
            sequence: 0,
            network: Network::new(nodes.len()),
            nemesis: Nemesis::new(&shape),
            office: Office::default(),
            nodes,
            chances,
            watch: Watch::new(invariants),
            trace: Trace::new(keep),
            coverage: Coverage::default(),
            report: Report::default(),
            actors: Vec::new(),
            asked: BTreeMap::new(),
            on_the_way: BTreeMap::new(),
            metadata: None,
            last_ticket: 0,
            leaders: BTreeMap::new(),
            calm: false,
            shape,
        };
        world.tell_first_members();
        world.add_actors();
        for node in 1..=world.shape.nodes {
            let after = world.chances.nemesis.below(300 * MILLISECOND);
            world.schedule(after, Event::Start { node: NodeId(node) });
        }
        world.plan_nemesis();
        world
    }

    fn tell_first_members(&mut self) {
        let membership = Membership::of_voters(
            (1..=sabotage::first_voters(&self.shape)).map(|node| ReplicaId::new(NodeId(node), 0)),
        );
        let (group, membership) = (CONTROLLER_GROUP, &membership);
        self.watch.tell(&Observation::Members { group, at: BIRTH, membership });
    }

    fn add_actors(&mut self) {
        let (load, believes) = (self.shape.load.clone(), self.shape.sabotage == Sabotage::AssignmentsUncommitted);
        self.add_actor(Box::new(Admin::new(&self.shape)));
        self.add_actor(Box::new(Produce::new(load.clone())));
        self.add_actor(Box::new(Read::new(load.clone())));
        if load.trim_pause.1 > 0 {
            self.add_actor(Box::new(Trim::new(load.clone())));
        }
        if !self.shape.coordinators.is_empty() {
            self.add_actor(Box::new(Consume::new(believes)));
        }
        if self.shape.topics {
            self.add_actor(Box::new(Topics::new(self.shape.nodes, self.shape.partitions.clone())));
        }
    }

    /// Runs everything: faults, then liveness, then the comparison. The error is what was broken.
    pub fn run(&mut self) -> Result<(), String> {
        let end = self.shape.lasts;
        self.run_until(end)?;
        self.recover()?;
        self.report.trace_hash = self.trace.hash();
        self.report.virtual_us = self.now;
        self.report.coverage = std::mem::take(&mut self.coverage);
        Ok(())
    }

    /// Lets everything happen that happens until then.
    pub fn run_until(&mut self, end: u64) -> Result<(), String> {
        while self.heap.peek().is_some_and(|planned| planned.at <= end) {
            let Planned { at, event, .. } = self.heap.pop().expect("it was just seen");
            self.now = at;
            self.report.events += 1;
            self.happen(event);
            if let Some(violation) = self.watch.violation() {
                return Err(violation.to_owned());
            }
        }
        self.now = end;
        Ok(())
    }

    /// Plans an event, so many microseconds from now.
    pub fn schedule(&mut self, after: u64, event: Event) {
        self.schedule_at(self.now + after, event);
    }

    /// Plans an event.
    pub fn schedule_at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.heap.push(Planned { at, sequence: self.sequence, event });
    }

    fn happen(&mut self, event: Event) {
        let Some(event) = self.hold_up(event) else { return };
        match event {
            Event::Resume { node } => self.resume(node),
            Event::Tick { node, life } => self.alive(node, life, Self::tick),
            Event::Work { node, life } => self.alive(node, life, Self::work),
            Event::Done { node, life, thread } => self.alive(node, life, |world, place| world.done(place, thread)),
            Event::Idle { node, life, steps } => self.alive(node, life, |world, place| world.log_idle(place, steps)),
            Event::Room { node, life } => self.alive(node, life, Self::look_at_room),
            Event::Broken { from, to, life } => self.alive(from, life, |world, place| world.unreachable(place, to)),
            Event::Connect { from, to, life } => self.alive(from, life, |world, _| world.connect(from, to)),
            Event::Deliver(packet) => self.deliver(*packet),
            Event::Silent { from, to, opened } => self.silent(from, to, opened),
            Event::Request { node, ticket, ticketed } => self.request(node, ticket, *ticketed),
            Event::Office => self.look_after_replacement(),
            Event::Answer { owner: OFFICE, ticket, answer } => self.office_answered(ticket, *answer),
            Event::Answer { owner, ticket, answer } => {
                self.with_actor(owner, |actor, eyes| actor.answered(ticket, *answer, eyes));
            }
            Event::Wake { owner, tag } => self.with_actor(owner, |actor, eyes| actor.woken(tag, eyes)),
            Event::Start { node } => self.start(node),
            Event::Nemesis => self.disturb(),
            Event::Heal { number } => self.heal(number),
        }
    }

    /// Keeps what happens to a process that stands still, in order; everything else is given back.
    fn hold_up(&mut self, event: Event) -> Option<Event> {
        let (Some(node), now) = (event.node(), self.now) else { return Some(event) };
        let here = self.node_mut(node);
        if here.paused_until <= now && here.held_up.is_empty() {
            return Some(event);
        }
        let (is_first, until) = (here.held_up.is_empty(), here.paused_until);
        here.held_up.push_back(event);
        if is_first {
            self.schedule_at(until, Event::Resume { node });
        }
        None
    }

    fn resume(&mut self, node: NodeId) {
        let now = self.now;
        let here = self.node_mut(node);
        if here.paused_until > now {
            let until = here.paused_until;
            return self.schedule_at(until, Event::Resume { node });
        }
        for event in std::mem::take(&mut here.held_up) {
            self.happen(event);
        }
    }

    /// Runs `act` with the node's position, if this process still runs.
    fn alive(&mut self, node: NodeId, life: u64, act: impl FnOnce(&mut Self, usize)) {
        let position = Self::position(node);
        if self.nodes[position].process.is_some() && self.nodes[position].life == life {
            act(self, position);
        }
    }

    /// Where a node stands among the nodes.
    pub fn position(node: NodeId) -> usize {
        node.0 as usize - 1
    }

    /// A node.
    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[Self::position(node)]
    }

    /// A node.
    pub fn node_mut(&mut self, node: NodeId) -> &mut Node {
        &mut self.nodes[Self::position(node)]
    }
}

impl Event {
    /// The node that must not be paused for it to happen.
    fn node(&self) -> Option<NodeId> {
        match self {
            Self::Tick { node, .. }
            | Self::Work { node, .. }
            | Self::Done { node, .. }
            | Self::Idle { node, .. }
            | Self::Room { node, .. }
            | Self::Request { node, .. }
            | Self::Connect { from: node, .. }
            | Self::Broken { from: node, .. } => Some(*node),
            Self::Deliver(packet) => Some(packet.to),
            _ => None,
        }
    }
}
