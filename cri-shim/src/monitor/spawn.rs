//! Starting a monitor: one exec, its first connection handed over as stdin, so that nobody waits for a socket to listen.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use corten_monitor::socket;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::process::Command;

use super::{Events, Monitor, MonitorError};

/// What a monitor is told at start.
#[derive(Debug, Clone)]
pub struct MonitorSpec<'a> {
    /// The `corten-monitor` program.
    pub program: &'a Path,
    /// `state/pods/<sandbox>`: exists, 0700, no other monitor serves it.
    pub dir: &'a Path,
    pub sandbox: &'a str,
    /// Root of the built-in runtime's state (`state/oci`).
    pub oci_root: &'a Path,
    /// Where the daemon pins network namespaces (`state/netns`): the monitor lets go of its copies of other pods' pins.
    pub netns_dir: PathBuf,
}

impl Monitor {
    /// Starts a monitor. It outlives this process; requests may be sent at once.
    pub fn spawn(spec: &MonitorSpec<'_>) -> Result<(Self, Events), MonitorError> {
        let start = |source| MonitorError::Start { program: PathBuf::from(spec.program), source };
        let (ours, theirs): (OwnedFd, OwnedFd) = socket::pair().map_err(start)?;
        let child = Command::new(spec.program)
            .arg("serve")
            .args(["--sandbox", spec.sandbox])
            .arg("--dir")
            .arg(spec.dir)
            .arg("--oci-root")
            .arg(spec.oci_root)
            .arg("--netns-dir")
            .arg(&spec.netns_dir)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(start)?;
        // Not reaped before `serve` waits for it, so the pid is still the child's.
        let pid =
            child.id().and_then(|id| Pid::from_raw(id as i32)).expect("a child that was not waited for");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| start(errno.into()))?;
        Self::over(spec.dir, pid.as_raw_nonzero().get(), ours, pidfd, Some(child)).map_err(start)
    }
}
