//! Why a request failed, and what its sender may conclude from that.
//!
//! The one question a producer has after a failure is "may my records be in the log all the same?". The answer is part
//! of the type: [`ErrorKind::certainty`]. An indefinite error is always retriable, because a client that gives up on it
//! would report as lost what others may read. Wire codes are not known here; each edge maps them in one place.

use super::PartitionLeader;
use crate::types::Offset;
use std::borrow::Cow;
use std::fmt;

/// Whether a failed request may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// This request wrote nothing, and will not.
    Definite,
    /// It may have been written, or may still be.
    Indefinite,
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $kind:ident: $certainty:ident, retriable $retriable:literal, $text:literal;)*) => {
        /// What went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorKind {
            $($(#[$doc])* $kind,)*
        }

        impl ErrorKind {
            /// Every kind, for tables and tests.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Whether the request may have had an effect.
            #[must_use]
            pub const fn certainty(self) -> Certainty {
                match self { $(Self::$kind => Certainty::$certainty,)* }
            }

            /// Whether the same request may succeed later, unchanged.
            #[must_use]
            pub const fn is_retriable(self) -> bool {
                match self { $(Self::$kind => $retriable,)* }
            }

            const fn text(self) -> &'static str {
                match self { $(Self::$kind => $text,)* }
            }
        }
    };
}

error_kinds! {
    /// This node does not lead the partition, or its write was overwritten by another leader's.
    NotLeader: Definite, retriable true, "this node does not lead the partition";
    /// Nobody is known to lead the partition, or a new leader cannot answer yet.
    LeaderNotAvailable: Definite, retriable true, "the partition has no leader at the moment";
    /// The leader could not confirm in time that it still leads (ReadIndex without an answer).
    OffsetNotAvailable: Definite, retriable true, "the leader cannot confirm the end of its log yet";
    /// A majority of the partition's replicas is known to be away.
    NotEnoughReplicas: Definite, retriable true, "a majority of the replicas is away";
    /// A queue stayed full for as long as the broker was willing to wait.
    Overloaded: Definite, retriable true, "the node is overloaded";
    /// The node's storage takes no writes: full, or quarantined.
    StorageUnavailable: Definite, retriable true, "the node's storage takes no writes";
    /// The request's timeout ran out with the write's fate open.
    TimedOut: Indefinite, retriable true, "the request timed out, its effect is unknown";
    /// Leadership was lost with the write's fate open.
    LeadershipLost: Indefinite, retriable true, "leadership was lost, the write's fate is unknown";
    /// No such topic, or no such partition of it. Retriable: it may be on its way to this node.
    UnknownTopicOrPartition: Definite, retriable true, "no such topic or partition";
    /// No topic has this id.
    UnknownTopicId: Definite, retriable true, "no such topic id";
    /// The reader's leader epoch is older than the leader's (KIP-320).
    FencedLeaderEpoch: Definite, retriable true, "the leader epoch is older than the leader's";
    /// The reader's leader epoch is newer than the leader's (KIP-320).
    UnknownLeaderEpoch: Definite, retriable true, "the leader epoch is newer than the leader's";
    /// The offset is outside the log; said above the end only after a ReadIndex.
    OffsetOutOfRange: Definite, retriable false, "the offset is outside the log";
    /// The batch's checksum or structure is wrong. Retriable: the damage may have happened on the way.
    CorruptRecord: Definite, retriable true, "the batch is damaged";
    /// The batch breaks a rule that retrying cannot mend.
    InvalidRecord: Definite, retriable false, "the batch is not valid";
    /// The batch is larger than the topic allows.
    RecordTooLarge: Definite, retriable false, "the batch is larger than the topic allows";
    /// A timestamp is outside the topic's bounds.
    InvalidTimestamp: Definite, retriable false, "a timestamp is outside the topic's bounds";
    /// The batch's format is not the one this cluster stores.
    UnsupportedFormat: Definite, retriable false, "the batch's format is not supported";
    /// The batch's compression is not supported.
    UnsupportedCompression: Definite, retriable false, "the batch's compression is not supported";
    /// The batch does not follow the producer's last one (KIP-98).
    OutOfOrderSequence: Definite, retriable false, "the batch is out of its producer's order";
    /// The producer has been fenced by a newer epoch of itself (KIP-98).
    InvalidProducerEpoch: Definite, retriable false, "the producer's epoch is too old";
    /// The batch repeats an old one whose offset is no longer remembered (KIP-98). This copy was not written because an
    /// earlier one was: producers count it as delivered.
    DuplicateSequence: Definite, retriable false, "the batch is an old duplicate";
    /// The topic's name is not allowed.
    InvalidTopic: Definite, retriable false, "the topic's name is not allowed";
    /// A topic of this name exists.
    TopicExists: Definite, retriable false, "the topic exists already";
    /// The number of partitions is not allowed.
    InvalidPartitions: Definite, retriable false, "the number of partitions is not allowed";
    /// The replication factor is not allowed, or larger than the cluster.
    InvalidReplicationFactor: Definite, retriable false, "the replication factor is not allowed";
    /// An explicit assignment of replicas contradicts itself or the cluster.
    InvalidAssignment: Definite, retriable false, "the replica assignment is not allowed";
    /// A setting is unknown, or its value is not allowed.
    InvalidConfig: Definite, retriable false, "the configuration is not allowed";
    /// The topic's settings do not allow what was asked for.
    PolicyViolation: Definite, retriable false, "the topic's settings do not allow that";
    /// The request contradicts itself.
    InvalidRequest: Definite, retriable false, "the request is not valid";
    /// The controller could not be reached; nothing was changed.
    ControllerNotAvailable: Definite, retriable true, "the controller cannot be reached";
    /// The group's coordinator is not known at the moment.
    CoordinatorNotAvailable: Definite, retriable true, "the coordinator is not available";
    /// This node coordinates the group but has not read its state yet.
    CoordinatorLoading: Definite, retriable true, "the coordinator is loading its state";
    /// This node does not coordinate the group.
    NotCoordinator: Definite, retriable true, "this node does not coordinate the group";
    /// The coordinator lost its leadership, or the disk's time ran out, with the change's fate open.
    CoordinatorLost: Indefinite, retriable true, "the coordinator was lost, the change's fate is unknown";
    /// The group's name is not allowed.
    InvalidGroup: Definite, retriable false, "the group's name is not allowed";
    /// The group has no such member, or no longer.
    UnknownMember: Definite, retriable false, "the group has no such member";
    /// The member's generation is not the group's.
    IllegalGeneration: Definite, retriable false, "the generation is not the group's";
    /// The group is rebalancing: the member has to join again.
    RebalanceInProgress: Definite, retriable false, "the group is rebalancing, join again";
    /// Another member has taken the static member's place (KIP-345).
    FencedInstance: Definite, retriable false, "another member has taken this static member's place";
    /// The member has no protocol in common with the others, or is of another kind.
    InconsistentGroupProtocol: Definite, retriable false, "no group protocol in common with the other members";
    /// The session timeout is outside the node's bounds.
    InvalidSessionTimeout: Definite, retriable false, "the session timeout is outside the node's bounds";
    /// The group has as many members as it may have (KIP-389).
    GroupFull: Definite, retriable false, "the group has as many members as it may have";
    /// The group has members.
    GroupNotEmpty: Definite, retriable false, "the group is not empty";
    /// No such group.
    UnknownGroup: Definite, retriable false, "no such group";
    /// The group's members subscribe to the topic.
    SubscribedToTopic: Definite, retriable false, "the group's members subscribe to the topic";
    /// The text stored with an offset is too long.
    OffsetMetadataTooLarge: Definite, retriable false, "the text stored with the offset is too long";
    /// This node's own mistake, before anything was written.
    Internal: Definite, retriable false, "an internal error";
}

