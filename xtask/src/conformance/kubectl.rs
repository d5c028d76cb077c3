//! `conformance kubectl`: one script of stock kubectl commands, against ours and a stock server (`kubectl-compare` of
//! test-vm).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::lane::{Programs, ended, path};

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
    #[command(flatten)]
    programs: Programs,
}

pub fn conformance(args: &Args) -> Result<ExitCode> {
    const STOCK: [&str; 3] = ["kubectl", "kube-apiserver", "kube-controller-manager"];
    let mut lane = args.programs.lane("kubectl-compare", &STOCK)?;
    if let Some(only) = &args.only {
        lane.args(["--only", only]);
    }
    if let Some(dir) = &args.keep {
        lane.arg("--keep").arg(path(dir)?);
    }
    ended(&mut lane)
}
