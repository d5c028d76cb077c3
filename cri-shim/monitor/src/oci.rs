//! Making containers: what the monitor asks of a runtime, whichever it is.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::Process;

use crate::built_in_runtime::BuiltIn;
use crate::external_runtime::External;
use crate::protocol::{Failure, FailureKind, Handler, TerminalSize};

/// The standard streams of a new process.
#[derive(Debug)]
pub enum Stdio {
    Files {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A PTY of the container; its master comes back in [`Made`].
    Tty(Option<TerminalSize>),
}

/// A process that a runtime has made. It is a child of the monitor, directly or as an orphan of the runtime.
#[derive(Debug)]
pub struct Made {
    pub pid: i32,
    pub master: Option<OwnedFd>,
}

#[derive(Debug)]
pub enum Runtime {
    BuiltIn(BuiltIn),
    External(External),
}

impl Runtime {
    /// `oci_root`: the built-in runtime's state; another one has its own. `scratch`: where another one's pid file, log
    /// and console socket are for a moment.
    pub fn of(handler: &Handler, oci_root: &Path, scratch: &Path) -> Self {
        match handler {
            Handler::BuiltIn => Self::BuiltIn(BuiltIn::new(oci_root)),
            Handler::External { program, root } => Self::External(External::new(program, root, scratch)),
        }
    }

    pub fn create(&self, id: &str, bundle: &Path, stdio: Stdio) -> Result<Made, Failure> {
        match self {
            Self::BuiltIn(runtime) => runtime.create(id, bundle, stdio),
            Self::External(runtime) => runtime.create(id, bundle, stdio),
        }
    }

    pub fn start(&self, id: &str) -> Result<(), Failure> {
        match self {
            Self::BuiltIn(runtime) => runtime.start(id),
            Self::External(runtime) => runtime.start(id),
        }
    }

    pub fn exec(&self, id: &str, process: Process, stdio: Stdio) -> Result<Made, Failure> {
        match self {
            Self::BuiltIn(runtime) => runtime.exec(id, process, stdio),
            Self::External(runtime) => runtime.exec(id, &process, stdio),
        }
    }

    /// Signals the first process, or every process of the container.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Failure> {
        match self {
            Self::BuiltIn(runtime) => runtime.kill(id, signal, all),
            Self::External(runtime) => runtime.kill(id, signal, all),
        }
    }

    /// Kills what is left and removes every trace. A container that is not there is no error.
    pub fn delete(&self, id: &str) -> Result<(), Failure> {
        match self {
            Self::BuiltIn(runtime) => runtime.delete(id),
            Self::External(runtime) => runtime.delete(id),
        }
    }
}

/// What the words of runc, crun and Corten's runtime (which are runc's) mean.
pub fn kind_of(message: &str) -> FailureKind {
    let says = |words: &[&str]| words.iter().all(|word| message.contains(word));
    if says(&["executable file", "not found"]) || says(&["exec", "no such file or directory"]) {
        FailureKind::CommandNotFound
    } else if says(&["exec", "permission denied"])
        || says(&["exec format error"])
        || says(&["exec", "is a directory"])
    {
        FailureKind::CommandNotExecutable
    } else if says(&["does not exist"]) {
        FailureKind::NotFound
    } else if says(&["already exists"]) {
        FailureKind::AlreadyExists
    } else {
        FailureKind::Runtime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_runtimes_say_has_a_kind() {
        use FailureKind::{AlreadyExists, CommandNotExecutable, CommandNotFound, NotFound, Runtime};
        for (message, kind) in [
            ("exec: \"nope\": executable file not found in $PATH", CommandNotFound),
            ("executable file `nope` not found in $PATH: No such file or directory", CommandNotFound),
            ("exec: \"/nope\": stat /nope: no such file or directory", CommandNotFound),
            ("exec: \"/etc/passwd\": permission denied", CommandNotExecutable),
            ("exec /x: exec format error", CommandNotExecutable),
            ("unable to start container process: exec: \"/etc\": is a directory", CommandNotExecutable),
            ("container does not exist", NotFound),
            ("container with given ID already exists", AlreadyExists),
            ("error mounting \"proc\"", Runtime),
        ] {
            assert_eq!(kind_of(message), kind, "{message}");
        }
    }
}
