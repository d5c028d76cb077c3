//! What a container's spec is made of, from all over: image, rootfs, host, pod. The spec itself is built by the pure
//! `oci_spec`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::oci_spec::image::ImageConfiguration;
use ::oci_spec::runtime::{LinuxSeccomp, Spec};
use corten_cri_api::v1;
use corten_images::ImageRecord;

use crate::daemon::{Daemon, blocking};
use crate::error::{Error, Kind};
use crate::host;
use crate::oci_spec::namespaces::{self, PidNamespace};
use crate::oci_spec::{
    self, HostDevice, ImageDefaults, Input, ResolvedMount, ResolvedUser, SandboxFiles, SandboxNamespaces,
    SeccompChoice, UserRequest, security, security_context,
};
use crate::sandbox::record::SandboxRecord;
use crate::store::Sandbox;

/// A seccomp profile file may not be larger than this.
const PROFILE_LIMIT_BYTES: u64 = 4 << 20;

/// Everything but what the container's own snapshot decides.
pub struct Gathered {
    pub image: Arc<ImageRecord>,
    pub defaults: ImageDefaults,
    pub user_request: UserRequest,
    mounts: Vec<ResolvedMount>,
    devices: Vec<HostDevice>,
    namespaces: SandboxNamespaces,
    files: SandboxFiles,
    seccomp: SeccompChoice,
    hostname: String,
    cgroup_parent: String,
}

/// Looks everything up. Only missing volume directories are made.
pub async fn gather(
    daemon: &Arc<Daemon>,
    sandbox: &Sandbox,
    config: &v1::ContainerConfig,
) -> Result<Gathered, Error> {
    let pod = sandbox.record();
    let security = security_context(config);
    let image = find_image(daemon, config)?;
    let defaults = image_defaults(&daemon.images.image_config(image.id)?);
    let user_request = UserRequest::new(&security, &defaults.user).map_err(oci_spec::SpecError::from)?;
    let (mounts_asked, devices_asked, privileged) =
        (config.mounts.clone(), config.devices.clone(), security.privileged);
    let monitor = sandbox.monitor().map(|monitor| monitor.pid());
    let (mounts, devices) = blocking(move || -> Result<_, Error> {
        let mut devices = host::devices(&devices_asked)?;
        if privileged {
            let more = host::all_devices()?;
            devices.extend(
                more.into_iter()
                    .filter(|d| !devices_asked.iter().any(|a| a.container_path == d.path.to_string_lossy())),
            );
        }
        Ok((host::mounts(&mounts_asked, monitor)?, devices))
    })
    .await?;
    Ok(Gathered {
        image,
        defaults,
        user_request,
        mounts,
        devices,
        namespaces: sandbox_namespaces(daemon, &pod, &security)?,
        files: files(sandbox, &pod),
        seccomp: seccomp_choice(&security)?,
        hostname: hostname(&pod.config),
        cgroup_parent: cgroup_parent(daemon, &pod.config),
    })
}

impl Gathered {
    /// The spec of container `id`, whose root is `rootfs`.
    pub fn spec(
        &self,
        daemon: &Daemon,
        id: &str,
        pod: &SandboxRecord,
        config: &v1::ContainerConfig,
        user: &ResolvedUser,
        rootfs: &Path,
    ) -> Result<Spec, Error> {
        let profile = match &self.seccomp {
            SeccompChoice::Localhost(path) => Some(profile(path)?),
            SeccompChoice::Unconfined | SeccompChoice::RuntimeDefault => None,
        };
        let mut spec = oci_spec::build(&Input {
            id,
            sandbox_id: &pod.id,
            config,
            sandbox: &pod.config,
            image: &self.defaults,
            image_name: &config.image.as_ref().map(|i| i.image.clone()).unwrap_or_default(),
            user,
            mounts: &self.mounts,
            files: &self.files,
            namespaces: &self.namespaces,
            devices: &self.devices,
            seccomp: profile,
            host: &daemon.host,
            hostname: &self.hostname,
            rootfs,
            cgroup_parent: &self.cgroup_parent,
        })?;
        if self.seccomp == SeccompChoice::RuntimeDefault {
            confine(&mut spec);
        }
        Ok(spec)
    }

    /// The number of the signal StopContainer sends: the config's, else the image's, else SIGTERM.
    pub fn stop_signal(&self, config: &v1::ContainerConfig) -> i32 {
        let asked = config.stop_signal();
        let named = match asked {
            v1::Signal::RuntimeDefault => self.defaults.stop_signal.clone(),
            other => cri_signal_name(other),
        };
        corten_sys::signal::parse(&named).filter(|n| *n > 0).unwrap_or(15)
    }
}

/// CRI writes `SIGRTMINPLUS3` for what everybody else calls `SIGRTMIN+3`.
fn cri_signal_name(signal: v1::Signal) -> String {
    match signal {
        v1::Signal::Sigcld => "SIGCHLD".into(),
        v1::Signal::Sigiot => "SIGABRT".into(),
        v1::Signal::Sigpoll => "SIGIO".into(),
        other => other.as_str_name().replace("MINPLUS", "MIN+").replace("MAXMINUS", "MAX-"),
    }
}

fn find_image(daemon: &Daemon, config: &v1::ContainerConfig) -> Result<Arc<ImageRecord>, Error> {
    let spec = config.image.as_ref().map(|i| i.image.as_str()).unwrap_or_default();
    if spec.is_empty() {
        return Err(Error::argument("config.image.image", "an image is needed"));
    }
    Ok(daemon.images.get(spec)?)
}

