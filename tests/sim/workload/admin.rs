//! The cluster's administrator: registers every node with the controller and makes the first topics, one command after
//! another, each until it is done.

use super::{Answer, Request};
use crate::chance::{Chance, MILLISECOND};
use crate::observe::Observation;
use crate::sight::{Actor, Sight};
use crate::swarm::Shape;
use ackord::controller::command::{Answer as Decided, Command, Layout, NewTopic, Registration};
use ackord::machine::Outcome;
use ackord::multiraft::core::effect::{Reply, Ticket};
use ackord::types::{CONTROLLER_GROUP, COORDINATOR_TOPIC, Incarnation, NodeId, TopicId};
use bytes::Bytes;
use std::collections::VecDeque;

/// See the module.
pub struct Admin {
    /// What is still to be done.
    commands: VecDeque<Command>,
    /// What was asked last.
    waiting: Option<Ticket>,
}

impl Admin {
    /// Everything is to be done.
    pub fn new(shape: &Shape) -> Self {
        let live: Vec<_> = (1..=shape.nodes).map(NodeId).collect();
        let mut commands: VecDeque<_> = live.iter().map(|node| Command::RegisterBroker(registration(*node))).collect();
        let topics = [("topic", 0x70, &shape.partitions), (COORDINATOR_TOPIC, 0xc0, &shape.coordinators)];
        for (name, id, replicas) in topics {
            // Kafka wants every partition of a topic to have as many replicas, so each number is a topic of its own.
            for factor in 1..=7 {
                let alike: Vec<_> = replicas.iter().filter(|nodes| nodes.len() == factor).cloned().collect();
                if alike.is_empty() {
                    continue;
                }
                let name = if name == COORDINATOR_TOPIC { name.to_owned() } else { format!("{name}-{factor}") };
                let id = TopicId(id + factor as u128);
                let topics = vec![NewTopic { id, name, layout: Layout::Manual(alike), configs: Vec::new() }];
                let live = live.clone();
                commands.push_back(Command::CreateTopics { topics, live, now_ms: 1, validate_only: false });
            }
        }
        Self { commands, waiting: None }
    }

    fn done(&mut self, decided: &Decided, sight: &mut dyn Sight) {
        if let (Some(Command::CreateTopics { topics, .. }), Decided::Created(_)) = (self.commands.front(), decided) {
            let NewTopic { id, layout: Layout::Manual(replicas), .. } = &topics[0] else { return };
            sight.tell(&Observation::TopicMade { topic: *id, partitions: replicas.len() });
        }
        self.commands.pop_front();
    }
}

fn registration(node: NodeId) -> Registration {
    let incarnation = Incarnation(0x1000 + u128::from(node.0));
    Registration { node, incarnation, rack: None, listeners: Vec::new(), feature_level_max: 1 }
}

impl Actor for Admin {
    fn woken(&mut self, _tag: u64, sight: &mut dyn Sight) {
        let (Some(command), None) = (self.commands.front(), self.waiting) else { return };
        let data = command.encode().expect("a command for one topic is short");
        let node = sight.guess(CONTROLLER_GROUP);
        self.waiting = Some(sight.ask(node, CONTROLLER_GROUP, Request::Command { context: Bytes::new(), data }));
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, sight: &mut dyn Sight) {
        if self.waiting.take_if(|waiting| *waiting == ticket).is_none() {
            return;
        }
        let mut pause = sight.chance().between(10 * MILLISECOND, 100 * MILLISECOND);
        if let Answer::Reply(Reply::Applied { outcome: Outcome::Answer(bytes), .. }) = answer {
            self.done(&Decided::decode(&bytes).expect("the controller's answer can be read"), sight);
            pause = MILLISECOND;
        }
        sight.wake(0, pause);
    }

    fn stop(&mut self) {}

    fn is_settled(&self, _sight: &dyn Sight) -> bool {
        self.commands.is_empty()
    }

    fn describe(&self) -> String {
        format!("administrator: {} commands are left", self.commands.len())
    }
}
