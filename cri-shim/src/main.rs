//! corten-cri: parse, call, exit.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use corten_cri::config::{Config, DEFAULT_TOML, LogConfig, LogFormat};
use corten_cri::serve::serve;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// The CRI daemon of Corten: runs pods for a kubelet (or crictl).
///
/// Point a kubelet at it with --container-runtime-endpoint=unix:///run/corten/cri.sock. Stopping or killing it does
/// not stop pods: start it again and it knows them all. Errors say what was tried and what to do.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file. Without: /etc/corten/config.toml if it is there, else the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Durable data: images, pod records [default: /var/lib/corten]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Volatile state: monitors, network namespaces [default: /run/corten]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The CRI socket [default: cri.sock in the state directory]
    #[arg(long, value_name = "PATH")]
    listen: Option<PathBuf>,
    /// error, warn, info, debug or trace, or a filter such as info,corten_cri::cni=debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines are written
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Subcommand)]
enum Command {
    /// Show the configuration
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print every key with its default and what it does, as a file to start from
    Default,
}

const AFTER_HELP: &str = "Examples:
  corten-cri
  corten-cri --root /tmp/a/root --state /tmp/a/state --log-level debug
  corten-cri config default > /etc/corten/config.toml
  crictl --runtime-endpoint unix:///run/corten/cri.sock pods";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corten-cri: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.command.is_some() {
        print!("{DEFAULT_TOML}");
        return Ok(());
    }
    let mut config = Config::load(arguments.config.as_deref())?;
    // A socket named in the file belongs to the state directory of the file.
    if arguments.state.is_some() && arguments.listen.is_none() {
        config.socket = None;
    }
    let Arguments { root, state, listen, log_level, log_format, .. } = arguments;
    config.root = root.unwrap_or(config.root);
    config.state = state.unwrap_or(config.state);
    config.socket = listen.or(config.socket);
    config.log.level = log_level.unwrap_or(config.log.level);
    config.log.format = log_format.unwrap_or(config.log.format);
    start_logging(&config.log)?;
    // Calls wait for monitors and plugins far more than they compute.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            tracing::info!("stopping; pods go on");
        };
        anyhow::Ok(serve(config, stop).await?)
    });
    // Calls that are still under way end with the process; what they did is recorded.
    runtime.shutdown_background();
    served
}

fn start_logging(log: &LogConfig) -> anyhow::Result<()> {
    let filter: Targets = log.level.parse().with_context(|| format!("log level {:?}", log.level))?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match log.format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
        LogFormat::Text => registry.with(lines.with_ansi(false)).init(),
    }
    Ok(())
}
