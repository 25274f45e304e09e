//! Runs a node. A stand-in with the final signature: it knows the data directory and says that nothing is served yet.

use super::identity::{self, IdentityError};
use crate::config::Config;

/// Why a node does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory is not this node's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// To be replaced by the node.
    #[error("serving is not part of this build")]
    Unfinished,
}

/// Serves until the process is told to stop (SIGINT, SIGTERM).
#[expect(clippy::needless_pass_by_value, reason = "the node keeps its configuration")]
pub fn run(config: Config) -> Result<(), ServerError> {
    identity::open(&config.data_dir, config.node(), config.cluster.id.map(|id| id.0))?;
    Err(ServerError::Unfinished)
}
