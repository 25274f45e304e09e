//! The leader of a generation assigns its work.

use super::command::{Assign, Rejection};
use super::group::{Group, Phase};
use super::state::Editor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Executes the command.
pub(super) fn assign(editor: &mut Editor<'_>, assign: Assign) -> Result<(), Rejection> {
    let group = Group::clone(editor.state.group(&assign.group).ok_or(Rejection::UnknownMember)?);
    editor.grow(group, |group, now_ms| group.assign(assign, now_ms))
}

impl Group {
    /// Only the leader's first word for a generation counts; who asks again is told the same.
    fn assign(&mut self, assign: Assign, now_ms: i64) -> Result<(), Rejection> {
        self.check_member(&assign.member, assign.instance.as_deref())?;
        if assign.generation != self.generation {
            return Err(Rejection::IllegalGeneration);
        }
        match self.phase {
            Phase::Empty => return Err(Rejection::UnknownMember),
            Phase::Preparing { .. } => return Err(Rejection::RebalanceInProgress),
            Phase::Stable => return Ok(()),
            Phase::Completing if self.leader.as_ref() != Some(&assign.member) => return Ok(()),
            Phase::Completing => {}
        }
        let mut assignments: BTreeMap<String, Vec<u8>> = assign.assignments.into_iter().collect();
        for (id, member) in &mut self.members {
            if let Some(assignment) = assignments.remove(id) {
                Arc::make_mut(member).assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
        self.since_ms = now_ms;
        Ok(())
    }
}
