//! `start`: opens the gate, and waits until the program is executed.

use std::os::fd::OwnedFd;

use corten_sys::{Context, Errno};
use rustix::event::{PollFd, PollFlags, poll};

use super::Runtime;
use crate::error::Error;
use crate::hooks;
use crate::state::{State, Status};

impl Runtime {
    /// Starts a created container. Any process may do it, not only the one that created it.
    ///
    /// # Errors
    /// [`Error::Init`]: a startContainer hook failed or the program could not be executed; the container has stopped.
    pub fn start(&self, id: &str) -> Result<(), Error> {
        let (directory, record, proc) = self.read(id)?;
        let (status, _) = directory.status(&record, &proc)?;
        if status != Status::Created {
            return Err(Error::WrongStatus { action: "start", id: id.to_owned(), status });
        }
        let Some(gate) = directory.open_gate()? else {
            return Err(Error::WrongStatus { action: "start", id: id.to_owned(), status: Status::Stopped });
        };
        rustix::io::write(&gate, b"0").tried(|| format!("open the gate of {id}"))?;
        wait_until_closed(&gate).tried(|| format!("wait for the program of {id}"))?;
        // The gate closes when the program is executed, or when init failed and left its reason there.
        let failure = directory.read_gate()?;
        drop(gate);
        directory.remove_gate();
        if !failure.is_empty() {
            return Err(Error::Init(failure));
        }
        let pid = record.init.map_or(0, |init| init.pid);
        hooks::run("poststart", &record.poststart, &State::new(&record, Status::Running, pid))?;
        Ok(())
    }
}

/// A pipe without readers reports an error to its writer.
fn wait_until_closed(gate: &OwnedFd) -> Result<(), Errno> {
    loop {
        let mut fds = [PollFd::new(gate, PollFlags::empty())];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => return Ok(()),
            Ok(_) => {}
        }
    }
}
