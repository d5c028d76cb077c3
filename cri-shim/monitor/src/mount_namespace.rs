//! The monitor's own mount namespace. Propagation stays as the host has it, so that volumes with HostToContainer or
//! Bidirectional propagation work; only what the monitor mounts itself must not reach the host.

use std::fs;
use std::path::{Path, PathBuf};

use corten_sys::mount::{
    Overlay as Layers, Parameter, Propagation, attach_host, clone_host_tree, filesystem, set_propagation,
    unmount,
};
use corten_sys::ns::{Kind, unshare};
use corten_sys::{Context, Errno, Failure};
use rustix::mount::MountAttrFlags;

use crate::protocol::{Overlay, Shm};

/// Unshares, after checking that mounts below `dir` stay here.
///
/// # Errors
/// EINVAL when `dir` lies on a mount that shares its mounts with the host: the daemon makes its state directory a
/// private mount first.
pub fn enter(dir: &Path) -> Result<(), Failure> {
    unshare(Kind::Mount.flag()).tried(|| "unshare the mount namespace".into())?;
    let table = MountTable::read()?;
    if table.of_path(dir).is_some_and(|mount| mount.shared) {
        let tried = format!("keep mounts below {} from the host", dir.display());
        return Err(
            Failure::new(tried, Errno::INVAL).hint("it lies on a shared mount; make it a private one")
        );
    }
    Ok(())
}

/// Makes sure that mounts below `dir` stay in the mount namespace they are made in: where it lies on a shared mount, it
/// is bound to itself and made private. For the daemon, before its first monitor.
pub fn keep_private(dir: &Path) -> Result<(), Failure> {
    if !MountTable::read()?.of_path(dir).is_some_and(|mount| mount.shared) {
        return Ok(());
    }
    let tried = || format!("make {} a private mount", dir.display());
    let tree = clone_host_tree(dir, true).tried(tried)?;
    attach_host(&tree, dir).tried(tried)?;
    set_propagation(&tree, Propagation::Private, true).tried(tried)
}

/// Lets go of the pinned network namespaces of other pods, which unsharing has copied: each copy would keep a removed
/// pod's namespace, and its veth, for as long as this monitor lives. `own` is kept. Where mounts are shared with the
/// host, the host's unmounts arrive here and ours would arrive there: such are left alone.
pub fn drop_pins(netns_dir: &Path, own: &str) -> Result<(), Failure> {
    let table = MountTable::read()?;
    for pin in table.foreign_pins(netns_dir, own) {
        match unmount(&pin.point, true) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(Failure::new(format!("unmount {}", pin.point.display()), errno)),
        }
    }
    Ok(())
}

/// Mounts a container's root filesystem at `target`, which is created when missing.
pub fn mount_overlay(overlay: &Overlay, target: &Path) -> Result<(), Failure> {
    fs::create_dir_all(target).tried(|| format!("create {}", target.display()))?;
    let layers = Layers {
        lower: overlay.lower.clone(),
        upper: Some((overlay.upper.clone(), overlay.work.clone())),
        volatile: overlay.volatile,
        read_only: false,
        source: "overlay".into(),
    };
    let tried = || format!("mount overlay at {} ({} lower layers)", target.display(), overlay.lower.len());
    let mount = layers.mount().tried(tried).map_err(|failure| {
        let hint = match failure.errno {
            Errno::NOENT => "a layer, the upper or the work directory does not exist",
            Errno::INVAL => "upper and work directory lie on different file systems, or were mounted volatile before; or no layer is given",
            Errno::NODEV => "the kernel has no overlayfs",
            _ => return failure,
        };
        failure.hint(hint)
    })?;
    attach_host(mount, target).tried(tried)
}

/// Mounts the pod's /dev/shm.
pub fn mount_shm(shm: &Shm) -> Result<(), Failure> {
    let tried = || format!("mount tmpfs of {} bytes at {}", shm.size_bytes, shm.path.display());
    fs::create_dir_all(&shm.path).tried(tried)?;
    let value = |key: &str, value: String| Parameter::Value(key.into(), value);
    let parameters = [value("mode", "1777".into()), value("size", shm.size_bytes.to_string())];
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = filesystem("tmpfs", "shm", &parameters, flags).tried(tried)?;
    attach_host(mount, &shm.path).tried(tried)
}

