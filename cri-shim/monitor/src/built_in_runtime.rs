//! Corten's own runtime, called as a library: one fork a process, no program executed beside the container's own.

use std::path::Path;

use corten_runtime as runtime;
use corten_runtime::{Console, CreateRequest, Error, ExecRequest};
use corten_sys::pty;
use oci_spec::runtime::Process;

use crate::oci::{Made, Stdio, kind_of};
use crate::own_log;
use crate::protocol::{Failure, FailureKind, TerminalSize};

#[derive(Debug)]
pub struct BuiltIn {
    runtime: runtime::Runtime,
}

impl BuiltIn {
    pub fn new(root: &Path) -> Self {
        Self { runtime: runtime::Runtime::new(root) }
    }

    pub fn create(&self, id: &str, bundle: &Path, stdio: Stdio) -> Result<Made, Failure> {
        let (stdio, console, size) = split(stdio);
        let request = CreateRequest { stdio, console, ..CreateRequest::new(id, bundle) };
        let created = self.runtime.create(&request).map_err(|error| refused(&error))?;
        warn(id, &created.warnings);
        sized(Made { pid: created.pid, master: created.console }, size)
    }

    pub fn start(&self, id: &str) -> Result<(), Failure> {
        self.runtime.start(id).map_err(|error| refused(&error))
    }

    pub fn exec(&self, id: &str, process: Process, stdio: Stdio) -> Result<Made, Failure> {
        let (stdio, console, size) = split(stdio);
        let request = ExecRequest { stdio, console, ..ExecRequest::new(process) };
        let executed = self.runtime.exec(id, &request).map_err(|error| refused(&error))?;
        warn(id, &executed.warnings);
        sized(Made { pid: executed.pid, master: executed.console }, size)
    }

    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Failure> {
        self.runtime.kill(id, signal, all).map_err(|error| refused(&error))
    }

    pub fn delete(&self, id: &str) -> Result<(), Failure> {
        let warnings = self.runtime.delete(id, true).map_err(|error| refused(&error))?;
        warn(id, &warnings);
        Ok(())
    }
}

fn split(stdio: Stdio) -> (runtime::Stdio, Console, Option<TerminalSize>) {
    match stdio {
        Stdio::Files { stdin, stdout, stderr } => {
            (runtime::Stdio::Fds { stdin, stdout, stderr }, Console::None, None)
        }
        Stdio::Tty(size) => (runtime::Stdio::Inherit, Console::Return, size),
    }
}

fn sized(made: Made, size: Option<TerminalSize>) -> Result<Made, Failure> {
    if let (Some(master), Some(size)) = (&made.master, size) {
        pty::set_size(master, size.rows, size.columns).map_err(|errno| Failure {
            kind: FailureKind::Runtime,
            message: format!("set the size of a terminal: {}", corten_sys::errno::describe(errno)),
        })?;
    }
    Ok(made)
}

fn warn(id: &str, warnings: &[String]) {
    for warning in warnings {
        own_log::say(&format!("{id}: {warning}"));
    }
}

fn refused(error: &Error) -> Failure {
    let message = error.to_string();
    let kind = match error {
        Error::NotFound(_) => FailureKind::NotFound,
        Error::Exists(_) => FailureKind::AlreadyExists,
        Error::NotRunning => FailureKind::NotRunning,
        Error::WrongStatus { .. } => FailureKind::WrongState,
        Error::InvalidId(_) | Error::Config { .. } | Error::Process(_) => FailureKind::Invalid,
        Error::Init(text) => kind_of(text),
        _ => FailureKind::Runtime,
    };
    Failure { kind, message }
}
