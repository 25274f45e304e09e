//! What nobody needs any more goes: offsets of groups that have been away for long, and of topics that are gone.

use super::group::{Group, Phase};
use super::offsets::Committed;
use super::state::Editor;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Drops offsets that nobody has needed for `retention_ms`, and groups that have neither members nor offsets left
/// (KIP-211).
pub(super) fn expire_offsets(editor: &mut Editor<'_>, retention_ms: i64) {
    let over_ms = editor.now_ms.saturating_sub(retention_ms);
    for group in groups(editor) {
        let subscribed = if group.phase == Phase::Stable { group.subscribed_topics() } else { None };
        let idle_since_ms = |topic: &str, committed: &Committed| match (&group.protocol_type, &group.phase) {
            // Who has only ever stored offsets is seen by nothing else.
            (None, _) => Some(committed.committed_at_ms),
            // An administrator may have set an offset while the group was away.
            (Some(_), Phase::Empty) => Some(group.since_ms.max(committed.committed_at_ms)),
            // Of a topic that the members no longer read.
            (Some(_), Phase::Stable) => {
                let unread = subscribed.as_ref().is_some_and(|topics| !topics.contains(topic));
                unread.then_some(committed.committed_at_ms)
            }
            (Some(_), Phase::Preparing { .. } | Phase::Completing) => None,
        };
        editor.remove_offsets(&group.name, |topic, committed| {
            idle_since_ms(topic, committed).is_some_and(|since_ms| since_ms <= over_ms)
        });
        if group.is_empty() && group.pending.is_empty() && editor.state.offsets_of(&group.name).is_none() {
            editor.state.remove_group(&group.name);
        }
    }
}

/// Drops all offsets of topics that were deleted.
pub(super) fn forget_topics(editor: &mut Editor<'_>, topics: &[String]) {
    let topics = topics.iter().map(String::as_str).collect::<BTreeSet<_>>();
    for group in groups(editor) {
        editor.remove_offsets(&group.name, |topic, _| topics.contains(topic));
    }
}

fn groups(editor: &Editor<'_>) -> Vec<Arc<Group>> {
    editor.state.groups().values().cloned().collect()
}
