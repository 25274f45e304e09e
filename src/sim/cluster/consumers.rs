//! Members of consumer groups in a simulated cluster: they join, share partitions, store offsets, vanish and come back;
//! what each was told is the history that the coordinators' promises are checked against.
//!
//! What a broker's shell does for a member is done here with one seed: a command is proposed, and what a member has to
//! wait for is looked up in the state of the node that it asked. Timers are chance: a session may run out at any
//! moment.

use crate::coordinator::command::{Action, Answer, Assign, Command, Commit, Expired, Join, Joined, Leaver, NewOffset};
use crate::coordinator::group::{Group, Phase};
use crate::machine::Outcome;
use crate::multiraft::core::effect::{Proposal, Reply, Ticket};
use crate::sim::Random;
use crate::types::{NodeId, RaftGroupId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Consumer groups of each coordinator.
const GROUPS_EACH: u64 = 2;
/// Consumers of each group; every other one is a static member.
const CONSUMERS_EACH: usize = 3;
/// Partitions that a group's members share.
pub const PARTITIONS: i32 = 5;
/// The topic that every group reads.
pub const TOPIC: &str = "orders";
/// Words that are stored with an offset: a log of commits fills its segments.
const TEXT_WORDS: usize = 500;
/// Tickets of consumers begin here, those of writers end.
const FIRST_TICKET: u64 = 1 << 40;

/// A group, wherever it is coordinated.
type GroupKey = (RaftGroupId, String);

/// What a consumer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Doing {
    /// It has to join.
    Out,
    /// It waits for an answer to a command.
    Asking,
    /// It is in; the next generation, at least this one, is not made up yet.
    Joining { node: NodeId, generation: i32 },
    /// It waits for its share of a generation.
    Syncing { node: NodeId, generation: i32 },
    /// It has its share.
    Working,
}

/// A process that reads as a member of a group.
#[derive(Clone, Debug)]
struct Consumer {
    /// Its group.
    key: GroupKey,
    /// A static member's name.
    instance: Option<String>,
    /// Its id, empty until it has one.
    id: String,
    /// What it is about.
    doing: Doing,
    /// The generation it believes in, once it has a share.
    generation: i32,
    /// The partitions of that generation that are its own.
    share: Vec<i32>,
}

/// A question on its way.
#[derive(Clone, Debug)]
enum Question {
    /// Join, and the newest generation that anybody had been told when it began.
    Join { generation_before: i32 },
    /// Assign, in this generation.
    Assign { generation: i32 },
    /// An offset for a partition.
    Commit { partition: i32, offset: i64 },
    /// Leave.
    Leave,
}

/// A question, who asked it, and through whom.
#[derive(Clone, Debug)]
struct Asked {
    /// The consumer's place in the list; none: the coordinator's leader itself.
    consumer: usize,
    /// Through whom; no answer comes after that node has crashed.
    node: NodeId,
    /// What.
    question: Question,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Consumers {
    /// All of them.
    consumers: Vec<Consumer>,
    /// Commands asked so far, for tickets, ids and offsets.
    asked: u64,
    /// Questions not answered yet.
    open: BTreeMap<Ticket, Asked>,
    /// Reads of stored offsets: of which group, and what they must see.
    reads: BTreeMap<Ticket, (GroupKey, NodeId, BTreeMap<i32, i64>)>,
    /// The newest generation that anybody was told of.
    generations: BTreeMap<GroupKey, i32>,
    /// Who was told that a partition is its own in a generation.
    owners: BTreeMap<(GroupKey, i32, i32), usize>,
    /// The newest offset that was acknowledged as stored.
    stored: BTreeMap<(GroupKey, i32), i64>,
    /// Shares handed out, offsets acknowledged, reads of offsets served.
    pub counts: [usize; 3],
}

/// What consumers can see of a node.
pub trait Sight {
    /// A group as a node that answers for its coordinator has it; `None` if the node does not answer.
    fn group(&self, node: NodeId, raft: RaftGroupId, name: &str) -> Option<Option<Arc<Group>>>;
}

/// A command, the Raft group it is for, and the node it is proposed through.
pub type Ask = (RaftGroupId, NodeId, Proposal);

/// Whether a ticket is a consumer's.
#[must_use]
pub fn is_consumers(ticket: Ticket) -> bool {
    ticket.0 >= FIRST_TICKET
}

fn encode(action: Action) -> Bytes {
    Command { now_ms: 0, action }.encode().expect("a consumer's command is short")
}

impl Consumers {
    /// The consumers of these coordinators.
    #[must_use]
    pub fn new(coordinators: impl Iterator<Item = RaftGroupId>) -> Self {
        let mut all = Self::default();
        for raft in coordinators {
            for group in 0..GROUPS_EACH {
                for place in 0..CONSUMERS_EACH {
                    all.consumers.push(Consumer {
                        key: (raft, format!("group-{group}")),
                        instance: (place % 2 == 1).then(|| format!("static-{place}")),
                        id: String::new(),
                        doing: Doing::Out,
                        generation: -1,
                        share: Vec::new(),
                    });
                }
            }
        }
        all
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.consumers.len()
    }

