//! Commands to the controller: proposed here if this node leads group 0, brought to the node that does otherwise.

use crate::broker::{Error, ErrorKind, Result};
use crate::controller::command::{Answer, Command};
use crate::machine::Outcome;
use crate::multiraft::core::effect::{Refused, Reply};
use crate::multiraft::handle::Handle;
use crate::types::{CONTROLLER_GROUP, NodeId, Term};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long after "not the leader" the next attempt waits.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposed {
    /// Committed and applied; the answer as the state machine encoded it.
    Answered(Bytes),
    /// Certainly not done.
    NotDone,
    /// It may have been done.
    Unknown,
}

/// The future of a command brought to another node.
pub type Forwarded = Pin<Box<dyn Future<Output = Proposed> + Send>>;

/// How commands reach another node.
pub trait Forward: Send + Sync + 'static {
    /// Other nodes that can be reached now.
    fn reachable(&self) -> Vec<NodeId>;

    /// Brings a command to `node`.
    fn forward(&self, node: NodeId, command: Bytes, timeout: Duration) -> Forwarded;
}

/// See the module.
#[derive(Clone)]
pub struct ControllerClient {
    /// This node.
    node: NodeId,
    /// The Raft groups.
    handle: Handle,
    /// The network.
    forward: Arc<dyn Forward>,
}

impl ControllerClient {
    /// A client for `node`.
    #[must_use]
    pub fn new(node: NodeId, handle: Handle, forward: Arc<dyn Forward>) -> Self {
        Self { node, handle, forward }
    }

    /// Has a command decided; tries again while it certainly was not, until `timeout`.
    pub async fn decide(&self, command: &Command, timeout: Duration) -> Result<Answer> {
        let bytes = command.encode().map_err(|error| Error::new(ErrorKind::InvalidRequest, error.to_string()))?;
        let deadline = Instant::now() + timeout;
        loop {
            match self.attempt(bytes.clone(), deadline).await {
                Proposed::Answered(answer) => {
                    return Answer::decode(&answer)
                        .map_err(|error| Error::new(ErrorKind::Internal, format!("the controller's answer: {error}")));
                }
                Proposed::Unknown => return Err(ErrorKind::TimedOut.into()),
                Proposed::NotDone if Instant::now() + RETRY_AFTER >= deadline => {
                    return Err(ErrorKind::ControllerNotAvailable.into());
                }
                Proposed::NotDone => sleep_until(Instant::now() + RETRY_AFTER).await,
            }
        }
    }

    async fn attempt(&self, command: Bytes, deadline: Instant) -> Proposed {
        let leadership = self.handle.board().status(CONTROLLER_GROUP).leadership;
        match leadership.leader.map(|replica| replica.node()) {
            Some(node) if node == self.node => propose_here(&self.handle, command, deadline).await,
            Some(node) => self.bring(node, command, deadline).await,
            None if leadership.term == Term(0) => self.ask_around(command, deadline).await,
            None => Proposed::NotDone,
        }
    }

    async fn bring(&self, node: NodeId, command: Bytes, deadline: Instant) -> Proposed {
        self.forward.forward(node, command, deadline.saturating_duration_since(Instant::now())).await
    }

    /// A node that is not of the group yet knows no leader: one of the others is.
    async fn ask_around(&self, command: Bytes, deadline: Instant) -> Proposed {
        for node in self.forward.reachable() {
            match self.bring(node, command.clone(), deadline).await {
                Proposed::NotDone => {}
                decided => return decided,
            }
        }
        Proposed::NotDone
    }
}

/// Proposes a command to this node's replica of group 0.
pub async fn propose_here(handle: &Handle, command: Bytes, deadline: Instant) -> Proposed {
    let Ok(Ok(pending)) = timeout_at(deadline, handle.propose(CONTROLLER_GROUP, Bytes::new(), command)).await else {
        return Proposed::NotDone;
    };
    match timeout_at(deadline, pending.wait()).await {
        Ok(Reply::Applied { outcome: Outcome::Answer(answer), .. }) => Proposed::Answered(answer),
        Ok(Reply::Refused(
            Refused::NotLeader
            | Refused::NoReplica
            | Refused::Busy
            | Refused::NoSpace
            | Refused::Overwritten
            | Refused::OutOfTurn,
        )) => Proposed::NotDone,
        Ok(_) | Err(_) => Proposed::Unknown,
    }
}
