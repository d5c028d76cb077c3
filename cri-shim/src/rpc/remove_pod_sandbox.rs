//! RemovePodSandbox: stops it if need be, then forgets it with all its containers. Absent is removed.

use std::sync::Arc;

use corten_cri_api::v1::{RemovePodSandboxRequest, RemovePodSandboxResponse};

use super::run_pod_sandbox::job_name;
use super::stop_pod_sandbox::stop;
use crate::container::remove;
use crate::daemon::Daemon;
use crate::error::Error;
use crate::store::optional;

pub async fn remove_pod_sandbox(
    daemon: Arc<Daemon>,
    request: RemovePodSandboxRequest,
) -> Result<RemovePodSandboxResponse, Error> {
    if let Some(sandbox) = optional(daemon.store.sandbox(&request.pod_sandbox_id))? {
        let _operation = sandbox.operation.write().await;
        stop(&daemon, &sandbox).await?;
        for container in daemon.store.containers_of(&sandbox.id) {
            let _container = container.operation.lock().await;
            remove::forget(&daemon, &container).await?;
        }
        sandbox.dir.remove()?;
        daemon.store.remove_sandbox(&sandbox);
        daemon.jobs.forget(&job_name(&sandbox.record().name()));
    }
    Ok(RemovePodSandboxResponse {})
}