    fn ticket(&mut self) -> Ticket {
        self.asked += 1;
        Ticket(FIRST_TICKET + self.asked)
    }

    fn ask(&mut self, consumer: usize, node: NodeId, question: Question, action: Action) -> Ask {
        let ticket = self.ticket();
        self.consumers[consumer].doing = Doing::Asking;
        self.open.insert(ticket, Asked { consumer, node, question });
        let raft = self.consumers[consumer].key.0;
        (raft, node, Proposal { ticket, source: None, context: Bytes::new(), data: encode(action) })
    }

    /// The Raft group that a consumer's group belongs to.
    #[must_use]
    pub fn coordinator_of(&self, consumer: usize) -> RaftGroupId {
        self.consumers[consumer].key.0
    }

    /// Lets a consumer do the next thing, through `node` if it has to ask somebody. What it asks is to be proposed.
    pub fn act(
        &mut self,
        consumer: usize,
        node: NodeId,
        sight: &impl Sight,
        random: &mut Random,
        (calm, seed): (bool, u64),
    ) -> Option<Ask> {
        match self.consumers[consumer].doing.clone() {
            Doing::Asking => None,
            Doing::Out => Some(self.join(consumer, node, random)),
            Doing::Joining { node, generation } => {
                self.look_for_generation(consumer, (node, generation), sight, random)
            }
            Doing::Syncing { node, generation } => {
                self.look_for_share(consumer, (node, generation), sight, seed);
                None
            }
            Doing::Working => self.work(consumer, node, sight, random, calm),
        }
    }

    fn join(&mut self, consumer: usize, node: NodeId, random: &mut Random) -> Ask {
        let Consumer { key, instance, id, .. } = self.consumers[consumer].clone();
        let generation_before = self.generations.get(&key).copied().unwrap_or(0);
        let join = Join {
            group: key.1,
            member: id,
            new_member: format!("member-{}", self.asked),
            instance,
            two_steps: random.one_in(2),
            can_skip_assignment: random.one_in(2),
            client_id: format!("consumer-{consumer}"),
            client_host: "/10.0.0.1".to_owned(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Vec::new())],
            delay_first: random.one_in(4),
            members_max: 100,
        };
        self.ask(consumer, node, Question::Join { generation_before }, Action::Join(join))
    }

    /// Where a consumer stands in the group, as its coordinator has it; a consumer that has lost its place begins
    /// again.
    fn look(&mut self, consumer: usize, node: NodeId, sight: &impl Sight) -> Option<Arc<Group>> {
        let me = &mut self.consumers[consumer];
        let found = sight.group(node, me.key.0, &me.key.1);
        let Some(group) = found else {
            me.doing = Doing::Out; // it has to find the coordinator, and keeps its id
            return None;
        };
        match group.filter(|group| group.members.contains_key(&me.id)) {
            Some(group) => Some(group),
            None => {
                me.id.clear();
                me.doing = Doing::Out;
                None
            }
        }
    }

