//! What a container sees mounted: the kernel's file systems, the pod's files, the volumes of the config.

use std::path::{Component, Path, PathBuf};

use corten_cri_api::v1;
use oci_spec::runtime::{Mount, MountBuilder};

use super::{Input, SpecError};

/// Files every container of a pod shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxFiles {
    pub hostname: PathBuf,
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
    pub shm: PathBuf,
}

/// A mount of the config after its host side was looked at: the source exists and is no symlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedMount {
    pub source: PathBuf,
    pub destination: PathBuf,
    pub readonly: bool,
    pub recursive_read_only: bool,
    pub propagation: v1::MountPropagation,
}

/// Refuses a mount that cannot be made as asked. The host side has not been looked at yet.
pub fn check(mount: &v1::Mount) -> Result<(), SpecError> {
    if mount.image.as_ref().is_some_and(|i| !i.image.is_empty()) || !mount.image_sub_path.is_empty() {
        return Err(SpecError::Unsupported {
            field: "mounts[].image",
            why: "image volumes cannot be mounted",
        });
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(SpecError::Unsupported {
            field: "mounts[].uidMappings",
            why: "user namespaces cannot be made",
        });
    }
    let value = |value: &str, field, wanted| Err(SpecError::Value { field, value: value.into(), wanted });
    if !Path::new(&mount.host_path).is_absolute() {
        return value(&mount.host_path, "mounts[].host_path", "an absolute path");
    }
    let destination = Path::new(&mount.container_path);
    if mount.container_path.is_empty() || destination.components().any(|c| c == Component::ParentDir) {
        return value(&mount.container_path, "mounts[].container_path", "a path without `..`");
    }
    let private = mount.propagation() == v1::MountPropagation::PropagationPrivate;
    if mount.recursive_read_only && !(mount.readonly && private) {
        let wanted = "recursive_read_only needs readonly and private propagation";
        return value(&mount.container_path, "mounts[]", wanted);
    }
    Ok(())
}

/// The destination as a clean absolute path.
pub fn destination(container_path: &str) -> PathBuf {
    let relative: PathBuf =
        Path::new(container_path).components().filter(|c| matches!(c, Component::Normal(_))).collect();
    Path::new("/").join(relative)
}

pub(super) fn mounts(
    input: &Input<'_>,
    context: &v1::LinuxContainerSecurityContext,
) -> Result<Vec<Mount>, SpecError> {
    let mut volumes: Vec<&ResolvedMount> = input.mounts.iter().collect();
    // Outer ones first, whatever order they were given in.
    volumes.sort_by_key(|m| m.destination.components().count());
    if let Some(root) = volumes.iter().find(|m| m.destination == Path::new("/")) {
        let value = root.source.display().to_string();
        return Err(SpecError::Value { field: "mounts[].container_path", value, wanted: "a path below /" });
    }
    let over_dev = volumes.iter().any(|v| v.destination == Path::new("/dev"));
    let replaced = |m: &Mount| {
        let below_dev = over_dev && m.destination().starts_with("/dev");
        below_dev || volumes.iter().any(|v| v.destination == *m.destination())
    };
    let mut all: Vec<Mount> = kernel_mounts(context).into_iter().chain(pod_files(input, context)).collect();
    all.retain(|m| !replaced(m));
    all.extend(volumes.into_iter().map(volume));
    Ok(all)
}

/// containerd's defaults. A privileged container gets /sys and its cgroups writable.
fn kernel_mounts(context: &v1::LinuxContainerSecurityContext) -> Vec<Mount> {
    let access = if context.privileged { "rw" } else { "ro" };
    vec![
        special("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        special("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        special(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        special("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        special("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        special("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ]
}

fn pod_files(input: &Input<'_>, context: &v1::LinuxContainerSecurityContext) -> Vec<Mount> {
    let access = if context.readonly_rootfs { "ro" } else { "rw" };
    let file = |destination: &str, source: &Path| bind(destination, source, &["rbind", "rprivate", access]);
    vec![
        file("/etc/hostname", &input.files.hostname),
        file("/etc/hosts", &input.files.hosts),
        file("/etc/resolv.conf", &input.files.resolv_conf),
        bind("/dev/shm", &input.files.shm, &["rbind", "rprivate", "rw", "nosuid", "nodev", "noexec"]),
    ]
}

fn volume(mount: &ResolvedMount) -> Mount {
    let propagation = match mount.propagation {
        v1::MountPropagation::PropagationPrivate => "rprivate",
        v1::MountPropagation::PropagationHostToContainer => "rslave",
        v1::MountPropagation::PropagationBidirectional => "rshared",
    };
    let access = match (mount.readonly, mount.recursive_read_only) {
        (_, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    let mut options = vec!["rbind", propagation, access];
    if access == "rro" {
        // Runtimes that do not know "rro" must at least not make it writable.
        options.push("ro");
    }
    bind(&mount.destination, &mount.source, &options)
}

/// The rootfs must let events through as far as its most open volume does.
pub(super) fn rootfs_propagation(mounts: &[ResolvedMount]) -> String {
    let any = |p| mounts.iter().any(|m| m.propagation == p);
    if any(v1::MountPropagation::PropagationBidirectional) {
        "rshared".into()
    } else if any(v1::MountPropagation::PropagationHostToContainer) {
        "rslave".into()
    } else {
        "rprivate".into()
    }
}

pub(super) fn special(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    mount(Path::new(destination), kind, Path::new(source), options)
}

pub(super) fn bind(destination: impl AsRef<Path>, source: &Path, options: &[&str]) -> Mount {
    mount(destination.as_ref(), "bind", source, options)
}

fn mount(destination: &Path, kind: &str, source: &Path, options: &[&str]) -> Mount {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()
        .expect("every field has a default")
}
