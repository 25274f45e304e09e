//! A controller over an engine in memory, and shorthand for what tests ask of it.

use ackord::controller::Controller;
use ackord::controller::command::{Answer, Command, CreatedTopic, Layout, NewTopic, Reason, Registration, Rejection};
use ackord::controller::view::{Listener, ListenerKind, MetadataView};
use ackord::machine::{Outcome, StateMachine};
use ackord::storage::{Engine, WriteBatch};
use ackord::types::{ClusterId, EntryKind, Incarnation, LogEntry, LogId, Membership, NodeId, ReplicaId, TopicId};
use bytes::Bytes;
use std::sync::Arc;

pub use crate::memory::Memory;

pub const CLUSTER: ClusterId = ClusterId(77);

/// Where the group begins in these tests, and with whom.
pub fn born() -> (LogId, Membership) {
    (LogId::new(1, 1), Membership::of_voters([ReplicaId::new(NodeId(1), 0)]))
}

pub fn open(engine: &Memory) -> Controller {
    Controller::open(engine, CLUSTER, born()).unwrap()
}

/// One replica of the controller.
pub struct World {
    pub engine: Memory,
    pub controller: Controller,
    /// Everything applied so far.
    pub log: Vec<LogEntry>,
}

impl World {
    /// A cluster of nodes 1 ..= `nodes`, without racks.
    pub fn of_nodes(nodes: u32) -> Self {
        let engine = Memory::default();
        let controller = open(&engine);
        let mut world = Self { engine, controller, log: Vec::new() };
        for node in 1..=nodes {
            assert_eq!(world.run(&Command::RegisterBroker(registration(node))), Answer::Done(Ok(())));
        }
        world
    }

    pub fn next_id(&self) -> LogId {
        LogId::new(self.controller.applied().index.0 + 1, 3)
    }

    pub fn apply(&mut self, entry: LogEntry) -> Outcome {
        let mut batch = WriteBatch::default();
        let outcome = self.controller.apply(std::slice::from_ref(&entry), &[], &mut batch).unwrap().remove(0);
        self.engine.write(batch).unwrap();
        self.log.push(entry);
        outcome
    }

    pub fn run(&mut self, command: &Command) -> Answer {
        let entry = command_entry(self.next_id(), command);
        match self.apply(entry) {
            Outcome::Answer(bytes) => Answer::decode(&bytes).unwrap(),
            other => panic!("a command is answered, not {other:?}"),
        }
    }

    pub fn view(&self) -> Arc<MetadataView> {
        self.controller.view()
    }

    pub fn create(&mut self, topic: NewTopic) -> Result<CreatedTopic, Rejection> {
        let live = self.view().brokers().map(|broker| broker.node).collect();
        match self.run(&Command::CreateTopics { topics: vec![topic], live, now_ms: 5, validate_only: false }) {
            Answer::Created(mut topics) => topics.remove(0).1,
            other => panic!("{other:?}"),
        }
    }
}

pub fn command_entry(id: LogId, command: &Command) -> LogEntry {
    LogEntry { id, kind: EntryKind::Normal, context: Bytes::new(), data: command.encode().unwrap() }
}

pub fn registration(node: u32) -> Registration {
    let listener = |kind, port| Listener { kind, host: format!("node{node}"), port };
    Registration {
        node: NodeId(node),
        incarnation: Incarnation(u128::from(node) << 64),
        rack: None,
        listeners: vec![listener(ListenerKind::Kafka, 9092), listener(ListenerKind::Peer, 9192)],
        feature_level_max: 1,
    }
}

pub fn topic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    let id = TopicId(name.bytes().fold(2, |sum, byte| sum * 257 + u128::from(byte)));
    NewTopic {
        id,
        name: name.to_owned(),
        layout: Layout::Counted { partitions, replication_factor },
        configs: Vec::new(),
    }
}

/// The reason of what must have been refused.
pub fn reason<T: std::fmt::Debug>(result: Result<T, Rejection>) -> Reason {
    result.expect_err("it must be refused").reason
}
