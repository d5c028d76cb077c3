//! Where a monitor keeps what in its directory, `state/pods/<sandbox>` (0700).

use std::path::{Path, PathBuf};

/// The paths below one monitor's directory.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Control socket, 0600 (CVE-2020-15257: a path socket, never an abstract one).
    pub fn socket(&self) -> PathBuf {
        self.dir.join("monitor.sock")
    }

    /// [`crate::record::MonitorRecord`].
    pub fn monitor_record(&self) -> PathBuf {
        self.dir.join("monitor.json")
    }

    /// The monitor's own messages, bounded.
    pub fn monitor_log(&self) -> PathBuf {
        self.dir.join("monitor.log")
    }

    /// One [`crate::record::ContainerRecord`] a container that may exist.
    pub fn containers(&self) -> PathBuf {
        self.dir.join("containers")
    }

    pub fn container_record(&self, id: &str) -> PathBuf {
        self.containers().join(format!("{id}.json"))
    }

    /// One [`crate::record::ExitRecord`] a container that has exited and is not deleted.
    pub fn exits(&self) -> PathBuf {
        self.dir.join("exits")
    }

    pub fn exit_record(&self, id: &str) -> PathBuf {
        self.exits().join(format!("{id}.json"))
    }
}

/// Whether an id is safe as a file name, a cgroup name and a word of a command line: `[A-Za-z0-9_.-]`, 1 to 128 bytes,
/// beginning with neither `.` nor `-`.
pub fn is_valid_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !id.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_leaves_its_directory() {
        for good in ["a", "4f1c", "nginx_1-x.y"] {
            assert!(is_valid_id(good), "{good}");
        }
        for bad in ["", ".", "..", ".a", "--root", "a/b", "../x", "a b", "a\0", "ü", &"x".repeat(129)] {
            assert!(!is_valid_id(bad), "{bad:?}");
        }
    }
}
