//! RemoveContainer: also a running one, which is killed first. Absent is removed.

use std::sync::Arc;
use std::time::Duration;

use corten_cri_api::v1::{RemoveContainerRequest, RemoveContainerResponse};

use super::stop_container::stop;
use crate::container::remove;
use crate::daemon::Daemon;
use crate::error::Error;
use crate::store::optional;

pub async fn remove_container(
    daemon: Arc<Daemon>,
    request: RemoveContainerRequest,
) -> Result<RemoveContainerResponse, Error> {
    if let Some(container) = optional(daemon.store.container(&request.container_id))? {
        let _operation = container.operation.lock().await;
        stop(&container, Duration::ZERO).await?;
        remove::remove(&daemon, &container).await?;
    }
    Ok(RemoveContainerResponse {})
}
