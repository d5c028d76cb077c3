//! What runs out: disk, inodes, inotify instances, open files.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::instance::Instance;
use crate::table::size;

pub fn check(instance: &Instance) -> Vec<Finding> {
    let number =
        |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    vec![
        disk(&instance.root),
        inotify(number("/proc/sys/fs/inotify/max_user_instances")),
        open_files(getrlimit(Resource::Nofile).maximum),
    ]
}

fn disk(root: &Path) -> Finding {
    let place = root.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(place) {
        Ok(fs) => {
            let inodes = (fs.f_files > 0).then(|| fs.f_favail * 100 / fs.f_files);
            judge_disk(place, fs.f_bavail * fs.f_frsize, inodes)
        }
        Err(errno) => {
            Finding::failure("disk", format!("cannot look at {}: {errno}", place.display()), "choose --root")
        }
    }
}

/// `free_inodes_percent`: `None` where the file system makes inodes as it needs them.
fn judge_disk(place: &Path, free_bytes: u64, free_inodes_percent: Option<u64>) -> Finding {
    let remedy = "free some, or choose another place with --root";
    let found = format!("{} free on {}", size(free_bytes), place.display());
    match (free_bytes, free_inodes_percent) {
        (bytes, _) if bytes < 50_000_000 => Finding::failure("disk", found, remedy),
        (bytes, _) if bytes < 2_000_000_000 => {
            Finding::warning("disk", format!("{found}: large images will not fit"), remedy)
        }
        (_, Some(percent)) if percent < 2 => {
            Finding::warning("disk", format!("{percent} % of the inodes free on {}", place.display()), remedy)
        }
        _ => Finding::ok("disk", found),
    }
}

fn inotify(instances: u64) -> Finding {
    if instances >= 64 {
        return Finding::ok("inotify", format!("{instances} instances a user"));
    }
    Finding::warning(
        "inotify",
        format!("only {instances} instances a user: the kubelet or programs in pods may get none"),
        "sysctl -w fs.inotify.max_user_instances=512",
    )
}

/// `hard`: `None` is unlimited.
fn open_files(hard: Option<u64>) -> Finding {
    match hard {
        Some(limit) if limit < 4096 => Finding::warning(
            "open files",
            format!("hard limit {limit}: enough for about {} pods", limit / 40),
            "raise it: ulimit -Hn 65536",
        ),
        Some(limit) => Finding::ok("open files", format!("hard limit {limit}")),
        None => Finding::ok("open files", "unlimited"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_full_disk_fails_and_a_small_one_warns() {
        let level = |bytes, inodes| judge_disk(Path::new("/x"), bytes, inodes).level;
        assert_eq!(level(10_000_000, Some(50)), Level::Failure);
        assert_eq!(level(500_000_000, Some(50)), Level::Warning);
        assert_eq!(level(50_000_000_000, Some(1)), Level::Warning);
        assert_eq!(level(50_000_000_000, None), Level::Ok);
    }

    #[test]
    fn low_limits_warn() {
        assert_eq!((inotify(8).level, inotify(128).level), (Level::Warning, Level::Ok));
        assert_eq!(
            (open_files(Some(1024)).level, open_files(Some(20_000)).level),
            (Level::Warning, Level::Ok)
        );
    }
}
