//! Offsets are stored and deleted, and groups with them.

use super::NAME_BYTES_MAX;
use super::command::{Commit, Rejection};
use super::group::{Group, Phase};
use super::offsets::Committed;
use super::state::Editor;
use super::subscription::CONSUMER;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Executes OffsetCommit. Who is no member may store offsets of a group without members, and so make one.
pub(super) fn commit(editor: &mut Editor<'_>, commit: Commit) -> Result<(), Rejection> {
    let group = match editor.state.group(&commit.group) {
        Some(group) => {
            group.check_commit(&commit)?;
            Group::clone(group)
        }
        None if commit.generation < 0 => Group::new(commit.group.clone(), editor.now_ms),
        None => return Err(Rejection::IllegalGeneration),
    };
    if commit.offsets.is_empty() {
        return Ok(());
    }
    // Of a partition that is there twice, the last counts.
    let mut offsets = BTreeMap::new();
    for (topic, partition, new) in commit.offsets {
        if [&commit.group, &topic, &new.metadata].iter().any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(Rejection::CoordinatorFull);
        }
        let (offset, leader_epoch, metadata) = (new.offset, new.leader_epoch, new.metadata);
        let committed = Committed { offset, leader_epoch, metadata, committed_at_ms: editor.now_ms };
        offsets.insert((topic, partition), committed);
    }
    let offsets = offsets.into_iter().map(|((topic, partition), committed)| (topic, partition, committed));
    editor.set_offsets(group, offsets.collect())
}

impl Group {
    fn check_commit(&self, commit: &Commit) -> Result<(), Rejection> {
        if commit.generation < 0 && self.is_empty() {
            return Ok(());
        }
        if commit.generation < 0 && commit.member.is_empty() && commit.instance.is_none() {
            return Err(Rejection::UnknownMember);
        }
        self.check_member(&commit.member, commit.instance.as_deref())?;
        if commit.generation != self.generation {
            return Err(Rejection::IllegalGeneration);
        }
        // While the next generation is prepared, members of the last still store what they have done.
        if self.phase == Phase::Completing { Err(Rejection::RebalanceInProgress) } else { Ok(()) }
    }
}

/// Executes OffsetDelete: of a group with members, only offsets of topics that they do not read.
pub(super) fn delete_offsets(
    editor: &mut Editor<'_>,
    group: &str,
    partitions: &[(String, i32)],
) -> Result<Vec<Result<(), Rejection>>, Rejection> {
    let state = Arc::clone(editor.state.group(group).ok_or(Rejection::UnknownGroup)?);
    let subscribed = if state.is_empty() {
        Some(BTreeSet::new())
    } else if state.protocol_type.as_deref() == Some(CONSUMER) {
        state.subscribed_topics()
    } else {
        return Err(Rejection::NonEmptyGroup);
    };
    // What they read may not be known; then it may be anything.
    let reads = |topic: &str| subscribed.as_ref().is_none_or(|topics| topics.contains(topic));
    let mut delete = |topic: &str, partition| match reads(topic) {
        true => Err(Rejection::SubscribedToTopic),
        false => {
            editor.remove_offset(group, topic, partition);
            Ok(())
        }
    };
    Ok(partitions.iter().map(|(topic, partition)| delete(topic, *partition)).collect())
}

/// Executes DeleteGroups.
pub(super) fn delete_groups(editor: &mut Editor<'_>, groups: &[String]) -> Vec<Result<(), Rejection>> {
    let delete = |name: &String| match editor.state.group(name) {
        None => Err(Rejection::UnknownGroup),
        Some(group) if !group.is_empty() => Err(Rejection::NonEmptyGroup),
        Some(_) => {
            editor.remove_offsets(name, |_, _| true);
            editor.state.remove_group(name);
            Ok(())
        }
    };
    groups.iter().map(delete).collect()
}
