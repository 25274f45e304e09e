//! How the world looks to those who ask it for work, and what becomes of their questions on the way.

use crate::chance::Chance;
use crate::observe::Observation;
use crate::sight::{Actor, Groups, Sight};
use crate::workload::{Answer, Request};
use crate::world::{Event, World};
use ackord::controller::view::MetadataView;
use ackord::machine::Outcome;
use ackord::multiraft::core::effect::{Refused, Reply, Ticket};
use ackord::partition::retention::Retention;
use ackord::sim::Random;
use ackord::types::{CONTROLLER_GROUP, GroupKind, NodeId, Offset, RaftGroupId};
use std::sync::Arc;

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Ticketed {
    /// Of which group.
    pub group: RaftGroupId,
    /// What is asked.
    pub request: Request,
    /// The process it was sent to, if there was one: no other hears of it.
    pub life: Option<u64>,
}

/// What the world remembers of a question.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who asked: an actor's place.
    pub owner: usize,
    /// Whom.
    pub node: NodeId,
    /// About which group.
    pub group: RaftGroupId,
    /// What.
    pub what: What,
}

/// What kind of question it is.
#[derive(Clone, Debug)]
pub enum What {
    /// A batch.
    Produce,
    /// Anything else that is written.
    Command,
    /// A read, from an offset on, of so many bytes.
    Read { from: Option<Offset>, bytes_max: usize },
    /// What a consumer group has stored.
    Offsets(String),
    /// Which topics there are.
    Topics,
}

impl What {
    fn of(request: &Request) -> Self {
        match request {
            Request::Produce { .. } => Self::Produce,
            Request::Trim { .. } | Request::Command { .. } => Self::Command,
            Request::Read { from, bytes_max, .. } => Self::Read { from: *from, bytes_max: *bytes_max },
            Request::Offsets { group } => Self::Offsets(group.clone()),
            Request::Topics => Self::Topics,
        }
    }
}

/// The world as one actor sees it.
pub struct Eyes<'a> {
    /// All of it.
    pub world: &'a mut World,
    /// Who looks.
    pub own: usize,
}

impl Sight for Eyes<'_> {
    fn chance(&mut self) -> &mut Random {
        &mut self.world.chances.clients
    }

    fn ask(&mut self, node: NodeId, group: RaftGroupId, request: Request) -> Ticket {
        self.world.ask(self.own, node, group, request)
    }

    fn wake(&mut self, tag: u64, after: u64) {
        self.world.schedule(after, Event::Wake { owner: self.own, tag });
    }

    fn tell(&mut self, observation: &Observation<'_>) {
        self.world.watch.tell(observation);
    }

    fn guess(&mut self, group: RaftGroupId) -> NodeId {
        self.world.guess(group)
    }

    fn is_worth_asking(&mut self, group: RaftGroupId) -> bool {
        self.world.nodes.iter().any(|node| node.serves(group)) || self.world.chances.clients.one_in(8)
    }

    fn groups(&self, kind: GroupKind) -> Vec<RaftGroupId> {
        self.world.groups_of(kind)
    }

    fn bounds(&self, node: NodeId, group: RaftGroupId) -> Option<(Offset, Offset)> {
        let node = Some(self.world.node(node)).filter(|node| node.serves(group))?;
        node.view(group).map(|view| (view.log_start, view.high_watermark))
    }

    fn retained_start(&self, node: NodeId, group: RaftGroupId, bytes: u64) -> Option<Offset> {
        let node = Some(self.world.node(node)).filter(|node| node.serves(group))?;
        let retention = Retention { age_max_ms: None, bytes: Some(bytes) };
        node.view(group)?.retained_start(&node.engine, &retention, 0).expect("the simulated database reads")
    }

    fn consumer_groups(&self, node: NodeId, raft: RaftGroupId) -> Option<Groups> {
        let node = Some(self.world.node(node)).filter(|node| node.serves(raft))?;
        node.coordinator(raft).map(|coordinator| coordinator.groups().clone())
    }
}

