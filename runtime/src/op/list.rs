//! `list`: every container below the state directory.

use corten_sys::Context;

use super::Runtime;
use crate::error::Error;
use crate::state::State;

impl Runtime {
    /// In the order of their ids. One whose record cannot be read is an error of its own; one that goes away meanwhile
    /// is left out.
    pub fn list(&self) -> Result<Vec<Result<State, Error>>, Error> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(corten_sys::Failure::new(format!("read {}", self.root.display()), error).into());
            }
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.tried(|| format!("read {}", self.root.display()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                ids.extend(entry.file_name().into_string());
            }
        }
        ids.sort_unstable();
        let states = ids.iter().map(|id| self.state(id));
        Ok(states.filter(|state| !matches!(state, Err(Error::NotFound(_) | Error::InvalidId(_)))).collect())
    }
}
