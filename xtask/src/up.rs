//! `cargo xtask up`: build, then `corten up` with what was built.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::project::release_dir;
use crate::{build, run};

/// Builds everything and runs a pod: the hello example, or the manifests given with -f.
///
/// Everything after `up` goes to `corten up`; see `corten up --help`.
#[derive(clap::Args)]
pub struct Args {
    /// Arguments of `corten up`, such as -f pod.yaml
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    rest: Vec<String>,
}

pub fn task(args: &Args) -> Result<ExitCode> {
    build::release()?;
    corten("up", &args.rest)
}

/// Runs the built `corten` on the user's terminal; its exit code becomes ours.
pub fn corten(command: &str, rest: &[String]) -> Result<ExitCode> {
    let mut corten = Command::new(release_dir().join("corten"));
    corten.arg(command).args(rest);
    let status = corten.status().with_context(|| format!("cannot start `{}`", run::shown(&corten)))?;
    Ok(ExitCode::from(status.code().map_or(1, |code| code as u8)))
}
