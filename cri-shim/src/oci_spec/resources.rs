//! CRI resources → the spec's cgroup limits.

use std::collections::HashMap;

use corten_cri_api::v1;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxHugepageLimitBuilder, LinuxMemoryBuilder,
    LinuxResources, LinuxResourcesBuilder,
};

use super::{HostFacts, SpecError};

/// Zero means "not said" in every field, as in CRI.
pub fn resources(
    asked: &v1::LinuxContainerResources,
    host: &HostFacts,
    devices: Vec<LinuxDeviceCgroup>,
) -> Result<LinuxResources, SpecError> {
    let mut cpu = LinuxCpuBuilder::default();
    if asked.cpu_shares != 0 {
        cpu = cpu.shares(unsigned("cpu_shares", asked.cpu_shares)?);
    }
    if asked.cpu_period != 0 {
        cpu = cpu.period(unsigned("cpu_period", asked.cpu_period)?);
    }
    if asked.cpu_quota != 0 {
        cpu = cpu.quota(asked.cpu_quota);
    }
    if !asked.cpuset_cpus.is_empty() {
        cpu = cpu.cpus(asked.cpuset_cpus.clone());
    }
    if !asked.cpuset_mems.is_empty() {
        cpu = cpu.mems(asked.cpuset_mems.clone());
    }
    let mut memory = LinuxMemoryBuilder::default();
    if asked.memory_limit_in_bytes != 0 {
        memory = memory.limit(asked.memory_limit_in_bytes);
    }
    // A limited container may not swap unless it is told how much: memory + swap = memory.
    let swap = match asked.memory_swap_limit_in_bytes {
        0 => asked.memory_limit_in_bytes,
        limit => limit,
    };
    if swap != 0 && host.swap_accounting {
        memory = memory.swap(swap);
    }
    let mut all = LinuxResourcesBuilder::default()
        .devices(devices)
        .cpu(cpu.build().expect("every field has a default"))
        .memory(memory.build().expect("every field has a default"));
    let hugepages = hugepages(&asked.hugepage_limits, host)?;
    if !hugepages.is_empty() {
        all = all.hugepage_limits(hugepages);
    }
    if !asked.unified.is_empty() {
        all = all.unified(asked.unified.clone().into_iter().collect::<HashMap<_, _>>());
    }
    Ok(all.build().expect("every field has a default"))
}

fn unsigned(field: &'static str, value: i64) -> Result<u64, SpecError> {
    let wrong = |_| SpecError::Value { field, value: value.to_string(), wanted: "a positive number" };
    u64::try_from(value).map_err(wrong)
}

/// A page size this machine has no hugetlb cgroup for is left out when its limit is 0 (a kubelet names all sizes it
/// knows), and refused otherwise.
fn hugepages(asked: &[v1::HugepageLimit], host: &HostFacts) -> Result<Vec<LinuxHugepageLimit>, SpecError> {
    let mut limits = Vec::new();
    for limit in asked {
        if !host.hugepage_sizes.contains(&limit.page_size) {
            if limit.limit == 0 {
                continue;
            }
            return Err(SpecError::Value {
                field: "hugepage_limits[].page_size",
                value: limit.page_size.clone(),
                wanted: "a page size with a hugetlb cgroup on this machine",
            });
        }
        let bytes = i64::try_from(limit.limit).unwrap_or(i64::MAX);
        let built = LinuxHugepageLimitBuilder::default().page_size(limit.page_size.clone()).limit(bytes);
        limits.push(built.build().expect("every field has a default"));
    }
    Ok(limits)
}

pub(super) fn oom_score_adj(config: &v1::ContainerConfig) -> Result<Option<i32>, SpecError> {
    let Some(resources) = config.linux.as_ref().and_then(|l| l.resources.as_ref()) else { return Ok(None) };
    match i32::try_from(resources.oom_score_adj) {
        Ok(score @ -1000..=1000) => Ok(Some(score)),
        _ => Err(SpecError::Value {
            field: "oom_score_adj",
            value: resources.oom_score_adj.to_string(),
            wanted: "a number from -1000 to 1000",
        }),
    }
}
