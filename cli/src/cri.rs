//! The daemon's socket: CRI v1 and corten.v1 clients, and errors that say what was asked.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use corten_cri_api::corten_v1::images_client::ImagesClient;
use corten_cri_api::v1;
use corten_cri_api::v1::image_service_client::ImageServiceClient;
use corten_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::instance::Instance;

/// Labels that a kubelet puts on every sandbox and container. Source: kubernetes pkg/kubelet/types/labels.go.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub struct Cri {
    pub runtime: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
    pub corten: ImagesClient<Channel>,
}

impl Cri {
    pub async fn connect(instance: &Instance) -> Result<Self> {
        let socket = instance.cri_socket();
        let channel = channel(&socket).await.map_err(|error| {
            anyhow!(
                "no corten-cri answers on {} ({}); start it with `{} up`",
                socket.display(),
                innermost(&error),
                instance.command()
            )
        })?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel.clone()),
            corten: ImagesClient::new(channel),
        })
    }

    /// True when the daemon answers.
    pub async fn answers(instance: &Instance) -> bool {
        let Ok(channel) = channel(&instance.cri_socket()).await else { return false };
        let version = v1::VersionRequest { version: "v1".into() };
        RuntimeServiceClient::new(channel).version(version).await.is_ok()
    }

    /// The image's status; `None` when it is not there.
    pub async fn image(&mut self, reference: &str) -> Result<Option<v1::Image>> {
        let request = v1::ImageStatusRequest { image: Some(image_spec(reference)), verbose: false };
        let answer = self
            .images
            .image_status(request)
            .await
            .map_err(|s| told(&format!("look up image {reference}"), &s))?;
        Ok(answer.into_inner().image)
    }
}

pub fn image_spec(reference: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: reference.into(), ..Default::default() }
}

/// A gRPC status as an error: what was asked, then the daemon's words.
pub fn told(what: &str, status: &tonic::Status) -> anyhow::Error {
    anyhow!("cannot {what}: {}", status.message())
}

/// Runs a command's asynchronous part.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = socket.to_path_buf();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move {
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(
                tokio::net::UnixStream::connect(path).await?,
            ))
        }
    });
    // The URI is never dialled: the connector knows the socket.
    Endpoint::from_static("http://localhost")
        .connect_timeout(Duration::from_secs(5))
        .connect_with_connector(connector)
        .await
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Refuses what needs root with a remedy, before anything is tried.
pub fn need_root(doing: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "{doing} needs root (this is uid {}): namespaces, mounts and cgroups of pods belong to it; use sudo",
            rustix::process::geteuid().as_raw()
        );
    }
    Ok(())
}
