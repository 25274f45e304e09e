//! Members of consumer groups: they join, share partitions, store offsets, vanish and come back.
//!
//! What a broker's shell does for a member is done here: a command is proposed, and what a member has to wait for is
//! looked up in the state of the node that it asked. Timers are chance: a session may run out at any moment.
//!
//! * [`member`]: one member, and what it is about.
//! * [`timers`]: what a coordinator's leader does by itself.

mod member;
mod timers;

use super::{Answer, Request};
use crate::chance::{Chance, MILLISECOND};
use crate::observe::Observation;
use crate::sight::{Actor, Sight};
use ackord::coordinator::command::{
    Action, Answer as Decided, Assign, Command, Commit, Join, Joined, Leaver, NewOffset,
};
use ackord::coordinator::group::Phase;
use ackord::machine::Outcome;
use ackord::multiraft::core::effect::{Reply, Ticket};
use ackord::types::{GroupKind, NodeId, RaftGroupId};
use bytes::Bytes;
use member::{Consumer, Doing, Question};
use std::collections::BTreeMap;

/// Consumer groups of each coordinator.
const GROUPS_EACH: u64 = 2;
/// Consumers of each group; every other one is a static member.
const CONSUMERS_EACH: usize = 3;
/// Partitions that a group's members share.
const PARTITIONS: i32 = 5;
/// The topic that every group reads. No topic is called so: groups may store offsets for anything.
const TOPIC: &str = "orders";
/// Words that are stored with an offset: a log of commits fills its segments.
const TEXT_WORDS: u64 = 500;
/// How often it looks for coordinators, in microseconds.
const LOOK_PAUSE: u64 = 500 * MILLISECOND;
/// The tag of reads of offsets.
const OFFSETS: u64 = 1 << 32;
/// The tag of timers.
const TIMERS: u64 = OFFSETS + 1;

/// A question that is on its way.
struct Asked {
    /// The consumer's place in the list.
    consumer: usize,
    /// Through whom.
    node: NodeId,
    /// What.
    question: Question,
}

/// See the module.
#[derive(Default)]
pub struct Consume {
    /// All consumers, by tag − 1.
    consumers: Vec<Consumer>,
    /// Commands asked so far, for ids and offsets.
    asked: u64,
    /// Questions that are not answered yet.
    open: BTreeMap<Ticket, Asked>,
    /// Reads of stored offsets that are not answered yet.
    reads: BTreeMap<Ticket, (RaftGroupId, String)>,
    /// The faults have stopped.
    is_calm: bool,
    /// Negative control: a leader believes its members as soon as it has told the coordinator.
    believes_uncommitted: bool,
}

fn encode(action: Action) -> Request {
    let data = Command { now_ms: 0, action }.encode().expect("a consumer's command is short");
    Request::Command { context: Bytes::new(), data }
}

impl Consume {
    /// Members of groups of every coordinator there will be.
    pub fn new(believes_uncommitted: bool) -> Self {
        Self { believes_uncommitted, ..Self::default() }
    }

    fn look(&mut self, sight: &mut dyn Sight) {
        for raft in sight.groups(GroupKind::Coordinator) {
            if self.consumers.iter().any(|consumer| consumer.raft == raft) {
                continue;
            }
            for group in 0..GROUPS_EACH {
                for place in 0..CONSUMERS_EACH {
                    let instance = (place % 2 == 1).then(|| format!("static-{place}"));
                    self.consumers.push(Consumer::new(raft, format!("group-{group}"), instance));
                    sight.wake(self.consumers.len() as u64, 0);
                }
            }
        }
    }

    fn ask(&mut self, consumer: usize, question: Question, action: Action, sight: &mut dyn Sight) {
        let node = self.consumers[consumer].node;
        self.ask_at(consumer, node, question, action, sight);
    }

    fn ask_at(&mut self, place: usize, node: NodeId, question: Question, action: Action, sight: &mut dyn Sight) {
        self.asked += 1;
        let consumer = &mut self.consumers[place];
        consumer.doing = Doing::Asking;
        let ticket = sight.ask(node, consumer.raft, encode(action));
        if let Question::Join = question {
            sight.tell(&Observation::JoinBegan { ticket, group: consumer.group() });
        }
        self.open.insert(ticket, Asked { consumer: place, node, question });
    }

    /// A consumer does the next thing.
    fn act(&mut self, place: usize, sight: &mut dyn Sight) {
        match self.consumers[place].doing {
            Doing::Asking => {}
            _ if !sight.is_worth_asking(self.consumers[place].raft) => {}
            Doing::Out => self.join(place, sight),
            Doing::Joining { generation } => self.look_for_generation(place, generation, sight),
            Doing::Syncing { generation } => self.look_for_share(place, generation, sight),
            Doing::Working => self.work(place, sight),
        }
    }

