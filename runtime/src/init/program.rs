//! The last steps: working directory, the program, execve. Messages are runc's, since clients match them.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use corten_sys::{Context, Errno, errno, exec, fd};

use super::child::InitError;
use crate::plan::Process;

/// The program that will be executed, and its environment.
#[derive(Debug)]
pub(super) struct Found {
    path: CString,
    environment: Vec<CString>,
    /// The seccomp notify descriptor, until the parent has its own.
    pub(super) listener: Option<OwnedFd>,
}

/// Enters the working directory and makes sure that it lies within the root: a descriptor of the host that leaked
/// would be reachable as /proc/self/fd/N (CVE-2024-21626).
pub(super) fn change_directory(cwd: &Path) -> Result<(), InitError> {
    rustix::process::chdir(cwd).tried(|| format!("chdir to cwd ({:?})", cwd.display().to_string()))?;
    let now = rustix::process::getcwd(Vec::new()).tried(|| "getcwd".into())?;
    if now.to_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(InitError::Refused {
        place: format!("cwd {}", cwd.display()),
        reason: "current working directory is outside of container mount namespace root -- possible container breakout detected",
    })
}

/// Finds the program as the user, with what is permitted to it.
pub(super) fn find(process: &Process, home: Option<CString>, extra: &[CString]) -> Result<Found, InitError> {
    let name = &process.arguments[0];
    let text = name.to_string_lossy();
    let path = if name.to_bytes().contains(&b'/') {
        match exec::executable(name) {
            Ok(()) => name.clone(),
            Err(Errno::NOENT) => {
                return Err(InitError::Program(format!(
                    "exec: {text:?}: stat {text}: no such file or directory"
                )));
            }
            Err(Errno::ISDIR) => return Err(InitError::Program(format!("exec: {text:?}: is a directory"))),
            Err(other) => return Err(InitError::Program(format!("exec: {text:?}: {}", errno::text(other)))),
        }
    } else {
        search(process, &text)?
    };
    let environment = process.environment.iter().chain(extra).cloned().chain(home).collect();
    Ok(Found { path, environment, listener: None })
}

/// The first one that may be executed; if none may, but one is there, it is the permission that is missing.
fn search(process: &Process, name: &str) -> Result<CString, InitError> {
    let mut denied = false;
    for directory in process.search_path.iter().filter(|directory| directory.is_absolute()) {
        let Ok(candidate) = CString::new(directory.join(name).as_os_str().as_bytes()) else { continue };
        match exec::executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    let reason = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(InitError::Program(format!("exec: {name:?}: {reason}")))
}

/// The preserved descriptors survive execve, and nothing else does.
pub(super) fn settle_descriptors(preserved: u32) -> Result<(), InitError> {
    let kept = 3 + preserved as i32;
    fd::keep_over_exec((3..kept).filter(|number| fd::is_open(*number)))
        .tried(|| "keep preserved descriptors".into())?;
    Ok(fd::cloexec_from(kept).tried(|| "close_range".into())?)
}

/// Becomes the program.
pub(super) fn execute(found: &Found, arguments: &[CString]) -> Result<Infallible, InitError> {
    match exec::execve(&found.path, arguments, &found.environment) {
        Ok(never) => match never {},
        Err(failure) => {
            let path = found.path.to_string_lossy();
            Err(InitError::Program(format!("exec {path}: {}", errno::text(failure))))
        }
    }
}
