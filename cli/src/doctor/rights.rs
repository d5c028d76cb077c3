//! Who we are and which capabilities are missing.

use std::fs;

use super::Finding;

/// A capability and what does not work without it. Bit numbers: linux/capability.h.
struct Needed {
    bit: u32,
    name: &'static str,
    without: &'static str,
    /// True when a node cannot work without it.
    vital: bool,
}

const NEEDED: &[Needed] = &[
    need(0, "CAP_CHOWN", "image layers cannot be unpacked with their owners", true),
    need(1, "CAP_DAC_OVERRIDE", "files of containers cannot be reached", true),
    need(3, "CAP_FOWNER", "image layers cannot be unpacked with their modes", true),
    need(5, "CAP_KILL", "containers of other users cannot be stopped", true),
    need(6, "CAP_SETGID", "containers cannot run as another group", true),
    need(7, "CAP_SETUID", "containers cannot run as another user", true),
    need(8, "CAP_SETPCAP", "capabilities of containers cannot be dropped", true),
    need(12, "CAP_NET_ADMIN", "pods get no network", true),
    need(13, "CAP_NET_RAW", "pods cannot be granted raw sockets", false),
    need(18, "CAP_SYS_CHROOT", "containers cannot get their root", true),
    need(19, "CAP_SYS_PTRACE", "namespaces of processes cannot be inspected", false),
    need(21, "CAP_SYS_ADMIN", "nothing can be mounted, no namespace made", true),
    need(
        24,
        "CAP_SYS_RESOURCE",
        "oom_score_adj cannot be lowered, hard limits not raised: they are clamped",
        false,
    ),
    need(27, "CAP_MKNOD", "device nodes cannot be made", true),
];

const fn need(bit: u32, name: &'static str, without: &'static str, vital: bool) -> Needed {
    Needed { bit, name, without, vital }
}

pub fn check() -> Vec<Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    judge(rustix::process::geteuid().as_raw(), effective(&status))
}

fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn judge(uid: u32, effective: u64) -> Vec<Finding> {
    if uid != 0 {
        let found = format!("uid {uid}; the probes that need root are left out or fail");
        return vec![Finding::failure("root", found, "run as root, for example with sudo")];
    }
    let missing = NEEDED.iter().filter(|needed| effective & (1 << needed.bit) == 0);
    let mut findings: Vec<Finding> = missing
        .map(|needed| {
            let make = if needed.vital { Finding::failure } else { Finding::warning };
            let remedy = format!("run with {} (a container engine gives it by --cap-add)", needed.name);
            make("capabilities", format!("no {}: {}", needed.name, needed.without), remedy)
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok("capabilities", format!("all {} that a node uses", NEEDED.len())));
    }
    findings.insert(0, Finding::ok("root", "uid 0"));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Level, worst};

    #[test]
    fn a_missing_capability_is_named_with_what_it_costs() {
        let all = u64::MAX;
        assert_eq!(worst(&judge(0, all)), Level::Ok);
        let findings = judge(0, all & !(1 << 24));
        assert_eq!(worst(&findings), Level::Warning);
        assert!(findings[1].found.starts_with("no CAP_SYS_RESOURCE: oom_score_adj cannot be lowered"));
        assert_eq!(worst(&judge(0, all & !(1 << 21))), Level::Failure);
    }

    #[test]
    fn without_root_that_is_the_finding() {
        assert_eq!(judge(1000, 0).len(), 1);
        assert_eq!(worst(&judge(1000, 0)), Level::Failure);
    }

    #[test]
    fn the_mask_is_read_from_the_status_file() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001fffeffffff\n"), 0x1ff_feff_ffff);
    }
}
