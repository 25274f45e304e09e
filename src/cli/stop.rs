//! How a command that runs until it is stopped is told to.

use super::Failure;
use tokio::signal::unix::{SignalKind, signal};

/// The word to stop: Ctrl-C, or SIGTERM.
pub(super) struct Stop {
    /// Ctrl-C.
    interrupt: tokio::signal::unix::Signal,
    /// What service managers send.
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    /// Listens from now on: a word that comes while nobody waits for it is kept.
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::io("listening for signals", &error));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the word.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
