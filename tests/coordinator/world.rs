//! One replica of a coordinator over an engine in memory, and shorthand to ask it and to see what came of it.

pub use crate::memory::Memory;
use ackord::coordinator::command::{
    Action, Answer, Assign, Command, Commit, Expired, Join, Joined, Leaver, NewOffset, Rejection,
};
use ackord::coordinator::group::{Group, Member, Phase};
use ackord::coordinator::offsets::{self, Committed};
use ackord::coordinator::{Coordinator, LOOK_STEP_MS_MAX, partition_of};
use ackord::machine::{Outcome, StateMachine};
use ackord::storage::{Engine, WriteBatch};
use ackord::types::{EntryKind, LogEntry, LogId, Membership, NodeId, RaftGroupId, ReplicaId};
use bytes::Bytes;
use std::sync::Arc;

pub const RAFT: RaftGroupId = RaftGroupId(7);

/// The group of most tests.
pub const G: &str = "g";

/// Where the Raft group begins in these tests, and with whom.
pub fn born() -> (LogId, Membership) {
    (LogId::new(1, 1), Membership::of_voters([ReplicaId::new(NodeId(1), 0)]))
}

/// A new coordinator, with its rows on `engine`.
pub fn create(engine: &Memory) -> Coordinator {
    let mut batch = WriteBatch::default();
    let (born, membership) = born();
    let coordinator = Coordinator::create(RAFT, born, membership, &mut batch);
    engine.write(batch).unwrap();
    coordinator
}

/// One replica.
pub struct World {
    pub engine: Memory,
    pub coordinator: Coordinator,
    /// Everything applied so far.
    pub log: Vec<LogEntry>,
    /// The proposers' clock.
    pub now_ms: i64,
    /// The coordinator's time, or less.
    time_ms: i64,
}

impl World {
    pub fn new() -> Self {
        assert!(partition_of(G, 50) < 50);
        let engine = Memory::default();
        let coordinator = create(&engine);
        Self { engine, coordinator, log: Vec::new(), now_ms: 1000, time_ms: 1000 }
    }

    pub fn next_id(&self) -> LogId {
        LogId::new(self.coordinator.applied().index.0 + 1, 3)
    }

    pub fn apply(&mut self, entry: LogEntry) -> Outcome {
        let mut batch = WriteBatch::default();
        let outcome = self.coordinator.apply(std::slice::from_ref(&entry), &[], &mut batch).unwrap().remove(0);
        self.engine.write(batch).unwrap();
        self.log.push(entry);
        outcome
    }

    pub fn run(&mut self, action: Action) -> Answer {
        let entry = command_entry(self.next_id(), &Command { now_ms: self.now_ms, action });
        match self.apply(entry) {
            Outcome::Answer(bytes) => Answer::decode(&bytes).unwrap(),
            other => panic!("a command is answered, not {other:?}"),
        }
    }

