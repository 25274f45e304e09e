//! What may go wrong, and what may be concluded from it.

use crate::proto::native::{self, ErrorCode};
use std::fmt;

/// A result of the client's.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server refused, or could not finish.
    Server(ErrorCode),
    /// No node could be reached; nothing was sent.
    Unreachable,
    /// The connection ended with the request unanswered.
    ConnectionLost,
    /// No answer came in time.
    TimedOut,
    /// The server's bytes make no sense to this client.
    Protocol,
    /// The caller asked for something that cannot be.
    Usage,
}

/// A failure, and whether the request may have had an effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What went wrong.
    kind: ErrorKind,
    /// For people.
    message: String,
    /// Whether the request certainly had no effect.
    definite: bool,
    /// Whether the same request may succeed later.
    retriable: bool,
    /// Who leads, if the server said so.
    pub(super) leader: Option<native::Leader>,
    /// Where the log begins, if the server said so.
    log_start: Option<i64>,
}

impl Error {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the request certainly had no effect, and never will have one. Otherwise it may have been done, or may
    /// still be.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        self.definite
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.retriable
    }

    /// The server's code, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self.kind {
            ErrorKind::Server(code) => Some(code),
            _ => None,
        }
    }

    /// The first offset that is left, where one outside of the log was asked for.
    #[must_use]
    pub fn log_start(&self) -> Option<i64> {
        self.log_start
    }

    pub(super) fn unreachable(message: String) -> Self {
        Self { kind: ErrorKind::Unreachable, message, definite: true, retriable: true, leader: None, log_start: None }
    }

    pub(super) fn lost(message: &str) -> Self {
        let message = format!("the connection ended with the request unanswered: {message}");
        Self {
            kind: ErrorKind::ConnectionLost,
            message,
            definite: false,
            retriable: true,
            leader: None,
            log_start: None,
        }
    }

    pub(super) fn timed_out() -> Self {
        let message = "no answer came in time".to_owned();
        Self { kind: ErrorKind::TimedOut, message, definite: false, retriable: true, leader: None, log_start: None }
    }

    pub(super) fn expired() -> Self {
        let message = "the time of delivery was over before it could be sent".to_owned();
        Self { kind: ErrorKind::TimedOut, message, definite: true, retriable: true, leader: None, log_start: None }
    }

    pub(super) fn protocol(message: &str) -> Self {
        let message = format!("the server's answer makes no sense: {message}");
        Self { kind: ErrorKind::Protocol, message, definite: false, retriable: false, leader: None, log_start: None }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Usage,
            message: message.into(),
            definite: true,
            retriable: false,
            leader: None,
            log_start: None,
        }
    }

    pub(super) fn no_leader(topic: &str, partition: u32) -> Self {
        let message = format!("{topic}/{partition} has no leader at the moment");
        let kind = ErrorKind::Server(ErrorCode::NotLeader);
        Self { kind, message, definite: true, retriable: true, leader: None, log_start: None }
    }

    pub(super) fn unknown_partition(topic: &str, partition: u32, count: usize) -> Self {
        let message = format!("topic {topic} has {count} partitions, numbered from 0; there is no {partition}");
        let kind = ErrorKind::Server(ErrorCode::UnknownPartition);
        Self { kind, message, definite: true, retriable: false, leader: None, log_start: None }
    }

    /// An earlier try of the same request may have had an effect, so this one's certainty is not the request's.
    pub(super) fn after_indefinite(mut self) -> Self {
        self.definite = false;
        self
    }
}

impl From<native::Error> for Error {
    fn from(error: native::Error) -> Self {
        let code = ErrorCode::try_from(error.code).unwrap_or(ErrorCode::Unspecified);
        let message = if error.message.is_empty() { code.as_str_name().to_owned() } else { error.message };
        let native::Error { definite, retriable, leader, log_start_offset, .. } = error;
        Self { kind: ErrorKind::Server(code), message, definite, retriable, leader, log_start: log_start_offset }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
