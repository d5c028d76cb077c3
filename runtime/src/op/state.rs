//! `state`: what a container is now.

use std::os::unix::fs::MetadataExt;

use super::Runtime;
use crate::error::Error;
use crate::state::{State, Status};

impl Runtime {
    pub fn state(&self, id: &str) -> Result<State, Error> {
        let (directory, record, proc) = self.read(id)?;
        let (status, _) = directory.status(&record, &proc)?;
        let pid = if status == Status::Stopped { 0 } else { record.init.map_or(0, |init| init.pid) };
        let owner = std::fs::metadata(directory.path()).map_or(0, |meta| meta.uid());
        let name = nix::unistd::User::from_uid(owner.into()).ok().flatten().map(|user| user.name);
        Ok(State { owner: name.unwrap_or_else(|| format!("#{owner}")), ..State::new(&record, status, pid) })
    }
}
