//! `pause`, `resume`, and the processes of a container: what its cgroup alone knows.

use super::Runtime;
use crate::error::Error;
use crate::state::Status;

impl Runtime {
    /// Stops every process where it is.
    pub fn pause(&self, id: &str) -> Result<(), Error> {
        let (directory, record, proc) = self.read(id)?;
        match directory.status(&record, &proc)?.0 {
            Status::Created | Status::Running => Ok(record.cgroup.freeze()?),
            status => Err(Error::WrongStatus { action: "pause", id: id.to_owned(), status }),
        }
    }

    /// Lets them go on.
    pub fn resume(&self, id: &str) -> Result<(), Error> {
        let (directory, record, proc) = self.read(id)?;
        match directory.status(&record, &proc)?.0 {
            Status::Paused => Ok(record.cgroup.thaw()?),
            status => Err(Error::WrongStatus { action: "resume", id: id.to_owned(), status }),
        }
    }

    /// Pids on the host of every process of the container.
    pub fn pids(&self, id: &str) -> Result<Vec<i32>, Error> {
        let (_, record, _) = self.read(id)?;
        Ok(record.cgroup.pids()?)
    }
}
