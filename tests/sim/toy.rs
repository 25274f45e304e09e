//! The smallest cluster that workloads can be driven against: one replica of each group, which applies what it takes at
//! once, refuses some, and answers some not at all. It shows that workloads and invariants fit each other, and that
//! what workloads do is enough to notice a broken promise.

use crate::chance::{Chance, MILLISECOND, SECOND};
use crate::invariants;
use crate::invariants::sample::replica;
use crate::observe::Observation;
use crate::sight::{Actor, Groups, Sight};
use crate::swarm::Load;
use crate::watch::Watch;
use crate::workload::consume::Consume;
use crate::workload::produce::Produce;
use crate::workload::read::Read;
use crate::workload::topics::Topics;
use crate::workload::trim::Trim;
use crate::workload::{Answer, Request, Seen};
use ackord::controller::Controller;
use ackord::controller::command::{Command as Administer, Layout, NewTopic, Registration};
use ackord::controller::view::MetadataView;
use ackord::coordinator::{Coordinator, offsets};
use ackord::machine::Outcome;
use ackord::multiraft::apply::machine::Machine;
use ackord::multiraft::apply::{Applier, NoObserver};
use ackord::multiraft::core::BIRTH;
use ackord::multiraft::core::effect::{Refused, Reply, Ticket};
use ackord::partition::Partition;
use ackord::partition::command::Command;
use ackord::partition::read::PartitionView;
use ackord::partition::retention::Retention;
use ackord::sim::Random;
use ackord::sim::engine::SimEngine;
use ackord::storage::{Engine as _, WriteBatch};
use ackord::types::{
    CONTROLLER_GROUP, COORDINATOR_TOPIC, ClusterId, EntryKind, GroupKind, Incarnation, LogEntry, LogId, LogIndex,
    Membership, NodeId, Offset, RaftGroupId, Term, TopicId,
};
use ackord::wal::{GroupWrite, LogChange, Turn};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The one node.
const NODE: NodeId = NodeId(1);
/// How long the faults go on.
const LASTS: u64 = 20 * SECOND;

/// A promise that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sabotage {
    /// None.
    Nothing,
    /// Some batches are acknowledged where none is.
    AcknowledgeLost,
    /// A refusal is not definite.
    RefuseWhatIsDone,
    /// Readers are shown less than there is.
    ReadShort,
    /// Stored offsets are read as they were.
    OldOffsets,
    /// A deleted topic is shown.
    OldTopics,
    /// Members believe what is not committed.
    BelieveUncommitted,
}

/// Something that happens at a moment.
enum Event {
    /// An actor is woken.
    Wake(u64),
    /// A question arrives.
    Request(Ticket, RaftGroupId, Request),
    /// An answer arrives.
    Answer(Ticket, Answer),
}

/// See the module.
struct Toy {
    /// Virtual time.
    now: u64,
    /// What is planned, by time and then by order, and whom it is about.
    plan: BTreeMap<(u64, u64), (usize, Event)>,
    /// How much was planned.
    planned: u64,
    /// Chance.
    random: Random,
    /// The invariants.
    watch: Watch,
    /// The state machines.
    applier: Applier<SimEngine>,
    /// Each group's last entry.
    last: BTreeMap<RaftGroupId, LogIndex>,
    /// Sequences that were refused first: until they come again, their producers' batches are refused, as nodes do.
    refused: BTreeMap<(RaftGroupId, i64), i32>,
    /// The faults have stopped.
    is_calm: bool,
    /// What is broken on purpose.
    sabotage: Sabotage,
    /// Batches that were acknowledged, reads, offsets and topics that were told.
    counts: [usize; 4],
    /// Topics as they were first told.
    old_topics: Option<BTreeMap<TopicId, Vec<RaftGroupId>>>,
    /// Offsets as they were first told, by group.
    old_offsets: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// One actor's view of the toy.
struct Eyes<'a> {
    /// All of it.
    toy: &'a mut Toy,
    /// Who looks.
    own: usize,
}

