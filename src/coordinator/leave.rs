//! Members leave, or are given up.

use super::command::{Expired, Leaver, Rejection};
use super::group::Group;
use super::state::Editor;

/// Executes LeaveGroup.
pub(super) fn leave(editor: &mut Editor<'_>, group: &str, members: &[Leaver]) -> Vec<Result<(), Rejection>> {
    let answers = editor.change(group, |group, now_ms| group.leave(members, now_ms));
    answers.unwrap_or_else(|| vec![Err(Rejection::UnknownMember); members.len()])
}

/// Gives up members that were not heard of in time.
pub(super) fn expire(editor: &mut Editor<'_>, group: &str, members: &[Expired]) {
    editor.change(group, |group, now_ms| group.expire(members, now_ms));
}

impl Group {
    fn leave(&mut self, members: &[Leaver], now_ms: i64) -> Vec<Result<(), Rejection>> {
        let before = self.members.len();
        let answers = members.iter().map(|leaver| self.leave_one(leaver)).collect();
        self.settle(self.members.len() < before, now_ms);
        answers
    }

    fn leave_one(&mut self, leaver: &Leaver) -> Result<(), Rejection> {
        let instance = leaver.instance.as_deref();
        if leaver.member.is_empty() {
            // An administrator knows static members by name (KIP-345).
            let member = instance.and_then(|instance| self.member_of_instance(instance));
            let id = member.ok_or(Rejection::UnknownMember)?.id.clone();
            self.take_out(&id);
        } else if !self.pending.remove(&leaver.member) {
            self.check_member(&leaver.member, instance)?;
            self.take_out(&leaver.member);
        }
        Ok(())
    }

    fn expire(&mut self, members: &[Expired], now_ms: i64) {
        let before = self.members.len();
        for expired in members {
            if expired.joins == 0 {
                self.pending.remove(&expired.member);
            } else if self.members.get(&expired.member).is_some_and(|member| member.joins == expired.joins) {
                self.take_out(&expired.member);
            }
        }
        self.settle(self.members.len() < before, now_ms);
    }
}