    fn look_for_generation(
        &mut self,
        consumer: usize,
        (node, wanted): (NodeId, i32),
        sight: &impl Sight,
        random: &mut Random,
    ) -> Option<Ask> {
        let group = self.look(consumer, node, sight)?;
        let me = &mut self.consumers[consumer];
        let generation = group.members[&me.id].generation;
        if group.generation < wanted || generation < wanted {
            return None;
        }
        me.doing = Doing::Syncing { node, generation };
        let key = me.key.clone();
        let told = self.generations.entry(key.clone()).or_default();
        *told = (*told).max(generation);
        let me = &self.consumers[consumer];
        let leads = group.leader.as_ref() == Some(&me.id) && generation == group.generation;
        if !leads || group.phase != Phase::Completing {
            return None;
        }
        // Dealt anew each time: two assignments of one generation would show.
        let of_this: Vec<_> = group.members.values().filter(|member| member.generation == generation).collect();
        let mut shares: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let member = &of_this[random.below(of_this.len() as u64) as usize];
            shares.entry(member.id.clone()).or_default().push(u8::try_from(partition).expect("a few"));
        }
        let assign = Assign {
            group: key.1,
            generation,
            member: me.id.clone(),
            instance: me.instance.clone(),
            assignments: shares.into_iter().collect(),
        };
        Some(self.ask(consumer, node, Question::Assign { generation }, Action::Assign(assign)))
    }

    fn look_for_share(&mut self, consumer: usize, (node, generation): (NodeId, i32), sight: &impl Sight, seed: u64) {
        let Some(group) = self.look(consumer, node, sight) else { return };
        let me = &mut self.consumers[consumer];
        if group.generation != generation || matches!(group.phase, Phase::Preparing { .. }) {
            me.doing = Doing::Out;
        } else if group.phase == Phase::Stable {
            let share = group.members[&me.id].assignment.iter().map(|partition| i32::from(*partition)).collect();
            self.take_share(consumer, generation, share, seed);
        }
    }

    /// A consumer is told what is its own.
    fn take_share(&mut self, consumer: usize, generation: i32, share: Vec<i32>, seed: u64) {
        let key = self.consumers[consumer].key.clone();
        for partition in &share {
            let owner = *self.owners.entry((key.clone(), generation, *partition)).or_insert(consumer);
            assert_eq!(
                owner, consumer,
                "seed {seed}: partition {partition} of {key:?} has two owners in generation {generation}"
            );
        }
        self.counts[0] += 1;
        let me = &mut self.consumers[consumer];
        (me.doing, me.generation, me.share) = (Doing::Working, generation, share);
    }

    fn work(
        &mut self,
        consumer: usize,
        node: NodeId,
        sight: &impl Sight,
        random: &mut Random,
        calm: bool,
    ) -> Option<Ask> {
        let me = self.consumers[consumer].clone();
        // A heartbeat, of which only an answer counts.
        if let Some(group) = sight.group(node, me.key.0, &me.key.1) {
            let known = group.as_ref().is_some_and(|group| group.members.contains_key(&me.id));
            let moved_on = group.is_none_or(|group| {
                group.generation != me.generation || matches!(group.phase, Phase::Preparing { .. })
            });
            if !known || moved_on {
                let me = &mut self.consumers[consumer];
                me.doing = Doing::Out;
                if !known {
                    me.id.clear();
                }
                return None;
            }
        }
        if calm {
            return None; // all replicas are to become equal
        }
        if random.one_in(12) {
            return Some(self.stop(consumer, node));
        }
        let partition = *me.share.get(random.below(me.share.len().max(1) as u64) as usize)?;
        let offset = i64::try_from(self.asked).expect("few commands");
        let metadata = "so far ".repeat(TEXT_WORDS);
        let new = NewOffset { offset, leader_epoch: 1, metadata };
        let commit = Commit {
            group: me.key.1,
            member: me.id,
            instance: me.instance,
            generation: me.generation,
            offsets: vec![(TOPIC.to_owned(), partition, new)],
        };
        Some(self.ask(consumer, node, Question::Commit { partition, offset }, Action::Commit(commit)))
    }

    /// A process ends: a static member without a word, to come back; another one leaves.
    fn stop(&mut self, consumer: usize, node: NodeId) -> Ask {
        let Consumer { key, instance, id, .. } = self.consumers[consumer].clone();
        let members = match instance {
            Some(_) => Vec::new(), // says nothing, and forgets its id
            None => vec![Leaver { member: id, instance: None }],
        };
        self.consumers[consumer].id.clear();
        self.ask(consumer, node, Question::Leave, Action::Leave { group: key.1, members })
    }

    /// A command of the coordinator's leader by itself: a session that has run out, or the time to join.
    pub fn run_out(
        &mut self,
        raft: RaftGroupId,
        group: &Group,
        random: &mut Random,
        only_strangers: bool,
    ) -> Option<Proposal> {
        // Without faults nobody who is there is late: only an empty group's first members have nobody to wait for.
        let late = |first: bool| !only_strangers || first;
        let is_mine = |id: &String| self.consumers.iter().any(|consumer| consumer.key.0 == raft && consumer.id == *id);
        let silent: Vec<_> = group.members.values().filter(|member| !only_strangers || !is_mine(&member.id)).collect();
        let pending = group.pending.iter().find(|id| !only_strangers || !is_mine(id));
        let name = group.name.clone();
        let action = match (&group.phase, pending) {
            (_, Some(id)) if random.one_in(2) => {
                Action::Expire { group: name, members: vec![Expired { member: id.clone(), joins: 0 }] }
            }
            _ if !silent.is_empty() && random.one_in(2) => {
                let member = silent[random.below(silent.len() as u64) as usize];
                let expired = Expired { member: member.id.clone(), joins: member.joins };
                Action::Expire { group: name, members: vec![expired] }
            }
            (Phase::Preparing { round, first }, _) if late(*first) => Action::FinishJoin { group: name, round: *round },
            _ => return None,
        };
        let ticket = self.ticket();
        Some(Proposal { ticket, source: None, context: Bytes::new(), data: encode(action) })
    }

    /// A negative control: a leader that believes its members as soon as it has told the coordinator.
    pub fn believe_uncommitted(&mut self, proposal: &Proposal, seed: u64) {
        let asked = self.open.get(&proposal.ticket).cloned();
        let Some(Asked { consumer, question: Question::Assign { generation }, .. }) = asked else { return };
        let Ok(Command { action: Action::Assign(assign), .. }) = Command::decode(&proposal.data) else { return };
        let key = self.consumers[consumer].key.clone();
        for (member, share) in &assign.assignments {
            let other = self.consumers.iter().position(|other| other.key == key && other.id == *member);
            if let Some(other) = other.filter(|other| self.consumers[*other].doing != Doing::Working) {
                let share = share.iter().map(|partition| i32::from(*partition)).collect();
                self.take_share(other, generation, share, seed);
            }
        }
    }

    /// A question was answered.
    pub fn answered(&mut self, ticket: Ticket, reply: &Reply, seed: u64) {
        if self.reads.remove(&ticket).is_some() {
            return; // refused
        }
        let Some(Asked { consumer, node, question }) = self.open.remove(&ticket) else { return };
        let answer = match reply {
            Reply::Applied { outcome: Outcome::Answer(bytes), .. } => Answer::decode(bytes).expect("a whole answer"),
            // Whether it was done or not: a member looks for its coordinator and joins again.
            _ => return self.rejoin(consumer),
        };
        match (question, answer) {
            (Question::Join { generation_before }, Answer::Joined(Ok(joined))) => {
                self.joined(consumer, node, joined, generation_before, seed);
            }
            (Question::Assign { generation }, Answer::Done(Ok(()))) => {
                let me = &mut self.consumers[consumer];
                if me.doing == Doing::Asking {
                    me.doing = Doing::Syncing { node, generation };
                }
            }
            (Question::Commit { partition, offset }, Answer::Committed(Ok(()))) => {
                let me = &mut self.consumers[consumer];
                me.doing = Doing::Working;
                let stored = self.stored.entry((me.key.clone(), partition)).or_default();
                *stored = (*stored).max(offset);
                self.counts[1] += 1;
            }
            _ => {
                // Refused: it has lost its place.
                self.consumers[consumer].id.clear();
                self.rejoin(consumer);
            }
        }
    }

    fn rejoin(&mut self, consumer: usize) {
        self.consumers[consumer].doing = Doing::Out;
    }

    fn joined(&mut self, consumer: usize, node: NodeId, joined: Joined, before: i32, seed: u64) {
        let me = &mut self.consumers[consumer];
        match joined {
            Joined::Again { member } => (me.id, me.doing) = (member, Doing::Out),
            Joined::In { member, generation, .. } => {
                let key = &me.key;
                assert!(
                    generation >= before,
                    "seed {seed}: {key:?} is asked for generation {generation} after {before} was told"
                );
                (me.id, me.doing) = (member, Doing::Joining { node, generation });
            }
        }
    }

    /// Somebody reads the stored offsets of a random group through `node`.
    pub fn read(&mut self, node: NodeId, random: &mut Random) -> (RaftGroupId, Ticket) {
        let key = self.consumers[random.below(self.consumers.len() as u64) as usize].key.clone();
        let must_see = (0..PARTITIONS)
            .filter_map(|partition| Some((partition, *self.stored.get(&(key.clone(), partition))?)))
            .collect();
        let (ticket, raft) = (self.ticket(), key.0);
        self.reads.insert(ticket, (key, node, must_see));
        (raft, ticket)
    }

    /// Whose offsets a read is about.
    #[must_use]
    pub fn read_of(&self, ticket: Ticket) -> Option<GroupKey> {
        self.reads.get(&ticket).map(|(key, ..)| key.clone())
    }

    /// A read may be served by a state with these offsets.
    pub fn read_served(&mut self, ticket: Ticket, seen: &BTreeMap<i32, i64>, seed: u64) {
        let Some((key, _, must_see)) = self.reads.remove(&ticket) else { return };
        for (partition, stored) in must_see {
            let found = seen.get(&partition).copied().unwrap_or(-1);
            assert!(
                found >= stored,
                "seed {seed}: {key:?} is told offset {found} of partition {partition} after {stored} was acknowledged"
            );
        }
        self.counts[2] += 1;
    }

    /// Whoever waited for this node waits in vain.
    pub fn lost_node(&mut self, lost: NodeId) {
        self.reads.retain(|_, (_, node, _)| *node != lost);
        let asked: Vec<_> =
            self.open.iter().filter(|(_, asked)| asked.node == lost).map(|(ticket, _)| *ticket).collect();
        for ticket in asked {
            if let Some(Asked { consumer, .. }) = self.open.remove(&ticket) {
                self.rejoin(consumer);
            }
        }
    }

    /// Whether every consumer has its share of its group's newest generation, and the group is stable.
    #[must_use]
    pub fn is_settled(&self, group: impl Fn(&GroupKey) -> Option<Arc<Group>>) -> bool {
        self.consumers.iter().all(|consumer| {
            let Some(group) = group(&consumer.key) else { return false };
            let works =
                matches!(consumer.doing, Doing::Working | Doing::Asking) && consumer.generation == group.generation;
            works && group.phase == Phase::Stable && group.members.contains_key(&consumer.id)
        })
    }

    /// What every consumer is about, for a failure's report.
    #[must_use]
    pub fn describe(&self) -> String {
        let line = |consumer: &Consumer| format!("{consumer:?}");
        self.consumers.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Holds the final offsets of every group against the history.
    pub fn check(&self, offset: impl Fn(&GroupKey, i32) -> Option<i64>, seed: u64) {
        for ((key, partition), stored) in &self.stored {
            let found = offset(key, *partition);
            assert!(
                found.is_some_and(|found| found >= *stored),
                "seed {seed}: {key:?} has {found:?} for partition {partition}, and {stored} was acknowledged"
            );
        }
    }
}
