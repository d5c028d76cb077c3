//! cgroups: which version, and whether the controllers that limits need are there.

use std::fs;

use super::Finding;

const V1_NEEDED: [&str; 5] = ["cpu", "memory", "pids", "devices", "freezer"];
const V1_WANTED: [&str; 4] = ["cpuset", "cpuacct", "blkio", "hugetlb"];
const V2_NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
const V2_WANTED: [&str; 3] = ["cpuset", "io", "hugetlb"];

pub fn check() -> Vec<Finding> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok();
    vec![judge(&mounts, controllers.as_deref())]
}

/// `unified`: the controllers of a v2 root at /sys/fs/cgroup, when that is what is mounted there.
fn judge(mountinfo: &str, unified: Option<&str>) -> Finding {
    if let Some(controllers) = unified {
        let have: Vec<&str> = controllers.split_whitespace().collect();
        return verdict(
            "v2",
            &have,
            &V2_NEEDED,
            &V2_WANTED,
            "add cgroup_enable=memory to the kernel's command line",
        );
    }
    // `... - cgroup cgroup rw,cpu,cpuacct`: the controllers are among the super options.
    let v1 = mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - cgroup "))
        .filter_map(|(_, fs)| fs.split(' ').nth(1));
    let have: Vec<&str> = v1.flat_map(|options| options.split(',')).collect();
    if have.is_empty() {
        return Finding::failure(
            "cgroup",
            "no cgroup file system is mounted",
            "mount -t cgroup2 none /sys/fs/cgroup",
        );
    }
    verdict("v1", &have, &V1_NEEDED, &V1_WANTED, "mount them below /sys/fs/cgroup, or boot with cgroup v2")
}

fn verdict(version: &str, have: &[&str], needed: &[&str], wanted: &[&str], remedy: &str) -> Finding {
    let lacking =
        |list: &[&str]| list.iter().copied().filter(|c| !have.contains(c)).collect::<Vec<_>>().join(", ");
    let (vital, other) = (lacking(needed), lacking(wanted));
    let finding = if !vital.is_empty() {
        Finding::failure(
            "cgroup",
            format!("{version} without {vital}: limits of pods could not be kept"),
            remedy,
        )
    } else if other.is_empty() {
        Finding::ok("cgroup", format!("{version}, all controllers"))
    } else {
        Finding::ok("cgroup", format!("{version}; no {other}: pods that ask for them are refused"))
    };
    finding.headed(format!("cgroup {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn v1(controllers: &[&str]) -> String {
        let line = |c: &&str| format!("32 31 0:29 / /sys/fs/cgroup/{c} rw - cgroup cgroup rw,{c}\n");
        controllers.iter().map(line).collect::<Vec<_>>().concat()
    }

    #[test]
    fn hybrid_counts_as_v1() {
        let mounts = v1(&["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"])
            + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let finding = judge(&mounts, None);
        assert_eq!((finding.level, finding.headline.as_deref()), (Level::Ok, Some("cgroup v1")));
        assert_eq!(finding.found, "v1; no hugetlb: pods that ask for them are refused");
    }

    #[test]
    fn a_vital_controller_that_is_missing_fails() {
        assert_eq!(judge(&v1(&["cpu", "memory", "pids", "devices"]), None).level, Level::Failure);
        assert_eq!(judge("", Some("cpuset cpu io pids")).level, Level::Failure);
        assert_eq!(judge("", Some("cpuset cpu io memory hugetlb pids rdma")).level, Level::Ok);
        assert_eq!(judge("", None).level, Level::Failure);
    }
}
