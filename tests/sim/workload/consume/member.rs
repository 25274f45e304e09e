//! A member of a consumer group, as it sees itself.

use crate::observe::{Consumers, Observation};
use crate::sight::Sight;
use ackord::coordinator::group::{Group, Phase};
use ackord::types::{NodeId, RaftGroupId};
use std::sync::Arc;

/// What a consumer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It has to join.
    Out,
    /// It waits for an answer to a command.
    Asking,
    /// It is in; the next generation, at least this one, is not made up yet.
    Joining { generation: i32 },
    /// It waits for its share of a generation.
    Syncing { generation: i32 },
    /// It has its share.
    Working,
}

/// What a consumer has asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// Join.
    Join,
    /// Assign, in this generation.
    Assign { generation: i32 },
    /// An offset for a partition.
    Commit { partition: i32, offset: i64 },
    /// Leave.
    Leave,
}

/// A process that reads as a member of a group.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Who coordinates its group.
    pub raft: RaftGroupId,
    /// The group's name.
    pub name: String,
    /// A static member's name.
    pub instance: Option<String>,
    /// Its id, empty until it has one.
    pub id: String,
    /// What it is about.
    pub doing: Doing,
    /// The node that it waits at.
    pub node: NodeId,
    /// The generation it believes in, once it has a share.
    pub generation: i32,
    /// The partitions of that generation that are its own.
    pub share: Vec<i32>,
}

impl Consumer {
    /// One that has to join.
    pub fn new(raft: RaftGroupId, name: String, instance: Option<String>) -> Self {
        let (id, doing, node, generation, share) = (String::new(), Doing::Out, NodeId(1), -1, Vec::new());
        Self { raft, name, instance, id, doing, node, generation, share }
    }

    /// Its group.
    pub fn group(&self) -> Consumers<'_> {
        (self.raft, &self.name)
    }

    /// The group as its coordinator has it. A consumer that has lost its place there begins again.
    pub fn look(&mut self, sight: &dyn Sight) -> Option<Arc<Group>> {
        let Some(groups) = sight.consumer_groups(self.node, self.raft) else {
            self.doing = Doing::Out; // it has to find the coordinator, and keeps its id
            return None;
        };
        let found = groups.get(&self.name).filter(|group| group.members.contains_key(&self.id)).cloned();
        if found.is_none() {
            self.id.clear();
            self.doing = Doing::Out;
        }
        found
    }

    /// It is told what is its own.
    pub fn take_share(&mut self, own: usize, generation: i32, share: &[u8], sight: &mut dyn Sight) {
        let partitions: Vec<_> = share.iter().map(|partition| i32::from(*partition)).collect();
        sight.tell(&Observation::Owned { group: self.group(), generation, consumer: own, partitions: &partitions });
        (self.doing, self.generation, self.share) = (Doing::Working, generation, partitions);
    }

    /// Asks a node, of which only an answer counts, whether it still has its share. If not, it begins again.
    pub fn heartbeat(&mut self, node: NodeId, sight: &dyn Sight) -> bool {
        let Some(groups) = sight.consumer_groups(node, self.raft) else { return true };
        self.node = node;
        let group = groups.get(&self.name).filter(|group| group.members.contains_key(&self.id));
        let Some(group) = group else {
            self.id.clear();
            self.doing = Doing::Out;
            return false;
        };
        let goes_on = group.generation == self.generation && !matches!(group.phase, Phase::Preparing { .. });
        if !goes_on {
            self.doing = Doing::Out;
        }
        goes_on
    }

    /// Whether it has its share of its group's newest generation, and the group is stable.
    pub fn is_settled(&self, sight: &dyn Sight) -> bool {
        let Some(groups) = sight.consumer_groups(self.node, self.raft) else { return false };
        let Some(group) = groups.get(&self.name) else { return false };
        let works = self.doing == Doing::Working && self.generation == group.generation;
        works && group.phase == Phase::Stable && group.members.contains_key(&self.id)
    }
}
