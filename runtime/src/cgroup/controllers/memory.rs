//! memory: limit, swap, reservation. `swap` in the spec counts memory and swap together; v2 counts swap alone.
//!
//! `kernel` and `kernelTCP` are ignored, as in runc: the kernel took those limits away (5.16 and 4.5 onwards charge
//! everything to one counter). `useHierarchy` is what every kernel since 5.11 does; `false` is therefore refused.

use oci_spec::runtime::LinuxMemory;

use crate::cgroup::{CgroupError, Controller, Current, Write};

const UNLIMITED: i64 = -1;

fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

fn write(file: &'static str, value: impl std::fmt::Display) -> Write {
    Write::new(Controller::Memory, file, value)
}

pub fn wanted(memory: &LinuxMemory) -> bool {
    set(memory.limit()).is_some()
        || set(memory.swap()).is_some()
        || set(memory.reservation()).is_some()
        || memory.swappiness().is_some()
        || memory.disable_oom_killer() == Some(true)
        || memory.use_hierarchy().is_some()
}

fn check_hierarchy(memory: &LinuxMemory) -> Result<(), CgroupError> {
    match memory.use_hierarchy() {
        Some(false) => Err(CgroupError::invalid(
            "linux.resources.memory.useHierarchy",
            "false is no longer possible: Linux 5.11 and newer always account a cgroup with its children",
        )),
        _ => Ok(()),
    }
}

pub fn v1(memory: &LinuxMemory, current: &Current) -> Result<Vec<Write>, CgroupError> {
    check_hierarchy(memory)?;
    let limit = set(memory.limit());
    // No limit on memory means none on memory and swap together either, where swap is accounted at all.
    let lifted = (limit == Some(UNLIMITED) && current.swap_accounting).then_some(UNLIMITED);
    let swap = set(memory.swap()).or(lifted);

    let mut writes: Vec<Write> =
        limit.map(|limit| write("memory.limit_in_bytes", limit)).into_iter().collect();
    writes.extend(swap.map(|swap| write("memory.memsw.limit_in_bytes", swap)));
    // The kernel holds limit <= memsw.limit at every moment: grow the outer one first, shrink the inner one first.
    let swap_grows =
        |swap: i64| swap == UNLIMITED || current.memory_limit.is_some_and(|now| now < swap as u64);
    if writes.len() == 2 && swap.is_some_and(swap_grows) {
        writes.swap(0, 1);
    }
    writes.extend(set(memory.reservation()).map(|bytes| write("memory.soft_limit_in_bytes", bytes)));
    if memory.disable_oom_killer() == Some(true) {
        writes.push(write("memory.oom_control", 1));
    }
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            return Err(CgroupError::invalid(
                "linux.resources.memory.swappiness",
                format!("{swappiness} is outside of 0 to 100"),
            ));
        }
        writes.push(write("memory.swappiness", swappiness));
    }
    Ok(writes)
}

pub fn v2(memory: &LinuxMemory, current: &Current) -> Result<Vec<Write>, CgroupError> {
    check_hierarchy(memory)?;
    if memory.disable_oom_killer() == Some(true) {
        return Err(CgroupError::invalid(
            "linux.resources.memory.disableOOMKiller",
            "cgroup v2 cannot disable the OOM killer: remove it, or use cgroup v1",
        ));
    }
    if memory.swappiness().is_some() {
        return Err(CgroupError::invalid(
            "linux.resources.memory.swappiness",
            "cgroup v2 has no swappiness per cgroup: remove it, or use cgroup v1",
        ));
    }
    let limit = set(memory.limit());
    if let (Some(limit), Some(usage)) = (limit.filter(|limit| *limit > 0), current.memory_usage)
        && usage > limit as u64
    {
        return Err(CgroupError::invalid(
            "linux.resources.memory.limit",
            format!("{limit} is below the {usage} bytes in use (checkBeforeUpdate)"),
        ));
    }
    let mut writes = Vec::new();
    match swap_alone(limit, set(memory.swap()))? {
        // A host without swap has no such file, and lifting or forbidding swap there changes nothing.
        Some(bytes @ (UNLIMITED | 0)) => writes.push(write("memory.swap.max", number(bytes)).skip_missing()),
        Some(bytes) => writes.push(write("memory.swap.max", bytes)),
        None => {}
    }
    writes.extend(limit.map(|limit| write("memory.max", number(limit))));
    writes.extend(set(memory.reservation()).map(|bytes| write("memory.low", number(bytes))));
    Ok(writes)
}

fn number(bytes: i64) -> String {
    if bytes == UNLIMITED { "max".to_owned() } else { bytes.to_string() }
}