/// Unmounts one of ours; nothing mounted there is no error.
pub fn unmount_own(target: &Path) -> Result<(), Failure> {
    match unmount(target, true) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(Failure::new(format!("unmount {}", target.display()), errno)),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: u32,
    parent: u32,
    point: PathBuf,
    shared: bool,
}

/// /proc/self/mountinfo, as far as it is asked for.
#[derive(Debug)]
struct MountTable {
    mounts: Vec<Mount>,
}

impl MountTable {
    fn read() -> Result<Self, Failure> {
        let path = "/proc/self/mountinfo";
        let text = fs::read_to_string(path).tried(|| format!("read {path}"))?;
        Ok(Self::parse(&text))
    }

    /// Source: proc_pid_mountinfo(5).
    fn parse(text: &str) -> Self {
        let mounts = text.lines().filter_map(|line| {
            let (fields, _) = line.split_once(" - ")?;
            let fields: Vec<&str> = fields.split(' ').collect();
            Some(Mount {
                id: fields.first()?.parse().ok()?,
                parent: fields.get(1)?.parse().ok()?,
                point: unescape(fields.get(4)?),
                shared: fields.get(6..)?.iter().any(|field| field.starts_with("shared:")),
            })
        });
        Self { mounts: mounts.collect() }
    }

    /// The mount that a path without links lies on: of the deepest mount points the last, which covers the others.
    fn of_path(&self, path: &Path) -> Option<&Mount> {
        let holding = self.mounts.iter().filter(|mount| path.starts_with(&mount.point));
        holding.max_by_key(|mount| mount.point.components().count())
    }

    /// Mounts directly in a directory but for `own`, unless their parent mount is shared.
    fn foreign_pins<'a>(&'a self, dir: &'a Path, own: &'a str) -> impl Iterator<Item = &'a Mount> {
        self.mounts.iter().filter(move |mount| {
            let parent = self.mounts.iter().find(|other| other.id == mount.parent);
            mount.point.parent() == Some(dir)
                && mount.point.file_name().is_some_and(|name| name != own)
                && parent.is_some_and(|parent| !parent.shared)
        })
    }
}

/// Space, tab, newline and backslash are written in octal.
fn unescape(field: &str) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal =
            tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            path.push(byte);
            rest = &tail[3..];
        } else {
            path.push(*first);
            rest = tail;
        }
    }
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
20 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
21 20 0:5 / /run rw,nosuid shared:2 master:7 - tmpfs tmpfs rw
22 21 0:5 /corten /run/corten rw - tmpfs tmpfs rw
23 22 0:5 /corten/netns /run/corten/netns rw - tmpfs tmpfs rw
24 23 0:4 net:[1] /run/corten/netns/a rw - nsfs nsfs rw
25 20 0:4 net:[2] /other/netns/b rw - nsfs nsfs rw
26 20 0:9 / /with\\040space rw - tmpfs tmpfs rw
";

    #[test]
    fn the_mount_of_a_path_and_whether_it_is_shared() {
        let table = MountTable::parse(TABLE);
        for (path, id, shared) in [
            ("/run/corten/pods/x", 22, false),
            ("/run/other", 21, true),
            ("/running", 20, true),
            ("/with space/x", 26, false),
        ] {
            let mount = table.of_path(Path::new(path)).unwrap();
            assert_eq!((mount.id, mount.shared), (id, shared), "{path}");
        }
    }

    #[test]
    fn pins_of_others_are_dropped_and_never_from_a_shared_mount() {
        let table = MountTable::parse(TABLE);
        let dropped =
            |dir: &str, own| table.foreign_pins(Path::new(dir), own).map(|m| m.id).collect::<Vec<_>>();
        assert_eq!(dropped("/run/corten/netns", "z"), [24]);
        assert!(dropped("/run/corten/netns", "a").is_empty());
        assert!(dropped("/other/netns", "z").is_empty());
    }
}
