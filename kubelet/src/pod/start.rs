//! Starting a container: image, files, CRI create and start, postStart. What fails says so as upstream's waiting
//! reasons and events do.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use corten_cri_api::v1 as cri;
use corten_sys::errno::Context as _;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::container_config::{self, ImageUser};
use super::observed::Sandbox;
use super::worker::Worker;
use super::{PodDir, env, log_dir, spec};
use crate::manifest::tag;
use crate::{hosts, lifecycle, volume};

/// Why a container did not start.
pub struct StartError {
    /// Waiting reason of its status.
    pub reason: &'static str,
    pub message: String,
    /// Whether the image is to blame: its back-off then decides when to try again.
    pub image: bool,
}

impl StartError {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), image: false }
    }
    fn image(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), image: true }
    }
}

/// What one start works on.
pub struct Start<'a> {
    pub container: &'a Container,
    pub attempt: u32,
    pub sandbox: &'a Sandbox,
    /// The config the sandbox was made with: runtimes want it again.
    pub sandbox_config: &'a cri::PodSandboxConfig,
}

impl Worker {
    pub(super) async fn start_container(&mut self, start: &Start<'_>) -> Result<(), StartError> {
        let (pod, container) = (self.pod.clone(), start.container);
        let image = self.ensure_image(container, start.sandbox_config).await?;
        let config = self.config(&pod, start, image)?;
        let recorder = self.shared.recorder.clone();
        let failed = |what: &'static str, reason: &'static str, error: String| {
            recorder.warning(
                &pod,
                Some(&container.name),
                "Failed",
                format!("Error: {what} container: {error}"),
            );
            StartError::new(reason, error)
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: start.sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(start.sandbox_config.clone()),
        };
        let id = match self.shared.cri.create_container(request).await {
            Ok(answer) => answer.container_id,
            Err(error) => return Err(failed("create", "CreateContainerError", error.to_string())),
        };
        recorder.normal(&pod, Some(&container.name), "Created", "Container created".into());
        let request = cri::StartContainerRequest { container_id: id.clone() };
        if let Err(error) = self.shared.cri.start_container(request).await {
            return Err(failed("start", "RunContainerError", error.to_string()));
        }
        recorder.normal(&pod, Some(&container.name), "Started", "Container started".into());
        self.post_start(container, &id, start.sandbox).await
    }