impl Toy {
    fn new(seed: u64, sabotage: Sabotage) -> Self {
        let engine = SimEngine::default();
        let born = (BIRTH, Membership::of_voters([replica(NODE)]));
        let controller = Controller::open(&engine, ClusterId(1), born).expect("an empty database can be opened");
        let machines = BTreeMap::from([(CONTROLLER_GROUP, Machine::Controller(Box::new(controller)))]);
        let mut toy = Self {
            now: 0,
            plan: BTreeMap::new(),
            planned: 0,
            random: Random::new(seed),
            watch: Watch::new(invariants::all()),
            applier: Applier::new(engine, crate::node::CLUSTER, machines, Box::new(NoObserver)),
            last: BTreeMap::new(),
            refused: BTreeMap::new(),
            is_calm: false,
            sabotage,
            counts: [0; 4],
            old_topics: None,
            old_offsets: BTreeMap::new(),
        };
        toy.watch.tell(&Observation::Started { node: NODE, groups: &BTreeMap::new() });
        toy.born(CONTROLLER_GROUP);
        toy.begin();
        toy
    }

    /// The cluster has its node, a topic of two partitions and a coordinator.
    fn begin(&mut self) {
        let registration = Registration {
            node: NODE,
            incarnation: Incarnation(1),
            rack: None,
            listeners: Vec::new(),
            feature_level_max: 1,
        };
        self.administer(&Administer::RegisterBroker(registration));
        for (id, name, count) in [(1, "topic", 2), (2, COORDINATOR_TOPIC, 1)] {
            let layout = Layout::Manual(vec![vec![NODE]; count]);
            let topics = vec![NewTopic { id: TopicId(id), name: name.to_owned(), layout, configs: Vec::new() }];
            self.administer(&Administer::CreateTopics { topics, live: vec![NODE], now_ms: 1, validate_only: false });
        }
    }

    fn administer(&mut self, command: &Administer) {
        let data = command.encode().expect("a short command");
        self.apply(CONTROLLER_GROUP, Bytes::new(), data);
    }

    /// A group exists from now on.
    fn born(&mut self, group: RaftGroupId) {
        let hard_state = ackord::types::HardState { term: Term(1), vote: None, commit: BIRTH.index };
        let write = GroupWrite { group, hard_state, change: LogChange::Born { start: BIRTH } };
        self.watch.tell(&Observation::Persisted { node: NODE, write: &write });
        let membership = Membership::of_voters([replica(NODE)]);
        self.watch.tell(&Observation::Members { group, at: BIRTH, membership: &membership });
        self.last.insert(group, BIRTH.index);
    }

    /// Takes a command into a group's log and applies it. Nobody takes a command of a group that is gone.
    fn apply(&mut self, group: RaftGroupId, context: Bytes, data: Bytes) -> Option<(LogId, Outcome)> {
        let last = self.last.get_mut(&group)?;
        *last = last.next();
        let id = LogId { index: *last, term: Term(1) };
        let entry = LogEntry { id, kind: EntryKind::Normal, context, data };
        let hard_state = ackord::types::HardState { term: Term(1), vote: None, commit: id.index };
        let write = GroupWrite { group, hard_state, change: LogChange::Append(vec![entry.clone()]) };
        let turn = Turn { writes: vec![write] };
        self.watch.tell(&Observation::Writing { node: NODE, turn: &turn });
        self.watch.tell(&Observation::Persisted { node: NODE, write: &turn.writes[0] });
        self.watch.tell(&Observation::Committed { node: NODE, group, term: Term(1), commit: id });
        let outcomes = self.applier.apply(group, std::slice::from_ref(&entry), &[]).expect("it applies");
        let (_, outcome) = outcomes.into_iter().next().expect("one entry, one outcome");
        self.watch.tell(&Observation::Applied { node: NODE, group, entry: &entry, outcome: &outcome });
        if let Some(PartitionView { log_start, high_watermark, .. }) = self.view(group) {
            self.watch.tell(&Observation::Bounds { node: NODE, group, log_start, high_watermark });
        }
        if group == CONTROLLER_GROUP {
            self.follow();
        }
        Some((id, outcome))
    }

    /// Makes and ends groups as the controller has it.
    fn follow(&mut self) {
        let view = self.metadata();
        let wanted: BTreeMap<_, _> = view
            .topics()
            .flat_map(|topic| topic.partitions.iter().map(|partition| (partition.group, topic.kind())))
            .chain([(CONTROLLER_GROUP, GroupKind::Partition)])
            .collect();
        self.last.retain(|group, _| wanted.contains_key(group));
        for (group, kind) in wanted {
            if self.last.contains_key(&group) {
                continue;
            }
            let (mut batch, members) = (WriteBatch::default(), Membership::of_voters([replica(NODE)]));
            let machine = match kind {
                GroupKind::Partition => {
                    Machine::Partition(Box::new(Partition::create(group, BIRTH, members, &mut batch)))
                }
                GroupKind::Coordinator => {
                    Machine::Coordinator(Box::new(Coordinator::create(group, BIRTH, members, &mut batch)))
                }
            };
            self.applier.engine().write(batch).expect("the simulated database writes");
            self.applier.add(group, machine);
            self.born(group);
        }
    }

