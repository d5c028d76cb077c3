//! The root file system, from the bundle's directory to `/`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use corten_sys::mount::{self, Attributes, MountAttrFlags, Propagation};
use corten_sys::procfs::Procfs;
use corten_sys::{Context, Errno, Failure, Root};
use rustix::fs::Mode;

use super::child::InitError;
use super::{devices, masks, mounts};
use crate::cgroup::Cgroup;
use crate::plan::Rootfs;

/// Mounts everything below a copy of the root file system's mount; nothing is entered yet.
pub(super) fn prepare(
    plan: &Rootfs,
    cgroup: &Cgroup,
    cwd: &Path,
    in_user_namespace: bool,
) -> Result<Root, InitError> {
    separate(plan)?;
    let tree = mount::clone_host_tree(&plan.path, true)
        .and_then(|tree| mount::attach_host(&tree, &plan.path).map(|()| tree))
        .tried(|| format!("bind root file system {}", plan.path.display()))?;
    let root = Root::from(tree);
    let late = mounts::mount_all(plan, cgroup, &root)?;
    if plan.own_dev {
        devices::create_all(&plan.devices, &root, in_user_namespace)?;
        devices::link_all(&root)?;
    }
    // Best effort, as with runc: a read-only root that lacks it fails at chdir, with the path in the error.
    let _ = root.mkdir_all(cwd, DIRECTORY);
    late.finish()?;
    masks::apply(plan, &root)?;
    Ok(root)
}

/// Takes this mount namespace out of the host's propagation. By default the host's mounts still come in (volumes with
/// HostToContainer), and ours never go out.
fn separate(plan: &Rootfs) -> Result<(), Failure> {
    // The recursive flag is for the container's root, at the end: here a type for the root alone would leave every
    // other mount shared with the host.
    let (propagation, _) = plan.propagation.unwrap_or((Propagation::Slave, true));
    let slash = corten_sys::root::host_handle("/").tried(|| "open /".into())?;
    mount::set_propagation(&slash, propagation, true).tried(|| "change the propagation of /".into())?;
    if matches!(propagation, Propagation::Shared | Propagation::Unbindable) {
        make_parent_private(&plan.path)?;
    }
    Ok(())
}

/// pivot_root(2) refuses a root below a shared mount, and the bind of the root must not travel to the host.
fn make_parent_private(rootfs: &Path) -> Result<(), Failure> {
    let proc = Procfs::host().tried(|| "open /proc".into())?;
    let mounts = proc.read("self/mountinfo").tried(|| "read mountinfo".into())?;
    let parent = parent_mount(&mounts, rootfs).unwrap_or_else(|| PathBuf::from("/"));
    let handle = corten_sys::root::host_handle(&parent).tried(|| format!("open {}", parent.display()))?;
    mount::set_propagation(&handle, Propagation::Private, false)
        .tried(|| format!("make {} private", parent.display()))
}

/// The longest mount point that `path` lies at or below.
fn parent_mount(mountinfo: &str, path: &Path) -> Option<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    points.filter(|point| path.starts_with(point)).max_by_key(|point| point.as_os_str().len())
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Makes it `/`. Without pivot_root (a root on the initial ramfs), or in a mount namespace that others live in and
/// whose root is theirs, it is moved over `/`, or only entered.
pub(super) fn enter(
    plan: &Rootfs,
    root: Root,
    no_pivot: bool,
    shared_namespace: bool,
) -> Result<(), InitError> {
    let tree = root.into_fd();
    if shared_namespace {
        rustix::process::fchdir(&tree)
            .and_then(|()| rustix::process::chroot("."))
            .tried(|| "chroot".into())?;
    } else if no_pivot {
        move_over_root(&tree).tried(|| "move the root file system to /".into())?;
    } else {
        mount::pivot_root(&tree)
            .tried(|| "pivot_root".into())
            .map_err(|failure| failure.hint("a root on an initial ramfs needs --no-pivot"))?;
    }
    rustix::process::chdir("/").tried(|| "chdir to /".into())?;
    if plan.readonly {
        let readonly = Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY);
        mount::set_attributes(&tree, readonly, false)
            .tried(|| "make the root file system read-only".into())?;
    }
    if let Some((propagation, recursive)) = plan.propagation {
        mount::set_propagation(&tree, propagation, recursive)
            .tried(|| "set linux.rootfsPropagation".into())?;
    }
    Ok(())
}

fn move_over_root(tree: impl AsFd) -> Result<(), Errno> {
    rustix::process::fchdir(&tree)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")
}

pub(super) const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_mount_is_the_longest_one_above() {
        let mountinfo = "1 0 8:1 / / rw - ext4 x rw\n2 1 0:5 / /run rw - tmpfs t rw\n3 2 0:6 / /run/a\\040b rw - tmpfs t rw\n";
        let parent = |path: &str| parent_mount(mountinfo, Path::new(path)).unwrap();
        assert_eq!(parent("/run/a b/rootfs"), Path::new("/run/a b"));
        assert_eq!(parent("/running"), Path::new("/"));
        assert_eq!(parent("/run/x"), Path::new("/run"));
    }
}
