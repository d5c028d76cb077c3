//! Probe by a command inside the container: success is exit code 0.

use std::time::Duration;

use k8s_openapi::api::core::v1::ExecAction;

use super::Answer;
use crate::cri::{Code, Cri};

/// So much of a command's output enters an event.
const MAX_OUTPUT_BYTES: usize = 10 * 1024;

pub async fn ask(cri: &Cri, container_id: &str, exec: &ExecAction, timeout: Duration) -> Answer {
    let command = exec.command.clone().unwrap_or_default();
    match cri.exec_sync(container_id, command, timeout).await {
        Ok(answer) if answer.exit_code == 0 => Answer::Success,
        Ok(mut answer) => {
            answer.stdout.extend_from_slice(&answer.stderr);
            answer.stdout.truncate(MAX_OUTPUT_BYTES);
            let text = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
            Answer::Failure(if text.is_empty() { format!("exit code {}", answer.exit_code) } else { text })
        }
        Err(error) if error.code() == Code::DeadlineExceeded => {
            Answer::Failure(format!("command timed out after {}s", timeout.as_secs()))
        }
        Err(error) => Answer::Unknown(error.to_string()),
    }
}