    fn join(&mut self, place: usize, sight: &mut dyn Sight) {
        let node = sight.guess(self.consumers[place].raft);
        let mut flip = |times| sight.chance().one_in(times);
        let (two_steps, can_skip_assignment, delay_first) = (flip(2), flip(2), flip(4));
        let consumer = &self.consumers[place];
        let join = Join {
            group: consumer.name.clone(),
            member: consumer.id.clone(),
            new_member: format!("member-{}", self.asked),
            instance: consumer.instance.clone(),
            two_steps,
            can_skip_assignment,
            client_id: format!("consumer-{place}"),
            client_host: "/10.0.0.1".to_owned(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Vec::new())],
            delay_first,
            members_max: 100,
        };
        self.ask_at(place, node, Question::Join, Action::Join(join), sight);
    }

    fn look_for_generation(&mut self, place: usize, wanted: i32, sight: &mut dyn Sight) {
        let Some(group) = self.consumers[place].look(sight) else { return };
        let consumer = &mut self.consumers[place];
        let generation = group.members[&consumer.id].generation;
        if group.generation < wanted || generation < wanted {
            return;
        }
        consumer.doing = Doing::Syncing { generation };
        sight.tell(&Observation::Generation { group: consumer.group(), generation });
        let leads = group.leader.as_ref() == Some(&consumer.id) && generation == group.generation;
        if !leads || group.phase != Phase::Completing {
            return;
        }
        // Dealt anew each time: two assignments of one generation would show.
        let members: Vec<_> = group.members.values().filter(|member| member.generation == generation).collect();
        let mut shares: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let member = sight.chance().pick(&members);
            shares.entry(member.id.clone()).or_default().push(partition as u8);
        }
        let assignments: Vec<_> = shares.into_iter().collect();
        if self.believes_uncommitted {
            self.believe(place, generation, &assignments, sight);
        }
        let consumer = &self.consumers[place];
        let assign = Assign {
            group: consumer.name.clone(),
            generation,
            member: consumer.id.clone(),
            instance: consumer.instance.clone(),
            assignments,
        };
        self.ask(place, Question::Assign { generation }, Action::Assign(assign), sight);
    }

    /// The negative control: who waits for a share takes what is not committed yet.
    fn believe(&mut self, place: usize, generation: i32, shares: &[(String, Vec<u8>)], sight: &mut dyn Sight) {
        let (raft, name) = (self.consumers[place].raft, self.consumers[place].name.clone());
        for (other, consumer) in self.consumers.iter_mut().enumerate() {
            let waits = other != place && !matches!(consumer.doing, Doing::Working | Doing::Asking);
            let share = shares.iter().find(|(member, _)| *member == consumer.id);
            if let Some((_, share)) = share.filter(|_| waits && consumer.raft == raft && consumer.name == name) {
                consumer.take_share(other, generation, share, sight);
            }
        }
    }

    fn look_for_share(&mut self, place: usize, generation: i32, sight: &mut dyn Sight) {
        let Some(group) = self.consumers[place].look(sight) else { return };
        let consumer = &mut self.consumers[place];
        if group.generation != generation || matches!(group.phase, Phase::Preparing { .. }) {
            consumer.doing = Doing::Out;
        } else if group.phase == Phase::Stable {
            consumer.take_share(place, generation, &group.members[&consumer.id].assignment, sight);
        }
    }

    fn work(&mut self, place: usize, sight: &mut dyn Sight) {
        let node = sight.guess(self.consumers[place].raft);
        if !self.consumers[place].heartbeat(node, sight) || self.is_calm {
            return;
        }
        if sight.chance().one_in(12) {
            return self.leave(place, node, sight);
        }
        let consumer = &self.consumers[place];
        if consumer.share.is_empty() {
            return;
        }
        let partition = *sight.chance().pick(&consumer.share);
        let words = sight.chance().below(TEXT_WORDS) as usize;
        let (offset, metadata) = (self.asked as i64, "so far ".repeat(words));
        let commit = Commit {
            group: consumer.name.clone(),
            member: consumer.id.clone(),
            instance: consumer.instance.clone(),
            generation: consumer.generation,
            offsets: vec![(TOPIC.to_owned(), partition, NewOffset { offset, leader_epoch: 1, metadata })],
        };
        self.ask_at(place, node, Question::Commit { partition, offset }, Action::Commit(commit), sight);
    }

    /// A process ends: a static member without a word, to come back; another one leaves.
    fn leave(&mut self, place: usize, node: NodeId, sight: &mut dyn Sight) {
        let consumer = &mut self.consumers[place];
        let id = std::mem::take(&mut consumer.id);
        let members = match consumer.instance {
            Some(_) => Vec::new(), // says nothing, and forgets its id
            None => vec![Leaver { member: id, instance: None }],
        };
        let group = consumer.name.clone();
        self.ask_at(place, node, Question::Leave, Action::Leave { group, members }, sight);
    }

    /// A command was answered by its coordinator.
    fn decided(&mut self, ticket: Ticket, asked: Asked, decided: Decided, sight: &mut dyn Sight) {
        let consumer = &mut self.consumers[asked.consumer];
        match (asked.question, decided) {
            (Question::Join, Decided::Joined(Ok(Joined::Again { member }))) => {
                (consumer.id, consumer.doing) = (member, Doing::Out);
            }
            (Question::Join, Decided::Joined(Ok(Joined::In { member, generation, .. }))) => {
                sight.tell(&Observation::JoinEnded { ticket, generation });
                (consumer.id, consumer.doing) = (member, Doing::Joining { generation });
                consumer.node = asked.node;
            }
            (Question::Assign { generation }, Decided::Done(Ok(()))) => {
                consumer.doing = Doing::Syncing { generation };
                consumer.node = asked.node;
            }
            (Question::Commit { partition, offset }, Decided::Committed(Ok(()))) => {
                consumer.doing = Doing::Working;
                sight.tell(&Observation::OffsetStored { group: consumer.group(), partition, offset });
            }
            _ => {
                // Refused: it has lost its place.
                consumer.id.clear();
                consumer.doing = Doing::Out;
            }
        }
    }

    /// Somebody reads the stored offsets of a group.
    fn read_offsets(&mut self, sight: &mut dyn Sight) {
        if self.consumers.is_empty() {
            return;
        }
        let consumer = sight.chance().pick(&self.consumers);
        let (raft, name) = (consumer.raft, consumer.name.clone());
        if !sight.is_worth_asking(raft) {
            return;
        }
        let node = sight.guess(raft);
        let ticket = sight.ask(node, raft, Request::Offsets { group: name.clone() });
        sight.tell(&Observation::OffsetsReadBegan { ticket, group: (raft, &name) });
        self.reads.insert(ticket, (raft, name));
    }
}

