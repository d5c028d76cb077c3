//! The record of a container on disk, and what it is now.
//!
//! `ROOT/ID/state.json` is written to a temporary name and renamed, before the side effects it describes, so that
//! `delete --force` works from any point at which a creator was killed. The status is never stored: it follows from
//! facts (is the process there, does it wait at its gate). Beside it lies `exec.fifo`, the gate.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use corten_sys::procfs::Procfs;
use corten_sys::{Context, Errno, pidfd};
use oci_spec::runtime::Hook;
use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::Error;

/// Version of the record's form.
pub const VERSION: u32 = 1;
const GATE: &str = "exec.fifo";
const RECORD: &str = "state.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub created: String,
    /// Who creates it: while it lives and `init` is none, the container is being created.
    pub creator: ProcessId,
    pub init: Option<ProcessId>,
    /// `CLONE_NEW*` bits of the namespaces that are not the host's.
    pub namespaces: u32,
    pub cgroup: Cgroup,
    pub annotations: BTreeMap<String, String>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// One process for good: a pid may come back, with another start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    pub fn of(proc: &Procfs, pid: i32) -> Result<Self, Errno> {
        Ok(Self { pid, start_time: proc.start_time(pid)? })
    }

    /// Opens the process, unless it has ended (a zombie has).
    pub fn open(&self, proc: &Procfs) -> Option<OwnedFd> {
        let fd = pidfd::open(self.pid).ok()?;
        let stat = proc.stat(self.pid).ok()?;
        (stat.start_time == self.start_time && !stat.ended()).then_some(fd)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

impl Directory {
    /// Of a container id, which is checked: it becomes a file name.
    pub fn new(root: &Path, id: &str) -> Result<Self, Error> {
        if valid_id(id) { Ok(Self(root.join(id))) } else { Err(Error::InvalidId(id.to_owned())) }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reserves the id: whoever makes the directory owns it.
    pub fn reserve(&self, id: &str) -> Result<(), Error> {
        use std::os::unix::fs::DirBuilderExt;
        let root = self.0.parent().expect("a container's directory has the root above it");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(root)
            .tried(|| format!("create {}", root.display()))?;
        match fs::DirBuilder::new().mode(0o711).create(&self.0) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::Exists(id.to_owned()))
            }
            Err(error) => Err(corten_sys::Failure::new(format!("create {}", self.0.display()), error).into()),
        }
    }

    pub fn write(&self, record: &Record) -> Result<(), Error> {
        let path = self.0.join(RECORD);
        let text =
            serde_json::to_vec(record).map_err(|source| Error::Record { path: path.clone(), source })?;
        let temporary = self.0.join(".state.json");
        let write = || -> std::io::Result<()> {
            fs::File::create(&temporary)?.write_all(&text)?;
            fs::rename(&temporary, &path)
        };
        Ok(write().tried(|| format!("write {}", path.display()))?)
    }

    /// # Errors
    /// [`Error::NotFound`]: no container of this id, or one that was killed before it had a record.
    pub fn read(&self, id: &str) -> Result<Record, Error> {
        let path = self.0.join(RECORD);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NotFound(id.to_owned()));
            }
            Err(error) => {
                return Err(corten_sys::Failure::new(format!("read {}", path.display()), error).into());
            }
        };
        serde_json::from_slice(&text).map_err(|source| Error::Record { path, source })
    }

    /// Makes the gate and opens it in a way that neither blocks nor ever sees an end of file.
    pub fn create_gate(&self) -> Result<OwnedFd, Error> {
        let path = self.0.join(GATE);
        let make = || -> Result<OwnedFd, Errno> {
            rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from(0o600), 0)?;
            rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        };
        Ok(make().tried(|| format!("create {}", path.display()))?)
    }

    /// The gate from the side of who opens it; None when nobody waits there.
    pub fn open_gate(&self) -> Result<Option<OwnedFd>, Error> {
        let path = self.0.join(GATE);
        match rustix::fs::open(&path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NXIO | Errno::NOENT) => Ok(None),
            Err(errno) => Err(corten_sys::Failure::new(format!("open {}", path.display()), errno).into()),
        }
    }

    /// What init wrote into the gate before it ended, once nobody reads there any more.
    pub fn read_gate(&self) -> Result<String, Error> {
        let path = self.0.join(GATE);
        let read = || -> Result<String, Errno> {
            let fd =
                rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
            let mut text = vec![0; 8192];
            match rustix::io::read(&fd, &mut text) {
                Ok(count) => text.truncate(count),
                Err(Errno::AGAIN) => text.clear(),
                Err(errno) => return Err(errno),
            }
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        Ok(read().tried(|| format!("read {}", path.display()))?)
    }

    pub fn remove_gate(&self) {
        // What is left goes with the directory; only `list` and `state` would look once more.
        let _ = fs::remove_file(self.0.join(GATE));
    }

    /// Removes the directory and what we put there. What is already gone is no error.
    pub fn remove(&self) -> Result<(), Error> {
        for name in [GATE, ".state.json", RECORD] {
            match fs::remove_file(self.0.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(corten_sys::Failure::new(
                        format!("remove {name} of {}", self.0.display()),
                        error,
                    )
                    .into());
                }
                _ => {}
            }
        }
        match fs::remove_dir(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(corten_sys::Failure::new(format!("remove {}", self.0.display()), error).into())
            }
            _ => Ok(()),
        }
    }

    /// What the container is now, and its process when that is alive.
    pub fn status(&self, record: &Record, proc: &Procfs) -> Result<(Status, Option<OwnedFd>), Error> {
        let Some(init) = record.init else {
            let creating = record.creator.open(proc).is_some();
            return Ok((if creating { Status::Creating } else { Status::Stopped }, None));
        };
        let Some(process) = init.open(proc) else { return Ok((Status::Stopped, None)) };
        let status = if self.open_gate()?.is_some() {
            Status::Created
        } else if record.cgroup.is_frozen().unwrap_or(false) {
            Status::Paused
        } else {
            Status::Running
        };
        Ok((status, Some(process)))
    }
}

/// runc's rule, and no file name that means something else.
fn valid_id(id: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    !id.is_empty()
        && id.len() <= 1024
        && id != "."
        && id != ".."
        && !id.starts_with(['.', '-'])
        && id.chars().all(word)
}

/// The state of the OCI specification, as hooks get it and `state` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    pub pid: i32,
    pub status: Status,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub created: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    pub owner: String,
}

impl State {
    pub fn new(record: &Record, status: Status, pid: i32) -> Self {
        Self {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid,
            status,
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: String::new(),
        }
    }
}

/// Now, as RFC 3339 in UTC with nanoseconds.
pub fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let text = rfc3339(since.as_secs());
    format!("{}.{:09}Z", text.trim_end_matches('Z'), since.subsec_nanos())
}

/// Seconds since 1970 as RFC 3339, in UTC.
pub fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days, for days since 1970.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_262_399), "2026-11-21T11:59:59Z");
    }

    #[test]
    fn ids_that_could_be_paths_or_options_are_refused() {
        for good in ["a", "A-1_x+y.z", "0123456789abcdef"] {
            assert!(valid_id(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "-x", ".hidden", "a b", "ä", "a\0"] {
            assert!(!valid_id(bad), "{bad:?}");
        }
    }
}