impl World {
    /// Adds somebody who asks.
    pub fn add_actor(&mut self, actor: Box<dyn Actor>) {
        self.actors.push(Some(actor));
        self.schedule(0, Event::Wake { owner: self.actors.len() - 1, tag: 0 });
    }

    /// It is an actor's turn.
    pub fn with_actor(&mut self, own: usize, act: impl FnOnce(&mut dyn Actor, &mut Eyes<'_>)) {
        if let Some(mut actor) = self.actors[own].take() {
            act(actor.as_mut(), &mut Eyes { world: self, own });
            self.actors[own] = Some(actor);
        }
    }

    /// The newest state of the controller that any node has had.
    pub fn newest_metadata(&self) -> Option<&Arc<MetadataView>> {
        self.metadata.as_ref().map(|(_, view)| view)
    }

    /// The groups of one kind, as the controller has it.
    pub fn groups_of(&self, kind: GroupKind) -> Vec<RaftGroupId> {
        let Some(view) = self.newest_metadata() else { return Vec::new() };
        let topics = view.topics().filter(|topic| topic.kind() == kind);
        topics.flat_map(|topic| &topic.partitions).map(|partition| partition.group).collect()
    }

    /// Every group, the controller's first.
    pub fn groups(&self) -> Vec<RaftGroupId> {
        let mut groups = vec![CONTROLLER_GROUP];
        groups.extend(self.groups_of(GroupKind::Partition));
        groups.extend(self.groups_of(GroupKind::Coordinator));
        groups
    }

    /// Asks a node, in somebody's name.
    pub fn ask(&mut self, owner: usize, node: NodeId, group: RaftGroupId, request: Request) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.announce(ticket, node, group, &request);
        self.asked.insert(ticket, Asked { owner, node, group, what: What::of(&request) });
        let at = self.on_the_way(owner, node, true);
        let life = Some(self.node(node)).filter(|node| node.process.is_some()).map(|node| node.life);
        let ticketed = Box::new(Ticketed { group, request, life });
        self.schedule_at(at, Event::Request { node, ticket, ticketed });
        ticket
    }

    /// When something between an actor and a node arrives: what goes the same way stays in order.
    fn on_the_way(&mut self, owner: usize, node: NodeId, there: bool) -> u64 {
        let arrives = self.now + self.chances.clients.between(20, 400);
        let last = self.on_the_way.entry((owner, node, there)).or_default();
        *last = arrives.max(*last);
        *last
    }

    fn announce(&mut self, ticket: Ticket, node: NodeId, group: RaftGroupId, request: &Request) {
        self.trace.note(self.now, "ask", &[ticket.0, u64::from(node.0), group.0], || {
            let what = match request {
                Request::Produce { value, batch, sequence } => format!("write {value}+{} {sequence:?}", batch.count()),
                Request::Command { data, .. } => format!("command of {} bytes", data.len()),
                other => format!("{other:?}"),
            };
            format!("{}: node {node}, group {group}: {what}", ticket.0)
        });
        match request {
            Request::Produce { value, batch, sequence } => {
                let producer = sequence.map(|sequence| (sequence.producer, sequence.first));
                let count = batch.count().unsigned_abs();
                self.watch.tell(&Observation::Wrote { ticket, group, node, value: *value, count, producer });
            }
            Request::Trim { offset } => self.watch.tell(&Observation::TrimBegan { ticket, group, offset: *offset }),
            Request::Read { linearizable, .. } => {
                self.watch.tell(&Observation::ReadBegan { ticket, node, group, linearizable: *linearizable });
            }
            Request::Command { .. } | Request::Offsets { .. } | Request::Topics => {}
        }
    }

