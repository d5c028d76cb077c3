//! `conformance kubectl`: one script of stock kubectl commands, against ours and a stock server (`kubectl-compare` of
//! test-vm).

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::project::{cargo, release_dir, target};
use crate::{build, packages, run, tools};

/// Stock kubectl against corten-apiserver and against a stock kube-apiserver: the same exit codes, output and errors.
///
/// The script (test-vm/tools/kubectl) has commands that need no kubelet. Differences are shown line by line; each is a
/// bug, or has its reason in explained.txt. The stock programs are built from their Go module the first time.
#[derive(clap::Args)]
pub struct Args {
    /// Only sections of the script whose title contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Keep the servers' directories (logs, stores) here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Test the programs in this directory instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

pub fn conformance(args: &Args) -> Result<ExitCode> {
    packages::ensure()?;
    for name in ["kubectl", "kube-apiserver", "kube-controller-manager"] {
        tools::kubernetes(name)?;
    }
    let programs = if let Some(dir) = &args.programs {
        dir.canonicalize().with_context(|| format!("--programs {}", dir.display()))?
    } else {
        build::release()?;
        release_dir()
    };
    let mut lane = cargo();
    lane.args(["build", "--quiet", "--target", target(), "--package", "corten-test-vm"]);
    lane.args(["--bin", "kubectl-compare"]);
    run::check(&mut lane).context("cannot build the lane")?;
    let mut lane = Command::new(crate::project::target_dir().join(target()).join("debug/kubectl-compare"));
    lane.env("CORTEN_TEST_PROGRAMS", programs);
    if let Some(only) = &args.only {
        lane.args(["--only", only]);
    }
    if let Some(dir) = &args.keep {
        lane.arg("--keep").arg(dir);
    }
    let status = lane.status().with_context(|| format!("cannot start `{}`", run::shown(&lane)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
