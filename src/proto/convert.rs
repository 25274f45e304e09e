//! Between generated messages and the vocabulary: the few values that both have.

use super::peer;
use crate::types::{EntryKind, LogEntry, LogId, Membership, ReplicaId};
use bytes::Bytes;

/// Why a message is not a value: it was made by something else than a node of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// The 16 bytes that a topic's, a cluster's or an incarnation's id has on the wire.
#[must_use]
pub fn id_bytes(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

/// Reads `id_bytes`.
pub fn read_id(bytes: &[u8]) -> Result<u128, Malformed> {
    bytes.try_into().map(u128::from_be_bytes).map_err(|_| Malformed("id: it has 16 bytes"))
}

impl From<LogEntry> for peer::Entry {
    fn from(entry: LogEntry) -> Self {
        let kind = match entry.kind {
            EntryKind::Normal => peer::EntryKind::Normal,
            EntryKind::ConfChange => peer::EntryKind::ConfChange,
        };
        let LogId { index, term } = entry.id;
        Self { index: index.0, term: term.0, kind: kind.into(), context: entry.context, data: entry.data }
    }
}

impl TryFrom<peer::Entry> for LogEntry {
    type Error = Malformed;

    fn try_from(entry: peer::Entry) -> Result<Self, Malformed> {
        let kind = match peer::EntryKind::try_from(entry.kind) {
            Ok(peer::EntryKind::Normal) => EntryKind::Normal,
            Ok(peer::EntryKind::ConfChange) => EntryKind::ConfChange,
            Err(_) => return Err(Malformed("entry: unknown kind")),
        };
        if entry.index == 0 || entry.term == 0 {
            return Err(Malformed("entry: index and term begin at 1"));
        }
        Ok(Self { id: LogId::new(entry.index, entry.term), kind, context: entry.context, data: entry.data })
    }
}

impl From<&Membership> for peer::Membership {
    fn from(members: &Membership) -> Self {
        let numbers = |replicas: &[ReplicaId]| replicas.iter().map(|replica| replica.0).collect();
        Self {
            voters: numbers(&members.voters),
            learners: numbers(&members.learners),
            voters_outgoing: numbers(&members.voters_outgoing),
            learners_next: numbers(&members.learners_next),
            auto_leave: members.auto_leave,
        }
    }
}

/// Sorted, whatever order they came in, as `Membership` has it.
impl From<peer::Membership> for Membership {
    fn from(members: peer::Membership) -> Self {
        let replicas = |mut numbers: Vec<u64>| {
            numbers.sort_unstable();
            numbers.into_iter().map(ReplicaId).collect()
        };
        Self {
            voters: replicas(members.voters),
            learners: replicas(members.learners),
            voters_outgoing: replicas(members.voters_outgoing),
            learners_next: replicas(members.learners_next),
            auto_leave: members.auto_leave,
        }
    }
}
