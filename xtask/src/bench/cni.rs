//! `bench cni`: every verb of our plugins beside Debian's containernetworking-plugins and the kernel alone. The
//! measuring is done by the example `cni-bench` of cni-plugins, which speaks netlink; here it is built, run and shown.

use std::process::Command;

use anyhow::{Context, Result};

use super::{Report, measured};
use crate::project::{cargo, release_dir, target};
use crate::{packages, run};

/// ADD and DEL of the plugins and of whole chains, beside Debian's Go plugins and the kernel alone.
///
/// In a network namespace of its own, taking turns; a plugin's time is its whole process. Needs root.
#[derive(clap::Args)]
pub struct Args {
    /// Containers per contender that are timed
    #[arg(long, default_value_t = 40)]
    rounds: usize,
}

pub fn bench(args: &Args) -> Result<Report> {
    packages::ensure()?;
    let mut build = cargo();
    build.args([
        "build",
        "--release",
        "--target",
        target(),
        "--package",
        "corten-cni",
        "--bin",
        "corten-cni",
    ]);
    build.args(["--example", "cni-bench"]);
    run::check(&mut build).context("cannot build corten-cni and cni-bench")?;
    let mut bench = Command::new(release_dir().join("examples/cni-bench"));
    bench.arg(release_dir().join("corten-cni")).arg(args.rounds.to_string());
    measured::by("bench cni", &mut bench)
}
