//! `cargo xtask down`: `corten down` of what `cargo xtask up` built.

use std::process::ExitCode;

use anyhow::Result;

use crate::{build, up};

/// Stops what `up` started and removes every trace of it.
///
/// Everything after `down` goes to `corten down`; see `corten down --help`.
#[derive(clap::Args)]
pub struct Args {
    /// Arguments of `corten down`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    rest: Vec<String>,
}

pub fn task(args: &Args) -> Result<ExitCode> {
    build::ensure_built()?;
    up::corten("down", &args.rest)
}
