//! Watches the free space of the data directory: below the reserve this node takes no new entries, so that flushes,
//! promises, reads, deletions and administration still have room.

use crate::multiraft::handle::Handle;
use rustix::fs::statvfs;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::sleep;

/// How often the file system is asked.
const EVERY: Duration = Duration::from_millis(500);
/// So much more than the reserve must be free before writes are taken again, in bytes and at most a tenth of it, so
/// that a file system on the verge does not flip with every answer.
const RESUME_MARGIN_BYTES_MAX: u64 = 128 << 20;

/// Whether writes are taken while so much is free, in bytes. `was`: whether they were.
#[must_use]
pub fn is_writable(free: u64, reserve_bytes: u64, was: bool) -> bool {
    let margin = (reserve_bytes / 10).min(RESUME_MARGIN_BYTES_MAX);
    free >= if was { reserve_bytes } else { reserve_bytes.saturating_add(margin) }
}

/// Watches until the node stops.
pub async fn watch(data_dir: PathBuf, reserve_bytes: u64, handle: Handle) {
    let mut writable = true;
    loop {
        let path = data_dir.clone();
        let asked = tokio::task::spawn_blocking(move || statvfs(&path)).await;
        match asked {
            Ok(Ok(answer)) => {
                let free = answer.f_bavail.saturating_mul(answer.f_frsize);
                if is_writable(free, reserve_bytes, writable) != writable {
                    writable = !writable;
                    if writable {
                        tracing::info!(free, reserve_bytes, "there is space again: writes are taken");
                    } else {
                        tracing::error!(
                            free,
                            reserve_bytes,
                            "the disk is nearly full: writes are refused, reads go on"
                        );
                    }
                    if handle.disk_writable(writable).is_err() {
                        return;
                    }
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, path = %data_dir.display(), "the file system does not say its space");
            }
            Err(_stopping) => return,
        }
        sleep(EVERY).await;
    }
}
