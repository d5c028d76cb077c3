//! Hooks: programs of the configuration, run with the state of the container on their standard input.
//!
//! Program, arguments and environment come from the configuration alone; descriptors and environment of this process
//! stay here (R13).

use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use corten_sys::pidfd::{self, Exit};
use corten_sys::{Errno, Failure};
use oci_spec::runtime::Hook;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::state::State;

/// What a hook wrote is quoted in its error up to here.
const OUTPUT_LIMIT: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("{kind} hook #{index} ({path}): {failure}", path = path.display())]
    Start { kind: &'static str, index: usize, path: PathBuf, failure: Failure },
    #[error("{kind} hook #{index} ({path}): {how}{output}", path = path.display(), how = how(*.exit))]
    Failed { kind: &'static str, index: usize, path: PathBuf, exit: Exit, output: String },
    #[error("{kind} hook #{index} ({path}): timed out after {seconds} s and was killed", path = path.display())]
    TimedOut { kind: &'static str, index: usize, path: PathBuf, seconds: u64 },
}

fn how(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("killed by signal {signal}"),
    }
}

/// Runs hooks in order; the first failure ends it. `kind` is the field of the configuration.
pub fn run(kind: &'static str, hooks: &[Hook], state: &State) -> Result<(), HookError> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serde_json::to_vec(state).expect("a state is plain data");
    hooks.iter().enumerate().try_for_each(|(index, hook)| run_one(kind, index, hook, &state))
}

fn run_one(kind: &'static str, index: usize, hook: &Hook, state: &[u8]) -> Result<(), HookError> {
    let path = hook.path().clone();
    let fail = |tried: &str, errno: Errno| HookError::Start {
        kind,
        index,
        path: path.clone(),
        failure: Failure::new(tried, errno),
    };
    let output =
        memfd_create("hook-output", MemfdFlags::CLOEXEC).map_err(|errno| fail("memfd_create", errno))?;
    let mut child = spawn(hook, &path, &output).map_err(|error| fail("start", errno(&error)))?;
    let process = pidfd::open(child.id() as i32).map_err(|errno| fail("pidfd_open", errno))?;
    // A hook that does not read its input is no error.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(state);
    }
    let timeout = hook.timeout().map(|seconds| Duration::from_secs(seconds.unsigned_abs()));
    let ended = pidfd::wait_exit(&process, timeout).map_err(|errno| fail("poll", errno))?;
    if !ended {
        let _ = pidfd::send_signal(&process, libc::SIGKILL);
    }
    let exit = pidfd::reap(&process).map_err(|errno| fail("wait", errno))?;
    match (ended, exit) {
        (false, _) => {
            let seconds = timeout.unwrap_or_default().as_secs();
            Err(HookError::TimedOut { kind, index, path, seconds })
        }
        (true, Exit::Code(0)) => Ok(()),
        (true, exit) => Err(HookError::Failed { kind, index, path, exit, output: quote(output) }),
    }
}

fn spawn(hook: &Hook, path: &Path, output: &OwnedFd) -> std::io::Result<Child> {
    let mut command = Command::new(path);
    let arguments = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for pair in hook.env().iter().flatten() {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        command.env(name, value);
    }
    command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output.try_clone()?).spawn()
}

/// `: what it wrote`, or nothing.
fn quote(output: OwnedFd) -> String {
    let mut file = std::fs::File::from(output);
    let mut text = Vec::new();
    if file.rewind().and_then(|()| file.take(OUTPUT_LIMIT).read_to_end(&mut text)).is_err() {
        return String::new();
    }
    match String::from_utf8_lossy(&text).trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
