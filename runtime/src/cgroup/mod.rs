//! The cgroup of a container, on cgroup v1, v2 and the hybrid of both, with the cgroupfs driver.
//!
//! What is to be written is decided by pure functions ([`plan`], [`devices`]) that return values; [`Cgroup`] carries
//! them out. Which version a controller has is asked per controller, never once per machine. This module knows cgroup
//! file systems and `linux.resources`; it knows nothing of containers, their state or their processes' set-up.

mod controllers;
mod create;
mod detect;
pub mod devices;
mod error;
mod files;
mod freeze;
mod join;
mod location;
mod oom;
mod plan;
mod remove;
mod stats;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use corten_sys::Errno;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use serde::{Deserialize, Serialize};

pub use create::Created;
pub use detect::{Hierarchies, Hierarchy, Version};
pub use error::CgroupError;
pub use join::Join;
pub use oom::OomEvents;
pub use plan::{Controller, Current, Layout, Write, plan};
pub use stats::Stats;

/// One cgroup: the same path in every hierarchy it needs. It is only names, so it can be kept in a record and outlives
/// the process that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    members: Vec<Member>,
}

/// The directory of a [`Cgroup`] in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub version: Version,
    /// Names as the kernel has them; a named v1 hierarchy is `name=systemd`.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The cgroup's directory, below `mount`.
    pub path: PathBuf,
}

impl Member {
    fn has(&self, controller: Controller) -> bool {
        self.controllers.iter().any(|name| name == controller.name(self.version))
    }
}

impl Cgroup {
    /// Name the cgroup that `linux.cgroupsPath` means, as runc's cgroupfs driver does: an absolute path lies below the
    /// mount of each hierarchy, a relative one below the caller's own cgroup, and an absent or empty one is `id` below
    /// `default_parent` (below the caller's own cgroup if that is `None`).
    ///
    /// On a hybrid host the v2 hierarchy is a member only if `resources` needs it: it holds one or two controllers
    /// there, and joining it costs the attach lock that joining v1 avoids.
    pub fn locate(
        hierarchies: &Hierarchies,
        cgroups_path: Option<&Path>,
        id: &str,
        default_parent: Option<&Path>,
        resources: Option<&LinuxResources>,
    ) -> Result<Self, CgroupError> {
        let place = location::place(cgroups_path, id, default_parent);
        let hybrid_v2 = resources.is_some_and(|resources| plan::needs_v2(resources, hierarchies));
        let members: Vec<Member> = hierarchies
            .iter()
            .filter(|h| h.version == Version::V1 || hierarchies.is_unified() || hybrid_v2)
            .map(|h| Member {
                version: h.version,
                controllers: h.controllers.clone(),
                mount: h.mount.clone(),
                path: location::resolve(&place, h),
            })
            .collect();
        if members.is_empty() {
            return Err(CgroupError::NoHierarchies);
        }
        if let Some(root) = members.iter().find(|m| m.path == m.mount) {
            return Err(CgroupError::Invalid {
                field: "linux.cgroupsPath",
                reason: format!(
                    "it names the root of {}, which cannot be a container's cgroup",
                    root.mount.display()
                ),
            });
        }
        Ok(Self { members })
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The directory that holds `controller`, `None` if no hierarchy of this cgroup has it.
    pub fn path_of(&self, controller: Controller) -> Option<&Path> {
        self.member(controller).map(|member| member.path.as_path())
    }

    fn member(&self, controller: Controller) -> Option<&Member> {
        self.members.iter().find(|member| member.has(controller))
    }

    fn v2(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.version == Version::V2)
    }

    /// The member that is asked for processes: the whole tree on v2; on v1 the one that can be frozen.
    fn processes(&self) -> &Member {
        let unified = self.v2().filter(|_| self.members.len() == 1);
        unified.or_else(|| self.member(Controller::Freezer)).unwrap_or(&self.members[0])
    }

    fn layout(&self) -> Layout {
        Layout::new(self.members.iter().map(|m| (m.version, m.controllers.as_slice())))
    }

    /// Write the limits of `resources` (all but devices). Fields that are absent or zero are left as they are, so the
    /// same call serves create and update.
    pub fn apply(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let current = self.current(resources)?;
        let writes = plan(resources, &self.layout(), &current)?;
        self.carry_out(&writes)
    }

    /// Allow the devices of `rules` and the default ones, deny every other. Not part of an update, as in runc.
    pub fn apply_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<(), CgroupError> {
        let target = devices::target(rules)?;
        match self.member(Controller::Devices) {
            Some(member) => devices::v1::apply(&member.path, &target),
            None => match self.v2() {
                Some(member) => devices::v2::apply(&member.path, &target),
                None => Err(CgroupError::unavailable(Controller::Devices)),
            },
        }
    }

    fn current(&self, resources: &LinuxResources) -> Result<Current, CgroupError> {
        let mut current = Current::default();
        if let (Some(memory), Some(member)) = (resources.memory(), self.member(Controller::Memory)) {
            match member.version {
                Version::V1 => {
                    current.swap_accounting = member.path.join("memory.memsw.limit_in_bytes").exists();
                    if memory.limit().is_some() && memory.swap().is_some() {
                        current.memory_limit = files::number(&member.path.join("memory.limit_in_bytes"))?;
                    }
                }
                Version::V2 if memory.check_before_update() == Some(true) => {
                    current.memory_usage = files::number(&member.path.join("memory.current"))?;
                }
                Version::V2 => {}
            }
        }
        if let (Some(_), Some(member)) = (resources.block_io(), self.member(Controller::BlockIo)) {
            current.bfq = match member.version {
                Version::V1 => !member.path.join("blkio.weight").exists(),
                Version::V2 => member.path.join("io.bfq.weight").exists(),
            };
        }
        Ok(current)
    }

    fn carry_out(&self, writes: &[Write]) -> Result<(), CgroupError> {
        let mut deferred = Vec::new();
        for (at, write) in writes.iter().enumerate() {
            match self.carry_out_one(write) {
                Err(CgroupError::Write { errno: Errno::INVAL, .. }) if write.defer_invalid => {
                    deferred.push(write);
                }
                other => other?,
            }
            let last_of_controller =
                writes.get(at + 1).is_none_or(|next| next.controller != write.controller);
            if last_of_controller {
                deferred.drain(..).try_for_each(|write| self.carry_out_one(write))?;
            }
        }
        Ok(())
    }

    fn carry_out_one(&self, write: &Write) -> Result<(), CgroupError> {
        let member = match write.controller {
            Controller::Unified => self.v2(),
            controller => self.member(controller),
        };
        let member = member.ok_or_else(|| CgroupError::unavailable(write.controller))?;
        match files::write(&member.path.join(&*write.file), &write.value) {
            Err(CgroupError::Write { errno: Errno::NOENT, .. }) if write.skip_missing => Ok(()),
            other => other,
        }
    }

    /// Every process in the cgroup and below it.
    pub fn pids(&self) -> Result<Vec<i32>, CgroupError> {
        files::pids_below(&self.processes().path)
    }

    /// Whether the cgroup is still there (in the hierarchy asked for processes).
    pub fn exists(&self) -> bool {
        self.processes().path.exists()
    }
}
