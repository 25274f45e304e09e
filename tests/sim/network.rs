//! What is between the nodes: for each pair and direction a link, and a connection that both ends must agree to.
//!
//! A message takes some time and may be lost, come twice, overtake another one, or wait in a clogged link until all of
//! them come at once. What is sent without a connection is lost. Who may connect to whom is decided by production's
//! own `Admission` at both ends.

use crate::chance::{Chance, MILLISECOND, SECOND};
use crate::node::{Arrived, Remembered};
use crate::sabotage::{self, Sabotage};
use crate::world::{Event, World};
use ackord::multiraft::apply::transfer::SnapshotMessage;
use ackord::multiraft::core::effect::Input;
use ackord::multiraft::core::repair::message::RepairMessage;
use ackord::proto::peer;
use ackord::raft::RaftMessage;
use ackord::transport::admission::Admitted;
use ackord::types::{Incarnation, NodeId, RaftGroupId};

/// A peer that was not heard of for so long is taken for dead.
const SILENCE_MAX: u64 = 2 * SECOND;

/// What travels.
#[derive(Clone)]
pub enum Cargo {
    /// Messages between replicas.
    Raft(Vec<(RaftGroupId, RaftMessage)>),
    /// A piece of a state.
    Snapshot(SnapshotMessage),
    /// Something about a repair.
    Repair(RepairMessage),
}

/// Something on its way.
#[derive(Clone)]
pub struct Packet {
    /// From whom.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// To which of its processes.
    pub life: u64,
    /// On which connection.
    pub connection: u64,
    /// It takes far longer than others.
    pub late: bool,
    /// With which disk it was sent.
    pub incarnation: Incarnation,
    /// What.
    pub cargo: Cargo,
}

/// One direction between two nodes.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// By how many faults it is cut.
    pub cuts: u32,
    /// Nothing arrives before this moment.
    pub clogged_until: u64,
    /// When the last packet arrives.
    last_at: u64,
}

/// A connection from one node to another.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    /// It is there.
    open: bool,
    /// Its number.
    number: u64,
    /// The last one that was reset: what was sent on it, or before, does not arrive any more.
    reset: u64,
}

/// What a greeting says of a node's log.
struct Told {
    /// The durable turn.
    turn: u64,
    /// The losses that its log has counted.
    losses: u32,
    /// All that its replicas had promised is in doubt to itself.
    in_doubt: bool,
}

impl Told {
    /// What it has forgotten it will ask for: its replicas take no part before they are repaired.
    fn knows_its_loss(&self, known: &Remembered) -> bool {
        self.in_doubt || self.losses > known.losses
    }
}

/// See the module.
pub struct Network {
    /// Nodes.
    size: usize,
    /// By sender and receiver.
    links: Vec<Link>,
    /// By sender and receiver.
    connections: Vec<Connection>,
    /// Connections that were opened so far.
    opened: u64,
}

impl Network {
    /// No connection yet.
    pub fn new(size: usize) -> Self {
        let all = size * size;
        Self { size, links: vec![Link::default(); all], connections: vec![Connection::default(); all], opened: 0 }
    }

    /// There is one node more.
    pub fn grow(&mut self) {
        let mut larger = Self::new(self.size + 1);
        for from in 0..self.size {
            for to in 0..self.size {
                let (before, now) = (from * self.size + to, from * larger.size + to);
                larger.links[now] = self.links[before].clone();
                larger.connections[now] = self.connections[before];
            }
        }
        larger.opened = self.opened;
        *self = larger;
    }

    fn place(&self, from: NodeId, to: NodeId) -> usize {
        World::position(from) * self.size + World::position(to)
    }

    /// One direction.
    pub fn link_mut(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        let place = self.place(from, to);
        &mut self.links[place]
    }

