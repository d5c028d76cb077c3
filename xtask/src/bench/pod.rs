//! `bench pod`: the life of a pod through CRI, corten-cri beside Debian's containerd. The measuring is done by
//! `pod-bench` of test-vm, which speaks gRPC; here it is built, run and shown.

use std::process::Command;

use anyhow::{Context, Result};

use super::{Report, measured};
use crate::project::{cargo, release_dir, target};
use crate::{build, images, packages, run};

/// RunPodSandbox, Create+Start, ExecSync, Stop, Remove and memory a pod, beside Debian's containerd.
///
/// Both daemons run at the same time, each on a node of its own (network namespace, directories, cgroup, registry
/// mirror) with the same image and a network of the same shape, and take turns. Needs root.
#[derive(clap::Args)]
pub struct Args {
    /// Pods per daemon that are timed
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Milliseconds between operations
    #[arg(long, default_value_t = 40)]
    gap_ms: u64,
}

pub fn bench(args: &Args) -> Result<Report> {
    packages::ensure()?;
    build::release()?;
    images::ensure()?;
    let mut client = cargo();
    client.args([
        "build",
        "--release",
        "--target",
        target(),
        "--package",
        "corten-test-vm",
        "--bin",
        "pod-bench",
    ]);
    run::check(&mut client).context("cannot build pod-bench")?;
    let mut bench = Command::new(release_dir().join("pod-bench"));
    bench.args(["--rounds", &args.rounds.to_string(), "--gap-ms", &args.gap_ms.to_string()]);
    bench.env("CORTEN_TEST_PROGRAMS", release_dir());
    measured::by("bench pod", &mut bench)
}
