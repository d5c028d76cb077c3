//! Image config + CRI config → OCI runtime spec. Pure: it opens nothing; what it needs of the host and of the rootfs
//! is handed to it ([`Input`]). CRI fields that cannot be honoured are refused by name.

pub mod devices;
pub mod mounts;
pub mod namespaces;
pub mod pause;
pub mod process;
pub mod resources;
pub mod security;
pub mod user;

use std::collections::HashMap;
use std::path::Path;

use corten_cri_api::v1;
use oci_spec::runtime::{Linux, LinuxBuilder, LinuxSeccomp, Root, RootBuilder, Spec, SpecBuilder};

pub use devices::{HostDevice, NodeKind};
pub use mounts::{ResolvedMount, SandboxFiles};
pub use namespaces::SandboxNamespaces;
pub use security::SeccompChoice;
pub use user::{PasswdError, ResolvedUser, UserRequest};

/// The runtime-spec release whose fields are written.
pub const SPEC_VERSION: &str = "1.2.0";

/// What an image says about running it. All of it is hostile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: String,
}

/// What is known of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Capabilities this daemon holds, without `CAP_`; "ALL" means these.
    pub capabilities: Vec<String>,
    pub apparmor: bool,
    pub selinux: bool,
    /// Whether a swap limit can be set.
    pub swap_accounting: bool,
    /// Page sizes that have a hugetlb cgroup, as `2MB`.
    pub hugepage_sizes: Vec<String>,
}

/// Everything a container's spec is made of.
pub struct Input<'a> {
    pub id: &'a str,
    pub sandbox_id: &'a str,
    pub config: &'a v1::ContainerConfig,
    pub sandbox: &'a v1::PodSandboxConfig,
    pub image: &'a ImageDefaults,
    pub image_name: &'a str,
    pub user: &'a ResolvedUser,
    pub mounts: &'a [ResolvedMount],
    pub files: &'a SandboxFiles,
    pub namespaces: &'a SandboxNamespaces,
    /// The devices asked for, and for a privileged container those of the host.
    pub devices: &'a [HostDevice],
    pub seccomp: Option<LinuxSeccomp>,
    pub host: &'a HostFacts,
    pub hostname: &'a str,
    pub rootfs: &'a Path,
    /// cgroup of the pod; the container's lies below it.
    pub cgroup_parent: &'a str,
}

/// What a container config asks for that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("no command: neither the container config nor the image (entrypoint, cmd) names one")]
    NoCommand,
    #[error("{field}: {value:?}: {wanted}")]
    Value { field: &'static str, value: String, wanted: &'static str },
    #[error("{field} is not supported yet: {why}")]
    Unsupported { field: &'static str, why: &'static str },
    #[error("user: {0}")]
    User(#[from] PasswdError),
    #[error("sysctl {name}: {why}")]
    Sysctl { name: String, why: &'static str },
}

/// The security context, or one with every field at its default.
pub fn security_context(config: &v1::ContainerConfig) -> v1::LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|l| l.security_context.clone()).unwrap_or_default()
}

/// Builds the spec of an ordinary container.
pub fn build(input: &Input<'_>) -> Result<Spec, SpecError> {
    let security = security_context(input.config);
    refuse_unsupported(input, &security)?;
    let process = process::process(input, &security)?;
    let linux = linux(input, &security)?;
    let root = root(input.rootfs, security.readonly_rootfs);
    let mounts = mounts::mounts(input, &security)?;
    let mut spec = SpecBuilder::default()
        .version(SPEC_VERSION)
        .root(root)
        .process(process)
        .mounts(mounts)
        .annotations(annotations(input))
        .linux(linux)
        .build()
        .expect("every field has a default");
    // The pod's name is set once, by the pause container; the crate's default spec has a name of its own.
    spec.set_hostname(None);
    Ok(spec)
}

fn root(rootfs: &Path, readonly: bool) -> Root {
    RootBuilder::default().path(rootfs).readonly(readonly).build().expect("every field has a default")
}

fn linux(input: &Input<'_>, security: &v1::LinuxContainerSecurityContext) -> Result<Linux, SpecError> {
    let resources = input.config.linux.as_ref().and_then(|l| l.resources.clone()).unwrap_or_default();
    let mut builder = LinuxBuilder::default()
        .namespaces(namespaces::container(input.namespaces, security))
        .resources(resources::resources(
            &resources,
            input.host,
            devices::rules(input.devices, security.privileged),
        )?)
        .devices(devices::nodes(input.devices))
        .cgroups_path(format!("{}/{}", input.cgroup_parent.trim_end_matches('/'), input.id))
        .rootfs_propagation(mounts::rootfs_propagation(input.mounts))
        .masked_paths(security::masked_paths(security))
        .readonly_paths(security::readonly_paths(security));
    if let Some(seccomp) = input.seccomp.clone() {
        builder = builder.seccomp(seccomp);
    }
    let mut linux = builder.build().expect("every field has a default");
    // A pod's sysctls are set once, with its namespaces, by the pause container.
    linux.set_sysctl(None);
    Ok(linux)
}

fn refuse_unsupported(
    input: &Input<'_>,
    security: &v1::LinuxContainerSecurityContext,
) -> Result<(), SpecError> {
    if !input.config.cdi_devices.is_empty() {
        return Err(SpecError::Unsupported { field: "CDI_devices", why: "no CDI specs are read" });
    }
    namespaces::refuse_user_namespace(security.namespace_options.as_ref())?;
    security::check_selinux(security.selinux_options.as_ref(), input.host)
}

/// The annotations containerd sets, so that OCI runtimes and hooks that read them keep working. The pod's own
/// annotations and the image's labels are not passed on: nothing may be steered by them (CVE-2026-53488).
fn annotations(input: &Input<'_>) -> HashMap<String, String> {
    let pod = input.sandbox.metadata.clone().unwrap_or_default();
    let name = input.config.metadata.clone().unwrap_or_default().name;
    [
        ("io.kubernetes.cri.container-type", "container".to_owned()),
        ("io.kubernetes.cri.sandbox-id", input.sandbox_id.to_owned()),
        ("io.kubernetes.cri.sandbox-name", pod.name),
        ("io.kubernetes.cri.sandbox-namespace", pod.namespace),
        ("io.kubernetes.cri.sandbox-uid", pod.uid),
        ("io.kubernetes.cri.container-name", name),
        ("io.kubernetes.cri.image-name", input.image_name.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests;
