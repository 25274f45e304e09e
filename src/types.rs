//! The vocabulary every room shares: distinct numbers are distinct types.
//!
//! Nothing here knows how a value is stored, sent or decided. A `LogIndex` counts Raft entries, an `Offset` counts
//! records; no room converts one into the other except by looking into a state machine.

use bytes::Bytes;
use std::fmt;

/// A node's number in the cluster, as operators write it and Kafka clients see it (1 ..= 2^31 - 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct NodeId(pub u32);

/// A Raft group's number. Group 0 is the controller; every partition is a group of its own. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct RaftGroupId(pub u64);

/// The group that holds the cluster's metadata.
pub const CONTROLLER_GROUP: RaftGroupId = RaftGroupId(0);

/// The internal topic whose partitions coordinate consumer groups. It holds no records.
pub const COORDINATOR_TOPIC: &str = "__consumer_offsets";

/// What the Raft group of a topic's partition replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Records.
    Partition,
    /// Consumer groups and their offsets.
    Coordinator,
}

/// One replica of one group, as Raft's quorum counts it: the node in the low 32 bits, and above them how many replicas
/// of this group that node has had before.
///
/// A replica that lost its disk comes back under the next number, never under its old one: its old identity made
/// promises that the new disk does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// The replica of `node` that is the `generation`-th of its group there (0 for the first).
    #[must_use]
    pub const fn new(node: NodeId, generation: u32) -> Self {
        Self(((generation as u64) << 32) | node.0 as u64)
    }

    /// A replica of `node` of which it is not known which it is. None was ever given this number, so that nobody hears
    /// one that bears it, and it is no member of its group.
    #[must_use]
    pub const fn unknown(node: NodeId) -> Self {
        Self::new(node, u32::MAX)
    }

    /// Whether it is not known which replica this is.
    #[must_use]
    pub const fn is_unknown(self) -> bool {
        self.generation() == u32::MAX
    }

    /// The node that hosts this replica.
    #[must_use]
    pub const fn node(self) -> NodeId {
        NodeId((self.0 & 0xffff_ffff) as u32)
    }

    /// How many replicas of the group the node has had before this one.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A topic's identity: random, never reused, so that a topic that was deleted and made again is another one (KIP-516).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct TopicId(pub u128);

/// The cluster's identity: random, chosen when its first node was formatted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct ClusterId(pub u128);

/// One life of a node's data directory: random, drawn by `ackord format`. A node that lost its disk comes back with
/// another one, and is therefore not taken for the node whose promises it has forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct Incarnation(pub u128);

/// A Raft term. Starts at 1 for a living group; 0 means "before the first election".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct Term(pub u64);

/// The position of an entry in one group's Raft log. Starts at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// The identity of an entry: two logs that hold the same `LogId` agree on everything up to it (Raft's log matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct LogId {
    /// The entry's place.
    pub index: LogIndex,
    /// The term of the leader that wrote it.
    pub term: Term,
}

impl LogId {
    /// The entry at `index` of `term`.
    #[must_use]
    pub const fn new(index: u64, term: u64) -> Self {
        Self { index: LogIndex(index), term: Term(term) }
    }
}

/// The position of a record in its partition. Starts at 0, has no gaps, is never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct Offset(pub i64);

/// The Raft term under which a record was written, as Kafka's wire protocol shows it (KIP-101).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct LeaderEpoch(pub i32);

/// What a replica has promised and must never forget (Raft §5.1), and how far it knows the log to be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct HardState {
    /// The newest term this replica has seen.
    pub term: Term,
    /// Whom it voted for in that term, if anybody.
    pub vote: Option<ReplicaId>,
    /// The highest index it knows to be committed. May lag behind the truth after a crash, never run ahead of it.
    pub commit: LogIndex,
}

/// What an entry of the Raft log is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum EntryKind {
    /// A command for the group's state machine; empty data is a new leader's first entry.
    #[default]
    Normal,
    /// A change of the group's voters and learners.
    ConfChange,
}