    pub fn join(&mut self, join: Join) -> Result<Joined, Rejection> {
        match self.run(Action::Join(join)) {
            Answer::Joined(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn done(&mut self, action: Action) -> Result<(), Rejection> {
        match self.run(action) {
            Answer::Done(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// SyncGroup of a member without a static name; assigns each of `shares` its own name as the share.
    pub fn assign(&mut self, member: &str, generation: i32, shares: &[&str]) -> Result<(), Rejection> {
        self.assign_as(member, None, generation, shares)
    }

    pub fn assign_as(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        shares: &[&str],
    ) -> Result<(), Rejection> {
        let assignments = shares.iter().map(|id| ((*id).to_owned(), id.as_bytes().to_vec())).collect();
        let (member, instance) = (member.to_owned(), instance.map(str::to_owned));
        self.done(Action::Assign(Assign { group: G.to_owned(), generation, member, instance, assignments }))
    }

    pub fn leave(&mut self, leavers: &[(&str, Option<&str>)]) -> Vec<Result<(), Rejection>> {
        let leaver = |(member, instance): &(&str, Option<&str>)| Leaver {
            member: (*member).to_owned(),
            instance: instance.map(str::to_owned),
        };
        match self.run(Action::Leave { group: G.to_owned(), members: leavers.iter().map(leaver).collect() }) {
            Answer::Left(answers) => answers,
            other => panic!("{other:?}"),
        }
    }

    pub fn expire(&mut self, members: &[(&str, u64)]) {
        let expired = |(member, joins): &(&str, u64)| Expired { member: (*member).to_owned(), joins: *joins };
        let members = members.iter().map(expired).collect();
        self.done(Action::Expire { group: G.to_owned(), members }).unwrap();
    }

    pub fn finish_join(&mut self, round: u64) {
        self.done(Action::FinishJoin { group: G.to_owned(), round }).unwrap();
    }

    pub fn commit(&mut self, commit: Commit) -> Result<(), Rejection> {
        match self.run(Action::Commit(commit)) {
            Answer::Committed(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn delete_offsets(
        &mut self,
        group: &str,
        partitions: &[(&str, i32)],
    ) -> Result<Vec<Result<(), Rejection>>, Rejection> {
        let partitions = partitions.iter().map(|(topic, number)| ((*topic).to_owned(), *number)).collect();
        match self.run(Action::DeleteOffsets { group: group.to_owned(), partitions }) {
            Answer::OffsetsDeleted(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn delete_groups(&mut self, groups: &[&str]) -> Vec<Result<(), Rejection>> {
        match self.run(Action::DeleteGroups { groups: groups.iter().map(|name| (*name).to_owned()).collect() }) {
            Answer::GroupsDeleted(answers) => answers,
            other => panic!("{other:?}"),
        }
    }

    /// Looks for old offsets as often as it takes for the coordinator's time to catch up with the clock.
    pub fn expire_offsets(&mut self, retention_ms: i64) {
        self.look_for_old_offsets(retention_ms);
        while self.time_ms < self.now_ms {
            self.look_for_old_offsets(retention_ms);
        }
    }

    /// Looks once.
    pub fn look_for_old_offsets(&mut self, retention_ms: i64) {
        self.done(Action::ExpireOffsets { retention_ms }).unwrap();
        self.time_ms = self.now_ms.clamp(self.time_ms, self.time_ms + LOOK_STEP_MS_MAX);
    }

    pub fn forget_topics(&mut self, topics: &[&str]) {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self.done(Action::ForgetTopics { topics }).unwrap();
    }

    pub fn group(&self) -> &Arc<Group> {
        &self.coordinator.groups()[G]
    }

    pub fn member(&self, id: &str) -> &Member {
        &self.group().members[id]
    }

    /// The group in a line: "stable 2 range, leader a: a b". Who has joined a preparation has a "+".
    pub fn show(&self) -> String {
        let Some(group) = self.coordinator.groups().get(G) else { return "none".to_owned() };
        let phase = match group.phase {
            Phase::Empty => "empty".to_owned(),
            Phase::Preparing { round, first } => format!("preparing({round}{})", if first { ", first" } else { "" }),
            Phase::Completing => "completing".to_owned(),
            Phase::Stable => "stable".to_owned(),
        };
        let member = |member: &Arc<Member>| format!(" {}{}", member.id, if member.joined { "+" } else { "" });
        let members: String = group.members.values().map(member).collect();
        let pending: String = group.pending.iter().map(|id| format!(" ({id})")).collect();
        let name = |name: &Option<String>| name.clone().unwrap_or("-".to_owned());
        let (protocol, leader) = (name(&group.protocol), name(&group.leader));
        format!("{phase} {} {protocol}, leader {leader}:{members}{pending}", group.generation)
    }

    /// The group's offsets: "t/0=5 t/1=7".
    pub fn offsets_of(&self, group: &str) -> String {
        let all: Vec<(String, i32, Committed)> = offsets::read_all(&self.engine, RAFT, group).unwrap();
        let show = |(topic, partition, row): &(String, i32, Committed)| format!("{topic}/{partition}={}", row.offset);
        all.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    /// Members `ids` of `G`, stable in a generation whose leader is the first of them.
    pub fn stable(ids: &[&str]) -> Self {
        let mut world = Self::new();
        for id in ids {
            world.join(Join { delay_first: true, ..dynamic(id) }).unwrap();
        }
        let Phase::Preparing { round, .. } = world.group().phase else { panic!("{}", world.show()) };
        world.finish_join(round);
        world.assign(ids[0], 1, ids).unwrap();
        world
    }
}

pub fn command_entry(id: LogId, command: &Command) -> LogEntry {
    LogEntry { id, kind: EntryKind::Normal, context: Bytes::new(), data: command.encode().unwrap() }
}

/// The metadata of a consumer that subscribes to `topics`.
pub fn subscription(topics: &[&str]) -> Vec<u8> {
    let mut metadata = vec![0, 1];
    metadata.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        metadata.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
        metadata.extend(topic.as_bytes());
    }
    metadata.extend((-1_i32).to_be_bytes());
    metadata
}

pub fn protocols(names: &[&str]) -> Vec<(String, Vec<u8>)> {
    names.iter().map(|name| ((*name).to_owned(), subscription(&["t"]))).collect()
}

/// A consumer that has no id yet and will be `id`.
pub fn dynamic(id: &str) -> Join {
    Join {
        group: G.to_owned(),
        member: String::new(),
        new_member: id.to_owned(),
        instance: None,
        two_steps: false,
        can_skip_assignment: true,
        client_id: "client".to_owned(),
        client_host: "/10.0.0.1".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".to_owned(),
        protocols: protocols(&["range", "sticky"]),
        delay_first: false,
        members_max: 100,
    }
}

/// The same as a member already.
pub fn known(id: &str) -> Join {
    Join { member: id.to_owned(), new_member: "unused".to_owned(), ..dynamic(id) }
}

/// A static member `instance` that comes without an id and will be `id`.
pub fn fixed(instance: &str, id: &str) -> Join {
    Join { instance: Some(instance.to_owned()), ..dynamic(id) }
}

/// A member that is in, without more to say.
pub fn is_in(member: &str, generation: i32) -> Result<Joined, Rejection> {
    Ok(Joined::In { member: member.to_owned(), generation, skip_assignment: false, leader: None })
}

pub fn again(member: &str) -> Result<Joined, Rejection> {
    Ok(Joined::Again { member: member.to_owned() })
}

/// A commit of `member`.
pub fn commit(member: &str, generation: i32, offsets: &[(&str, i32, i64)]) -> Commit {
    let offset = |(topic, partition, offset): &(&str, i32, i64)| {
        let new = NewOffset { offset: *offset, leader_epoch: 4, metadata: "m".to_owned() };
        ((*topic).to_owned(), *partition, new)
    };
    let offsets = offsets.iter().map(offset).collect();
    Commit { group: G.to_owned(), member: member.to_owned(), instance: None, generation, offsets }
}

/// A commit from who is no member.
pub fn simple(group: &str, offsets: &[(&str, i32, i64)]) -> Commit {
    Commit { group: group.to_owned(), ..commit("", -1, offsets) }
}
