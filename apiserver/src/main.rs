//! Command line of the API server: parses, runs, turns the result into an exit code.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use corten_apiserver::options::{Cli, Command, Format, Run, Snapshot, sources};
use corten_apiserver::{export, kubeconfig, server, snapshot};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

fn main() -> ExitCode {
    let typed = std::env::args_os().skip(1).collect();
    let line = match sources::line(typed, |name| std::env::var_os(name)) {
        Ok(line) => line,
        Err(error) => return failed(&error.into()),
    };
    let outcome = match Cli::parse_from(line).command {
        Command::Run(run) => start(*run),
        Command::Snapshot(Snapshot::Save(args)) => {
            waiting().and_then(|here| here.block_on(snapshot::save(&args)))
        }
        Command::Snapshot(Snapshot::Restore(args)) => {
            waiting().and_then(|here| here.block_on(snapshot::restore(&args)))
        }
        Command::Export(args) => waiting().and_then(|here| here.block_on(export::run(&args))),
        Command::Kubeconfig(args) => kubeconfig::text(&args).and_then(|text| print(text.as_bytes())),
        Command::Version(args) => print(version(args.output).as_bytes()),
        Command::Completions(args) => {
            // The generator panics when its output is closed early, as by `| head`.
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "corten-apiserver", &mut script);
            print(&script)
        }
        Command::Man => manual().and_then(|page| print(&page)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("corten-apiserver: {error:#}");
    ExitCode::FAILURE
}

fn start(run: Run) -> Result<()> {
    let options = run.options()?;
    let filter: Targets = options.log_filter.parse().context("--log-level")?;
    let log = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match options.log_format {
        Format::Json => log.with(lines.json()).init(),
        Format::Text => log.with(lines.with_ansi(false)).init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        server::run(options, stop).await
    });
    runtime.shutdown_background();
    outcome
}

fn waiting() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn print(bytes: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn version(format: Format) -> String {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    match format {
        Format::Text => format!("corten-apiserver {VERSION} (Kubernetes API 1.36)\n"),
        Format::Json => format!("{{\"version\":\"{VERSION}\",\"kubernetes\":\"1.36\"}}\n"),
    }
}

fn manual() -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    // Gives subcommands their full names, `corten-apiserver-run`.
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        clap_mangen::Man::new(sub.clone()).render(&mut page)?;
    }
    Ok(page)
}
