//! Which process a record means: a pid alone is used again, a pid with its start time and boot id is not.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use corten_sys::procfs::Procfs;
use corten_sys::{Errno, pidfd};

use crate::record::MonitorRecord;

/// When a process started, in clock ticks since boot: field 22 of /proc/PID/stat. ESRCH or `NotFound` when it does not
/// exist.
pub fn start_time_ticks(pid: i32) -> io::Result<u64> {
    Ok(Procfs::host()?.start_time(pid)?)
}

/// One value per boot.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A pidfd of the process that a record means; None when it is dead, or is only a process of the same pid.
pub fn open_recorded(record: &MonitorRecord) -> io::Result<Option<OwnedFd>> {
    if record.boot_id != boot_id()? {
        return Ok(None);
    }
    // The pidfd first: if the start time is right afterwards, it was this process that the pidfd got.
    let pidfd = match pidfd::open(record.pid) {
        Err(Errno::SRCH) => return Ok(None),
        pidfd => pidfd?,
    };
    match Procfs::host()?.start_time(record.pid) {
        // A zombie still has its stat.
        Ok(ticks) if ticks == record.start_time_ticks => {
            Ok((!pidfd::wait_exit(&pidfd, Some(Duration::ZERO))?).then_some(pidfd))
        }
        Ok(_) | Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_of(pid: i32) -> MonitorRecord {
        MonitorRecord {
            protocol: 1,
            sandbox: "s".into(),
            pid,
            start_time_ticks: start_time_ticks(pid).unwrap(),
            boot_id: boot_id().unwrap(),
            oci_root: "/".into(),
        }
    }

    #[test]
    fn a_reused_pid_another_boot_and_a_zombie_are_not_the_recorded_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let record = record_of(child.id() as i32);
        assert!(open_recorded(&record).unwrap().is_some());
        let reused = MonitorRecord { start_time_ticks: record.start_time_ticks + 1, ..record.clone() };
        assert!(open_recorded(&reused).unwrap().is_none());
        let rebooted = MonitorRecord { boot_id: "another".into(), ..record.clone() };
        assert!(open_recorded(&rebooted).unwrap().is_none());
        let pidfd = open_recorded(&record).unwrap().unwrap();
        child.kill().unwrap();
        pidfd::wait_exit(&pidfd, None).unwrap();
        assert!(open_recorded(&record).unwrap().is_none(), "a zombie");
        child.wait().unwrap();
        assert!(open_recorded(&record).unwrap().is_none(), "reaped");
    }
}