/// A failure, with what helps its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// A sentence for people; the kind's own if there is none.
    pub message: Option<Cow<'static, str>>,
    /// Who leads the partition, where that is the reason and is known (KIP-951).
    pub leader: Option<PartitionLeader>,
    /// Where the partition's log starts, where an offset outside of it is the reason.
    pub log_start: Option<Offset>,
}

impl Error {
    /// An error of this kind that says why.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: Some(message.into()), leader: None, log_start: None }
    }

    /// "Not I", and who leads instead if that is known.
    #[must_use]
    pub fn not_leader(leader: Option<PartitionLeader>) -> Self {
        Self { kind: ErrorKind::NotLeader, message: None, leader, log_start: None }
    }

    /// "Not in this log, which is from here to there."
    #[must_use]
    pub fn out_of_range(offset: Offset, log_start: Offset, high_watermark: Offset) -> Self {
        let message =
            format!("offset {offset} is outside the log, which starts at {log_start} and ends at {high_watermark}");
        Self { log_start: Some(log_start), ..Self::new(ErrorKind::OffsetOutOfRange, message) }
    }

    /// The sentence for people.
    #[must_use]
    pub fn text(&self) -> &str {
        self.message.as_deref().unwrap_or(self.kind.text())
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, message: None, leader: None, log_start: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_written_is_retriable() {
        for kind in ErrorKind::ALL.iter().filter(|kind| kind.certainty() == Certainty::Indefinite) {
            assert!(kind.is_retriable(), "{kind:?}");
        }
    }
}
