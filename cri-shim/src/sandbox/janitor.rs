//! Finishes teardowns that failed, or that a death made due: until they succeed, and across restarts, since what is
//! owed stands in the record (requirement L1).

use std::sync::Arc;

use super::state::Phase;
use super::teardown;
use crate::daemon::Daemon;

/// Runs for ever.
pub async fn run(daemon: Arc<Daemon>) {
    loop {
        let retry = tokio::time::sleep(daemon.teardown_retry());
        tokio::select! {
            () = daemon.teardown_owed.notified() => {}
            () = retry => {}
        }
        sweep(&daemon).await;
    }
}

async fn sweep(daemon: &Arc<Daemon>) {
    for sandbox in daemon.store.sandboxes() {
        if sandbox.phase() != Phase::Stopping {
            continue;
        }
        // Whoever holds it is at it already.
        let Ok(_operation) = sandbox.operation.try_write() else { continue };
        match teardown::sandbox(daemon, &sandbox).await {
            Ok(()) => tracing::info!(sandbox = sandbox.id, "teardown finished"),
            Err(error) => {
                tracing::warn!(sandbox = sandbox.id, %error, "teardown failed; it will be tried again");
            }
        }
    }
}
