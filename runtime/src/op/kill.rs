//! `kill`: a signal to the first process, or to all.

use corten_sys::{Context, Errno, pidfd};

use super::Runtime;
use crate::error::Error;
use crate::state::Status;

impl Runtime {
    /// `signal`: any number the kernel knows. With `all`, to every process of the container's cgroup.
    ///
    /// # Errors
    /// [`Error::NotRunning`]: the container has stopped.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        let (directory, record, proc) = self.read(id)?;
        let (status, process) = directory.status(&record, &proc)?;
        if all {
            return kill_all(&record.cgroup, signal);
        }
        let process = process.filter(|_| status != Status::Stopped).ok_or(Error::NotRunning)?;
        match pidfd::send_signal(&process, signal) {
            Err(Errno::SRCH) => Err(Error::NotRunning),
            other => Ok(other.tried(|| format!("send signal {signal} to the process of {id}"))?),
        }
    }
}

fn kill_all(cgroup: &crate::cgroup::Cgroup, signal: i32) -> Result<(), Error> {
    if !cgroup.exists() || cgroup.pids()?.is_empty() {
        return Err(Error::NotRunning);
    }
    if signal == libc::SIGKILL {
        return Ok(cgroup.kill_all()?);
    }
    Ok(cgroup.signal_all(signal)?)
}
