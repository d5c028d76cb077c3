//! Which file answers which RPC. What is not here yet says so by name.

use std::pin::Pin;
use std::sync::Arc;

use corten_cri_api::v1::image_service_server::ImageService;
use corten_cri_api::v1::runtime_service_server::RuntimeService;
#[allow(
    clippy::wildcard_imports,
    reason = "all of eighty messages; clippy sees it in one of two builds"
)]
use corten_cri_api::v1::*;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::{Effect, Service, unimplemented_rpc};

/// RPCs whose work is a plain function of daemon and request. The signature is what `async_trait` makes of an async
/// function; it cannot look into a macro.
macro_rules! calls {
    ($($effect:ident $module:ident $name:ident($request:ident) -> $response:ident, about $subject:expr;)*) => {
        $(fn $module<'a, 'b>(&'a self, request: Request<$request>) -> Answer<'b, $response> where 'a: 'b, Self: 'b {
            let request = request.into_inner();
            let subject: fn(&$request) -> String = $subject;
            let (subject, daemon) = (subject(&request), Arc::clone(&self.daemon));
            let work = super::$module::$module(daemon, request);
            Box::pin(self.call(stringify!($name), Effect::$effect, subject, work))
        })*
    };
}

/// RPCs that are not there yet.
macro_rules! absent {
    ($($function:ident $name:ident($request:ident) -> $response:ty;)*) => {
        $(fn $function<'a, 'b>(&'a self, _: Request<$request>) -> Answer<'b, $response> where 'a: 'b, Self: 'b {
            Box::pin(async { Err(unimplemented_rpc(stringify!($name))) })
        })*
    };
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;
type Nothing<T> = Empty<Result<T, Status>>;

fn image_name(image: Option<&ImageSpec>) -> String {
    image.map(|i| i.image.clone()).unwrap_or_default()
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn run_pod_sandbox(
        &self,
        request: Request<RunPodSandboxRequest>,
    ) -> Result<Response<RunPodSandboxResponse>, Status> {
        let request = request.into_inner();
        let subject = request.config.as_ref().and_then(|c| c.metadata.as_ref());
        let subject = subject.map(|m| format!("{}/{}", m.namespace, m.name)).unwrap_or_default();
        let work = super::run_pod_sandbox::run_pod_sandbox(Arc::clone(&self.daemon), request);
        Self::attached("RunPodSandbox", Effect::Changes, subject, work).await
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let request = request.into_inner();
        let subject = request.config.as_ref().and_then(|c| c.metadata.as_ref());
        let subject = subject.map(|m| m.name.clone()).unwrap_or_default();
        let work = super::create_container::create_container(Arc::clone(&self.daemon), request);
        Self::attached("CreateContainer", Effect::Changes, subject, work).await
    }

    calls! {
        Reads version Version(VersionRequest) -> VersionResponse, about |_| String::new();
        Reads status Status(StatusRequest) -> StatusResponse, about |_| String::new();
        Reads runtime_config RuntimeConfig(RuntimeConfigRequest) -> RuntimeConfigResponse, about |_| String::new();
        Changes update_runtime_config UpdateRuntimeConfig(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse, about |_| String::new();
        Changes stop_pod_sandbox StopPodSandbox(StopPodSandboxRequest) -> StopPodSandboxResponse, about |r| r.pod_sandbox_id.clone();
        Changes remove_pod_sandbox RemovePodSandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse, about |r| r.pod_sandbox_id.clone();
        Reads pod_sandbox_status PodSandboxStatus(PodSandboxStatusRequest) -> PodSandboxStatusResponse, about |r| r.pod_sandbox_id.clone();
        Reads list_pod_sandbox ListPodSandbox(ListPodSandboxRequest) -> ListPodSandboxResponse, about |_| String::new();
        Changes start_container StartContainer(StartContainerRequest) -> StartContainerResponse, about |r| r.container_id.clone();
        Changes stop_container StopContainer(StopContainerRequest) -> StopContainerResponse, about |r| r.container_id.clone();
        Changes remove_container RemoveContainer(RemoveContainerRequest) -> RemoveContainerResponse, about |r| r.container_id.clone();
        Reads list_containers ListContainers(ListContainersRequest) -> ListContainersResponse, about |_| String::new();
        Reads container_status ContainerStatus(ContainerStatusRequest) -> ContainerStatusResponse, about |r| r.container_id.clone();
        Reads exec_sync ExecSync(ExecSyncRequest) -> ExecSyncResponse, about |r| r.container_id.clone();
        Changes reopen_container_log ReopenContainerLog(ReopenContainerLogRequest) -> ReopenContainerLogResponse, about |r| r.container_id.clone();
    }

    absent! {
        update_container_resources UpdateContainerResources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        exec Exec(ExecRequest) -> ExecResponse;
        attach Attach(AttachRequest) -> AttachResponse;
        port_forward PortForward(PortForwardRequest) -> PortForwardResponse;
        container_stats ContainerStats(ContainerStatsRequest) -> ContainerStatsResponse;
        list_container_stats ListContainerStats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        pod_sandbox_stats PodSandboxStats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats ListPodSandboxStats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        checkpoint_container CheckpointContainer(CheckpointContainerRequest) -> CheckpointContainerResponse;
        list_metric_descriptors ListMetricDescriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics ListPodSandboxMetrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
        update_pod_sandbox_resources UpdatePodSandboxResources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
        stream_pod_sandboxes StreamPodSandboxes(StreamPodSandboxesRequest) -> Nothing<StreamPodSandboxesResponse>;
        stream_containers StreamContainers(StreamContainersRequest) -> Nothing<StreamContainersResponse>;
        stream_container_stats StreamContainerStats(StreamContainerStatsRequest) -> Nothing<StreamContainerStatsResponse>;
        stream_pod_sandbox_stats StreamPodSandboxStats(StreamPodSandboxStatsRequest) -> Nothing<StreamPodSandboxStatsResponse>;
        get_container_events GetContainerEvents(GetEventsRequest) -> Nothing<ContainerEventResponse>;
        stream_pod_sandbox_metrics StreamPodSandboxMetrics(StreamPodSandboxMetricsRequest) -> Nothing<StreamPodSandboxMetricsResponse>;
    }

    type StreamPodSandboxesStream = Nothing<StreamPodSandboxesResponse>;
    type StreamContainersStream = Nothing<StreamContainersResponse>;
    type StreamContainerStatsStream = Nothing<StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Nothing<StreamPodSandboxStatsResponse>;
    type GetContainerEventsStream = Nothing<ContainerEventResponse>;
    type StreamPodSandboxMetricsStream = Nothing<StreamPodSandboxMetricsResponse>;
}

#[tonic::async_trait]
impl ImageService for Service {
    type StreamImagesStream = Nothing<StreamImagesResponse>;

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let subject = image_name(request.image.as_ref());
        let work = super::pull_image::pull_image(Arc::clone(&self.daemon), request);
        Self::attached("PullImage", Effect::Changes, subject, work).await
    }

    calls! {
        Reads list_images ListImages(ListImagesRequest) -> ListImagesResponse, about |_| String::new();
        Reads image_status ImageStatus(ImageStatusRequest) -> ImageStatusResponse, about |r| image_name(r.image.as_ref());
        Changes remove_image RemoveImage(RemoveImageRequest) -> RemoveImageResponse, about |r| image_name(r.image.as_ref());
        Reads image_fs_info ImageFsInfo(ImageFsInfoRequest) -> ImageFsInfoResponse, about |_| String::new();
    }

    absent! {
        stream_images StreamImages(StreamImagesRequest) -> Nothing<StreamImagesResponse>;
    }
}
