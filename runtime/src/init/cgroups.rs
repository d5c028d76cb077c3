//! /sys/fs/cgroup as the container sees it: its own cgroup in every hierarchy, nothing above.

use std::ffi::OsStr;

use corten_sys::mount::{self, Attributes, MountAttrFlags, Parameter};
use corten_sys::{Context, Errno, Failure, Root};
use rustix::fs::{Mode, OFlags, mkdirat, symlinkat};

use super::child::InitError;
use super::mounts::{Late, attach, directory};
use super::rootfs::DIRECTORY;
use crate::cgroup::{Cgroup, Member, Version};
use crate::plan::Mount;

/// Binds show the same as a new mount from within the cgroup namespace, and need none.
pub(super) fn mount(plan: &Mount, cgroup: &Cgroup, root: &Root, late: &mut Late) -> Result<(), InitError> {
    let tried = || format!("mount cgroup to {} in the container", plan.destination.display());
    let target = directory(root, &plan.destination).tried(tried)?;
    if let [Member { version: Version::V2, path, .. }] = cgroup.members() {
        let tree = mount::clone_host_tree(path, false).tried(tried)?;
        return attach(plan, &tree, &target, plan.attributes);
    }
    let readonly = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    let flags = MountAttrFlags::from_bits_retain((plan.attributes.set & !readonly) as u32);
    let mode = Parameter::Value("mode".into(), "755".into());
    let tmpfs = mount::filesystem("tmpfs", "tmpfs", &[mode], flags).tried(tried)?;
    attach(plan, &tmpfs, &target, Attributes::default())?;
    for member in cgroup.members() {
        bind_member(member, plan.attributes, &tmpfs)?;
    }
    if plan.attributes.set & readonly != 0 {
        late.push(tmpfs);
    }
    Ok(())
}

fn bind_member(member: &Member, attributes: Attributes, tmpfs: &std::os::fd::OwnedFd) -> Result<(), Failure> {
    let name = member.mount.file_name().unwrap_or(OsStr::new("cgroup"));
    let bind = || -> Result<(), Errno> {
        mkdirat(tmpfs, name, DIRECTORY)?;
        let target = corten_sys::root::beneath(tmpfs, name, OFlags::PATH, Mode::empty())?;
        let tree = mount::clone_host_tree(&member.path, false)?;
        mount::set_attributes(&tree, attributes, false)?;
        mount::attach(&tree, target)?;
        // `cpu,cpuacct` is also found as `cpu` and as `cpuacct`.
        let others = member.controllers.iter().filter(|c| OsStr::new(c) != name && !c.starts_with("name="));
        others
            .filter(|_| member.version == Version::V1)
            .try_for_each(|controller| symlinkat(name, tmpfs, controller.as_str()))
    };
    bind().tried(|| format!("bind cgroup {}", member.path.display()))
}
