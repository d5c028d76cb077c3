//! The operations of the runtime, one a file.

mod create;
mod delete;
mod exec;
mod kill;
mod list;
mod pause;
mod start;
mod state;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use corten_sys::procfs::Procfs;
use corten_sys::{Context, Failure};

pub use create::{CreateRequest, Created};
pub use exec::{ExecRequest, Executed};

use crate::error::{ConfigError, Error};
use crate::init::child::ConsoleTo;
use crate::plan::Process;
use crate::state::{Directory, Record};

/// The containers below one state directory. Two runtimes with different directories never meet.
#[derive(Debug, Clone)]
pub struct Runtime {
    root: PathBuf,
}

/// Who gets the master side of the terminal, when `process.terminal` is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Console {
    #[default]
    None,
    /// A listening unix socket; the descriptor is sent there, with the name `/dev/ptmx`.
    Socket(PathBuf),
    /// The caller, in the answer.
    Return,
}

impl Runtime {
    /// `root`: where state is kept, a directory on a tmpfs by custom. It is made when it is needed.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn directory(&self, id: &str) -> Result<Directory, Error> {
        Directory::new(&self.root, id)
    }

    fn read(&self, id: &str) -> Result<(Directory, Record, Procfs), Error> {
        let directory = self.directory(id)?;
        let record = directory.read(id)?;
        Ok((directory, record, host_proc()?))
    }
}

fn host_proc() -> Result<Procfs, Failure> {
    crate::init::parent::host_proc()
}

/// Connects the console before anything is made; a terminal and somebody to take it go together.
fn connect_console(console: &Console, process: &Process) -> Result<ConsoleTo, Error> {
    match (console, process.terminal) {
        (Console::None, false) => Ok(ConsoleTo::Nobody),
        (Console::None, true) => Err(ConfigError::invalid(
            "process.terminal",
            "is set, and nobody takes the terminal: give a console socket",
        )
        .into()),
        (_, false) => {
            Err(ConfigError::invalid("process.terminal", "is not set, and a console was asked for").into())
        }
        (Console::Return, true) => Ok(ConsoleTo::Parent),
        (Console::Socket(path), true) => {
            let socket = UnixStream::connect(path)
                .tried(|| format!("connect to console socket {}", path.display()))?;
            Ok(ConsoleTo::Socket(OwnedFd::from(socket)))
        }
    }
}

/// Sends a process's pidfd to a listening unix socket.
fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<(), Failure> {
    use std::os::fd::AsFd;
    let tried = || format!("send the pidfd to {}", path.display());
    let socket = UnixStream::connect(path).tried(tried)?;
    corten_sys::scm::send(&socket, b"pidfd", &[pidfd.as_fd()]).tried(tried)
}

/// `_ses.ID`, as runc names it.
fn keyring_name(id: &str) -> CString {
    CString::new(format!("_ses.{id}")).expect("an id has no NUL byte")
}

/// LISTEN_FDS of socket activation: descriptors 3 and up, meant for pid 1 (sd_listen_fds(3)).
fn listen_environment(count: u32) -> Vec<CString> {
    if count == 0 {
        return Vec::new();
    }
    vec![CString::new(format!("LISTEN_FDS={count}")).expect("digits"), CString::from(c"LISTEN_PID=1")]
}
