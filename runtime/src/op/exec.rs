//! `exec`: a further process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use corten_sys::Context;
use corten_sys::ns::Kind;
use oci_spec::runtime::Process as ProcessSpec;

use super::create::{hand_over_listener, plan_of};
use super::{Console, Runtime, connect_console, keyring_name, listen_environment, send_pidfd};
use crate::error::Error;
use crate::init::child::{self, Common, Exec, Stdio};
use crate::init::{parent, protocol};
use crate::plan::Process;
use crate::seccomp::Filter;
use crate::state::{State, Status};

#[derive(Debug)]
pub struct ExecRequest {
    pub process: ProcessSpec,
    pub stdio: Stdio,
    pub console: Console,
    pub pid_file: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    /// As in [`super::CreateRequest`].
    pub preserve_fds: u32,
    pub listen_fds: u32,
    /// Also into a paused container, where the process waits for `resume`.
    pub ignore_paused: bool,
}

impl ExecRequest {
    pub fn new(process: ProcessSpec) -> Self {
        Self {
            process,
            stdio: Stdio::Inherit,
            console: Console::None,
            pid_file: None,
            pidfd_socket: None,
            preserve_fds: 0,
            listen_fds: 0,
            ignore_paused: false,
        }
    }
}

/// A process that executes its program. It is a child of the caller, who reaps it.
#[derive(Debug)]
pub struct Executed {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
    pub warnings: Vec<String>,
}

impl Runtime {
    /// Runs a process in a container that is created or running, with the container's seccomp filter.
    pub fn exec(&self, id: &str, request: &ExecRequest) -> Result<Executed, Error> {
        let (directory, record, proc) = self.read(id)?;
        let process = Process::new(&request.process)?;
        let (status, target) = directory.status(&record, &proc)?;
        let target = match (status, target) {
            (Status::Created | Status::Running, Some(target)) => target,
            (Status::Paused, Some(target)) if request.ignore_paused => target,
            _ => return Err(Error::WrongStatus { action: "exec in", id: id.to_owned(), status }),
        };
        let plan = plan_of(&record.bundle)?;
        let filter = plan.seccomp.as_ref().map(Filter::new).transpose()?;
        let console = connect_console(&request.console, &process)?;
        let join = record.cgroup.join()?;
        let keyring = keyring_name(id);
        let environment = listen_environment(request.listen_fds);
        let exec = Exec {
            common: Common {
                process: &process,
                stdio: &request.stdio,
                console: &console,
                join: &join,
                cloned_into_v2: join.clone_into().is_some(),
                namespaces: &[],
                seccomp: filter.as_ref(),
                preserve_fds: request.preserve_fds,
                keyring: Some(&keyring),
                extra_environment: &environment,
            },
            target: target.as_fd(),
            namespaces: record.namespaces & !Kind::Pid.flag(),
        };
        let pair = protocol::pair().tried(|| "make a socket pair".into())?;
        let started = parent::clone_beside(
            target.as_fd(),
            record.namespaces,
            join.clone_into(),
            pair,
            |socket, inherited| child::exec(&exec, &socket, inherited),
        )?;
        let pid = started.pid();
        let mut warnings = started.apply_limits(&process)?;
        let state = State::new(&record, status, pid);
        let hand_over = |fd: OwnedFd| hand_over_listener(&plan, filter.as_ref(), &fd, pid, &state);
        let ready = started.wait_ready(&mut warnings, || Ok(()), hand_over)?;
        if let Some(path) = &request.pid_file {
            parent::write_pid_file(path, pid)?;
        }
        if let Some(path) = &request.pidfd_socket {
            send_pidfd(path, &ready.pidfd().try_clone_to_owned().tried(|| "dup".into())?)?;
        }
        let (child, console) = ready.go_and_execute()?;
        Ok(Executed { pid, pidfd: child.pidfd, console, warnings })
    }
}
