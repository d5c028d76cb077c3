//! StopPodSandbox: kills what runs in it and gives back its network. Can be repeated; absent is stopped.

use std::sync::Arc;

use corten_cri_api::v1::{StopPodSandboxRequest, StopPodSandboxResponse};

use crate::daemon::Daemon;
use crate::error::Error;
use crate::sandbox::state::{Event, Phase};
use crate::sandbox::teardown;
use crate::store::{Sandbox, optional};

pub async fn stop_pod_sandbox(
    daemon: Arc<Daemon>,
    request: StopPodSandboxRequest,
) -> Result<StopPodSandboxResponse, Error> {
    if let Some(sandbox) = optional(daemon.store.sandbox(&request.pod_sandbox_id))? {
        let _operation = sandbox.operation.write().await;
        stop(&daemon, &sandbox).await?;
    }
    Ok(StopPodSandboxResponse {})
}

/// Stops it; the caller holds its operation.
pub async fn stop(daemon: &Daemon, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    sandbox.happened(Event::Stop, None)?;
    if sandbox.phase() == Phase::Stopping {
        teardown::sandbox(daemon, sandbox).await?;
    }
    Ok(())
}
