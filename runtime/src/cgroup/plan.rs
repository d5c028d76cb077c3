//! From `linux.resources` to the writes that make it so. Pure: what is read from the host comes in as [`Current`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::LinuxResources;

use super::controllers::{block_io, cpu, cpuset, hugetlb, memory, network, pids, rdma, unified};
use super::detect::{Hierarchies, Version};
use super::error::CgroupError;

/// What `linux.resources` can limit. [`Controller::Unified`] is any file of the v2 hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    Cpu,
    CpuAccounting,
    Cpuset,
    Memory,
    Pids,
    BlockIo,
    Devices,
    Freezer,
    Hugetlb,
    Network,
    NetworkPriority,
    Rdma,
    Unified,
}

impl Controller {
    const ALL: [Self; 12] = [
        Self::Cpu,
        Self::CpuAccounting,
        Self::Cpuset,
        Self::Memory,
        Self::Pids,
        Self::BlockIo,
        Self::Devices,
        Self::Freezer,
        Self::Hugetlb,
        Self::Network,
        Self::NetworkPriority,
        Self::Rdma,
    ];

    /// The kernel's name, which differs for block I/O alone. v2 has no controller for devices and freezing: those are
    /// a BPF program and a file of every cgroup.
    pub(super) fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::BlockIo, Version::V2) => "io",
            _ => self.label(),
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuAccounting => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::BlockIo => "blkio",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Hugetlb => "hugetlb",
            Self::Network => "net_cls",
            Self::NetworkPriority => "net_prio",
            Self::Rdma => "rdma",
            Self::Unified => "unified",
        }
    }
}

/// Which version each controller has here; one that is absent is not available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    versions: BTreeMap<Controller, Version>,
    v2: bool,
}

impl Layout {
    /// From the hierarchies as (version, names of controllers).
    pub fn new<'a>(hierarchies: impl Iterator<Item = (Version, &'a [String])>) -> Self {
        let mut layout = Self { versions: BTreeMap::new(), v2: false };
        for (version, names) in hierarchies {
            layout.v2 |= version == Version::V2;
            let here = |controller: &Controller| names.iter().any(|name| name == controller.name(version));
            layout
                .versions
                .extend(Controller::ALL.into_iter().filter(here).map(|controller| (controller, version)));
        }
        layout
    }

    fn version(&self, controller: Controller) -> Result<Version, CgroupError> {
        self.versions.get(&controller).copied().ok_or_else(|| CgroupError::unavailable(controller))
    }
}

/// What the order or the name of a write depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Current {
    /// `memory.limit_in_bytes` now.
    pub memory_limit: Option<u64>,
    /// `memory.current` now; read only for `memory.checkBeforeUpdate`.
    pub memory_usage: Option<u64>,
    /// v1: `memory.memsw.limit_in_bytes` is there.
    pub swap_accounting: bool,
    /// Weights go to bfq's file.
    pub bfq: bool,
}

/// One write to one file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub controller: Controller,
    pub file: Cow<'static, str>,
    pub value: String,
    /// Leave it out where this kernel has no such file.
    pub skip_missing: bool,
    /// EINVAL may only mean that another write of the same controller has to come first: try again after those.
    pub defer_invalid: bool,
}

impl Write {
    pub(super) fn new(
        controller: Controller,
        file: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
    ) -> Self {
        let (file, value) = (file.into(), value.to_string());
        Self { controller, file, value, skip_missing: false, defer_invalid: false }
    }

    pub(super) fn skip_missing(self) -> Self {
        Self { skip_missing: true, ..self }
    }

    pub(super) fn defer_invalid_if(self, defer: bool) -> Self {
        Self { defer_invalid: defer, ..self }
    }
}

/// The writes that apply `resources`, in order. Devices are apart: see [`super::devices`].
///
/// # Errors
/// A value the kernel could not take, or a limit whose controller this host does not have.
pub fn plan(
    resources: &LinuxResources,
    layout: &Layout,
    current: &Current,
) -> Result<Vec<Write>, CgroupError> {
    let mut writes = Vec::new();
    if let Some(cpu) = resources.cpu() {
        if cpu::wanted(cpu) {
            writes.extend(match layout.version(Controller::Cpu)? {
                Version::V1 => cpu::v1(cpu)?,
                Version::V2 => cpu::v2(cpu)?,
            });
        }
        if cpuset::wanted(cpu) {
            layout.version(Controller::Cpuset)?;
            writes.extend(cpuset::writes(cpu));
        }
    }
    if let Some(memory) = resources.memory().filter(memory::wanted) {
        writes.extend(match layout.version(Controller::Memory)? {
            Version::V1 => memory::v1(&memory, current)?,
            Version::V2 => memory::v2(&memory, current)?,
        });
    }
    if let Some(limit) = resources.pids() {
        layout.version(Controller::Pids)?;
        writes.push(pids::write(limit.limit()));
    }
    if let Some(block_io) = resources.block_io().as_ref().filter(|block_io| block_io::wanted(block_io)) {
        writes.extend(match layout.version(Controller::BlockIo)? {
            Version::V1 => block_io::v1(block_io, current.bfq)?,
            Version::V2 => block_io::v2(block_io, current.bfq)?,
        });
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        writes.extend(hugetlb::writes(limit, layout.version(Controller::Hugetlb)?)?);
    }
    if let Some(network) = resources.network() {
        let planned = network::v1(network);
        planned.iter().try_for_each(|write| layout.version(write.controller).map(drop))?;
        writes.extend(planned);
    }
    if let Some(limits) = resources.rdma().as_ref().filter(|limits| !limits.is_empty()) {
        layout.version(Controller::Rdma)?;
        writes.extend(rdma::writes(limits));
    }
    if let Some(files) = resources.unified().as_ref().filter(|files| !files.is_empty()) {
        if !layout.v2 {
            return Err(CgroupError::unavailable(Controller::Unified));
        }
        writes.extend(unified::writes(files)?);
    }
    Ok(writes)
}

/// Whether `resources` asks for something that only the v2 hierarchy of a hybrid host has.
pub(super) fn needs_v2(resources: &LinuxResources, hierarchies: &Hierarchies) -> bool {
    let only_v2 = |controller: Controller| {
        let has = |version| {
            let named = |name: &String| name == controller.name(version);
            hierarchies.iter().any(|h| h.version == version && h.controllers.iter().any(named))
        };
        has(Version::V2) && !has(Version::V1)
    };
    let cpu = resources.cpu().as_ref();
    resources.unified().as_ref().is_some_and(|files| !files.is_empty())
        || (resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty())
            && only_v2(Controller::Hugetlb))
        || (cpu.is_some_and(cpu::wanted) && only_v2(Controller::Cpu))
        || (cpu.is_some_and(cpuset::wanted) && only_v2(Controller::Cpuset))
        || (resources.memory().as_ref().is_some_and(memory::wanted) && only_v2(Controller::Memory))
        || (resources.pids().is_some() && only_v2(Controller::Pids))
        || (resources.block_io().is_some() && only_v2(Controller::BlockIo))
        || (resources.rdma().is_some() && only_v2(Controller::Rdma))
}
