//! Kafka's error codes, and nobody else's business.
//!
//! The rule on the wire: an indefinite error of a write to a log is 7 or 20 and nothing else, because those are codes
//! that clients treat as "may have been written"; a definite error is never one of these. Group members know no such
//! codes, and what they repeat does no harm: theirs are in [`group_code_of`].

use crate::broker::{Error, ErrorKind};
use kafka_protocol::error::ResponseError as Code;
use kafka_protocol::messages::ApiKey;

/// No error.
pub const NONE: i16 = 0;

/// The code of an error of this kind.
#[must_use]
pub const fn code_of(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotLeader => Code::NotLeaderOrFollower,
        ErrorKind::LeaderNotAvailable => Code::LeaderNotAvailable,
        ErrorKind::OffsetNotAvailable => Code::OffsetNotAvailable,
        // "Retry, and nothing was written", without a refresh of metadata: so librdkafka takes 19. Kafka has no code
        // for an overloaded broker that producers retry; THROTTLING_QUOTA_EXCEEDED is for admin requests (KIP-599).
        ErrorKind::NotEnoughReplicas | ErrorKind::Overloaded => Code::NotEnoughReplicas,
        ErrorKind::StorageUnavailable => Code::KafkaStorageError,
        ErrorKind::TimedOut => Code::RequestTimedOut,
        ErrorKind::LeadershipLost => Code::NotEnoughReplicasAfterAppend,
        ErrorKind::UnknownTopicOrPartition => Code::UnknownTopicOrPartition,
        ErrorKind::UnknownTopicId => Code::UnknownTopicId,
        ErrorKind::FencedLeaderEpoch => Code::FencedLeaderEpoch,
        ErrorKind::UnknownLeaderEpoch => Code::UnknownLeaderEpoch,
        ErrorKind::OffsetOutOfRange => Code::OffsetOutOfRange,
        ErrorKind::CorruptRecord => Code::CorruptMessage,
        ErrorKind::InvalidRecord => Code::InvalidRecord,
        ErrorKind::RecordTooLarge => Code::MessageTooLarge,
        ErrorKind::InvalidTimestamp => Code::InvalidTimestamp,
        ErrorKind::UnsupportedFormat => Code::UnsupportedForMessageFormat,
        ErrorKind::UnsupportedCompression => Code::UnsupportedCompressionType,
        ErrorKind::OutOfOrderSequence => Code::OutOfOrderSequenceNumber,
        ErrorKind::InvalidProducerEpoch => Code::InvalidProducerEpoch,
        ErrorKind::DuplicateSequence => Code::DuplicateSequenceNumber,
        ErrorKind::InvalidTopic => Code::InvalidTopicException,
        ErrorKind::TopicExists => Code::TopicAlreadyExists,
        ErrorKind::InvalidPartitions => Code::InvalidPartitions,
        ErrorKind::InvalidReplicationFactor => Code::InvalidReplicationFactor,
        ErrorKind::InvalidAssignment => Code::InvalidReplicaAssignment,
        ErrorKind::InvalidConfig => Code::InvalidConfig,
        ErrorKind::PolicyViolation => Code::PolicyViolation,
        ErrorKind::InvalidRequest => Code::InvalidRequest,
        ErrorKind::ControllerNotAvailable => Code::NotController,
        // What Kafka's coordinator says when its own write has timed out.
        ErrorKind::CoordinatorNotAvailable | ErrorKind::CoordinatorLost => Code::CoordinatorNotAvailable,
        ErrorKind::CoordinatorLoading => Code::CoordinatorLoadInProgress,
        ErrorKind::NotCoordinator => Code::NotCoordinator,
        ErrorKind::InvalidGroup => Code::InvalidGroupId,
        ErrorKind::UnknownMember => Code::UnknownMemberId,
        ErrorKind::IllegalGeneration => Code::IllegalGeneration,
        ErrorKind::RebalanceInProgress => Code::RebalanceInProgress,
        ErrorKind::FencedInstance => Code::FencedInstanceId,
        ErrorKind::InconsistentGroupProtocol => Code::InconsistentGroupProtocol,
        ErrorKind::InvalidSessionTimeout => Code::InvalidSessionTimeout,
        ErrorKind::GroupFull => Code::GroupMaxSizeReached,
        ErrorKind::GroupNotEmpty => Code::NonEmptyGroup,
        ErrorKind::UnknownGroup => Code::GroupIdNotFound,
        ErrorKind::SubscribedToTopic => Code::GroupSubscribedToTopic,
        ErrorKind::OffsetMetadataTooLarge => Code::OffsetMetadataTooLarge,
        ErrorKind::Internal => Code::UnknownServerError,
    }
}

/// The code of `error`.
#[must_use]
pub fn code(error: &Error) -> i16 {
    code_of(error.kind).code()
}

/// The code of `error` for a client whose API version dates from before a code existed: older clients would take it for
/// an unknown, fatal one. `storage_error_since` is the version of the API that learnt KAFKA_STORAGE_ERROR (KIP-112).
#[must_use]
pub fn code_since(error: &Error, version: i16, storage_error_since: i16) -> i16 {
    match error.kind {
        ErrorKind::StorageUnavailable if version < storage_error_since => Code::NotLeaderOrFollower.code(),
        _ => code(error),
    }
}