    /// Whom a client would ask about a group: mostly the node that serves it, sometimes any.
    pub fn guess(&mut self, group: RaftGroupId) -> NodeId {
        let count = self.nodes.len() as u64;
        let any = NodeId(1 + self.chances.clients.below(count) as u32);
        if !self.calm && self.chances.clients.one_in(12) {
            return any;
        }
        let serving: Vec<_> = self.nodes.iter().filter(|node| node.serves(group)).map(|node| node.id).collect();
        if serving.is_empty() { any } else { *self.chances.clients.pick(&serving) }
    }

    /// A ticket is answered, and its node says so.
    pub fn settle(&mut self, ticket: Ticket, answer: Answer) {
        let Some(Asked { owner, node, group, what }) = self.asked.remove(&ticket) else { return };
        let is_write = matches!(what, What::Produce | What::Command);
        match &answer {
            Answer::Reply(Reply::Applied { at, outcome }) => {
                if matches!(what, What::Produce) {
                    self.report.acknowledged += 1;
                }
                if matches!(outcome, Outcome::Appended { duplicate: true, .. }) {
                    self.coverage.hit("duplicate answered");
                }
                self.watch.tell(&Observation::Acked { ticket, node, group, at: *at, outcome });
            }
            Answer::Reply(Reply::Refused(why)) => {
                self.coverage.hit(refusal_name(*why));
                self.watch.tell(&Observation::Refused { ticket });
            }
            Answer::Reply(Reply::Undecided) | Answer::Lost => {
                if is_write {
                    self.coverage.hit("write left open");
                }
                self.watch.tell(&Observation::Open { ticket });
            }
            _ => {}
        }
        self.trace.note(self.now, "answer", &[ticket.0, fingerprint(&answer)], || format!("{}: {answer:?}", ticket.0));
        let at = self.on_the_way(owner, node, false);
        self.schedule_at(at, Event::Answer { owner, ticket, answer: Box::new(answer) });
    }

    /// Whoever waits for this node waits in vain; what has not reached it yet certainly was not done.
    pub fn lose_asked(&mut self, node: NodeId) {
        let waiting = self.nodes[Self::position(node)].process.as_ref().map(|process| &process.waiting);
        let taken = |ticket: &Ticket| waiting.is_some_and(|waiting| waiting.contains_key(ticket));
        let lost: Vec<_> = self
            .asked
            .iter()
            .filter(|(ticket, asked)| asked.node == node && taken(ticket))
            .map(|(ticket, _)| *ticket)
            .collect();
        lost.into_iter().for_each(|ticket| self.settle(ticket, Answer::Lost));
    }

    /// Those who wait at the door of a process that ends are turned away.
    pub fn turn_away(&mut self, position: usize) {
        let Some(process) = self.nodes[position].process.as_mut() else { return };
        for (ticket, _) in std::mem::take(&mut process.at_the_door) {
            self.settle(ticket, Answer::Reply(Reply::Refused(Refused::NoReplica)));
        }
    }
}

fn refusal_name(why: Refused) -> &'static str {
    match why {
        Refused::NoReplica => "refused: no replica",
        Refused::NotLeader => "refused: not the leader",
        Refused::Busy => "refused: busy",
        Refused::NoSpace => "refused: no space",
        Refused::Overwritten => "refused: overwritten",
        Refused::OutOfTurn => "refused: out of turn",
    }
}

fn fingerprint(answer: &Answer) -> u64 {
    match answer {
        Answer::Reply(Reply::Applied { at, .. }) => at.index.0 << 8 | 1,
        Answer::Reply(Reply::ReadAt(index)) => index.0 << 8 | 2,
        Answer::Reply(Reply::Refused(why)) => (*why as u64) << 8 | 3,
        Answer::Reply(Reply::Undecided) => 4,
        Answer::Read(seen) => seen.end.0.cast_unsigned() << 8 | 5,
        Answer::Offsets(offsets) => (offsets.len() as u64) << 8 | 6,
        Answer::Topics(topics) => (topics.len() as u64) << 8 | 7,
        Answer::Lost => 8,
    }
}
