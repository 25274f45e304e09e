//! Topics come, grow, are reconfigured and go, while others ask which there are.

use super::{Answer, Request};
use crate::chance::{Chance, MILLISECOND};
use crate::observe::Observation;
use crate::sight::{Actor, Sight};
use ackord::controller::command::{
    Answer as Decided, Command, ConfigChanges, ConfigOperation, Layout, MorePartitions, NewTopic, TopicReference,
};
use ackord::machine::Outcome;
use ackord::multiraft::core::effect::{Reply, Ticket};
use ackord::types::{CONTROLLER_GROUP, NodeId, TopicId};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Topics that are there at a time, at most: each partition has producers and readers of its own.
const TOPICS_MAX: usize = 2;
/// Partitions of a topic, at most.
const PARTITIONS_MAX: i32 = 3;
/// The ids of these topics begin here.
const FIRST_ID: u128 = 0x10_000;

/// A topic that may be there.
struct Topic {
    /// Its identity.
    id: TopicId,
    /// Its name.
    name: String,
    /// How many partitions it was told to have; 0 until it was told to be there.
    partitions: i32,
    /// Somebody has asked for its end.
    is_ending: bool,
}

/// A question that is on its way, by the topic it is about.
enum Question {
    /// Make it.
    Create(TopicId),
    /// Let it have so many partitions.
    Grow(TopicId, i32),
    /// Change its configs.
    Configure,
    /// End it.
    Delete(TopicId),
    /// Tell which there are.
    Read,
}

/// See the module.
pub struct Topics {
    /// The nodes of the cluster.
    nodes: Vec<NodeId>,
    /// Where a partition's replicas may be, all in equal number: there a majority keeps its disks.
    places: Vec<Vec<NodeId>>,
    /// What may be there.
    topics: Vec<Topic>,
    /// Topics made so far.
    made: u128,
    /// Questions that are not answered yet.
    asked: BTreeMap<Ticket, Question>,
    /// The faults have stopped.
    is_calm: bool,
}

impl Topics {
    /// Topics on a cluster of so many nodes, whose partitions have their replicas in some of these places.
    pub fn new(nodes: u32, mut places: Vec<Vec<NodeId>>) -> Self {
        let nodes = (1..=nodes).map(NodeId).collect();
        let factor = places.first().map_or(0, Vec::len);
        places.retain(|place| place.len() == factor);
        Self { nodes, places, topics: Vec::new(), made: 0, asked: BTreeMap::new(), is_calm: false }
    }

    fn place(&self, partitions: u64, sight: &mut dyn Sight) -> Vec<Vec<NodeId>> {
        (0..partitions).map(|_| sight.chance().pick(&self.places).clone()).collect()
    }

    fn ask(&mut self, question: Question, command: &Command, sight: &mut dyn Sight) {
        let data = command.encode().expect("a command for one topic is short");
        let node = sight.guess(CONTROLLER_GROUP);
        let ticket = sight.ask(node, CONTROLLER_GROUP, Request::Command { context: Bytes::new(), data });
        self.asked.insert(ticket, question);
    }

    fn change(&mut self, sight: &mut dyn Sight) {
        if self.topics.len() < TOPICS_MAX && sight.chance().one_in(3) {
            return self.create(sight);
        }
        let candidates: Vec<_> = (0..self.topics.len()).filter(|place| !self.topics[*place].is_ending).collect();
        if candidates.is_empty() {
            return self.delete(sight);
        }
        let place = *sight.chance().pick(&candidates);
        match sight.chance().below(4) {
            0 => self.grow(place, sight),
            1 => self.configure(place, sight),
            2 => {
                self.topics[place].is_ending = true;
                self.delete(sight);
            }
            _ => self.delete(sight),
        }
    }

    fn create(&mut self, sight: &mut dyn Sight) {
        self.made += 1;
        let (id, name) = (TopicId(FIRST_ID + self.made), format!("churn-{}", self.made));
        let partitions = sight.chance().between(1, 2);
        let layout = Layout::Manual(self.place(partitions, sight));
        self.topics.push(Topic { id, name: name.clone(), partitions: 0, is_ending: false });
        let topics = vec![NewTopic { id, name, layout, configs: Vec::new() }];
        let command = Command::CreateTopics { topics, live: self.nodes.clone(), now_ms: 1, validate_only: false };
        self.ask(Question::Create(id), &command, sight);
    }

    fn grow(&mut self, place: usize, sight: &mut dyn Sight) {
        let Topic { id, name, partitions, .. } = &self.topics[place];
        let (id, name, count) = (*id, name.clone(), partitions + 1);
        if *partitions == 0 || count > PARTITIONS_MAX {
            return;
        }
        let topics = vec![MorePartitions { name, count, assignment: Some(self.place(1, sight)) }];
        let command = Command::CreatePartitions { topics, live: self.nodes.clone(), validate_only: false };
        self.ask(Question::Grow(id, count), &command, sight);
    }