    /// Whether nothing comes through.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.links[self.place(from, to)].cuts > 0
    }

    /// Whether there is a connection.
    pub fn is_connected(&self, from: NodeId, to: NodeId) -> bool {
        self.connections[self.place(from, to)].open
    }

    /// Whether the last connection was reset.
    fn was_reset(&self, from: NodeId, to: NodeId) -> bool {
        let connection = self.connections[self.place(from, to)];
        connection.number > 0 && connection.number == connection.reset
    }

    /// Nothing is cut or clogged any more.
    pub fn heal(&mut self) {
        for link in &mut self.links {
            (link.cuts, link.clogged_until) = (0, 0);
        }
    }

    fn open(&mut self, from: NodeId, to: NodeId) -> u64 {
        self.opened += 1;
        let place = self.place(from, to);
        let connection = &mut self.connections[place];
        (connection.open, connection.number) = (true, self.opened);
        self.opened
    }

    /// Whether there was one.
    fn reset(&mut self, from: NodeId, to: NodeId) -> bool {
        let is_open = self.close(from, to);
        let place = self.place(from, to);
        let connection = &mut self.connections[place];
        if is_open {
            connection.reset = connection.number;
        }
        is_open
    }

    fn close(&mut self, from: NodeId, to: NodeId) -> bool {
        let place = self.place(from, to);
        std::mem::take(&mut self.connections[place].open)
    }
}

impl World {
    /// Sends something, if there is a connection.
    pub fn send(&mut self, from: NodeId, to: NodeId, cargo: Cargo) {
        if let Cargo::Raft(messages) = &cargo {
            self.report.messages += messages.len() as u64;
        }
        if World::position(to) >= self.nodes.len() || !self.network.is_connected(from, to) {
            return self.coverage.hit("lost: no connection");
        }
        if self.network.is_cut(from, to) {
            return self.coverage.hit("lost: cut");
        }
        let (drop, duplicate) = (self.shape.faults.drop, self.shape.faults.duplicate);
        if !self.calm && self.chances.network.per_million(drop) {
            return self.coverage.hit("lost: dropped");
        }
        let (life, incarnation) = (self.node(to).life, self.node(from).identity.incarnation);
        let connection = self.network.connections[self.network.place(from, to)].number;
        let packet = Packet { from, to, life, connection, late: false, incarnation, cargo };
        if !self.calm && self.chances.network.per_million(duplicate) {
            self.coverage.hit("duplicated");
            self.plan_delivery(packet.clone());
        }
        self.plan_delivery(packet);
    }

    fn plan_delivery(&mut self, mut packet: Packet) {
        let (low, high) = self.shape.speeds.network;
        packet.late = !self.calm && self.chances.network.one_in(500);
        let latency = self.chances.network.between(low, high) * if packet.late { 20 } else { 1 };
        let (now, reorders) = (self.now, self.shape.speeds.reorders);
        let link = self.network.link_mut(packet.from, packet.to);
        let held = link.clogged_until > now + latency;
        let mut at = (now + latency).max(link.clogged_until);
        if !reorders {
            at = at.max(link.last_at);
        } else if at < link.last_at {
            self.coverage.hit("overtaken");
        }
        if held {
            self.coverage.hit("held by a clog");
        }
        let link = self.network.link_mut(packet.from, packet.to);
        link.last_at = link.last_at.max(at);
        self.schedule_at(at, Event::Deliver(Box::new(packet)));
    }

    /// Something arrives.
    pub fn deliver(&mut self, packet: Packet) {
        let Packet { from, to, life, connection, late, incarnation, cargo } = packet;
        let position = World::position(to);
        if connection <= self.network.connections[self.network.place(from, to)].reset {
            return self.coverage.hit("lost: reset");
        }
        let same = self.nodes[position].life == life;
        if self.nodes[position].process.is_none() || !self.network.is_connected(from, to) {
            return self.coverage.hit("lost: nobody there");
        }
        if !same && !self.shape.speeds.ghosts {
            return;
        }
        if !same {
            self.coverage.hit("delivered to the next process");
        }
        let process = self.nodes[position].process.as_ref().expect("it was just seen");
        let admission = &process.admission;
        if !admission.knows(Admitted { node: from, incarnation }) {
            return self.coverage.hit("lost: not known");
        }
        let mut cargo = cargo;
        let heard = match &mut cargo {
            Cargo::Raft(messages) => {
                messages.retain(|(group, message)| admission.hears(*group, message.from));
                !messages.is_empty()
            }
            Cargo::Snapshot(message) => admission.hears(message.group, message.from),
            Cargo::Repair(message) => admission.hears(message.group, message.from),
        };
        if !heard {
            return self.coverage.hit("lost: of a lost replica");
        }
        if late {
            self.coverage.hit("packet delayed");
        }
        match cargo {
            Cargo::Raft(messages) => {
                self.vote_in_quarantine(position, &messages);
                let messages = self.tamper_with_arriving(position, messages);
                self.arrive(position, Arrived::Messages(messages));
            }
            Cargo::Snapshot(message) => self.arrive(position, Arrived::Snapshot(message)),
            Cargo::Repair(_) if self.shape.sabotage == Sabotage::RepairsLost => {}
            Cargo::Repair(message) => self.arrive(position, Arrived::Repair(message)),
        }
    }

