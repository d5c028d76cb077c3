//! `conformance nodes`: three nodes made of namespaces with corten-netd on each (`nodes` of test-vm).

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::project::{cargo, release_dir, target};
use crate::{build, packages, run};

/// Three nodes on a switch, corten-netd on each, pods by our CNI plugins, and every way between them.
///
/// Pod to pod, pods and hosts, the world outside, host ports and Services, in IPv4 and IPv6, over vxlan and host-gw, with
/// the fast path on, off and switched during transfers; nodes that join, leave, reboot and move; daemons killed under
/// load; and a node whose vxlan is set up by hand as flanneld does. Each node is a set of namespaces; nothing of the
/// machine is touched. Needs root.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer repetitions, and not the rows that another shows nearly as well
    #[arg(long)]
    short: bool,
    /// Only groups whose name contains this, such as `vxlan` or `host-gw, fast path on`
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Test the programs in this directory instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

pub fn conformance(args: &Args) -> Result<ExitCode> {
    packages::ensure()?;
    let programs = if let Some(dir) = &args.programs {
        dir.canonicalize().with_context(|| format!("--programs {}", dir.display()))?
    } else {
        build::release()?;
        release_dir()
    };
    let mut tools = cargo();
    tools.args(["build", "--quiet", "--target", target(), "--package", "corten-test-vm"]);
    tools.args(["--bin", "nodes", "--bin", "net-probe"]);
    run::check(&mut tools).context("cannot build the lane")?;
    let mut lane = Command::new(crate::project::target_dir().join(target()).join("debug/nodes"));
    lane.env("CORTEN_TEST_PROGRAMS", programs);
    if args.short {
        lane.arg("--short");
    }
    if let Some(only) = &args.only {
        lane.args(["--only", only]);
    }
    let status = lane.status().with_context(|| format!("cannot start `{}`", run::shown(&lane)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
