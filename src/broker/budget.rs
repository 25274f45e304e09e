//! A node-wide limit on bytes in memory, shared by everybody who must hold client data.
//!
//! Bytes are reserved before they are allocated and given back by dropping the reservation. Waiters are served in the
//! order they came, so that a large request is not starved by small ones.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that may be in memory at once. Cloning shares the same limit.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    /// One permit per byte.
    permits: Arc<Semaphore>,
    /// The limit.
    total: u32,
}

/// A share of a [`ByteBudget`], given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    /// Held only to be dropped.
    _permit: OwnedSemaphorePermit,
}

impl ByteBudget {
    /// A budget of `total` bytes.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self { permits: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits until `bytes` are free and takes them. A request for more than the whole budget takes the whole of it, so
    /// that it is served alone instead of never.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        let permit = Arc::clone(&self.permits).acquire_many_owned(wanted).await;
        Reservation { _permit: permit.expect("the semaphore is never closed") }
    }

    /// Bytes nobody holds.
    #[must_use]
    pub fn available(&self) -> usize {
        self.permits.available_permits()
    }

    /// The limit in bytes.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total as usize
    }
}
