//! Starts the daemons in the background and stops them, each named by pid and start time, so that a reused pid is
//! never taken for one of ours.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::instance::{Instance, write_whole};
use crate::programs;

/// The daemons of an instance, in the order in which they start.
pub const CRI: &str = "corten-cri";
pub const KUBELET: &str = "corten-kubelet";

/// A process, for ever: together with its start time a pid is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Field 22 of /proc/PID/stat, clock ticks since boot.
    pub start_time_ticks: u64,
}

impl Process {
    /// The process that has this pid now; `None` when there is none or it is a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let (state, start_time_ticks) = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, start_time_ticks })
    }

    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// A handle that stays with this process; `None` when it is gone.
    fn pidfd(self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Checked after opening: the handle is of whoever had the pid when it was opened.
        self.is_alive().then_some(fd)
    }

    /// SIGTERM, then SIGKILL after `grace`. Returns when it is gone.
    pub fn stop(self, grace: Duration) -> Result<()> {
        let Some(fd) = self.pidfd() else { return Ok(()) };
        for (signal, wait) in [(Signal::TERM, grace), (Signal::KILL, Duration::from_secs(10))] {
            if pidfd_send_signal(&fd, signal).is_err() || ended(&fd, wait)? {
                return Ok(());
            }
        }
        bail!("process {} does not end after SIGKILL: it hangs in the kernel (see /proc/{0}/stack)", self.pid)
    }

    /// SIGKILL, at once and without waiting.
    pub fn kill(self) -> rustix::io::Result<()> {
        self.pidfd().map_or(Ok(()), |fd| pidfd_send_signal(fd, Signal::KILL))
    }
}

fn ended(fd: &OwnedFd, wait: Duration) -> Result<bool> {
    let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    Ok(poll(&mut fds, Some(&timeout)).context("cannot wait for a process")? > 0)
}

/// State letter and start time of a /proc/PID/stat line; the name in parentheses may hold anything.
fn parse_stat(line: &str) -> Option<(char, u64)> {
    let mut fields = line[line.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    // State is field 3, start time field 22.
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The process of `daemon`, when its record names one that lives.
pub fn running(instance: &Instance, daemon: &str) -> Option<Process> {
    let text = fs::read(instance.daemon_record(daemon)).ok()?;
    let process: Process = serde_json::from_slice(&text).ok()?;
    process.is_alive().then_some(process)
}

/// Starts `daemon` with `args`, its output appended to its log; waits until `ready` says so.
/// Returns false when it ran already.
pub fn start(
    instance: &Instance,
    daemon: &str,
    args: &[String],
    limit: Duration,
    mut ready: impl FnMut() -> bool,
) -> Result<bool> {
    let started = Instant::now();
    let already = running(instance, daemon);
    let process = match already {
        Some(process) => process,
        None => spawn(instance, daemon, args)?,
    };
    while !ready() {
        if !process.is_alive() {
            let _ = fs::remove_file(instance.daemon_record(daemon));
            bail!(
                "{daemon} ended as soon as it started; it said:\n{}",
                log_tail(&instance.daemon_log(daemon))
            );
        }
        if started.elapsed() > limit {
            bail!(
                "{daemon} (pid {}) does not answer after {} s; its log {} ends:\n{}",
                process.pid,
                limit.as_secs(),
                instance.daemon_log(daemon).display(),
                log_tail(&instance.daemon_log(daemon))
            );
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(already.is_none())
}

fn spawn(instance: &Instance, daemon: &str, args: &[String]) -> Result<Process> {
    let program = programs::find(daemon)?;
    let log = open_log(&instance.daemon_log(daemon))?;
    let mut command = Command::new(&program);
    command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Its own group: Ctrl-C in the terminal of `up` is not for it.
    let mut child =
        command.process_group(0).spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let process = Process::of(child.id() as i32);
    let Some(process) = process else {
        let status = child.wait().context("cannot wait for the daemon")?;
        bail!(
            "{daemon} ended as soon as it started ({status}); it said:\n{}",
            log_tail(&instance.daemon_log(daemon))
        );
    };
    let written = write_whole(&instance.daemon_record(daemon), &serde_json::to_vec(&process)?);
    if let Err(error) = written {
        // Without a record `down` would not find it.
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(process)
}

/// Stops `daemon` if it runs and removes its record.
pub fn stop(instance: &Instance, daemon: &str, grace: Duration) -> Result<bool> {
    let process = running(instance, daemon);
    if let Some(process) = process {
        process.stop(grace).with_context(|| format!("cannot stop {daemon}"))?;
    }
    match fs::remove_file(instance.daemon_record(daemon)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", instance.daemon_record(daemon).display()))
        }
        _ => Ok(process.is_some()),
    }
}

fn open_log(file: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).open(file).with_context(|| format!("cannot open {}", file.display()))
}

/// The last lines of a daemon's log, indented.
pub fn log_tail(file: &Path) -> String {
    const LINES: usize = 10;
    let text = fs::read(file).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    if last.is_empty() {
        "  (nothing)".into()
    } else {
        last.iter().map(|l| format!("  {l}")).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let rest = (4..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_stat(&format!("7 (a) b (c) S {rest} 777 23")), Some(('S', 777)));
        assert_eq!(parse_stat("7 (x) S 1 2"), None);
    }

    #[test]
    fn a_process_stops_and_is_known_to_be_gone() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        assert!(process.is_alive());
        let other = Process { start_time_ticks: process.start_time_ticks + 1, ..process };
        other.stop(Duration::from_secs(1)).unwrap();
        assert!(process.is_alive(), "another start time is another process");
        process.stop(Duration::from_secs(5)).unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed_after_its_grace() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo; while :; do sleep 1; done"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        process.stop(Duration::from_millis(50)).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    }
}
