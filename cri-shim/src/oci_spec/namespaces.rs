//! Which namespaces a container makes, joins, or shares with the host.

use std::path::{Path, PathBuf};

use corten_cri_api::v1;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType};

use super::SpecError;

/// Paths of the namespaces a container joins; `None` is the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxNamespaces {
    pub net: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    pub pid: PidNamespace,
}

/// The PID namespace is each container's own choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PidNamespace {
    #[default]
    Own,
    Host,
    /// The pod's (pause is PID 1), or that of the target container.
    Join(PathBuf),
}

/// The namespace options of a pod; all POD where it says nothing.
pub fn of_pod(config: &v1::PodSandboxConfig) -> v1::NamespaceOption {
    let context = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    context.and_then(|c| c.namespace_options.clone()).unwrap_or_default()
}

/// A network of the pod's own, as opposed to the host's.
pub fn has_own_network(config: &v1::PodSandboxConfig) -> bool {
    of_pod(config).network() != v1::NamespaceMode::Node
}

/// Refuses a user namespace. NODE, or nothing, is what can be done.
pub fn refuse_user_namespace(options: Option<&v1::NamespaceOption>) -> Result<(), SpecError> {
    let asked = options.and_then(|o| o.userns_options.as_ref());
    match asked {
        Some(user) if user.mode() != v1::NamespaceMode::Node => Err(SpecError::Unsupported {
            field: "namespace_options.userns_options",
            why: "pods cannot have a user namespace of their own",
        }),
        _ => Ok(()),
    }
}

/// Refuses combinations that mean nothing for a pod.
pub fn check_pod(options: &v1::NamespaceOption) -> Result<(), SpecError> {
    refuse_user_namespace(Some(options))?;
    let wrong = |field, wanted| Err(SpecError::Value { field, value: "TARGET".into(), wanted });
    if options.network() == v1::NamespaceMode::Target || options.network() == v1::NamespaceMode::Container {
        return wrong("namespace_options.network", "POD or NODE");
    }
    if options.ipc() == v1::NamespaceMode::Target || options.ipc() == v1::NamespaceMode::Container {
        return wrong("namespace_options.ipc", "POD or NODE");
    }
    if options.pid() == v1::NamespaceMode::Target {
        return wrong("namespace_options.pid", "POD, CONTAINER or NODE for a pod");
    }
    Ok(())
}

pub(super) fn container(
    sandbox: &SandboxNamespaces,
    context: &v1::LinuxContainerSecurityContext,
) -> Vec<LinuxNamespace> {
    let mut all = vec![own(LinuxNamespaceType::Mount)];
    if !context.privileged {
        all.push(own(LinuxNamespaceType::Cgroup));
    }
    let join = [
        (LinuxNamespaceType::Network, &sandbox.net),
        (LinuxNamespaceType::Ipc, &sandbox.ipc),
        (LinuxNamespaceType::Uts, &sandbox.uts),
    ];
    all.extend(join.into_iter().filter_map(|(kind, path)| path.as_ref().map(|p| joined(kind, p))));
    match &sandbox.pid {
        PidNamespace::Own => all.push(own(LinuxNamespaceType::Pid)),
        PidNamespace::Join(path) => all.push(joined(LinuxNamespaceType::Pid, path)),
        PidNamespace::Host => {}
    }
    all
}

pub(super) fn own(kind: LinuxNamespaceType) -> LinuxNamespace {
    LinuxNamespaceBuilder::default().typ(kind).build().expect("every field has a default")
}

pub(super) fn joined(kind: LinuxNamespaceType, path: &Path) -> LinuxNamespace {
    LinuxNamespaceBuilder::default().typ(kind).path(path).build().expect("every field has a default")
}
