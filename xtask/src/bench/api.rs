//! `bench api`: corten-apiserver beside a stock kube-apiserver with etcd. The measuring is done by `api-bench` of
//! test-vm; here it is built, run and shown.

use std::process::Command;

use anyhow::{Context, Result};

use super::{Report, measured};
use crate::project::{cache_dir, cargo, release_dir, target};
use crate::{build, packages, run, tools};

/// Requests, lists, watches, memory and start of the API server beside a stock one, in one run.
///
/// The stock server has Debian's etcd behind it; both write to the same disk with all their syncs, both speak TLS. The
/// stock programs are built from their Go module the first time.
#[derive(clap::Args)]
pub struct Args {
    /// Turns of each request
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Pods of the largest list
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Watchers of the largest fan-out
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
}

pub fn bench(args: &Args) -> Result<Report> {
    packages::ensure()?;
    for name in ["kubectl", "kube-apiserver", "kube-controller-manager"] {
        tools::kubernetes(name)?;
    }
    build::release()?;
    let mut tool = cargo();
    tool.args([
        "build",
        "--release",
        "--target",
        target(),
        "--package",
        "corten-test-vm",
        "--bin",
        "api-bench",
    ]);
    run::check(&mut tool).context("cannot build api-bench")?;
    let mut bench = Command::new(release_dir().join("api-bench"));
    bench.args(["--rounds", &args.rounds.to_string(), "--pods", &args.pods.to_string()]);
    bench.args(["--watchers", &args.watchers.to_string()]);
    bench.env("CORTEN_TEST_PROGRAMS", release_dir()).env("CORTEN_TEST_STOCK", cache_dir().join("bin"));
    measured::by("bench api", &mut bench)
}
