//! Consumer groups: members that share a topic's partitions, and the offsets they store.
//!
//! * [`member`]: a member of a group, which reads what it is assigned.
//! * [`requests`]: a member's requests, one by one, which reads nothing.
//! * [`admin`]: looking at groups, moving and deleting their offsets.
//! * `assignment`: Kafka's consumer protocol, so that members of other clients can be in the same group.

pub mod admin;
pub(super) mod assignment;
pub mod member;
pub mod requests;

use super::error::{Error, Result};
use super::routing::{Backoff, Repeat, Router, ask, join, may_retry};
use crate::proto::native::{self, ErrorCode, request, response};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Takes the one kind of answer that fits the question.
macro_rules! expect_answer {
    ($asked:expr, $kind:ident) => {
        match $asked {
            response::Body::$kind(answer) => Ok(answer),
            _ => Err(Error::protocol(concat!("another answer than ", stringify!($kind)))),
        }
    };
}
use expect_answer;

impl Router {
    /// Asks the node that coordinates a group, until it answers or the time is over. What may be repeated is asked anew
    /// from time to time, even if it may take long: a node that has lost its power does not close its connections.
    pub(super) async fn ask_coordinator(
        &self,
        group: &str,
        body: request::Body,
        repeat: Repeat,
        timeout: Duration,
    ) -> Result<response::Body> {
        let deadline = Instant::now() + timeout;
        let mut backoff = Backoff::new();
        loop {
            let asked = match self.coordinator(group).await {
                Ok(address) => match self.connection(&address).await {
                    Ok(connection) => ask(&connection, body.clone(), deadline, repeat).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            if asked.as_ref().is_err_and(Error::is_retriable) {
                self.forget_coordinator(group);
            }
            match asked {
                Err(error) if may_retry(&error, repeat) && Instant::now() < deadline => {
                    if timeout_at(deadline, backoff.wait(&error)).await.is_err() {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    async fn coordinator(&self, group: &str) -> Result<String> {
        if let Some(address) = self.believed_coordinator(group) {
            return Ok(address);
        }
        let body = request::Body::FindCoordinator(native::FindCoordinatorRequest { group: group.to_owned() });
        let found = expect_answer!(self.ask_any(body, Repeat::Harmless).await?, FindCoordinator)?;
        let address =
            found.address.as_ref().map(join).ok_or_else(|| Error::protocol("a coordinator without address"))?;
        self.remember_coordinator(group, &address);
        Ok(address)
    }
}

/// Whether a member has lost its place and must join again.
fn must_rejoin(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::RebalanceInProgress | ErrorCode::UnknownMember | ErrorCode::IllegalGeneration)
    )
}