fn image_defaults(config: &ImageConfiguration) -> ImageDefaults {
    let Some(c) = config.config() else { return ImageDefaults::default() };
    ImageDefaults {
        env: c.env().clone().unwrap_or_default(),
        entrypoint: c.entrypoint().clone().unwrap_or_default(),
        cmd: c.cmd().clone().unwrap_or_default(),
        working_dir: c.working_dir().clone().unwrap_or_default(),
        user: c.user().clone().unwrap_or_default(),
        stop_signal: c.stop_signal().clone().unwrap_or_default(),
    }
}

/// The paths of the pod's namespaces are its pause process's.
fn sandbox_namespaces(
    daemon: &Daemon,
    pod: &SandboxRecord,
    security: &v1::LinuxContainerSecurityContext,
) -> Result<SandboxNamespaces, Error> {
    let options = namespaces::of_pod(&pod.config);
    let pause = pod.pause_pid.ok_or_else(|| Error::State {
        kind: Kind::Sandbox,
        id: pod.id.clone(),
        state: "without a pause process".into(),
        wanted: "ready",
    })?;
    let of_pause = |name: &str| PathBuf::from(format!("/proc/{pause}/ns/{name}"));
    let own_network = namespaces::has_own_network(&pod.config);
    let own_ipc = options.ipc() != v1::NamespaceMode::Node;
    let asked = security.namespace_options.as_ref().unwrap_or(&options);
    Ok(SandboxNamespaces {
        net: pod.netns.clone(),
        uts: own_network.then(|| of_pause("uts")),
        ipc: own_ipc.then(|| of_pause("ipc")),
        pid: match asked.pid() {
            v1::NamespaceMode::Container => PidNamespace::Own,
            v1::NamespaceMode::Node => PidNamespace::Host,
            v1::NamespaceMode::Pod if options.pid() == v1::NamespaceMode::Node => PidNamespace::Host,
            v1::NamespaceMode::Pod => PidNamespace::Join(of_pause("pid")),
            v1::NamespaceMode::Target => PidNamespace::Join(target(daemon, pod, &asked.target_id)?),
        },
    })
}

/// The PID namespace of another container of the same pod (ephemeral containers).
fn target(daemon: &Daemon, pod: &SandboxRecord, id: &str) -> Result<PathBuf, Error> {
    let wrong = |why: &str| Error::argument("namespace_options.target_id", format!("{id:?}: {why}"));
    let container = daemon.store.container(id).map_err(|e| wrong(&e.to_string()))?;
    if container.sandbox.id != pod.id {
        return Err(wrong("a container of another pod"));
    }
    let pid = container.record().pid.ok_or_else(|| wrong("it is not running"))?;
    if container.state() != super::state::State::Running {
        return Err(wrong("it is not running"));
    }
    Ok(PathBuf::from(format!("/proc/{pid}/ns/pid")))
}

fn files(sandbox: &Sandbox, pod: &SandboxRecord) -> SandboxFiles {
    let etc = sandbox.dir.etc();
    let host_ipc = namespaces::of_pod(&pod.config).ipc() == v1::NamespaceMode::Node;
    SandboxFiles {
        hostname: etc.join("hostname"),
        hosts: etc.join("hosts"),
        resolv_conf: etc.join("resolv.conf"),
        shm: if host_ipc { "/dev/shm".into() } else { shm(&sandbox.state_dir) },
    }
}

/// Where the monitor mounts the pod's /dev/shm.
pub fn shm(state_dir: &Path) -> PathBuf {
    state_dir.join("shm")
}

/// The pod's name; the machine's for a pod on its network, or one that brings none.
pub fn hostname(config: &v1::PodSandboxConfig) -> String {
    if config.hostname.is_empty() || !namespaces::has_own_network(config) {
        return host::hostname();
    }
    config.hostname.clone()
}

/// The cgroup of the pod: a kubelet's own, else one below ours.
pub fn cgroup_parent(daemon: &Daemon, config: &v1::PodSandboxConfig) -> String {
    let given = config.linux.as_ref().map(|l| l.cgroup_parent.as_str()).unwrap_or_default();
    if given.is_empty() { daemon.config.cgroup_parent.clone() } else { given.to_owned() }
}

fn seccomp_choice(security: &v1::LinuxContainerSecurityContext) -> Result<SeccompChoice, Error> {
    #[expect(deprecated, reason = "clients still send the old field, and critest tests it")]
    let old = security.seccomp_profile_path.as_str();
    Ok(security::seccomp(security.seccomp.as_ref(), old, security.privileged)?)
}

/// The default filter allows what the capabilities of the container would.
fn confine(spec: &mut Spec) {
    let sets = spec.process().as_ref().and_then(|p| p.capabilities().clone()).unwrap_or_default();
    let profile = corten_runtime::seccomp::default_profile(&sets.bounding().clone().unwrap_or_default());
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(Some(profile));
    }
}

fn profile(path: &Path) -> Result<LinuxSeccomp, Error> {
    let wrong = |why: String| Error::Seccomp { path: path.into(), why };
    let size = std::fs::metadata(path).map_err(|e| wrong(crate::error::io_text(&e)))?.len();
    if size > PROFILE_LIMIT_BYTES {
        return Err(wrong(format!("{size} bytes, the limit is 4 MiB")));
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(crate::error::io_text(&e)))?;
    serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))
}