/// One entry of a group's Raft log. Cloning it copies no payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEntry {
    /// Place and term.
    pub id: LogId,
    /// Who reads it.
    pub kind: EntryKind,
    /// The command's small header (`bincode`, behind a version byte). Apart from `data` so that a producer's batch
    /// travels from its socket to the disk as the slice it came in.
    pub context: Bytes,
    /// The command's payload: a record batch as the producer sent it, or nothing.
    pub data: Bytes,
}

impl LogEntry {
    /// The payload bytes this entry pins in memory.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.context.len() + self.data.len()
    }
}

/// The members of a group as of some applied index. Sorted, so that equal configurations are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Membership {
    /// Replicas that vote.
    pub voters: Vec<ReplicaId>,
    /// Replicas that receive the log and do not vote.
    pub learners: Vec<ReplicaId>,
    /// The outgoing voters of a joint configuration (Raft §6); empty outside one.
    pub voters_outgoing: Vec<ReplicaId>,
    /// Learners that a joint configuration will demote when it is left.
    pub learners_next: Vec<ReplicaId>,
    /// Whether the leader leaves the joint configuration by itself.
    pub auto_leave: bool,
}

impl Membership {
    /// A plain configuration of these voters.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = ReplicaId>) -> Self {
        let mut membership = Self { voters: voters.into_iter().collect(), ..Self::default() };
        membership.voters.sort_unstable();
        membership.voters.dedup();
        membership
    }

    /// What a replica knows that joins a group later: itself. A snapshot tells it the rest.
    #[must_use]
    pub fn of_joining(own: ReplicaId) -> Self {
        Self { learners: vec![own], ..Self::default() }
    }

    /// Whether this is a replica's that has not had its first snapshot yet.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        self.voters.is_empty()
    }

    /// Every member, voting or not, some of them twice.
    pub fn all(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.voters.iter().chain(&self.voters_outgoing).chain(&self.learners).copied()
    }

    /// Whether a replica is a member.
    #[must_use]
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.all().any(|member| member == replica)
    }

    /// Whether a change is half done: majorities of both the old and the new voters are needed.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }
}

macro_rules! display_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}", self.0)
            }
        }
    )*};
}
display_as_number!(NodeId, RaftGroupId, ReplicaId, Term, LogIndex, Offset, LeaderEpoch);

macro_rules! display_and_parse_as_kafka_uuid {
    ($($name:ident),*) => {$(
        /// As Kafka shows its ids: 22 characters of unpadded, URL-safe base64 over the 16 bytes, big-endian.
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                // 128 bits are 21 characters of six bits and a last one of two, padded with zeros on the right.
                for shift in (2..=122).rev().step_by(6).map(Some).chain([None]) {
                    let sextet = match shift {
                        Some(shift) => (self.0 >> shift) as usize & 63,
                        None => (self.0 << 4) as usize & 63,
                    };
                    write!(formatter, "{}", char::from(BASE64_URL[sextet]))?;
                }
                Ok(())
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if text.len() != 22 {
                    return Err(InvalidId);
                }
                let mut value = 0_u128;
                for (place, byte) in text.bytes().enumerate() {
                    let sextet = BASE64_URL.iter().position(|known| *known == byte).ok_or(InvalidId)? as u128;
                    value = match place {
                        21 if sextet & 15 != 0 => return Err(InvalidId),
                        21 => (value << 2) | (sextet >> 4),
                        _ => (value << 6) | sextet,
                    };
                }
                Ok(Self(value))
            }
        }
    )*};
}
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
display_and_parse_as_kafka_uuid!(TopicId, ClusterId, Incarnation);

/// A text that is not an id as Kafka writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: 22 characters of URL-safe base64 are expected")]
pub struct InvalidId;

impl fmt::Display for LogId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.index, self.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_and_write_as_kafka_does() {
        // Kafka's own metadata topic has the id 00000000-0000-0000-0000-000000000001.
        assert_eq!(TopicId(1).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(TopicId(u128::MAX).to_string(), "_____________________w");
        for value in [0, 1, 42 << 90, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            assert_eq!(TopicId(value).to_string().parse(), Ok(TopicId(value)));
        }
        for text in ["", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA+Q"] {
            assert_eq!(text.parse::<ClusterId>(), Err(InvalidId), "{text}");
        }
    }
}