/// The spec's memory + swap as v2's swap.
fn swap_alone(limit: Option<i64>, swap: Option<i64>) -> Result<Option<i64>, CgroupError> {
    let invalid = |reason: &str| Err(CgroupError::invalid("linux.resources.memory.swap", reason));
    match (limit, swap) {
        (Some(UNLIMITED), None) | (_, Some(UNLIMITED)) => Ok(Some(UNLIMITED)),
        (_, None) => Ok(None),
        (None | Some(UNLIMITED), Some(_)) => {
            invalid("it counts memory and swap together, so it needs memory.limit")
        }
        (Some(limit), Some(swap)) if swap < limit => {
            invalid("it counts memory and swap together, so it may not be below memory.limit")
        }
        (Some(limit), Some(swap)) => Ok(Some(swap - limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;
    use oci_spec::runtime::LinuxMemoryBuilder as Memory;

    fn of(limit: Option<i64>, swap: Option<i64>) -> LinuxMemory {
        let mut memory = LinuxMemory::default();
        memory.set_limit(limit).set_swap(swap);
        memory
    }

    #[test]
    fn v1_orders_limit_and_swap_by_what_is_set_now() {
        let at = |now: u64| Current { memory_limit: Some(now), swap_accounting: true, ..Current::default() };
        let (limit, memsw) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        for (now, want, swap, order) in [
            (u64::MAX >> 1, 100, 200, [(limit, 100), (memsw, 200)]), // a fresh cgroup
            (100, 300, 400, [(memsw, 400), (limit, 300)]),           // both grow
            (300, 100, 200, [(limit, 100), (memsw, 200)]),           // both shrink
            (300, 100, -1, [(memsw, -1), (limit, 100)]),
        ] {
            let expected: Vec<String> = order.iter().map(|(file, value)| format!("{file}={value}")).collect();
            assert_eq!(
                shown(&v1(&of(Some(want), Some(swap)), &at(now)).unwrap()),
                expected,
                "{now} -> {want}"
            );
        }
    }

    #[test]
    fn v1_unlimited_memory_lifts_swap_only_where_it_is_accounted() {
        let with = Current { swap_accounting: true, ..Current::default() };
        let memory = of(Some(-1), None);
        assert_eq!(
            shown(&v1(&memory, &with).unwrap()),
            ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"]
        );
        assert_eq!(shown(&v1(&memory, &Current::default()).unwrap()), ["memory.limit_in_bytes=-1"]);
    }

    #[test]
    fn v1_other_files() {
        let memory = Memory::default()
            .reservation(9i64)
            .disable_oom_killer(true)
            .swappiness(60u64)
            .kernel(5i64)
            .build()
            .unwrap();
        assert_eq!(
            shown(&v1(&memory, &Current::default()).unwrap()),
            ["memory.soft_limit_in_bytes=9", "memory.oom_control=1", "memory.swappiness=60"]
        );
        let over = Memory::default().swappiness(101u64).build().unwrap();
        assert!(v1(&over, &Current::default()).unwrap_err().to_string().contains("0 to 100"));
    }

    #[test]
    fn v2_swap_is_what_is_beyond_memory() {
        for (limit, swap, expected) in [
            (Some(100), None, vec!["memory.max=100"]),
            (Some(100), Some(150), vec!["memory.swap.max=50", "memory.max=100"]),
            (Some(100), Some(100), vec!["memory.swap.max=0", "memory.max=100"]),
            (Some(-1), None, vec!["memory.swap.max=max", "memory.max=max"]),
            (Some(100), Some(-1), vec!["memory.swap.max=max", "memory.max=100"]),
            (Some(0), Some(0), vec![]),
        ] {
            assert_eq!(shown(&v2(&of(limit, swap), &Current::default()).unwrap()), expected);
        }
        for (limit, swap) in [(None, Some(5)), (Some(-1), Some(5)), (Some(100), Some(50))] {
            let error = v2(&of(limit, swap), &Current::default()).unwrap_err().to_string();
            assert!(error.contains("memory.swap"), "{error}");
        }
    }

    #[test]
    fn v2_refuses_what_it_cannot_do_and_checks_before_an_update() {
        for memory in [
            Memory::default().swappiness(1u64).build().unwrap(),
            Memory::default().disable_oom_killer(true).build().unwrap(),
            Memory::default().use_hierarchy(false).build().unwrap(),
        ] {
            assert!(v2(&memory, &Current::default()).is_err());
        }
        let used = Current { memory_usage: Some(101), ..Current::default() };
        assert!(v2(&of(Some(100), None), &used).unwrap_err().to_string().contains("101 bytes in use"));
        assert!(v2(&of(Some(102), None), &used).is_ok());
    }
}
