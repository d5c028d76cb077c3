//! Mounts into the root: each is built detached, with its attributes, and attached onto an open target.

use std::os::fd::OwnedFd;
use std::path::Path;

use corten_sys::mount::{self, Attributes, MountAttrFlags, Parameter};
use corten_sys::procfs::Procfs;
use corten_sys::{Context, Errno, Failure, Root};
use rustix::fs::{FileType, Mode, fstat};

use super::cgroups;
use super::child::InitError;
use super::rootfs::DIRECTORY;
use crate::cgroup::Cgroup;
use crate::plan::{Mount, MountKind, Rootfs};

/// New file systems that become read-only once everything below them is mounted.
#[derive(Debug, Default)]
pub(super) struct Late(Vec<OwnedFd>);

impl Late {
    pub(super) fn push(&mut self, mount: OwnedFd) {
        self.0.push(mount);
    }

    pub(super) fn finish(self) -> Result<(), Failure> {
        let readonly = Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY);
        self.0.iter().try_for_each(|mount| {
            mount::set_attributes(mount, readonly, false).tried(|| "make a mount read-only".into())
        })
    }
}

pub(super) fn mount_all(plan: &Rootfs, cgroup: &Cgroup, root: &Root) -> Result<Late, InitError> {
    let mut late = Late::default();
    for mount in &plan.mounts {
        match &mount.kind {
            MountKind::Bind { source, recursive } => bind(mount, source, *recursive, root)?,
            MountKind::Filesystem { kind, source, parameters } => {
                filesystem(mount, kind, source, parameters, root, &mut late)?;
            }
            MountKind::Cgroup => cgroups::mount(mount, cgroup, root, &mut late)?,
        }
    }
    Ok(late)
}

fn bind(plan: &Mount, source: &Path, recursive: bool, root: &Root) -> Result<(), InitError> {
    let tried = || format!("mount {} to {} in the container", source.display(), plan.destination.display());
    let tree = mount::clone_host_tree(source, recursive).tried(tried)?;
    let is_directory = FileType::from_raw_mode(fstat(&tree).tried(tried)?.st_mode) == FileType::Directory;
    if plan.destination == Path::new("/proc") {
        let copy = tree.try_clone().tried(tried)?;
        Procfs::verified(copy)
            .tried(tried)
            .map_err(|failure| failure.hint("only a proc file system may be at /proc"))?;
    }
    let target =
        if is_directory { directory(root, &plan.destination) } else { file(root, &plan.destination) };
    let target = target.tried(tried)?;
    attach(plan, &tree, &target, plan.attributes)
}

fn filesystem(
    plan: &Mount,
    kind: &str,
    source: &str,
    parameters: &[Parameter],
    root: &Root,
    late: &mut Late,
) -> Result<(), InitError> {
    let tried = || format!("mount {kind} to {} in the container", plan.destination.display());
    let target = match kind {
        // Where the runtime and every tool believes the kernel to speak: no link of the image may lead elsewhere
        // (CVE-2023-27561, CVE-2023-28642).
        "proc" | "sysfs" => real_directory(root, &plan.destination)?,
        _ => directory(root, &plan.destination).tried(tried)?,
    };
    let mut parameters = parameters.to_vec();
    if kind == "tmpfs" && !parameters.iter().any(|p| matches!(p, Parameter::Value(key, _) if key == "mode")) {
        // What the image meant for this directory (/tmp with 1777) holds for the tmpfs over it.
        let mode = fstat(&target).tried(tried)?.st_mode & 0o7777;
        parameters.push(Parameter::Value("mode".into(), format!("{mode:o}")));
    }
    let readonly = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    let now = plan.attributes.set & !readonly;
    let flags = MountAttrFlags::from_bits_retain(now as u32);
    let mount = mount::filesystem(kind, source, &parameters, flags).tried(tried).map_err(explain)?;
    attach(plan, &mount, &target, Attributes::default())?;
    if plan.attributes.set & readonly != 0 {
        late.push(mount);
    }
    Ok(())
}

fn explain(failure: Failure) -> Failure {
    match failure.errno {
        Errno::NODEV => failure.hint("the kernel has no such file system"),
        Errno::INVAL => failure.hint("an option that this file system does not know"),
        Errno::PERM => failure.hint("a user namespace needs its own pid, network or ipc namespace for it"),
        _ => failure,
    }
}

pub(super) fn attach(
    plan: &Mount,
    tree: &OwnedFd,
    target: &OwnedFd,
    attributes: Attributes,
) -> Result<(), InitError> {
    let tried = |what: &str| format!("mounts[{}]: {what} {}", plan.index, plan.destination.display());
    if !attributes.is_empty() {
        mount::set_attributes(tree, attributes, false).tried(|| tried("set the attributes of"))?;
    }
    if !plan.recursive.is_empty() {
        mount::set_attributes(tree, plan.recursive, true)
            .tried(|| tried("set the recursive attributes of"))?;
    }
    mount::attach(tree, target).tried(|| tried("attach"))?;
    for (propagation, recursive) in &plan.propagation {
        mount::set_propagation(tree, *propagation, *recursive).tried(|| tried("set the propagation of"))?;
    }
    Ok(())
}

/// The target of a mount, made if it is missing.
pub(super) fn directory(root: &Root, path: &Path) -> Result<OwnedFd, Errno> {
    root.mkdir_all(path, DIRECTORY)
}

fn file(root: &Root, path: &Path) -> Result<OwnedFd, Errno> {
    match root.handle(path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    root.mkdir_all(path.parent().unwrap_or(Path::new("/")), DIRECTORY)?;
    root.touch(path, Mode::from(0o644))
}

fn real_directory(root: &Root, path: &Path) -> Result<OwnedFd, InitError> {
    let open = || match root.handle_without_links(path) {
        Err(Errno::NOENT) => {
            root.mkdir_all(path, DIRECTORY)?;
            root.handle_without_links(path)
        }
        other => other,
    };
    let refuse = |reason| InitError::Refused { place: format!("mount target {}", path.display()), reason };
    let target = match open() {
        Err(Errno::LOOP) => return Err(refuse("must not be a symbolic link, nor lie below one")),
        other => other.tried(|| format!("open mount target {}", path.display()))?,
    };
    let status = fstat(&target).tried(|| format!("stat mount target {}", path.display()))?;
    if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        Ok(target)
    } else {
        Err(refuse("must be a directory"))
    }
}
