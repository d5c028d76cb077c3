//! `delete`: everything a container left, from whatever point its creator got to.

use std::os::fd::OwnedFd;
use std::time::Duration;

use corten_sys::procfs::Procfs;
use corten_sys::{Context, Errno, Failure, pidfd, process};

use super::Runtime;
use crate::error::Error;
use crate::hooks;
use crate::state::{Directory, Record, State, Status};

/// A killed process that does not end within this time hangs in the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Runtime {
    /// Deletes a container that has stopped, or was never started; with `force` also a running one, which is killed,
    /// and then one that does not exist is no error. Returns what a poststop hook complained of.
    pub fn delete(&self, id: &str, force: bool) -> Result<Vec<String>, Error> {
        let directory = self.directory(id)?;
        let record = match directory.read(id) {
            Ok(record) => record,
            // Killed between its directory and its record: nothing else was made.
            Err(Error::NotFound(_)) if force || directory.path().exists() => {
                return directory.remove().map(|()| Vec::new());
            }
            Err(error) => return Err(error),
        };
        let proc = super::host_proc()?;
        let (status, _) = directory.status(&record, &proc)?;
        if !force && !matches!(status, Status::Stopped | Status::Created) {
            return Err(Error::WrongStatus { action: "delete", id: id.to_owned(), status });
        }
        destroy(&directory, &record, &proc)
    }
}

fn destroy(directory: &Directory, record: &Record, proc: &Procfs) -> Result<Vec<String>, Error> {
    // A creator first, so that nothing new comes; then init, which takes its pid namespace with it; then the cgroup,
    // for what shares another pid namespace, and because what is frozen dies only once it is thawed.
    // A creator that is this process has given up already: nothing of its own runs beside a call.
    let others = record.init.is_none() && record.creator.pid != process::own_pid();
    let creator = if others { record.creator.open(proc) } else { None };
    let init = record.init.and_then(|init| init.open(proc));
    let processes =
        [(creator, "the process that creates the container"), (init, "the container's first process")];
    for (process, what) in &processes {
        process.as_ref().map_or(Ok(()), |process| kill(process, what))?;
    }
    if record.cgroup.exists() {
        record.cgroup.kill_all()?;
    }
    for (process, what) in &processes {
        process.as_ref().map_or(Ok(()), |process| wait(process, what))?;
    }
    record.cgroup.remove()?;
    let pid = record.init.map_or(0, |init| init.pid);
    let hooks = hooks::run("poststop", &record.poststop, &State::new(record, Status::Stopped, pid));
    directory.remove()?;
    Ok(hooks.err().map(|error| error.to_string()).into_iter().collect())
}

fn kill(process: &OwnedFd, what: &str) -> Result<(), Failure> {
    match pidfd::send_signal(process, libc::SIGKILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(Failure::new(format!("kill {what}"), errno)),
    }
}

fn wait(process: &OwnedFd, what: &str) -> Result<(), Failure> {
    if pidfd::wait_exit(process, Some(KILL_TIMEOUT)).tried(|| format!("wait for {what}"))? {
        return Ok(());
    }
    Err(Failure::new(format!("wait for {what} to end"), Errno::TIMEDOUT).hint("it hangs in the kernel"))
}
