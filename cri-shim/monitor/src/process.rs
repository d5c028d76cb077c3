//! Which process a record means: a pid alone is used again, a pid with its start time and boot id is not.

use std::fs;
use std::io;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::record::MonitorRecord;

/// When a process started, in clock ticks since boot: field 22 of /proc/PID/stat. `NotFound` when it does not exist.
pub fn start_time_ticks(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed /proc/PID/stat"))
}

/// The second field is the program's name in parentheses and may hold anything, parentheses too (proc_pid_stat(5)).
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// One value per boot.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A pidfd of the process that a record means; None when it is dead, or is only a process of the same pid.
pub fn open_recorded(record: &MonitorRecord) -> io::Result<Option<std::os::fd::OwnedFd>> {
    if record.boot_id != boot_id()? {
        return Ok(None);
    }
    let Some(pid) = Pid::from_raw(record.pid) else { return Ok(None) };
    // The pidfd first: if the start time is right afterwards, it was this process that the pidfd got.
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        pidfd => pidfd?,
    };
    match start_time_ticks(record.pid) {
        Ok(ticks) => Ok((ticks == record.start_time_ticks && !has_ended(&pidfd)?).then_some(pidfd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the process has ended, reaped or not (a zombie still has its stat).
fn has_ended(pidfd: &std::os::fd::OwnedFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
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
    fn a_program_name_with_parentheses_does_not_move_the_fields() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("17 (a ) 9 (b)) {}", fields.join(" "));
        assert_eq!(parse_start_time(&stat), Some(22));
        assert_eq!(parse_start_time("17 (x) S 1"), None);
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
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        assert!(open_recorded(&record).unwrap().is_none(), "a zombie");
        child.wait().unwrap();
        assert!(open_recorded(&record).unwrap().is_none(), "reaped");
    }
}
