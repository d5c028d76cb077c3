//! The requests of the protocol as methods: typed in, typed out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use corten_monitor::protocol::{
    Answer, CreateContainer, Exec, Exit, PodState, Request, StartSandbox, TerminalSize,
};
use corten_monitor::socket::{attach_json, read_attached};
use oci_spec::runtime::Process;
use tokio::sync::oneshot;

use super::connection::Outcome;
use super::{Monitor, MonitorError};

/// The standard streams of an exec without a tty; one that is absent is /dev/null. The monitor gets copies.
#[derive(Debug, Default)]
pub struct ExecStdio<'a> {
    pub stdin: Option<BorrowedFd<'a>>,
    pub stdout: Option<BorrowedFd<'a>>,
    pub stderr: Option<BorrowedFd<'a>>,
}

/// A process started by [`Monitor::exec`].
#[derive(Debug)]
pub struct Execution {
    /// Its name for [`Monitor::kill_exec`].
    pub exec: u64,
    pub pid: i32,
    /// The PTY's master, when a tty was asked for.
    pub master: Option<OwnedFd>,
    exited: oneshot::Receiver<Exit>,
    monitor: Monitor,
}

impl Execution {
    /// Waits for its end. Children of it may still hold its pipes.
    pub async fn exited(&mut self) -> Result<Exit, MonitorError> {
        match (&mut self.exited).await {
            Ok(exit) => Ok(exit),
            Err(_) => Err(self.monitor.ended().await),
        }
    }
}

impl Monitor {
    /// Starts the pod's pause container; its pid, and when (Unix time in nanoseconds).
    pub async fn start_sandbox(&self, request: StartSandbox) -> Result<(i32, i64), MonitorError> {
        self.started("StartSandbox", Request::StartSandbox(request)).await
    }

    /// Creates a container; its pid, and when (Unix time in nanoseconds).
    pub async fn create_container(&self, request: CreateContainer) -> Result<(i32, i64), MonitorError> {
        match self.ask(Request::CreateContainer(request), &[]).await?.0 {
            Answer::Created { pid, created_at_unix_nanos } => Ok((pid, created_at_unix_nanos)),
            other => Err(self.confused("CreateContainer", &other)),
        }
    }

    /// Starts a created container; its pid, and when (Unix time in nanoseconds).
    pub async fn start_container(&self, id: &str) -> Result<(i32, i64), MonitorError> {
        self.started("StartContainer", Request::StartContainer { id: id.into() }).await
    }

    /// Signals the container's first process, or all of them.
    pub async fn signal(&self, id: &str, signal: i32, all: bool) -> Result<(), MonitorError> {
        self.done("Signal", Request::Signal { id: id.into(), signal, all }).await
    }

    /// Kills what is left of a container and forgets it. Unknown is no error.
    pub async fn delete_container(&self, id: &str) -> Result<(), MonitorError> {
        self.done("DeleteContainer", Request::DeleteContainer { id: id.into() }).await
    }

    /// Starts a process in a running container, with standard streams of the caller.
    pub async fn exec(
        &self,
        container: &str,
        process: &Process,
        stdio: ExecStdio<'_>,
    ) -> Result<Execution, MonitorError> {
        let exec = Exec {
            container: container.into(),
            tty: false,
            terminal_size: None,
            stdin: stdio.stdin.is_some(),
            stdout: stdio.stdout.is_some(),
            stderr: stdio.stderr.is_some(),
        };
        self.execute(exec, process, stdio).await
    }

    /// Starts a process in a running container on a new PTY, whose master is in the [`Execution`].
    pub async fn exec_tty(
        &self,
        container: &str,
        process: &Process,
        terminal_size: Option<TerminalSize>,
    ) -> Result<Execution, MonitorError> {
        let container = container.into();
        let exec = Exec { container, tty: true, terminal_size, stdin: false, stdout: false, stderr: false };
        self.execute(exec, process, ExecStdio::default()).await
    }

    async fn execute(
        &self,
        exec: Exec,
        process: &Process,
        stdio: ExecStdio<'_>,
    ) -> Result<Execution, MonitorError> {
        let process = attach_json(process).map_err(|e| self.inner.io("write the process spec", e))?;
        let fds = [Some(process.as_fd()), stdio.stdin, stdio.stdout, stdio.stderr];
        let fds: Vec<BorrowedFd<'_>> = fds.into_iter().flatten().collect();
        match self.ask(Request::Exec(exec), &fds).await? {
            (Answer::Executed { exec, pid }, mut fds, Some(exited)) => {
                Ok(Execution { exec, pid, master: fds.pop(), exited, monitor: self.clone() })
            }
            (other, ..) => Err(self.confused("Exec", &other)),
        }
    }

    /// Kills an exec'd process and its descendants. One that has ended is no error.
    pub async fn kill_exec(&self, exec: u64) -> Result<(), MonitorError> {
        self.done("KillExec", Request::KillExec { exec }).await
    }

    /// Opens the container's log path anew.
    pub async fn reopen_log(&self, id: &str) -> Result<(), MonitorError> {
        self.done("ReopenLog", Request::ReopenLog { id: id.into() }).await
    }

    /// Sets the terminal size of a tty container.
    pub async fn resize_pty(&self, id: &str, size: TerminalSize) -> Result<(), MonitorError> {
        self.done("ResizePty", Request::ResizePty { id: id.into(), size }).await
    }

    /// Everything the monitor knows. Events that come later than this answer are not in it.
    pub async fn list(&self) -> Result<PodState, MonitorError> {
        match self.ask(Request::List, &[]).await? {
            (Answer::Listed, mut fds, _) if !fds.is_empty() => {
                read_attached(fds.remove(0)).map_err(|e| self.inner.io("read the state", e))
            }
            (other, ..) => Err(self.confused("List", &other)),
        }
    }

    /// Ends the monitor and waits until it is gone. Refused while a container is left.
    pub async fn shutdown(&self) -> Result<(), MonitorError> {
        self.done("Shutdown", Request::Shutdown).await?;
        match self.ended().await {
            MonitorError::Dead { .. } => Ok(()),
            error => Err(error),
        }
    }

    async fn started(&self, call: &'static str, request: Request) -> Result<(i32, i64), MonitorError> {
        match self.ask(request, &[]).await? {
            (Answer::Started { pid, started_at_unix_nanos }, ..) => Ok((pid, started_at_unix_nanos)),
            (other, ..) => Err(self.confused(call, &other)),
        }
    }

    async fn done(&self, call: &'static str, request: Request) -> Result<(), MonitorError> {
        let outcome: Outcome = self.ask(request, &[]).await?;
        if outcome.0 == Answer::Done { Ok(()) } else { Err(self.confused(call, &outcome.0)) }
    }

    fn confused(&self, call: &'static str, answer: &Answer) -> MonitorError {
        MonitorError::Confused { dir: self.dir().to_owned(), call, answer: format!("{answer:?}") }
    }
}