    fn metadata(&self) -> Arc<MetadataView> {
        match self.applier.machine(CONTROLLER_GROUP) {
            Some(Machine::Controller(controller)) => controller.view(),
            _ => unreachable!("group 0 is the controller"),
        }
    }

    fn view(&self, group: RaftGroupId) -> Option<PartitionView> {
        match self.applier.machine(group)? {
            Machine::Partition(partition) if self.last.contains_key(&group) => Some(partition.view()),
            _ => None,
        }
    }

    fn schedule(&mut self, after: u64, own: usize, event: Event) {
        self.planned += 1;
        self.plan.insert((self.now + after, self.planned), (own, event));
    }

    /// A question has arrived: it is refused, done, or both done and never answered.
    fn arrive(&mut self, own: usize, ticket: Ticket, group: RaftGroupId, request: Request) {
        let source = match &request {
            Request::Produce { sequence: Some(sequence), .. } => Some(((group, sequence.producer), sequence.first)),
            _ => None,
        };
        let fate = if self.is_calm { 99 } else { self.random.below(100) };
        let first = source.and_then(|(source, _)| self.refused.get(&source).copied());
        let waits = source.zip(first).is_some_and(|((_, sequence), first)| first != sequence);
        source.filter(|_| !waits).inspect(|(source, _)| {
            self.refused.remove(source);
        });
        let answer = if fate < 8 || waits {
            source.filter(|_| !waits).into_iter().for_each(|(source, first)| {
                self.refused.insert(source, first);
            });
            let done = self.sabotage == Sabotage::RefuseWhatIsDone && !waits;
            if done && let Request::Produce { batch, .. } = request {
                self.apply(group, Command::Produce { proposed_at_ms: 0 }.encode(), batch.into_bytes());
            }
            Answer::Reply(Reply::Refused(Refused::NotLeader))
        } else if fate < 12 {
            source.into_iter().for_each(|(source, first)| {
                self.refused.insert(source, first);
            });
            Answer::Lost
        } else {
            let answer = self.answer(ticket, group, request);
            if fate < 20 { Answer::Lost } else { answer }
        };
        match &answer {
            Answer::Reply(Reply::Applied { at, outcome }) => {
                self.counts[0] += usize::from(matches!(outcome, Outcome::Appended { .. }));
                self.watch.tell(&Observation::Acked { ticket, node: NODE, group, at: *at, outcome });
            }
            Answer::Reply(Reply::Refused(_)) => self.watch.tell(&Observation::Refused { ticket }),
            Answer::Lost => self.watch.tell(&Observation::Open { ticket }),
            _ => {}
        }
        let after = self.random.between(20, 20_000);
        self.schedule(after, own, Event::Answer(ticket, answer));
    }

    fn answer(&mut self, ticket: Ticket, group: RaftGroupId, request: Request) -> Answer {
        let gone = Answer::Reply(Reply::Refused(Refused::NoReplica));
        let (context, data) = match request {
            Request::Produce { batch, .. } => {
                if self.sabotage == Sabotage::AcknowledgeLost
                    && self.random.one_in(20)
                    && let Some(view) = self.view(group)
                {
                    let at = LogId { index: self.last[&group], term: Term(1) };
                    let outcome = Outcome::Appended { base_offset: view.high_watermark, duplicate: false };
                    return Answer::Reply(Reply::Applied { at, outcome });
                }
                (Command::Produce { proposed_at_ms: 0 }.encode(), batch.into_bytes())
            }
            Request::Trim { offset } => (Command::SetLogStart { offset }.encode(), Bytes::new()),
            Request::Command { context, data } => (context, data),
            Request::Read { from, bytes_max, .. } => {
                return self.read(ticket, group, from, bytes_max).map_or(gone, Answer::Read);
            }
            Request::Offsets { group: name } => return Answer::Offsets(self.offsets(group, name)),
            Request::Topics => return Answer::Topics(self.topics()),
        };
        match self.apply(group, context, data) {
            Some((at, outcome)) => Answer::Reply(Reply::Applied { at, outcome }),
            None => gone,
        }
    }

