//! `corten completions`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

/// Print the completion script of a shell
///
/// For bash: corten completions bash > /etc/bash_completion.d/corten
#[derive(clap::Args)]
pub struct Args {
    /// Whose script
    shell: Shell,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    // The generator panics when its output is closed early, as by `| head`.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::Cli::command(), "corten", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
