//! `corten man`.

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;

/// Print the manual page
///
/// Read it with: corten man | man -l -
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<ExitCode> {
    let mut out = std::io::stdout();
    let mut command = crate::cli::Cli::command();
    // Gives subcommands their full names, `corten-up`.
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut out)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        clap_mangen::Man::new(sub.clone()).render(&mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}