    fn configure(&mut self, place: usize, sight: &mut dyn Sight) {
        let name = self.topics[place].name.clone();
        let bytes = sight.chance().between(1 << 20, 1 << 30).to_string();
        let operations = vec![("retention.bytes".to_owned(), ConfigOperation::Set(Some(bytes)))];
        let topics = vec![ConfigChanges { name, replace: false, operations }];
        self.ask(Question::Configure, &Command::AlterTopicConfigs { topics, validate_only: false }, sight);
    }

    /// Asks, perhaps again, for the end of a topic that is to go.
    fn delete(&mut self, sight: &mut dyn Sight) {
        let Some(topic) = self.topics.iter().find(|topic| topic.is_ending) else { return };
        let id = topic.id;
        sight.tell(&Observation::TopicDeletionBegan { topic: id });
        let command = Command::DeleteTopics { topics: vec![TopicReference::Id(id)] };
        self.ask(Question::Delete(id), &command, sight);
    }

    fn read(&mut self, sight: &mut dyn Sight) {
        let node = sight.guess(CONTROLLER_GROUP);
        let ticket = sight.ask(node, CONTROLLER_GROUP, Request::Topics);
        sight.tell(&Observation::TopicsReadBegan { ticket });
        self.asked.insert(ticket, Question::Read);
    }

    fn made(&mut self, id: TopicId, partitions: i32, sight: &mut dyn Sight) {
        sight.tell(&Observation::TopicMade { topic: id, partitions: partitions as usize });
        if let Some(topic) = self.topics.iter_mut().find(|topic| topic.id == id) {
            topic.partitions = topic.partitions.max(partitions);
        }
    }

    fn decided(&mut self, question: &Question, decided: &Decided, sight: &mut dyn Sight) {
        match (question, decided) {
            (Question::Create(id), Decided::Created(results)) => match results.first() {
                Some((_, Ok(created))) => self.made(*id, created.partitions, sight),
                // Too few nodes have registered yet: it is not there.
                _ => self.topics.retain(|topic| topic.id != *id),
            },
            (Question::Grow(id, count), Decided::Changed(results)) if matches!(results.first(), Some((_, Ok(())))) => {
                self.made(*id, *count, sight);
            }
            // It is gone now, or was gone before, or has never come: it will not come any more.
            (Question::Delete(id), Decided::Deleted(results)) => {
                let was_there = results.iter().any(|deleted| deleted.result.is_ok());
                let topic = self.topics.iter().position(|topic| topic.id == *id);
                if let Some(place) = topic.filter(|place| was_there || self.topics[*place].partitions > 0) {
                    sight.tell(&Observation::TopicDeleted { topic: *id });
                    self.topics.remove(place);
                } else if let Some(place) = topic {
                    // Its creation may still be on its way, so that nobody may say that it is gone for good.
                    self.topics.remove(place);
                }
            }
            _ => {}
        }
    }
}

impl Actor for Topics {
    fn woken(&mut self, _tag: u64, sight: &mut dyn Sight) {
        if self.is_calm {
            return;
        }
        if sight.chance().one_in(2) {
            self.read(sight);
        } else {
            self.change(sight);
        }
        let after = sight.chance().between(100 * MILLISECOND, 1_500 * MILLISECOND);
        sight.wake(0, after);
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, sight: &mut dyn Sight) {
        let Some(question) = self.asked.remove(&ticket) else { return };
        match (&question, answer) {
            (Question::Read, Answer::Topics(topics)) => {
                sight.tell(&Observation::TopicsReadEnded { ticket, topics: &topics });
            }
            (_, Answer::Reply(Reply::Applied { outcome: Outcome::Answer(bytes), .. })) => {
                let decided = Decided::decode(&bytes).expect("the controller's answer can be read");
                self.decided(&question, &decided, sight);
            }
            // What was refused may be asked for again under another name; what is open may be there.
            (Question::Create(id), Answer::Reply(Reply::Refused(_))) => self.topics.retain(|topic| topic.id != *id),
            (Question::Create(id), _) => {
                let open = self.topics.iter_mut().find(|topic| topic.id == *id);
                open.into_iter().for_each(|topic| topic.is_ending = true);
            }
            _ => {}
        }
    }

    fn stop(&mut self) {
        self.is_calm = true;
    }

    fn is_settled(&self, _sight: &dyn Sight) -> bool {
        self.is_calm && self.asked.is_empty()
    }

    fn describe(&self) -> String {
        format!("topics: {} questions are open", self.asked.len())
    }
}