impl Actor for Consume {
    fn woken(&mut self, tag: u64, sight: &mut dyn Sight) {
        match tag {
            0 => {
                let is_first = self.consumers.is_empty();
                self.look(sight);
                if is_first && !self.consumers.is_empty() {
                    sight.wake(OFFSETS, 0);
                    sight.wake(TIMERS, 0);
                }
                sight.wake(0, LOOK_PAUSE);
            }
            OFFSETS => {
                if !self.is_calm {
                    self.read_offsets(sight);
                    let after = sight.chance().between(50 * MILLISECOND, 1_000 * MILLISECOND);
                    sight.wake(OFFSETS, after);
                }
            }
            TIMERS => {
                self.run_out(sight);
                let after = sight.chance().between(100 * MILLISECOND, 1_000 * MILLISECOND);
                sight.wake(TIMERS, after);
            }
            _ => {
                self.act(tag as usize - 1, sight);
                let after = sight.chance().between(20 * MILLISECOND, 600 * MILLISECOND);
                sight.wake(tag, after);
            }
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, sight: &mut dyn Sight) {
        if self.reads.remove(&ticket).is_some() {
            if let Answer::Offsets(offsets) = answer {
                sight.tell(&Observation::OffsetsReadEnded { ticket, offsets: &offsets });
            }
            return;
        }
        let Some(asked) = self.open.remove(&ticket) else { return };
        match answer {
            Answer::Reply(Reply::Applied { outcome: Outcome::Answer(bytes), .. }) => {
                let decided = Decided::decode(&bytes).expect("a coordinator's answer can be read");
                self.decided(ticket, asked, decided, sight);
            }
            // Whether it was done or not: a member looks for its coordinator and joins again.
            _ => self.consumers[asked.consumer].doing = Doing::Out,
        }
    }

    fn stop(&mut self) {
        self.is_calm = true;
    }

    fn is_settled(&self, sight: &dyn Sight) -> bool {
        self.consumers.iter().all(|consumer| consumer.is_settled(sight))
    }

    fn describe(&self) -> String {
        let lines: Vec<_> = self.consumers.iter().map(|consumer| format!("{consumer:?}")).collect();
        format!("consumers: {}", lines.join("\n"))
    }
}
