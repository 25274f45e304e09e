//! What a coordinator's leader does by itself: sessions run out, and the time to join.

use super::{Consume, encode};
use crate::chance::Chance;
use crate::sight::Sight;
use ackord::coordinator::command::{Action, Expired};
use ackord::coordinator::group::{Group, Phase};
use ackord::types::{GroupKind, RaftGroupId};

impl Consume {
    /// Lets a session run out, or the time to join, in every group whose coordinator answers. Without faults nobody who
    /// is there is given up.
    pub(super) fn run_out(&mut self, sight: &mut dyn Sight) {
        for raft in sight.groups(GroupKind::Coordinator) {
            let node = sight.guess(raft);
            for group in sight.consumer_groups(node, raft).unwrap_or_default().values() {
                // While a group has all of its members, it is mostly left alone.
                if !self.is_calm && group.phase == Phase::Stable && !sight.chance().one_in(6) {
                    continue;
                }
                if let Some(action) = self.what_runs_out(raft, group, sight) {
                    sight.ask(node, raft, encode(action));
                }
            }
        }
    }

    fn what_runs_out(&self, raft: RaftGroupId, group: &Group, sight: &mut dyn Sight) -> Option<Action> {
        let is_there = |id: &String| self.consumers.iter().any(|consumer| consumer.raft == raft && consumer.id == *id);
        let is_late = |id: &String| !self.is_calm || !is_there(id);
        let silent: Vec<_> = group.members.values().filter(|member| is_late(&member.id)).collect();
        let name = group.name.clone();
        if let Some(id) = group.pending.iter().find(|id| is_late(id)).filter(|_| sight.chance().one_in(2)) {
            return Some(Action::Expire { group: name, members: vec![Expired { member: id.clone(), joins: 0 }] });
        }
        if !silent.is_empty() && sight.chance().one_in(2) {
            let member = sight.chance().pick(&silent);
            let expired = Expired { member: member.id.clone(), joins: member.joins };
            return Some(Action::Expire { group: name, members: vec![expired] });
        }
        match group.phase {
            // Only an empty group's first members have nobody to wait for.
            Phase::Preparing { round, first } if !self.is_calm || first => {
                Some(Action::FinishJoin { group: name, round })
            }
            _ => None,
        }
    }
}