    /// Both ends greet each other, if they can.
    pub fn connect(&mut self, from: NodeId, to: NodeId) {
        if self.network.is_connected(from, to) {
            return;
        }
        let reachable = !self.network.is_cut(from, to) && !self.network.is_cut(to, from);
        let awake = self.node(to).process.is_some() && self.node(to).paused_until <= self.now;
        if reachable && awake {
            let greeted = self.greet(from, to);
            self.note_greeting(from, to, &greeted);
            match greeted {
                Ok(()) => {
                    let believes = |who, whom| {
                        let process = self.node(who).process.as_ref();
                        process.is_some_and(|process| process.admission.claimants().contains(&whom))
                    };
                    if believes(from, to) || believes(to, from) {
                        self.coverage.hit("newer claim believed");
                    }
                    if self.network.was_reset(from, to) {
                        self.coverage.hit("reconnected");
                    }
                    let number = self.network.open(from, to);
                    self.trace.note(self.now, "connect", &[from.0.into(), to.0.into(), number], || {
                        format!("node {from} to node {to}")
                    });
                    return;
                }
                Err(reason) => {
                    self.coverage.hit(if self.node(from).rolled_back || self.node(to).rolled_back {
                        "refused: rolled back"
                    } else {
                        "refused: greeting"
                    });
                    self.connect_later(from, to, 500 * MILLISECOND);
                    return self.trace.note(self.now, "refused", &[from.0.into(), to.0.into()], || {
                        format!("node {from} to node {to}: {reason}")
                    });
                }
            }
        }
        self.connect_later(from, to, 50 * MILLISECOND);
    }

    fn greet(&mut self, from: NodeId, to: NodeId) -> Result<(), String> {
        let caller = self.node(from).process.as_ref().ok_or("it is down")?;
        let called = self.node(to).process.as_ref().ok_or("it is down")?;
        let (mut hello, lies) = (caller.admission.hello(to), self.shape.sabotage == Sabotage::RolledBackLies);
        if lies && self.node(from).rolled_back {
            (hello.first_turn, hello.durable_turn) = sabotage::FAR_AHEAD;
        }
        let mut welcome = called.admission.welcome(called.admission.admit(&hello)?);
        if lies && self.node(to).rolled_back {
            (welcome.first_turn, welcome.durable_turn) = sabotage::FAR_AHEAD;
        }
        let before = caller.admission.own_registration();
        let checked = caller.admission.check_welcome(to, &welcome);
        let is_news = caller.admission.own_registration() != before;
        let peer::Hello { durable_turn: turn, losses, in_doubt, .. } = hello;
        let of_caller = Told { turn, losses, in_doubt };
        let peer::Welcome { durable_turn: turn, losses, in_doubt, .. } = welcome;
        let of_called = Told { turn, losses, in_doubt };
        if checked.is_ok() {
            self.look_for_rolled_back(to, from, &of_caller);
            self.look_for_rolled_back(from, to, &of_called);
        }
        self.remember(to, from, &of_caller);
        if let Ok(met) = &checked {
            self.remember(from, to, &of_called);
            let process = self.node_mut(from).process.as_mut().expect("it was just seen to run");
            match met.knows_us {
                true => process.unknown_to.remove(&to),
                false => process.unknown_to.insert(to),
            };
        }
        if is_news {
            self.coverage.hit("own registration heard");
            self.greet_again(Self::position(from));
        }
        checked.map(|_| ())
    }

    fn remember(&mut self, who: NodeId, whom: NodeId, told: &Told) {
        let life = self.node(whom).life;
        if let Some(process) = self.node_mut(who).process.as_mut() {
            let known = process.remembers.entry(whom).or_default();
            let turn = if told.knows_its_loss(known) { told.turn } else { told.turn.max(known.turn) };
            *known = Remembered { turn, losses: told.losses, life };
        }
    }

