//! Runs a lane's program as the first process of a PID namespace: however it ends, the kernel ends all it started, and
//! with them every namespace, link, mount and pin. Only cgroups are left to remove.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::place;

/// Cgroups of nodes begin with this and the number of the process that made them.
const CGROUP_PREFIX: &str = "corten-nodes-";

/// Set for the first process of the namespace: the number of the process outside.
const OUTSIDE: &str = "CORTEN_SEALED_BY";

/// What the names of this run's cgroups begin with, on the whole machine.
pub fn tag() -> String {
    let pid = std::env::var(OUTSIDE).unwrap_or_else(|_| std::process::id().to_string());
    format!("{CGROUP_PREFIX}{pid}-")
}

/// Runs `work` sealed off, prints its error. The calling process must have no other thread.
pub fn run(work: impl FnOnce() -> Result<ExitCode>) -> ExitCode {
    try_run(work).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn try_run(work: impl FnOnce() -> Result<ExitCode>) -> Result<ExitCode> {
    if std::env::var_os(OUTSIDE).is_some() {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("end with the process outside")?;
        place::private_mounts()?;
        place::fresh("proc", "/proc", "")?;
        return work();
    }
    sweep_dead();
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)
        .context("new PID namespace; this needs root")?;
    let mut inside = Command::new(std::env::current_exe().context("find the own program")?);
    inside.args(std::env::args_os().skip(1)).env(OUTSIDE, std::process::id().to_string());
    let status = inside.status().context("start in the new PID namespace");
    sweep(|name| name.starts_with(&tag()));
    let code = status?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Removes what runs left that were killed together with their outside process.
fn sweep_dead() {
    sweep(|name| {
        let pid = name.strip_prefix(CGROUP_PREFIX).and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    });
}

fn sweep(is_ours: impl Fn(&str) -> bool) {
    let Ok(root) = place::cgroup_root() else { return };
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&is_ours) {
            remove(&entry.path());
        }
    }
}

/// Kills what is in a cgroup and removes it.
pub fn remove(cgroup: &Path) {
    for _ in 0..400 {
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        if fs::remove_dir(cgroup).is_ok() || !cgroup.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
