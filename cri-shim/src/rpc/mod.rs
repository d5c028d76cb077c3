//! The CRI services: one file per RPC, and here the one wrapper around them all: it logs, measures, keeps work going
//! that a client has walked away from, and says which gRPC status an error is.

mod container_status;
mod corten_v1;
mod create_container;
mod exec_sync;
mod image_fs_info;
mod image_status;
mod images;
mod list_containers;
mod list_images;
mod list_pod_sandbox;
mod pod_sandbox_status;
mod pull_image;
mod remove_container;
mod remove_image;
mod remove_pod_sandbox;
mod reopen_container_log;
mod router;
mod run_pod_sandbox;
mod runtime_config;
mod service;
mod start_container;
mod status;
mod stop_container;
mod stop_pod_sandbox;
mod update_runtime_config;
mod version;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use corten_images::StoreError;
use corten_monitor::protocol::FailureKind;
use tonic::{Code, Response, Status};

use crate::daemon::Daemon;
use crate::error::Error;
use crate::monitor::MonitorError;

pub use router::Router;

/// What tonic serves.
#[derive(Clone)]
pub struct Service {
    pub daemon: Arc<Daemon>,
}

/// Whether a call changes anything; that is what is worth a line by default.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Changes,
}

impl Service {
    /// Runs one call. The work is a task of its own: a client that disconnects does not leave it half done.
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: Effect,
        subject: String,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let task = async { tokio::spawn(work).await.expect("panics abort") };
        Self::attached(name, effect, subject, task).await
    }

    /// The same for work that is kept going elsewhere, and that must know whether somebody waits.
    async fn attached<T>(
        name: &'static str,
        effect: Effect,
        subject: String,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        let started = Instant::now();
        let result = work.await;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        match result {
            Ok(answer) => {
                match effect {
                    Effect::Reads => tracing::debug!(rpc = name, subject, ms, "done"),
                    Effect::Changes => tracing::info!(rpc = name, subject, ms, "done"),
                }
                Ok(Response::new(answer))
            }
            Err(error) => {
                let status = status_of(&error);
                if effect == Effect::Reads && status.code() == Code::NotFound {
                    tracing::debug!(rpc = name, subject, ms, %error, "failed");
                } else {
                    tracing::error!(rpc = name, subject, ms, %error, "failed");
                }
                Err(status)
            }
        }
    }
}

fn status_of(error: &Error) -> Status {
    Status::new(code(error), error.to_string())
}

/// What an RPC that is not there yet answers.
fn unimplemented_rpc(name: &str) -> Status {
    Status::unimplemented(format!("corten-cri does not implement {name} yet"))
}

/// The one mapping of errors to gRPC codes.
fn code(error: &Error) -> Code {
    match error {
        Error::Missing { .. } | Error::Image(StoreError::NotFound(_)) => Code::NotFound,
        Error::NameTaken { .. } => Code::AlreadyExists,
        Error::Ambiguous { .. }
        | Error::Argument { .. }
        | Error::Spec(_)
        | Error::Seccomp { .. }
        | Error::Image(StoreError::Reference(_) | StoreError::Ambiguous(_)) => Code::InvalidArgument,
        Error::Unsupported { .. } => Code::Unimplemented,
        Error::State { .. } => Code::FailedPrecondition,
        Error::Timeout { .. } => Code::DeadlineExceeded,
        Error::Monitor(error) => monitor_code(error),
        Error::Pull(_)
        | Error::Import(_)
        | Error::Cni(_)
        | Error::File(_)
        | Error::Image(_)
        | Error::System { .. } => Code::Unknown,
        Error::Undo(first, _) => code(first),
        Error::Shared(error) => code(error),
    }
}

fn monitor_code(error: &MonitorError) -> Code {
    match error.kind() {
        Some(FailureKind::NotFound) => Code::NotFound,
        Some(FailureKind::AlreadyExists) => Code::AlreadyExists,
        Some(FailureKind::NotRunning | FailureKind::WrongState | FailureKind::Busy) => {
            Code::FailedPrecondition
        }
        Some(FailureKind::Invalid) => Code::InvalidArgument,
        Some(FailureKind::CommandNotFound | FailureKind::CommandNotExecutable | FailureKind::Runtime) => {
            Code::Unknown
        }
        None if error.is_dead() => Code::Unavailable,
        None => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn codes_that_clients_act_on() {
        let missing = Error::Missing { kind: Kind::Container, id: "x".into() };
        assert_eq!(code(&missing), Code::NotFound);
        let shared = Error::Shared(Arc::new(missing));
        assert_eq!(code(&shared), Code::NotFound);
        let late = Error::Timeout { what: "exec".into(), limit_s: 1 };
        assert_eq!(code(&late), Code::DeadlineExceeded);
        assert_eq!(code(&Error::argument("x", "y")), Code::InvalidArgument);
        let status = unimplemented_rpc("Attach");
        assert!(status.code() == Code::Unimplemented && status.message().contains("Attach"));
    }
}
