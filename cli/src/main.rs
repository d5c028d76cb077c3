//! `corten`: a Kubernetes node by one command. Parses, calls, exits; every command is a file in `cmd/`.
#![forbid(unsafe_code)]

mod cli;
mod cmd;
mod config;
mod cri;
mod daemon;
mod doctor;
mod instance;
mod kubelet;
mod logfile;
mod manifest;
mod network;
mod pick;
mod programs;
mod screen;
mod sweep;
mod table;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corten: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The reader of our output had enough (`corten logs web | head`): no failure of ours.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
