//! Removing a cgroup and everything a container made below it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use corten_sys::Errno;

use super::error::{CgroupError, errno};
use super::{Cgroup, files};

/// A dying process leaves its cgroup some time after its death was seen.
const LIMIT: Duration = Duration::from_secs(5);

impl Cgroup {
    /// Remove the cgroup from every hierarchy; one that is gone already is no error. The parents stay: they are their
    /// maker's. All hierarchies are tried, and the first failure is returned.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + LIMIT;
        let mut result = Ok(());
        for member in &self.members {
            result = result.and(remove_tree(&member.path, deadline));
        }
        result
    }
}

fn remove_tree(dir: &Path, deadline: Instant) -> Result<(), CgroupError> {
    let mut pause = Duration::from_micros(100);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if errno(&error) == Errno::BUSY => {}
            Err(error) => return Err(CgroupError::io("remove cgroup", dir, &error)),
        }
        // EBUSY is a process or a child cgroup.
        for child in files::children(dir)? {
            remove_tree(&child, deadline)?;
        }
        if Instant::now() > deadline {
            let count = files::pids_below(dir)?.len();
            return Err(CgroupError::Busy { path: dir.into(), count, seconds: LIMIT.as_secs() });
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