    fn read(&mut self, ticket: Ticket, group: RaftGroupId, from: Option<Offset>, bytes_max: usize) -> Option<Seen> {
        let view = self.view(group)?;
        let mut end = view.high_watermark;
        let from = from.unwrap_or_default().max(view.log_start).min(end);
        let batches = view.fetch(self.applier.engine(), from, bytes_max, true).expect("the partition can be read");
        let values = batches.iter().flat_map(|batch| {
            let values = crate::batch::values_of(&batch.batch);
            (batch.base_offset.0..).map(Offset).zip(values).collect::<Vec<_>>()
        });
        let mut records: Vec<_> = values.filter(|(offset, _)| *offset >= from).collect();
        if self.sabotage == Sabotage::ReadShort && self.random.one_in(10) {
            end = Offset(end.0 - 1).max(view.log_start);
            records.retain(|(offset, _)| *offset < end);
        }
        let (log_start, epoch) = (view.log_start, Term(1));
        let seen = Observation::ReadEnded { ticket, node: NODE, group, epoch, log_start, end, records: &records };
        self.watch.tell(&seen);
        self.counts[1] += 1;
        Some(Seen { log_start, end, records })
    }

    fn offsets(&mut self, group: RaftGroupId, name: String) -> BTreeMap<i32, i64> {
        let stored = offsets::read_all(self.applier.engine(), group, &name).expect("the database reads");
        let stored: BTreeMap<_, _> = stored.into_iter().map(|(_, partition, row)| (partition, row.offset)).collect();
        self.counts[2] += stored.len();
        if self.sabotage == Sabotage::OldOffsets && !stored.is_empty() {
            return self.old_offsets.entry(name).or_insert(stored).clone();
        }
        stored
    }

    fn topics(&mut self) -> BTreeMap<TopicId, Vec<RaftGroupId>> {
        let view = self.metadata();
        let groups = |topic: &ackord::controller::view::Topic| topic.partitions.iter().map(|one| one.group).collect();
        let topics: BTreeMap<_, _> = view.topics().map(|topic| (topic.id, groups(topic))).collect();
        self.counts[3] += 1;
        if self.sabotage == Sabotage::OldTopics && topics.len() > 2 {
            return self.old_topics.get_or_insert(topics).clone();
        }
        topics
    }
}

impl Sight for Eyes<'_> {
    fn chance(&mut self) -> &mut Random {
        &mut self.toy.random
    }

    fn ask(&mut self, node: NodeId, group: RaftGroupId, request: Request) -> Ticket {
        let ticket = Ticket(self.toy.planned + 1);
        let observation = match &request {
            Request::Produce { value, batch, sequence } => {
                let producer = sequence.map(|sequence| (sequence.producer, sequence.first));
                let (value, count) = (*value, batch.count() as u32);
                Some(Observation::Wrote { ticket, group, node, value, count, producer })
            }
            Request::Trim { offset } => Some(Observation::TrimBegan { ticket, group, offset: *offset }),
            Request::Read { linearizable, .. } => {
                Some(Observation::ReadBegan { ticket, node, group, linearizable: *linearizable })
            }
            Request::Command { .. } | Request::Offsets { .. } | Request::Topics => None,
        };
        observation.into_iter().for_each(|observation| self.toy.watch.tell(&observation));
        // In order: what a producer sends to a node does not overtake itself.
        self.toy.schedule(500, self.own, Event::Request(ticket, group, request));
        ticket
    }

    fn wake(&mut self, tag: u64, after: u64) {
        self.toy.schedule(after, self.own, Event::Wake(tag));
    }

    fn tell(&mut self, observation: &Observation<'_>) {
        self.toy.watch.tell(observation);
    }

    fn guess(&mut self, _group: RaftGroupId) -> NodeId {
        NODE
    }

    fn groups(&self, kind: GroupKind) -> Vec<RaftGroupId> {
        let view = self.toy.metadata();
        let topics = view.topics().filter(|topic| topic.kind() == kind);
        topics.flat_map(|topic| topic.partitions.iter().map(|partition| partition.group)).collect()
    }

    fn bounds(&self, _node: NodeId, group: RaftGroupId) -> Option<(Offset, Offset)> {
        self.toy.view(group).map(|view| (view.log_start, view.high_watermark))
    }

    fn retained_start(&self, _node: NodeId, group: RaftGroupId, bytes: u64) -> Option<Offset> {
        let retention = Retention { age_max_ms: None, bytes: Some(bytes) };
        self.toy.view(group)?.retained_start(self.toy.applier.engine(), &retention, 0).expect("the database reads")
    }

    fn consumer_groups(&self, _node: NodeId, raft: RaftGroupId) -> Option<Groups> {
        match self.toy.applier.machine(raft)? {
            Machine::Coordinator(coordinator) => Some(coordinator.groups().clone()),
            _ => None,
        }
    }
}

