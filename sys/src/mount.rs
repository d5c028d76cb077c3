//! The mount API by descriptor: build a mount detached, give it its flags once, attach it onto an open directory.
//!
//! Nothing here takes a path inside a rootfs: targets are handles (see [`crate::root`]), so no check can be raced.
//! Source: fsopen(2), mount_setattr(2) (Linux 5.12).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
pub use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags};

use crate::fd::check;
use crate::{Errno, Result};

/// Attributes to set and to clear on a mount. Setting any access-time mode implies clearing the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
}

impl Attributes {
    pub fn set(flags: MountAttrFlags) -> Self {
        Self { set: flags.bits().into(), clear: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0
    }
}

/// How mounts and unmounts travel between peer mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Shared,
    Slave,
    Private,
    Unbindable,
}

impl Propagation {
    fn flag(self) -> u64 {
        match self {
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Private => libc::MS_PRIVATE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// One key of a file system's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    Flag(String),
    Value(String, String),
}

/// A new instance of a file system, detached. `source` is what /proc/mounts shows.
pub fn filesystem(
    kind: &str,
    source: &str,
    parameters: &[Parameter],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !source.is_empty() {
        fsconfig_set_string(&context, "source", source)?;
    }
    for parameter in parameters {
        match parameter {
            Parameter::Flag(key) => fsconfig_set_flag(&context, key.as_str())?,
            Parameter::Value(key, value) => fsconfig_set_string(&context, key.as_str(), value.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// What the kernel said about the last failed step of a file system context is lost with it; an overlay says why.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    /// Uppermost first, as in `lowerdir=`.
    pub lower: Vec<PathBuf>,
    /// Upper and work directory (one file system); none makes a read-only overlay.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// No sync on unmount: the upper layer may be lost in a power cut, and is then refused (1-3 ms a mount).
    pub volatile: bool,
    pub read_only: bool,
    pub source: String,
}

impl Overlay {
    /// Mounts it detached: attach it with [`attach`] or [`attach_host`].
    pub fn mount(&self) -> Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        if !self.source.is_empty() {
            fsconfig_set_string(&context, "source", self.source.as_str())?;
        }
        self.set_lower(&context)?;
        if let Some((upper, work)) = &self.upper {
            fsconfig_set_string(&context, "upperdir", upper)?;
            fsconfig_set_string(&context, "workdir", work)?;
            if self.volatile {
                fsconfig_set_flag(&context, "volatile")?;
            }
        }
        fsconfig_create(&context)?;
        let flags = if self.read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
    }

    /// One key a layer (Linux 6.8): no page-size limit and no escaping. Else one `lowerdir=`.
    fn set_lower(&self, context: &OwnedFd) -> Result<()> {
        let mut layers = self.lower.iter();
        let first = layers.next().ok_or(Errno::INVAL)?;
        match fsconfig_set_string(context, "lowerdir+", first) {
            Ok(()) => layers.try_for_each(|layer| fsconfig_set_string(context, "lowerdir+", layer)),
            Err(Errno::INVAL) => fsconfig_set_string(context, "lowerdir", join_layers(&self.lower)),
            Err(errno) => Err(errno),
        }
    }
}

/// `lowerdir=` with colons and backslashes escaped.
fn join_layers(layers: &[PathBuf]) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut joined = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        if index > 0 {
            joined.push(b':');
        }
        for byte in layer.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\') {
                joined.push(b'\\');
            }
            joined.push(*byte);
        }
    }
    joined
}

/// A detached copy of the mount at `handle` (with everything below it when `recursive`): the new form of a bind.
pub fn clone_tree(handle: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(handle, "", flags)
}

/// The same from a trusted host path.
pub fn clone_host_tree(path: impl AsRef<Path>, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path.as_ref(), flags)
}

/// Attaches a detached mount onto the file or directory behind `target`. `mount` stays a handle of its root.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Attaches a detached mount at a trusted host path.
pub fn attach_host(mount: impl AsFd, path: impl AsRef<Path>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(mount, "", CWD, path.as_ref(), flags)
}

/// Changes the attributes of a mount (or of its whole tree).
pub fn set_attributes(mount: impl AsFd, attributes: Attributes, recursive: bool) -> Result<()> {
    let mut clear = attributes.clear;
    if attributes.set & ATIME_MASK != 0 || attributes.clear & ATIME_MASK != 0 {
        clear |= ATIME_MASK;
    }
    mount_setattr(mount, attributes.set, clear, None, recursive)
}

/// Changes the propagation of a mount (or of its whole tree).
pub fn set_propagation(mount: impl AsFd, propagation: Propagation, recursive: bool) -> Result<()> {
    mount_setattr(mount, 0, 0, Some(propagation), recursive)
}

/// Maps the owners of a detached mount through a user namespace.
pub fn set_id_map(mount: impl AsFd, user_namespace: impl AsFd, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_fd().as_raw_fd() as u64,
    };
    call_mount_setattr(mount, &attributes, recursive)
}

const ATIME_MASK: u64 = libc::MOUNT_ATTR__ATIME;

fn mount_setattr(
    mount: impl AsFd,
    set: u64,
    clear: u64,
    propagation: Option<Propagation>,
    recursive: bool,
) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: propagation.map_or(0, Propagation::flag),
        userns_fd: 0,
    };
    call_mount_setattr(mount, &attributes, recursive)
}

fn call_mount_setattr(mount: impl AsFd, attributes: &libc::mount_attr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: rustix and nix have no mount_setattr. The descriptor is borrowed for the call; the path is a constant
    // C string; `attributes` is a valid mount_attr and its true size is passed; the kernel only reads it.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Makes the open directory the root of this mount namespace and drops the old one.
///
/// The old root is stacked under the new one (`pivot_root(".", ".")`), made a slave so that the unmount does not
/// travel to the host, and detached. Ends in `/`.
pub fn pivot_root(new_root: impl AsFd) -> Result<()> {
    let old_root = rustix::fs::open("/", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, 0.into())?;
    rustix::process::fchdir(&new_root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old_root)?;
    set_propagation(&old_root, Propagation::Slave, true)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// Unmounts a trusted host path; with `detach` even while it is in use. Never follows a final link.
pub fn unmount(path: impl AsRef<Path>, detach: bool) -> Result<()> {
    let flags = UnmountFlags::NOFOLLOW | if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(path.as_ref(), flags)
}

/// Whether a path is the root of a mount: its mount id differs from that of its parent directory.
pub fn is_mount_point(path: impl AsRef<Path>) -> Result<bool> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let answer = statx(CWD, path.as_ref(), AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    Ok(answer.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_escaped() {
        assert_eq!(join_layers(&["/a:b".into(), "/c\\d".into()]), b"/a\\:b:/c\\\\d");
    }

    #[test]
    fn a_detached_tmpfs_is_read_only_when_asked() {
        let mount = filesystem("tmpfs", "tmpfs", &[], MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap();
        assert_eq!(rustix::fs::mkdirat(&mount, "x", 0o755.into()).unwrap_err(), Errno::ROFS);
        let rw = Attributes { set: 0, clear: MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into() };
        set_attributes(&mount, rw, false).unwrap();
        rustix::fs::mkdirat(&mount, "x", 0o755.into()).unwrap();
    }
}
