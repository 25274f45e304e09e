//! What unit tests of invariants are made of.

use crate::batch::batch_of;
use crate::observe::{Invariant, Observation};
use ackord::partition::command::Command;
use ackord::types::{
    EntryKind, HardState, LogEntry, LogId, LogIndex, Membership, NodeId, RaftGroupId, ReplicaId, Term,
};
use ackord::wal::{GroupWrite, LogChange};
use bytes::Bytes;

/// The group that most tests are about.
pub const GROUP: RaftGroupId = RaftGroupId(1);
/// Three nodes.
pub const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// Nothing of this is against the invariant.
#[track_caller]
pub fn holds(invariant: &mut dyn Invariant, observations: &[Observation<'_>]) {
    for observation in observations {
        if let Err(error) = invariant.observe(observation) {
            panic!("{} complains of {observation:?}: {error}", invariant.name());
        }
    }
}

/// The last of these is against the invariant, with such a sentence, and none before it.
#[track_caller]
pub fn breaks(invariant: &mut dyn Invariant, observations: &[Observation<'_>], sentence: &str) {
    let (last, before) = observations.split_last().expect("something happens");
    holds(invariant, before);
    match invariant.observe(last) {
        Ok(()) => panic!("{} does not notice {last:?}", invariant.name()),
        Err(error) => assert!(error.contains(sentence), "{} says {error:?}, not {sentence:?}", invariant.name()),
    }
}

/// An entry with some payload.
pub fn entry(index: u64, term: u64, data: &'static str) -> LogEntry {
    let data = Bytes::from_static(data.as_bytes());
    LogEntry { id: LogId::new(index, term), kind: EntryKind::Normal, context: Bytes::new(), data }
}

/// An entry with a batch.
pub fn produce(index: u64, value: u64, count: u32, producer: Option<(i64, i16, i32)>) -> LogEntry {
    let (id, kind) = (LogId::new(index, 1), EntryKind::Normal);
    let context = Command::Produce { proposed_at_ms: 0 }.encode();
    LogEntry { id, kind, context, data: batch_of(value, count, 0, producer).into_bytes() }
}

/// A write of `GROUP` in a term, without a vote or a commit.
pub fn write(term: u64, change: LogChange) -> GroupWrite {
    GroupWrite { group: GROUP, hard_state: hard_state(term, None, 1), change }
}

/// A hard state.
pub fn hard_state(term: u64, vote: Option<ReplicaId>, commit: u64) -> HardState {
    HardState { term: Term(term), vote, commit: LogIndex(commit) }
}

/// The birth of `GROUP`.
pub fn birth() -> GroupWrite {
    write(1, LogChange::Born { start: LogId::new(1, 1) })
}

/// Entries of one term, one after the other.
pub fn append(term: u64, indexes: std::ops::RangeInclusive<u64>) -> GroupWrite {
    write(term, LogChange::Append(indexes.map(|index| entry(index, term, "data")).collect()))
}

/// The first replica of a node.
pub fn replica(node: NodeId) -> ReplicaId {
    ReplicaId::new(node, 0)
}

/// Three voters.
pub fn voters() -> Membership {
    Membership::of_voters(NODES.map(replica))
}