    /// A node was let in: not one whose disk was rolled back, by one that remembers what it has forgotten.
    fn look_for_rolled_back(&mut self, who: NodeId, whom: NodeId, told: &Told) {
        let (there, here) = (self.node(whom), self.node(who));
        let Some(known) = here.process.as_ref().and_then(|process| process.remembers.get(&whom)) else { return };
        let first = there.process.as_ref().map_or(0, |process| process.first_turn);
        let has_forgotten = first < known.turn && known.life != there.life && !told.knows_its_loss(known);
        if there.rolled_back && has_forgotten {
            let turn = known.turn;
            self.watch.object(|| {
                format!("node {who} lets node {whom} in, whose disk was rolled back to turn {first} from {turn}")
            });
        }
    }

    /// Tries again after a while.
    pub fn connect_later(&mut self, from: NodeId, to: NodeId, least: u64) {
        let after = self.chances.network.between(least, (least * 4).max(200 * MILLISECOND));
        let life = self.node(from).life;
        self.schedule(after, Event::Connect { from, to, life });
    }

    /// A process has begun: it connects to the others.
    pub fn begin_connecting(&mut self, from: NodeId) {
        for to in (1..=self.nodes.len() as u32).map(NodeId).filter(|to| *to != from) {
            self.connect_later(from, to, MILLISECOND);
        }
    }

    /// A process has ended: its connections are gone, and the others notice, some at once, some late.
    pub fn end_connections(&mut self, node: NodeId, power_cut: bool) {
        for other in (1..=self.nodes.len() as u32).map(NodeId).filter(|other| *other != node) {
            self.network.close(node, other);
            if self.network.close(other, node) {
                let after = if power_cut { SILENCE_MAX } else { MILLISECOND };
                let life = self.node(other).life;
                self.schedule(after, Event::Broken { from: other, to: node, life });
            }
        }
    }

    /// A node is registered otherwise than it has said: it connects anew to those who do not know it.
    pub fn greet_again(&mut self, position: usize) {
        let (from, life) = (self.nodes[position].id, self.nodes[position].life);
        let process = self.nodes[position].process.as_ref();
        for to in process.map(|process| process.unknown_to.clone()).unwrap_or_default() {
            if self.network.close(from, to) {
                self.coverage.hit("greeted again");
                self.schedule(0, Event::Broken { from, to, life });
            }
        }
    }

    /// A link was cut: the connection dies of silence if it stays so.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.network.link_mut(from, to).cuts += 1;
        let place = self.network.place(from, to);
        let opened = self.network.connections[place].number;
        self.schedule(SILENCE_MAX, Event::Silent { from, to, opened });
    }

    /// A connection has been silent for too long.
    pub fn silent(&mut self, from: NodeId, to: NodeId, opened: u64) {
        let place = self.network.place(from, to);
        let connection = self.network.connections[place];
        if connection.open && connection.number == opened && self.network.is_cut(from, to) {
            self.network.close(from, to);
            self.coverage.hit("connection broken by silence");
            let life = self.node(from).life;
            self.schedule(0, Event::Broken { from, to, life });
        }
    }

    /// A connection is reset, and sometimes the one back: what is on its way is lost, and who sends sees it.
    pub fn reset(&mut self, one: NodeId) -> bool {
        let all = (1..=self.nodes.len() as u32).map(NodeId);
        let peers: Vec<_> = all.filter(|other| *other != one && self.network.is_connected(one, *other)).collect();
        let Some(other) = peers.first().map(|_| *self.chances.nemesis.pick(&peers)) else { return false };
        let both = self.chances.nemesis.one_in(2);
        for (from, to) in [(one, other), (other, one)].into_iter().take(if both { 2 } else { 1 }) {
            if self.network.reset(from, to) {
                self.coverage.hit("connection reset");
                let (life, after) = (self.node(from).life, self.chances.nemesis.below(MILLISECOND));
                self.schedule(after, Event::Broken { from, to, life });
            }
        }
        true
    }

    /// A node learns that its connection to another one is broken.
    pub fn unreachable(&mut self, position: usize, to: NodeId) {
        let from = self.nodes[position].id;
        self.arrive(position, Arrived::Input(Input::Unreachable(to)));
        self.connect_later(from, to, 50 * MILLISECOND);
    }

    /// What a job says to another node.
    pub fn send_snapshot(&mut self, from: NodeId, message: SnapshotMessage) {
        self.send(from, message.to.node(), Cargo::Snapshot(message));
    }
}
