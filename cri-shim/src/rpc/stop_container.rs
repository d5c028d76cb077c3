//! StopContainer: the stop signal, the grace period, then SIGKILL to every process. Can be repeated: a later call may
//! shorten the grace of an earlier one. Absent, and not running, are stopped.

use std::sync::Arc;
use std::time::Duration;

use corten_cri_api::v1::{StopContainerRequest, StopContainerResponse};
use corten_monitor::protocol::FailureKind;

use crate::container::state::State;
use crate::daemon::Daemon;
use crate::error::Error;
use crate::monitor::{Monitor, MonitorError};
use crate::store::{Container, optional};

const SIGKILL: i32 = 9;
/// A killed process that is still there after this long hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(30);

pub async fn stop_container(
    daemon: Arc<Daemon>,
    request: StopContainerRequest,
) -> Result<StopContainerResponse, Error> {
    if let Some(container) = optional(daemon.store.container(&request.container_id))? {
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
        stop(&container, grace).await?;
    }
    Ok(StopContainerResponse {})
}

/// Stops it and waits until its end is noted.
pub async fn stop(container: &Container, grace: Duration) -> Result<(), Error> {
    if container.state() != State::Running {
        return Ok(());
    }
    // Without a monitor its pod is being swept, which ends it.
    if let Some(monitor) = container.sandbox.monitor() {
        if !grace.is_zero() {
            signal(&monitor, &container.id, container.record().stop_signal, false).await?;
            if tokio::time::timeout(grace, container.exited()).await.is_ok() {
                return Ok(());
            }
        }
        signal(&monitor, &container.id, SIGKILL, true).await?;
    }
    tokio::time::timeout(KILL_LIMIT, container.exited()).await.map_err(|_| Error::Timeout {
        what: format!(
            "the death of container {} after SIGKILL (does a process of it hang in the kernel?)",
            container.id
        ),
        limit_s: KILL_LIMIT.as_secs(),
    })
}

/// One that has ended meanwhile needs no signal.
async fn signal(monitor: &Monitor, id: &str, number: i32, all: bool) -> Result<(), MonitorError> {
    match monitor.signal(id, number, all).await {
        Err(error) if error.is_dead() || error.kind() == Some(FailureKind::NotRunning) => Ok(()),
        other => other,
    }
}
