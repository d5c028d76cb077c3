//! Device nodes and the links of /dev, all relative to the root before it is entered (CVE-2026-41579).

use std::os::fd::OwnedFd;
use std::path::Path;

use corten_sys::{Context, Errno, Failure, Root, mount};
use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, Stat, Uid, chownat, fstat, major, makedev, minor, mknodat, statat,
    symlinkat, unlinkat,
};

use super::rootfs::DIRECTORY;
use crate::plan::{Device, DeviceKind};

pub(super) fn create_all(devices: &[Device], root: &Root, in_user_namespace: bool) -> Result<(), Failure> {
    let dev = root.mkdir_all("dev", DIRECTORY).tried(|| "open /dev of the container".into())?;
    for device in devices {
        let tried = || format!("create device {} in the container", device.path.display());
        let other;
        let parent = match device.path.parent() {
            Some(parent) if parent == Path::new("/dev") => &dev,
            parent => {
                other = root.mkdir_all(parent.unwrap_or(Path::new("/")), DIRECTORY).tried(tried)?;
                &other
            }
        };
        if in_user_namespace && device.kind != DeviceKind::Fifo {
            bind(device, root).tried(tried)?;
        } else {
            make(device, parent).tried(tried)?;
        }
    }
    Ok(())
}

fn make(device: &Device, parent: &OwnedFd) -> Result<(), Errno> {
    let name = device.path.file_name().ok_or(Errno::INVAL)?;
    let (kind, number) = (file_type(device.kind), makedev(device.major, device.minor));
    let mode = Mode::from_raw_mode(device.mode);
    match mknodat(parent, name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            // The image brought something: it stays only if it is that very device.
            if is_device(&statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?, kind, number) {
                return Ok(());
            }
            unlinkat(parent, name, AtFlags::empty())?;
            mknodat(parent, name, kind, mode, number)?;
        }
        Err(errno) => return Err(errno),
    }
    if (device.uid, device.gid) == (0, 0) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// mknod is not for user namespaces: the host's node is bound, once it is known to be that device (R10).
fn bind(device: &Device, root: &Root) -> Result<(), Errno> {
    let tree = mount::clone_host_tree(&device.path, false)?;
    let number = makedev(device.major, device.minor);
    if !is_device(&fstat(&tree)?, file_type(device.kind), number) {
        return Err(Errno::NODEV);
    }
    mount::attach(tree, root.touch(&device.path, Mode::from(0o644))?)
}

fn is_device(status: &Stat, kind: FileType, number: Dev) -> bool {
    let same = (major(status.st_rdev), minor(status.st_rdev)) == (major(number), minor(number));
    FileType::from_raw_mode(status.st_mode) == kind && (kind == FileType::Fifo || same)
}

fn file_type(kind: DeviceKind) -> FileType {
    match kind {
        DeviceKind::Character => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    }
}

/// Source: runtime-spec config-linux.md "Default Devices", "dev symbolic links".
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

pub(super) fn link_all(root: &Root) -> Result<(), Failure> {
    let dev = root.mkdir_all("dev", DIRECTORY).tried(|| "open /dev of the container".into())?;
    for (name, target) in LINKS {
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Failure::new(format!("link /dev/{name} in the container"), errno)),
        }
    }
    // The host's ptmx, or an image's, would make terminals outside of the container's devpts.
    let ptmx = || -> Result<(), Errno> {
        match unlinkat(&dev, "ptmx", AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => symlinkat("pts/ptmx", &dev, "ptmx"),
            Err(errno) => Err(errno),
        }
    };
    ptmx().tried(|| "link /dev/ptmx in the container".into())
}

/// The host's /dev/null, verified: what is hidden is hidden under it.
pub(super) fn host_null() -> Result<OwnedFd, Failure> {
    let handle = corten_sys::root::host_handle("/dev/null").tried(|| "open /dev/null".into())?;
    let status = fstat(&handle).tried(|| "stat /dev/null".into())?;
    if is_device(&status, FileType::CharacterDevice, makedev(1, 3)) {
        return Ok(handle);
    }
    // CVE-2025-31133: a link in its place would be bound instead.
    Err(Failure::new("use /dev/null of the host", Errno::NODEV).hint("it is not the character device 1:3"))
}
