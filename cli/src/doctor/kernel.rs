//! The kernel: version, overlayfs, nf_tables, namespaces, seccomp.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use corten_netlink::{Protocol, Socket};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use super::Finding;
use crate::instance::Instance;

/// Below this something we use everywhere is missing: openat2 and pidfd_getfd 5.6, close_range and overlay's
/// lazy sync of work directories 5.9-5.10.
const MINIMUM: (u32, u32) = (5, 10);
/// Below this pods work, and rarely used parts say what they miss: mount_setattr (recursive read-only, ID-mapped
/// mounts) 5.12, idmapped overlay 5.19.
const FULL: (u32, u32) = (5, 19);

pub fn version() -> Vec<Finding> {
    vec![judge_version(fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim())]
}

pub fn features(instance: &Instance) -> Vec<Finding> {
    let mut findings = Vec::new();
    if rustix::process::geteuid().is_root() {
        findings.extend([overlayfs(&instance.root), nf_tables()]);
    }
    findings.extend([namespaces(), seccomp()]);
    findings
}

fn judge_version(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let upgrade = |(major, minor): (u32, u32)| format!("use Linux {major}.{minor} or newer");
    let finding = if version < MINIMUM {
        Finding::failure(
            "kernel",
            format!("Linux {release} lacks system calls that every pod uses"),
            upgrade(MINIMUM),
        )
    } else if version < FULL {
        let found = format!("Linux {release}: recursive read-only and ID-mapped mounts may be missing");
        Finding::warning("kernel", found, upgrade(FULL))
    } else {
        Finding::ok("kernel", format!("Linux {release}"))
    };
    finding.headed(format!("kernel {}.{}", version.0, version.1))
}

/// Mounts an overlay whose layers lie where images will, without attaching it anywhere.
fn overlayfs(root: &Path) -> Finding {
    let place = root.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let dir = place.join(format!(".corten-doctor-{}", std::process::id()));
    let outcome = probe_overlay(&dir);
    let _ = fs::remove_dir_all(&dir);
    match outcome {
        Ok(()) => Finding::ok("overlayfs", format!("mounts on {}", place.display())).headed("overlayfs"),
        Err(ProbeError::Files(error)) => Finding::failure(
            "overlayfs",
            format!("cannot write to {}: {error}", place.display()),
            "choose another place with --root",
        ),
        Err(ProbeError::Mount(errno)) => Finding::failure(
            "overlayfs",
            format!("cannot be mounted on {}: {}", place.display(), errno),
            match errno {
                Errno::NODEV => "load the module: modprobe overlay",
                Errno::PERM => "run with CAP_SYS_ADMIN",
                _ => {
                    "put --root on ext4, xfs or btrfs; overlay layers cannot lie on overlayfs or a network file system"
                }
            },
        ),
    }
}

enum ProbeError {
    Files(std::io::Error),
    Mount(Errno),
}

fn probe_overlay(dir: &Path) -> Result<(), ProbeError> {
    for part in ["lower", "upper", "work"] {
        fs::create_dir_all(dir.join(part)).map_err(ProbeError::Files)?;
    }
    let mount = || {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, part) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
            fsconfig_set_string(context.as_fd(), key, dir.join(part))?;
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map(drop)
    };
    mount().map_err(ProbeError::Mount)
}

fn nf_tables() -> Finding {
    let probe = Socket::open(Protocol::Netfilter).and_then(|mut socket| socket.nft_probe());
    match probe {
        Ok(()) => Finding::ok("nftables", "answers").headed("nftables"),
        Err(error) => Finding::failure("nftables", error.to_string(), "load the module: modprobe nf_tables"),
    }
}

const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];

fn namespaces() -> Finding {
    let absent = |name: &&str| !Path::new("/proc/self/ns").join(name).exists();
    let missing: Vec<&str> = NAMESPACES.into_iter().filter(absent).collect();
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").ok();
    judge_namespaces(&missing, limit.as_deref().map(str::trim))
}

fn judge_namespaces(missing: &[&str], user_limit: Option<&str>) -> Finding {
    if !missing.is_empty() {
        let found = format!("the kernel has no {} namespaces", missing.join(", "));
        return Finding::failure(
            "namespaces",
            found,
            "use a kernel built with CONFIG_NAMESPACES and all of its kinds",
        );
    }
    match user_limit {
        None => Finding::warning(
            "namespaces",
            "no user namespaces: pods with hostUsers: false are refused",
            "use a kernel built with CONFIG_USER_NS",
        ),
        Some("0") => Finding::warning(
            "namespaces",
            "user namespaces are switched off: pods with hostUsers: false are refused",
            "sysctl -w user.max_user_namespaces=15000",
        ),
        Some(_) => Finding::ok("namespaces", "cgroup, ipc, mnt, net, pid, user, uts"),
    }
}

fn seccomp() -> Finding {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.split_whitespace().any(|action| action == "errno") {
        return Finding::ok("seccomp", "filters");
    }
    Finding::failure(
        "seccomp",
        "the kernel takes no filters: containers would run without RuntimeDefault",
        "use a kernel built with CONFIG_SECCOMP_FILTER",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn versions_are_compared_by_number() {
        for (release, level, headline) in [
            ("6.18.5", Level::Ok, "kernel 6.18"),
            ("5.19.0-rc1+", Level::Ok, "kernel 5.19"),
            ("5.15.0-91-generic", Level::Warning, "kernel 5.15"),
            ("5.4.0", Level::Failure, "kernel 5.4"),
            ("4.19", Level::Failure, "kernel 4.19"),
        ] {
            let finding = judge_version(release);
            assert_eq!((finding.level, finding.headline.as_deref()), (level, Some(headline)));
        }
    }

    #[test]
    fn user_namespaces_are_wanted_and_the_others_needed() {
        assert_eq!(judge_namespaces(&[], Some("15000")).level, Level::Ok);
        assert_eq!(judge_namespaces(&[], Some("0")).level, Level::Warning);
        assert_eq!(judge_namespaces(&[], None).level, Level::Warning);
        assert_eq!(judge_namespaces(&["ipc"], Some("1")).level, Level::Failure);
    }

    #[test]
    fn the_overlay_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let finding = overlayfs(&dir.path().join("not/there/yet"));
        assert_ne!(finding.found, "");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
