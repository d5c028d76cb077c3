//! Masked and read-only paths, each resolved once to an open file and covered there.

use std::os::fd::OwnedFd;
use std::path::Path;

use corten_sys::mount::{self, Attributes, MountAttrFlags, Parameter};
use corten_sys::{Context, Errno, Failure, Root};
use rustix::fs::{FileType, fstat};

use super::devices::host_null;
use crate::plan::Rootfs;

pub(super) fn apply(plan: &Rootfs, root: &Root) -> Result<(), Failure> {
    for path in &plan.readonly_paths {
        if let Some(target) = find(root, path)? {
            make_readonly(&target).tried(|| format!("make {} read-only in the container", path.display()))?;
        }
    }
    let mut cover = Cover::default();
    for path in &plan.masked {
        if let Some(target) = find(root, path)? {
            cover.hide(&target).map_err(|failure| Failure {
                tried: format!("mask {} in the container: {}", path.display(), failure.tried),
                ..failure
            })?;
        }
    }
    Ok(())
}

/// A path that is not there needs no cover.
fn find(root: &Root, path: &Path) -> Result<Option<OwnedFd>, Failure> {
    match root.handle(path) {
        Ok(handle) => Ok(Some(handle)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(Failure::new(format!("open {} in the container", path.display()), errno)),
    }
}

fn make_readonly(target: &OwnedFd) -> Result<(), Errno> {
    let tree = mount::clone_tree(target, true)?;
    mount::set_attributes(&tree, Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY), true)?;
    mount::attach(tree, target)
}

/// The null device for files and one empty directory for all directories: a superblock each would be dear (runc#5275).
#[derive(Default)]
struct Cover {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Cover {
    fn hide(&mut self, target: &OwnedFd) -> Result<(), Failure> {
        let status = fstat(target).tried(|| "stat".into())?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            self.hide_directory(target)
        } else {
            self.hide_file(target)
        }
    }

    fn hide_file(&mut self, target: &OwnedFd) -> Result<(), Failure> {
        let null = match &self.null {
            Some(null) => null,
            None => self.null.insert(host_null()?),
        };
        mount::clone_tree(null, false)
            .and_then(|tree| mount::attach(tree, target))
            .tried(|| "bind /dev/null".into())
    }

    /// The first one is a new tmpfs; once attached it can be copied (a detached mount cannot, before Linux 6.15).
    fn hide_directory(&mut self, target: &OwnedFd) -> Result<(), Failure> {
        if let Some(empty) = &self.empty {
            return mount::clone_tree(empty, false)
                .and_then(|tree| mount::attach(tree, target))
                .tried(|| "bind an empty directory".into());
        }
        let limits = [
            Parameter::Value("nr_blocks".into(), "1".into()),
            Parameter::Value("nr_inodes".into(), "1".into()),
        ];
        let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let empty = mount::filesystem("tmpfs", "tmpfs", &limits, flags)
            .and_then(|empty| mount::attach(&empty, target).map(|()| empty))
            .tried(|| "mount an empty tmpfs".into())?;
        self.empty = Some(empty);
        Ok(())
    }
}
