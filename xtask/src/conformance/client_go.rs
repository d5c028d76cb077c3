//! `conformance client-go`: a program of ours with client-go's informers (test-vm/tools/client-go).

use std::process::ExitCode;

use anyhow::Result;

use super::lane::{Programs, ended};
use crate::tools;

/// An informer of client-go, all settings as they come (protobuf, WatchList), in a storm of writes.
///
/// It must be told every change exactly once and in order, while the server is restarted by SIGTERM and SIGKILL; informers
/// that begin late must agree with it in the end.
#[derive(clap::Args)]
pub struct Args {
    /// Objects that are changed at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    writers: u32,
    /// Changes of each object
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    changes: u32,
    /// Restarts of the server meanwhile
    #[arg(long, value_name = "COUNT", default_value_t = 6)]
    restarts: u32,
    #[command(flatten)]
    programs: Programs,
}

pub fn conformance(args: &Args) -> Result<ExitCode> {
    let mut lane = args.programs.lane("with-server", &["kubectl"])?;
    lane.args(["--restarts", &args.restarts.to_string(), "--every", "1", "--"]).arg(tools::storm()?);
    lane.args(["-writers", &args.writers.to_string(), "-changes", &args.changes.to_string()]);
    ended(&mut lane)
}
