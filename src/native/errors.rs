//! The broker's errors in the protocol's words: the one place that knows its codes.
//!
//! `definite` and `retriable` are the broker's own; a code only says more. What a read or a query runs into is definite
//! whatever happened, because it has no effect.

use crate::broker::{Broker, Certainty, Cluster, Edge, Error, ErrorKind, PartitionLeader};
use crate::proto::native::{self, ErrorCode};

/// Answers carry at most so much of a message for people.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The code of a kind.
#[must_use]
pub const fn code(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::NotLeader
        | ErrorKind::LeaderNotAvailable
        | ErrorKind::FencedLeaderEpoch
        | ErrorKind::UnknownLeaderEpoch => ErrorCode::NotLeader,
        ErrorKind::OffsetNotAvailable
        | ErrorKind::NotEnoughReplicas
        | ErrorKind::ControllerNotAvailable
        | ErrorKind::CoordinatorNotAvailable
        | ErrorKind::CoordinatorLoading => ErrorCode::NoQuorum,
        ErrorKind::NotCoordinator => ErrorCode::NotCoordinator,
        ErrorKind::UnknownMember => ErrorCode::UnknownMember,
        ErrorKind::IllegalGeneration => ErrorCode::IllegalGeneration,
        ErrorKind::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        ErrorKind::FencedInstance => ErrorCode::FencedInstance,
        ErrorKind::GroupNotEmpty => ErrorCode::GroupNotEmpty,
        ErrorKind::UnknownGroup => ErrorCode::UnknownGroup,
        ErrorKind::Overloaded | ErrorKind::StorageUnavailable => ErrorCode::Overloaded,
        ErrorKind::TimedOut => ErrorCode::TimedOut,
        ErrorKind::LeadershipLost | ErrorKind::CoordinatorLost => ErrorCode::LeadershipLost,
        ErrorKind::UnknownTopicOrPartition => ErrorCode::UnknownPartition,
        ErrorKind::UnknownTopicId => ErrorCode::UnknownTopic,
        ErrorKind::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
        ErrorKind::CorruptRecord
        | ErrorKind::InvalidRecord
        | ErrorKind::InvalidTimestamp
        | ErrorKind::UnsupportedFormat
        | ErrorKind::UnsupportedCompression => ErrorCode::InvalidBatch,
        ErrorKind::RecordTooLarge => ErrorCode::TooLarge,
        ErrorKind::OutOfOrderSequence => ErrorCode::OutOfOrderSequence,
        ErrorKind::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
        ErrorKind::DuplicateSequence => ErrorCode::DuplicateSequence,
        ErrorKind::TopicExists => ErrorCode::TopicExists,
        ErrorKind::InvalidTopic
        | ErrorKind::InvalidPartitions
        | ErrorKind::InvalidReplicationFactor
        | ErrorKind::InvalidAssignment
        | ErrorKind::InvalidConfig
        | ErrorKind::PolicyViolation
        | ErrorKind::InconsistentGroupProtocol
        | ErrorKind::InvalidSessionTimeout
        | ErrorKind::GroupFull
        | ErrorKind::SubscribedToTopic
        | ErrorKind::OffsetMetadataTooLarge => ErrorCode::Refused,
        ErrorKind::InvalidGroup | ErrorKind::InvalidRequest => ErrorCode::InvalidRequest,
        ErrorKind::Internal => ErrorCode::Internal,
    }
}

/// The error as it is sent.
#[must_use]
pub fn wire<B: Broker>(broker: &B, error: &Error) -> native::Error {
    let text = error.text();
    native::Error {
        code: code(error.kind).into(),
        message: text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned(),
        definite: error.kind.certainty() == Certainty::Definite,
        retriable: error.kind.is_retriable(),
        leader: error.leader.map(|known| leader(&broker.cluster(Edge::Native), known)),
        log_start_offset: error.log_start.map(|start| start.0),
    }
}

/// A leader, and where its native listener is, if it is alive.
#[must_use]
pub fn leader(cluster: &Cluster, known: PartitionLeader) -> native::Leader {
    let address = cluster.node(known.node).map(|node| &node.address);
    native::Leader {
        node: known.node.0,
        term: u64::try_from(known.epoch.0).unwrap_or(0),
        host: address.map(|address| address.host.clone()).unwrap_or_default(),
        port: address.map_or(0, |address| u32::from(address.port)),
    }
}

fn definite(code: ErrorCode, message: &str) -> native::Error {
    native::Error { code: code.into(), message: message.to_owned(), definite: true, ..native::Error::default() }
}

/// The request makes no sense.
#[must_use]
pub fn invalid(message: &str) -> native::Error {
    definite(ErrorCode::InvalidRequest, message)
}

/// This server does not do that.
#[must_use]
pub fn unsupported(message: &str) -> native::Error {
    definite(ErrorCode::Unsupported, message)
}

/// The server's own mistake; a request that has no effect meets it.
#[must_use]
pub fn internal(message: &str) -> native::Error {
    definite(ErrorCode::Internal, message)
}

/// The time of a request without an effect ran out.
#[must_use]
pub fn query_timed_out() -> native::Error {
    native::Error { retriable: true, ..definite(ErrorCode::TimedOut, "the time ran out; nothing was changed") }
}
