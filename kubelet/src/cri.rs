//! The runtime: CRI v1 over a unix socket. Each call has the timeout a stock kubelet gives it. Knows no pods.

use std::path::PathBuf;
use std::time::Duration;

use corten_cri_api::v1 as cri;
use cri::image_service_client::ImageServiceClient;
use cri::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
pub use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

const DEFAULT_TIMEOUT: Duration = Duration::from_mins(2);
const SANDBOX_TIMEOUT: Duration = Duration::from_mins(4);
/// Lists of a node with hundreds of pods; upstream's limit.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum CriError {
    #[error("{call}: {}: {}", code_name(status.code()), status.message())]
    Call { call: &'static str, status: Box<Status> },
    #[error("{call}: the runtime's answer lacks {field}")]
    Incomplete { call: &'static str, field: &'static str },
}

impl CriError {
    pub fn code(&self) -> Code {
        match self {
            Self::Call { status, .. } => status.code(),
            Self::Incomplete { .. } => Code::Internal,
        }
    }
}

fn code_name(code: Code) -> String {
    format!("{code:?}")
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not unix:///PATH: only unix sockets are spoken to")]
pub struct EndpointError(String);

/// A runtime endpoint: `unix:///run/x.sock`, or the bare path.
pub fn socket_path(endpoint: &str) -> Result<PathBuf, EndpointError> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') { Ok(path.into()) } else { Err(EndpointError(endpoint.to_owned())) }
}

/// Client of one runtime and one image service. Cheap to clone; connects when first used and again when the runtime
/// was restarted.
#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

fn channel(path: PathBuf) -> Channel {
    let connect = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The name is only what `:authority` says; the connector decides where to.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($client:ident, $request:ident, $timeout:expr) -> $response:ident;)*) => {$(
        $(#[$doc])*
        pub async fn $name(&self, request: cri::$request) -> Result<cri::$response, CriError> {
            let mut request = Request::new(request);
            request.set_timeout($timeout);
            // Boxed: a call is large, and every pod waits in one.
            answer(stringify!($name), Box::pin(self.$client.clone().$name(request)).await)
        }
    )*};
}

impl Cri {
    pub fn new(runtime: PathBuf, images: PathBuf) -> Self {
        let runtime =
            RuntimeServiceClient::new(channel(runtime)).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let images = ImageServiceClient::new(channel(images)).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Self { runtime, images }
    }

    calls! {
        version(runtime, VersionRequest, DEFAULT_TIMEOUT) -> VersionResponse;
        status(runtime, StatusRequest, DEFAULT_TIMEOUT) -> StatusResponse;
        runtime_config(runtime, RuntimeConfigRequest, DEFAULT_TIMEOUT) -> RuntimeConfigResponse;
        list_pod_sandbox(runtime, ListPodSandboxRequest, DEFAULT_TIMEOUT) -> ListPodSandboxResponse;
        pod_sandbox_status(runtime, PodSandboxStatusRequest, DEFAULT_TIMEOUT) -> PodSandboxStatusResponse;
        run_pod_sandbox(runtime, RunPodSandboxRequest, SANDBOX_TIMEOUT) -> RunPodSandboxResponse;
        stop_pod_sandbox(runtime, StopPodSandboxRequest, DEFAULT_TIMEOUT) -> StopPodSandboxResponse;
        remove_pod_sandbox(runtime, RemovePodSandboxRequest, DEFAULT_TIMEOUT) -> RemovePodSandboxResponse;
        list_containers(runtime, ListContainersRequest, DEFAULT_TIMEOUT) -> ListContainersResponse;
        container_status(runtime, ContainerStatusRequest, DEFAULT_TIMEOUT) -> ContainerStatusResponse;
        create_container(runtime, CreateContainerRequest, DEFAULT_TIMEOUT) -> CreateContainerResponse;
        start_container(runtime, StartContainerRequest, DEFAULT_TIMEOUT) -> StartContainerResponse;
        remove_container(runtime, RemoveContainerRequest, DEFAULT_TIMEOUT) -> RemoveContainerResponse;
        image_status(images, ImageStatusRequest, DEFAULT_TIMEOUT) -> ImageStatusResponse;
    }

    /// Sends the stop signal, and KILL after `grace`.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let mut request = Request::new(cri::StopContainerRequest { container_id: id.into(), timeout });
        request.set_timeout(DEFAULT_TIMEOUT + grace);
        answer("stop_container", Box::pin(self.runtime.clone().stop_container(request)).await).map(|_| ())
    }

    /// Runs a command in a container; the runtime kills it after `timeout` (DeadlineExceeded).
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> Result<cri::ExecSyncResponse, CriError> {
        // The runtime counts whole seconds, and 0 is no limit.
        let seconds = i64::try_from(timeout.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX);
        let mut request =
            Request::new(cri::ExecSyncRequest { container_id: id.into(), cmd, timeout: seconds });
        request.set_timeout(DEFAULT_TIMEOUT + timeout);
        answer("exec_sync", Box::pin(self.runtime.clone().exec_sync(request)).await)
    }

    /// Pulls without a time limit: the runtime gives up when nothing arrives any more.
    pub async fn pull_image(&self, request: cri::PullImageRequest) -> Result<String, CriError> {
        let answered = Box::pin(self.images.clone().pull_image(Request::new(request))).await;
        let image_ref = answer("pull_image", answered)?.image_ref;
        if image_ref.is_empty() {
            return Err(CriError::Incomplete { call: "pull_image", field: "image_ref" });
        }
        Ok(image_ref)
    }

    /// The stream of container events. `Unimplemented` in runtimes without it.
    pub async fn container_events(&self) -> Result<tonic::Streaming<cri::ContainerEventResponse>, CriError> {
        let answered =
            self.runtime.clone().get_container_events(Request::new(cri::GetEventsRequest {})).await;
        answer("get_container_events", answered)
    }
}

fn answer<T>(call: &'static str, answered: Result<Response<T>, Status>) -> Result<T, CriError> {
    answered.map(Response::into_inner).map_err(|status| CriError::Call { call, status: Box::new(status) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        assert_eq!(socket_path("unix:///run/a.sock").ok(), Some("/run/a.sock".into()));
        assert_eq!(socket_path("/run/a.sock").ok(), Some("/run/a.sock".into()));
        for bad in ["tcp://1.2.3.4:1", "run/a.sock", "unix://a.sock", ""] {
            assert!(socket_path(bad).is_err(), "{bad}");
        }
    }
}
