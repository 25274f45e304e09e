//! Kafka's error codes, and nobody else's business.
//!
//! The rule on the wire: an indefinite error of a write to a log is 7 or 20 and nothing else, because those are codes
//! that clients treat as "may have been written"; a definite error is never one of these. Group members know no such
//! codes: theirs is 15, and what they then repeat does no harm.

use crate::broker::{Error, ErrorKind};
use kafka_protocol::error::ResponseError as Code;

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
        ErrorKind::InvalidRequest => Code::InvalidRequest,
        ErrorKind::ControllerNotAvailable => Code::NotController,
        // What Kafka's coordinator says when its own write has timed out; members look for it again and repeat. None of
        // their requests does harm when repeated.
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
}
