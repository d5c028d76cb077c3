//! `subPath`: one directory or file of a volume. What is in a volume is written by containers, so the path is resolved
//! inside the volume's root by the kernel, and what was found is bound by handle, never by name again: a link that
//! changes in between leads nowhere (CVE-2017-1002101, CVE-2021-25741).

use std::path::Path;

use corten_sys::errno::{Context as _, Failure};
use corten_sys::mount::{
    Attributes, Propagation, attach_host, clone_host_tree, clone_tree, is_mount_point, set_attributes,
    set_propagation, unmount,
};
use corten_sys::root::Root;
use rustix::fs::{FileType, Mode, OFlags, fchmod, fstat, openat};
use rustix::mount::MountAttrFlags;

/// Makes `dir` a shared mount of its own, before the pod's sandbox: what is mounted below it later is then seen by a
/// runtime that took its copy of the mount table in between.
pub fn share(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).tried(|| format!("create {}", dir.display()))?;
    if is_mount_point(dir).unwrap_or(false) {
        return Ok(());
    }
    let copy = clone_host_tree(dir, false).tried(|| format!("clone mount {}", dir.display()))?;
    attach_host(&copy, dir).tried(|| format!("bind {} on itself", dir.display()))?;
    set_propagation(&copy, Propagation::Shared, false).tried(|| format!("make {} shared", dir.display()))
}

/// Binds `path` of the volume at `root` to `target`. A missing path becomes a directory when `create`, with the mode
/// of the volume's root (so that fsGroup and sharing hold there too).
pub fn bind(root: &Path, path: &str, target: &Path, read_only: bool, create: bool) -> Result<(), Failure> {
    let volume = Root::open_host(root).tried(|| format!("open {}", root.display()))?;
    let what = || format!("open {path} in {}", root.display());
    let handle = match volume.handle(path) {
        Err(rustix::io::Errno::NOENT) if create => {
            let mode = Mode::from_raw_mode(fstat(&volume).tried(what)?.st_mode & 0o7777);
            let made =
                volume.mkdir_all(path, mode).tried(|| format!("create {path} in {}", root.display()))?;
            // mkdir is cut by the umask; upstream, too, sets the mode of the last directory only.
            let open =
                openat(&made, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            open.and_then(|dir| fchmod(&dir, mode)).tried(|| format!("set mode of {path}"))?;
            made
        }
        other => other.tried(what)?,
    };
    let is_dir = FileType::from_raw_mode(fstat(&handle).tried(what)?.st_mode) == FileType::Directory;
    clear(target)?;
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).tried(|| format!("create {}", parent.display()))?;
    }
    let made =
        if is_dir { std::fs::create_dir(target) } else { std::fs::File::create_new(target).map(|_| ()) };
    made.tried(|| format!("create {}", target.display()))?;
    let mount = clone_tree(&handle, true).tried(|| format!("clone {path}"))?;
    if read_only {
        let attributes = Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY);
        set_attributes(&mount, attributes, true).tried(|| format!("make {path} read-only"))?;
    }
    attach_host(&mount, target).tried(|| format!("bind {path} to {}", target.display()))
}

/// Takes away what an earlier start of the container left.
fn clear(target: &Path) -> Result<(), Failure> {
    while is_mount_point(target).unwrap_or(false) {
        unmount(target, true).tried(|| format!("unmount {}", target.display()))?;
    }
    let gone = match std::fs::symlink_metadata(target) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir(target),
        Ok(_) => std::fs::remove_file(target),
        Err(_) => Ok(()),
    };
    gone.tried(|| format!("remove {}", target.display()))
}
