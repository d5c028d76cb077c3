//! Command line of the network daemon: parses, runs, turns the result into an exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use corten_netd::options::{Cli, Command, Output, Run, arguments};
use corten_netd::{conflist, daemon, http};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

fn main() -> ExitCode {
    let line = arguments(std::env::args_os().skip(1).collect(), |name| std::env::var_os(name));
    let outcome = match Cli::parse_from(line).command {
        Command::Run(run) => start(*run),
        Command::Status(args) => ask(&args.state.state_dir, "/status", args.output),
        Command::Drops(args) => ask(&args.state.state_dir, "/drops", args.output),
        Command::Conflist(args) => {
            print!("{}", conflist::text(&args.subnet_file, &args.bridge));
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corten-netd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(run: Run) -> Result<()> {
    let options = run.options()?;
    let filter: Targets = options.log_filter.parse().context("--log-level")?;
    let log = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match options.log_format {
        Output::Json => log.with(lines.json()).init(),
        Output::Text => log.with(lines.with_ansi(false)).init(),
    }
    // It waits nearly always; a pass of the overlay or of Services holds its thread while it reads the kernel, and the third
    // is there that neither keeps /healthz from answering.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        daemon::run(options, stop).await
    });
    runtime.shutdown_background();
    outcome
}

fn ask(state_dir: &std::path::Path, path: &str, output: Output) -> Result<()> {
    let path = if output == Output::Json { format!("{path}?json") } else { path.to_owned() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(http::ask(state_dir, &path, &mut std::io::stdout().lock()));
    match asked {
        // `corten-netd drops | head` ends as it should.
        Err(http::AskError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
