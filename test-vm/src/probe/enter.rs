//! Becomes another program inside the namespaces and the cgroup of a node or pod.
//!
//! A program of its own, because a thread of the lane cannot do this for a child: the cgroup is the process's, and the
//! lane has no unsafe code between fork and exec.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

#[derive(clap::Args)]
pub struct Enter {
    /// Cgroup to join, as the caller sees it
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Cgroup namespace to join, as the caller sees it
    #[arg(long)]
    cgroups: Option<PathBuf>,
    /// Mount namespace to join, as the caller sees it
    #[arg(long)]
    mounts: Option<PathBuf>,
    /// Network namespace to join, as seen in the mount namespace that is joined
    #[arg(long)]
    network: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Returns only when it fails.
pub fn enter(args: &Enter) -> Result<()> {
    if let Some(dir) = &args.cgroup {
        fs::write(dir.join("cgroup.procs"), "0").with_context(|| format!("join cgroup {}", dir.display()))?;
    }
    for (path, kind) in [
        (args.cgroups.as_ref(), CloneFlags::CLONE_NEWCGROUP),
        (args.mounts.as_ref(), CloneFlags::CLONE_NEWNS),
    ] {
        join(path, kind)?;
    }
    join(args.network.as_ref(), CloneFlags::CLONE_NEWNET)?;
    let (program, rest) = args.command.split_first().context("no program is named")?;
    let error = Command::new(program).args(rest).exec();
    bail!("start {}: {error}", program.display())
}

fn join(path: Option<&PathBuf>, kind: CloneFlags) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    setns(file, kind).with_context(|| format!("join {}", path.display()))
}
