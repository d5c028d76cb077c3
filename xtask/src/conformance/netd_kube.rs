//! `conformance netd-kube`: corten-netd with a stock control plane, each in a network namespace of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::project::{cargo, release_dir, target};
use crate::{build, packages, run, tools};

/// corten-netd against a stock kube-apiserver: annotations, condition, permissions, nodes that come and go, restarts.
///
/// The server is built from its Go module the first time (some minutes); its store is Debian's etcd. Needs root.
#[derive(clap::Args)]
pub struct Args {
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    focus: String,
    /// Test the programs in this directory instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

pub fn conformance(args: &Args) -> Result<ExitCode> {
    packages::ensure()?;
    tools::kubernetes("kube-apiserver")?;
    let programs = if let Some(dir) = &args.programs {
        dir.canonicalize().with_context(|| format!("--programs {}", dir.display()))?
    } else {
        build::release()?;
        release_dir()
    };
    let mut test = cargo();
    test.args([
        "test",
        "--quiet",
        "--target",
        target(),
        "--package",
        "corten-test-vm",
        "--test",
        "netd_kube",
        "--",
    ]);
    // Each test has a server of 300 MB that takes seconds of CPU to start.
    test.args(["--test-threads=2", "--nocapture", &args.focus]).env("CORTEN_TEST_PROGRAMS", programs);
    let status = test.status().with_context(|| format!("cannot start `{}`", run::shown(&test)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
