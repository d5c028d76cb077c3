//! ReopenContainerLog: the kubelet has renamed the log; the monitor goes on in a new file.

use std::sync::Arc;

use corten_cri_api::v1::{ReopenContainerLogRequest, ReopenContainerLogResponse};

use crate::container::state::State;
use crate::daemon::Daemon;
use crate::error::{Error, Kind};

pub async fn reopen_container_log(
    daemon: Arc<Daemon>,
    request: ReopenContainerLogRequest,
) -> Result<ReopenContainerLogResponse, Error> {
    let container = daemon.store.container(&request.container_id)?;
    let not = |state: String| Error::State {
        kind: Kind::Container,
        id: container.id.clone(),
        state,
        wanted: "running",
    };
    if container.state() != State::Running {
        return Err(not(format!("{:?}", container.state()).to_lowercase()));
    }
    let monitor = container.sandbox.monitor().ok_or_else(|| not("in a pod that is not ready".into()))?;
    monitor.reopen_log(&container.id).await?;
    Ok(ReopenContainerLogResponse {})
}
