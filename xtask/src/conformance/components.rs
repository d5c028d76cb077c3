//! `conformance components`: stock controllers and scheduler on corten-apiserver (`components` of test-vm).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::lane::{Programs, ended, path};

/// Stock kube-controller-manager and kube-scheduler on corten-apiserver converge workloads, round after round.
///
/// Deployments (scale, rollout), StatefulSets, DaemonSets, Jobs, endpoints, owner trees in background and foreground,
/// namespaces; on nodes that are objects with a lease, kept alive by the lane.
#[derive(clap::Args)]
pub struct Args {
    /// How long rounds are begun
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    minutes: u64,
    /// On the stock kube-apiserver instead: does the lane itself work?
    #[arg(long)]
    stock: bool,
    /// Keep directories (logs, stores) here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    programs: Programs,
}

pub fn conformance(args: &Args) -> Result<ExitCode> {
    const STOCK: [&str; 4] = ["kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    let mut lane = args.programs.lane("components", &STOCK)?;
    lane.args(["--minutes", &args.minutes.to_string()]);
    if args.stock {
        lane.arg("--stock");
    }
    if let Some(dir) = &args.keep {
        lane.arg("--keep").arg(path(dir)?);
    }
    ended(&mut lane)
}