    /// A container whose postStart hook fails is killed, and it does not count as running before the hook is done, as
    /// upstream: nothing is published meanwhile.
    async fn post_start(
        &mut self,
        container: &Container,
        id: &str,
        sandbox: &Sandbox,
    ) -> Result<(), StartError> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let ip = sandbox.ips.first().unwrap_or(&self.shared.node.host_ip).clone();
        let ran = lifecycle::run(&self.shared.cri, hook, container, id, &ip, None);
        let Some(ran) = self.unless_terminating(ran).await else { return Ok(()) };
        let Err(error) = ran else { return Ok(()) };
        let message = format!("PostStartHook failed: {error}");
        self.shared.recorder.warning(
            &self.pod,
            Some(&container.name),
            "FailedPostStartHook",
            message.clone(),
        );
        let grace = super::stop::grace(&self.pod, None);
        if let Err(error) = self.shared.cri.stop_container(id, grace).await {
            tracing::warn!(container = container.name, "stop after failed postStart: {error}");
        }
        Err(StartError::new("PostStartHookError", message))
    }

    /// The image as the runtime has it, pulled by the container's policy.
    async fn ensure_image(
        &mut self,
        container: &Container,
        sandbox_config: &cri::PodSandboxConfig,
    ) -> Result<cri::Image, StartError> {
        let given = container.image.clone().unwrap_or_default();
        let spec = cri::ImageSpec {
            image: normalize(&given),
            user_specified_image: given.clone(),
            ..Default::default()
        };
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let present = if policy == "Always" { None } else { self.image_status(&spec, &given).await? };
        let (pod, recorder) = (self.pod.clone(), self.shared.recorder.clone());
        let on = Some(container.name.as_str());
        match present {
            Some(image) => {
                let message = format!("Container image {given:?} already present on machine");
                recorder.normal(&pod, on, "Pulled", message);
                return Ok(image);
            }
            None if policy == "Never" => {
                let message = format!("Container image {given:?} is not present with pull policy of Never");
                recorder.warning(&pod, on, "ErrImageNeverPull", message.clone());
                return Err(StartError::new("ErrImageNeverPull", message));
            }
            None => {}
        }
        recorder.normal(&pod, on, "Pulling", format!("Pulling image {given:?}"));
        let cri = self.shared.cri.clone();
        let request = cri::PullImageRequest {
            image: Some(spec.clone()),
            auth: None,
            sandbox_config: Some(sandbox_config.clone()),
        };
        let Some(pulled) = self.unless_terminating(cri.pull_image(request)).await else {
            return Err(StartError::new("ErrImagePull", "the pod is being terminated"));
        };
        match pulled {
            Ok(image_ref) => {
                recorder.normal(&pod, on, "Pulled", format!("Successfully pulled image {given:?}"));
                let by_ref = cri::ImageSpec { image: image_ref, ..spec };
                let missing = || {
                    StartError::image("ImageInspectError", format!("image {given:?} is gone after its pull"))
                };
                self.image_status(&by_ref, &given).await?.ok_or_else(missing)
            }
            Err(error) => {
                let message = format!("Failed to pull image {given:?}: {error}");
                recorder.warning(&pod, on, "Failed", message.clone());
                recorder.warning(&pod, on, "Failed", "Error: ErrImagePull".into());
                Err(StartError::image("ErrImagePull", message))
            }
        }
    }

    async fn image_status(
        &self,
        spec: &cri::ImageSpec,
        given: &str,
    ) -> Result<Option<cri::Image>, StartError> {
        let request = cri::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
        match self.shared.cri.image_status(request).await {
            Ok(answer) => Ok(answer.image.filter(|image| !image.id.is_empty())),
            Err(error) if error.code() == crate::cri::Code::InvalidArgument => {
                let message = format!("Failed to apply default image tag {given:?}: {error}");
                self.shared.recorder.warning(&self.pod, None, "InspectFailed", message.clone());
                Err(StartError::image("InvalidImageName", message))
            }
            Err(error) => {
                Err(StartError::image("ImageInspectError", format!("inspect image {given:?}: {error}")))
            }
        }
    }

    fn config(
        &self,
        pod: &Pod,
        start: &Start<'_>,
        image: cri::Image,
    ) -> Result<cri::ContainerConfig, StartError> {
        let container = start.container;
        let failed = |error: String| {
            self.shared.recorder.warning(pod, Some(&container.name), "Failed", format!("Error: {error}"));
            StartError::new("CreateContainerConfigError", error)
        };
        let mounts = self.mounts(pod, start).map_err(failed)?;
        let logs = log_dir(&self.shared.config.log_dir, pod).join(&container.name);
        std::fs::create_dir_all(&logs)
            .tried(|| format!("create {}", logs.display()))
            .map_err(|error| failed(error.to_string()))?;
        let facts =
            env::Facts { pod_ips: self.pod_ips(start.sandbox), host_ip: self.shared.node.host_ip.clone() };
        let context = container_config::Context {
            node: &self.shared.node,
            facts: &facts,
            attempt: start.attempt,
            user: ImageUser::of_image(&image),
            image_ref: image.id,
            mounts,
            seccomp_dir: &self.shared.config.root_dir.join("seccomp"),
        };
        container_config::of_container(pod, container, context).map_err(failed)
    }

    fn pod_ips(&self, sandbox: &Sandbox) -> Vec<String> {
        match spec(&self.pod).host_network {
            Some(true) => vec![self.shared.node.host_ip.clone()],
            _ => sandbox.ips.clone(),
        }
    }

    /// Volumes, /etc/hosts and the termination message, unless a volume is mounted at their place.
    fn mounts(&self, pod: &Pod, start: &Start<'_>) -> Result<Vec<cri::Mount>, String> {
        let (container, dir) = (start.container, &self.dir);
        let mut mounts = volume::mounts(pod, container, dir).map_err(|e| e.to_string())?;
        if !mounts.iter().any(|m| m.container_path.trim_end_matches('/') == "/etc/hosts") {
            let file = self.write_hosts(pod, start.sandbox)?;
            mounts.push(file_mount("/etc/hosts", &file));
        }
        let path = container.termination_message_path.as_deref().unwrap_or_default();
        if !path.is_empty() {
            let file = message_file(dir, container, start.attempt)?;
            mounts.push(file_mount(path, &file));
        }
        Ok(mounts)
    }

    fn write_hosts(&self, pod: &Pod, sandbox: &Sandbox) -> Result<PathBuf, String> {
        let host = match spec(pod).host_network {
            Some(true) => std::fs::read_to_string(&self.shared.config.hosts_file).unwrap_or_default(),
            _ => String::new(),
        };
        let text = hosts::of_pod(pod, &self.pod_ips(sandbox), &self.shared.config.cluster_domain, &host);
        let file = self.dir.etc_hosts();
        // Rewritten in place: running containers of the pod have this very file mounted.
        std::fs::write(&file, text)
            .and_then(|()| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)))
            .tried(|| format!("write {}", file.display()))
            .map_err(|e| e.to_string())?;
        Ok(file)
    }
}

/// A new empty file any user of the container may write: upstream names it by 8 random hex digits.
fn message_file(dir: &PodDir, container: &Container, attempt: u32) -> Result<PathBuf, String> {
    let parent = dir.container(&container.name);
    let file = parent.join(format!("{attempt:08x}"));
    std::fs::create_dir_all(&parent)
        .and_then(|()| std::fs::write(&file, ""))
        .and_then(|()| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)))
        .tried(|| format!("create {}", file.display()))
        .map_err(|e| e.to_string())?;
    Ok(file)
}

fn file_mount(container_path: &str, host_path: &Path) -> cri::Mount {
    cri::Mount {
        container_path: container_path.into(),
        host_path: host_path.display().to_string(),
        ..Default::default()
    }
}

/// A reference without tag or digest means `latest`.
fn normalize(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    let untagged = tag(image) == "latest" && !last.contains([':', '@']);
    if untagged { format!("{image}:latest") } else { image.to_owned() }
}