/// Runs a seed: what was broken, if anything, and what was done.
fn run(seed: u64, sabotage: Sabotage) -> (Option<String>, [usize; 4]) {
    let mut toy = Toy::new(seed, sabotage);
    let load = Load {
        producers: 2,
        idempotent_percent: 50,
        inflight: 5,
        pause: (5 * MILLISECOND, 100 * MILLISECOND),
        record_bytes: (0, 100),
        read_pause: (10 * MILLISECOND, 200 * MILLISECOND),
        trim_pause: (100 * MILLISECOND, 2 * SECOND),
    };
    let mut actors: Vec<Box<dyn Actor>> = vec![
        Box::new(Produce::new(load.clone())),
        Box::new(Read::new(load.clone())),
        Box::new(Trim::new(load)),
        Box::new(Consume::new(sabotage == Sabotage::BelieveUncommitted)),
        Box::new(Topics::new(1, vec![vec![NODE]])),
    ];
    (0..actors.len()).for_each(|own| toy.schedule(0, own, Event::Wake(0)));
    while let Some(((now, _), (own, event))) = toy.plan.pop_first() {
        toy.now = now;
        if now > LASTS && !std::mem::replace(&mut toy.is_calm, true) {
            actors.iter_mut().for_each(|actor| actor.stop());
        }
        let actor = &mut actors[own];
        match event {
            Event::Wake(tag) => actor.woken(tag, &mut Eyes { toy: &mut toy, own }),
            Event::Request(ticket, group, request) => toy.arrive(own, ticket, group, request),
            Event::Answer(ticket, answer) => actor.answered(ticket, answer, &mut Eyes { toy: &mut toy, own }),
        }
        if let Some(violation) = toy.watch.violation() {
            return (Some(violation.to_owned()), toy.counts);
        }
        if toy.is_calm && actors.iter().enumerate().all(|(own, actor)| actor.is_settled(&Eyes { toy: &mut toy, own })) {
            return (None, toy.counts);
        }
        if now > 2 * LASTS {
            let unsettled = actors.iter().map(|actor| actor.describe()).collect::<Vec<_>>().join("\n");
            return (Some(format!("nobody settles:\n{unsettled}")), toy.counts);
        }
    }
    unreachable!("actors wake themselves for ever")
}

#[test]
fn workloads_do_their_work_and_break_nothing() {
    let mut counts = [0; 4];
    for seed in 0..20 {
        let (violation, done) = run(seed, Sabotage::Nothing);
        assert_eq!(violation, None, "seed {seed}");
        counts.iter_mut().zip(done).for_each(|(sum, count)| *sum += count);
    }
    let [batches, reads, offsets, topics] = counts;
    println!("{batches} batches, {reads} reads, {offsets} offsets, {topics} lists of topics");
    assert!(batches > 5_000 && reads > 5_000 && offsets > 500 && topics > 200, "{counts:?}: too little to mean much");
}

#[test]
fn workloads_notice_broken_promises() {
    let controls = [
        (Sabotage::AcknowledgeLost, "committed_immutable"),
        (Sabotage::RefuseWhatIsDone, "only_written"),
        (Sabotage::ReadShort, "linearizable_end"),
        (Sabotage::OldOffsets, "stored_offsets"),
        (Sabotage::OldTopics, "topics_kept"),
        (Sabotage::BelieveUncommitted, "group_owners"),
    ];
    for (sabotage, invariant) in controls {
        let complaint = (0..20).find_map(|seed| run(seed, sabotage).0);
        let complaint = complaint.unwrap_or_else(|| panic!("{sabotage:?} is not noticed in 20 seeds"));
        assert!(complaint.starts_with(invariant), "{sabotage:?} is noticed as {complaint}");
    }
}
