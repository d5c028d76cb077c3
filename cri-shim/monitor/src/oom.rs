//! Whether the kernel killed a process of a container for memory.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use corten_runtime::cgroup::{Cgroup, Hierarchies, OomEvents};

/// The watch over one container's memory. v1 gives notice when memory has run out, which is before anything is killed
/// (and the kernel prints its report in between, slowly on a serial console); so after a notice the count is asked for
/// again and again ([`OomWatch::next_look`]).
#[derive(Debug)]
pub struct OomWatch {
    cgroup: Cgroup,
    events: OomEvents,
    expecting: Option<Expecting>,
}

#[derive(Debug)]
struct Expecting {
    next: Instant,
    pause: Duration,
    give_up: Instant,
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);

impl OomWatch {
    /// Watches the cgroup that a process is in. None where there is no memory controller to ask.
    pub fn of_process(hierarchies: &Hierarchies, pid: i32) -> Option<Self> {
        let membership = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = memory_path(&membership)?;
        // In the root cgroup it would be the host's memory.
        if path == "/" {
            return None;
        }
        let cgroup = Cgroup::locate(hierarchies, Some(Path::new(path)), "", None, None).ok()?;
        let events = cgroup.oom_events().ok()?;
        Some(Self { cgroup, events, expecting: None })
    }

    /// After the descriptor became readable.
    pub fn noticed(&mut self) {
        self.events.drain();
        let now = Instant::now();
        self.expecting = Some(Expecting { next: now, pause: FIRST_PAUSE, give_up: now + PATIENCE });
    }

    /// When the count should be asked for without a further notice.
    pub fn next_look(&self) -> Option<Instant> {
        self.expecting.as_ref().map(|expecting| expecting.next)
    }

    /// Whether something was killed so far.
    pub fn has_killed(&mut self) -> bool {
        let killed = self.cgroup.oom_kills().is_ok_and(|count| count > 0);
        let now = Instant::now();
        self.expecting = self.expecting.take().filter(|expecting| !killed && now < expecting.give_up);
        if let Some(expecting) = &mut self.expecting {
            expecting.next = now + expecting.pause;
            expecting.pause = (expecting.pause * 2).min(LONGEST_PAUSE);
        }
        killed
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// The memory cgroup in /proc/PID/cgroup: of v1's memory hierarchy where there is one, else of v2 (`0::`).
fn memory_path(membership: &str) -> Option<&str> {
    let lines = || membership.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let v1 = lines().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    v1.or_else(|| lines().find(|(controllers, _)| controllers.is_empty())).map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_cgroup_of_v1_goes_before_that_of_v2() {
        assert_eq!(memory_path("4:cpu,cpuacct:/a\n3:memory:/b\n0::/c\n"), Some("/b"));
        assert_eq!(memory_path("0::/pod/x:y\n"), Some("/pod/x:y"));
        assert_eq!(memory_path("4:cpu:/a\n"), None);
    }
}
