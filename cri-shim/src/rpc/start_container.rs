//! StartContainer: lets the created container run its program.

use std::sync::Arc;

use corten_cri_api::v1::{StartContainerRequest, StartContainerResponse};

use crate::container::state::{Exit, State};
use crate::daemon::{Daemon, now_ns};
use crate::error::{Error, Kind};
use crate::monitor::MonitorError;
use crate::store::Container;

pub async fn start_container(
    daemon: Arc<Daemon>,
    request: StartContainerRequest,
) -> Result<StartContainerResponse, Error> {
    let container = daemon.store.container(&request.container_id)?;
    let _operation = container.operation.lock().await;
    let not = |state: String, wanted| Error::State {
        kind: Kind::Container,
        id: container.id.clone(),
        state,
        wanted,
    };
    if container.state() != State::Created {
        return Err(not(format!("{:?}", container.state()).to_lowercase(), "created"));
    }
    let monitor =
        container.sandbox.monitor().ok_or_else(|| not("in a pod that is not ready".into(), "created"))?;
    match monitor.start_container(&container.id).await {
        Ok((pid, started_at_ns)) => {
            container.update(|r| {
                r.pid = Some(pid);
                r.facts.started_at_ns = Some(started_at_ns);
            })?;
            Ok(StartContainerResponse {})
        }
        Err(error) => Err(failed(&container, error)?),
    }
}

/// A container that could not be started has exited: with a shell's code where its program is missing or not
/// executable, and with the runtime's words.
fn failed(container: &Container, error: MonitorError) -> Result<Error, Error> {
    if !error.is_dead() {
        let code = error.kind().and_then(corten_monitor::protocol::FailureKind::exit_code).unwrap_or(128);
        container.ended(Exit::not_started(code, now_ns(), &error.to_string()))?;
    }
    Ok(error.into())
}