/// The code that tells somebody who asked about a consumer group why not.
///
/// Java's members throw at their application whatever a handler does not expect, and each handler expects a list of its
/// own (`AbstractCoordinator`, `ConsumerCoordinator`). Besides what the group itself refuses, all lists, in old
/// versions and in every other client, have one code in common that says "this node cannot, look for the coordinator
/// and ask again": NOT_COORDINATOR. So that is what an overloaded node, a full disk, a lost leadership, a timeout and a
/// mistake of our own become. COORDINATOR_NOT_AVAILABLE, which means the same, ends a JoinGroup of sarama's and, before
/// 3.9, an OffsetFetch of Java's; it is for those who ask no coordinator: FindCoordinator, and ListGroups, whose caller
/// has to repeat it at the same node.
///
/// What Kafka says while it loads a group is as special: nothing bad to a heartbeat, "join again" to a SyncGroup,
/// because members do not expect COORDINATOR_LOAD_IN_PROGRESS there.
#[must_use]
pub const fn group_code_of(asked: ApiKey, kind: ErrorKind) -> i16 {
    let code = match (asked, kind) {
        (ApiKey::Heartbeat, ErrorKind::CoordinatorLoading) => return NONE,
        (ApiKey::SyncGroup, ErrorKind::CoordinatorLoading) => Code::RebalanceInProgress,
        // What Kafka tells a member of a group that is gone.
        (
            ApiKey::JoinGroup | ApiKey::SyncGroup | ApiKey::Heartbeat | ApiKey::LeaveGroup | ApiKey::OffsetCommit,
            ErrorKind::UnknownGroup,
        ) => Code::UnknownMemberId,
        (
            _,
            ErrorKind::CoordinatorLoading
            | ErrorKind::InvalidGroup
            | ErrorKind::UnknownMember
            | ErrorKind::IllegalGeneration
            | ErrorKind::RebalanceInProgress
            | ErrorKind::FencedInstance
            | ErrorKind::InconsistentGroupProtocol
            | ErrorKind::InvalidSessionTimeout
            | ErrorKind::GroupFull
            | ErrorKind::GroupNotEmpty
            | ErrorKind::UnknownGroup
            | ErrorKind::SubscribedToTopic
            | ErrorKind::OffsetMetadataTooLarge
            | ErrorKind::InvalidRequest,
        ) => code_of(kind),
        (ApiKey::FindCoordinator | ApiKey::ListGroups, _) => Code::CoordinatorNotAvailable,
        _ => Code::NotCoordinator,
    };
    code.code()
}

/// The code of `error` for somebody who asked about a consumer group.
#[must_use]
pub fn group_code(asked: ApiKey, error: &Error) -> i16 {
    group_code_of(asked, error.kind)
}

/// The code of `error` for one of a group's offsets: only there the topic can be what is unknown.
#[must_use]
pub fn offset_code(asked: ApiKey, error: &Error) -> i16 {
    match error.kind {
        ErrorKind::UnknownTopicOrPartition => code(error),
        _ => group_code(asked, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Certainty;

    #[test]
    fn indefinite_errors_and_only_they_are_7_and_20() {
        for kind in ErrorKind::ALL {
            let unsure = matches!(code_of(*kind).code(), 7 | 20);
            let of_a_log = *kind != ErrorKind::CoordinatorLost;
            assert_eq!(unsure, kind.certainty() == Certainty::Indefinite && of_a_log, "{kind:?}");
        }
    }

    #[test]
    fn the_codes_are_as_retriable_as_the_kinds() {
        for kind in ErrorKind::ALL {
            assert_eq!(code_of(*kind).is_retriable(), kind.is_retriable(), "{kind:?}");
        }
    }

    /// What the handlers of Java's members expect: anything else they throw at the application.
    #[test]
    fn members_can_live_with_every_failure() {
        let expected: [(ApiKey, &[i16]); 6] = [
            (ApiKey::JoinGroup, &[14, 15, 16, 23, 24, 25, 26, 27, 81, 82]),
            (ApiKey::SyncGroup, &[15, 16, 22, 25, 27, 82]),
            (ApiKey::Heartbeat, &[0, 15, 16, 22, 25, 27, 82]),
            (ApiKey::LeaveGroup, &[14, 15, 16, 25, 82]),
            (ApiKey::OffsetCommit, &[3, 7, 12, 14, 15, 16, 22, 25, 27, 82]),
            (ApiKey::OffsetFetch, &[14, 16]),
        ];
        let not_theirs = |kind: &ErrorKind| !code_of(*kind).is_retriable() && *kind != ErrorKind::Internal;
        for (asked, expected) in expected {
            for kind in ErrorKind::ALL.iter().filter(|kind| !not_theirs(kind)) {
                let code = group_code_of(asked, *kind);
                assert!(expected.contains(&code), "{kind:?} is {code} to {asked:?}");
            }
        }
    }

    #[test]
    fn who_asks_no_coordinator_is_not_sent_to_another() {
        for asked in [ApiKey::FindCoordinator, ApiKey::ListGroups] {
            for kind in [ErrorKind::NotCoordinator, ErrorKind::CoordinatorLost, ErrorKind::Overloaded] {
                assert_eq!(group_code_of(asked, kind), 15);
            }
        }
    }

    #[test]
    fn only_an_offset_can_have_an_unknown_topic() {
        let error = ErrorKind::UnknownTopicOrPartition.into();
        assert_eq!(offset_code(ApiKey::OffsetCommit, &error), 3);
        assert_eq!(group_code(ApiKey::OffsetCommit, &error), 16);
        assert_eq!(offset_code(ApiKey::OffsetCommit, &ErrorKind::UnknownGroup.into()), 25);
        assert_eq!(offset_code(ApiKey::OffsetDelete, &ErrorKind::UnknownGroup.into()), 69);
    }
}
