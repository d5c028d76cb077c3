//! Lifecycle hooks: what runs right after a container started and before it is stopped.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::cri::{Cri, CriError};
use crate::probe::http::{self, HttpError};

/// An HTTP hook without a limit of its own; a hook must end some time.
const HTTP_TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("exec: {0}")]
    Exec(#[from] CriError),
    #[error("exec: exit code {code}: {output}")]
    ExitCode { code: i32, output: String },
    #[error("httpGet: {0}")]
    Http(#[from] HttpError),
    #[error("not finished within {}s", .0.as_secs())]
    Timeout(Duration),
}

/// Runs a hook; it has failed when it is not done within `limit`. An HTTP hook succeeds with any answer, as upstream.
pub async fn run(
    cri: &Cri,
    hook: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
    limit: Option<Duration>,
) -> Result<(), HookError> {
    let hook = handler(cri, hook, container, container_id, pod_ip, limit);
    match limit {
        None => hook.await,
        Some(limit) => tokio::time::timeout(limit, hook).await.unwrap_or(Err(HookError::Timeout(limit))),
    }
}

async fn handler(
    cri: &Cri,
    hook: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
    limit: Option<Duration>,
) -> Result<(), HookError> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let answer = cri.exec_sync(container_id, command, limit.unwrap_or(Duration::ZERO)).await?;
        if answer.exit_code != 0 {
            let text = [answer.stdout, answer.stderr].concat();
            let output = String::from_utf8_lossy(&text[..text.len().min(1024)]).trim().to_owned();
            return Err(HookError::ExitCode { code: answer.exit_code, output });
        }
    } else if let Some(get) = &hook.http_get {
        http::get(get, container, pod_ip, limit.unwrap_or(HTTP_TIMEOUT)).await?;
    } else if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
    }
    Ok(())
}
