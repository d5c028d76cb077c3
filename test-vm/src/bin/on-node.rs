//! Runs a program on a private node and ends the node with it: the part of `cargo xtask conformance` that needs
//! namespaces. Suites that know nothing of Corten get `{socket}` in their arguments replaced by the CRI socket.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Parser, ValueEnum};
use corten_test_vm::artifacts;
use corten_test_vm::containerd::Containerd;
use corten_test_vm::node::Node;
use corten_test_vm::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};

/// Where the test images pretend to come from.
const HOSTS: [&str; 4] = ["registry.k8s.io", "k8s.gcr.io", "gcr.io", "docker.io"];

/// Starts a node with a registry of test images, runs a program on it, sweeps the node.
#[derive(Parser)]
struct Args {
    /// Run this daemon instead of corten-cri
    #[arg(long)]
    peer: Option<Peer>,
    /// Seconds after which the program is killed
    #[arg(long, default_value_t = 1800)]
    limit: u64,
    /// Keep here what the daemon logged
    #[arg(long, value_name = "FILE")]
    daemon_log: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Peer {
    Containerd,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut node = Node::new().map_err(|missing| anyhow!("{missing}"))?;
    let storage = artifacts::registry_storage().map_err(|missing| anyhow!("{missing}"))?;
    let registry =
        Registry::start(&storage, &node.dir().join("registry")).map_err(|missing| anyhow!("{missing}"))?;
    node.mirror(&HOSTS, &registry.address);
    let peer = match args.peer {
        Some(Peer::Containerd) => Some(Containerd::start(&node).map_err(|missing| anyhow!("{missing}"))?),
        None => None,
    };
    let (name, socket) = if let Some(peer) = &peer {
        (peer.version.clone(), peer.socket.clone())
    } else {
        node.start_cri();
        ("corten-cri".into(), node.socket())
    };
    eprintln!("{name} listens on {}", socket.display());
    let socket = socket.display().to_string();
    let command: Vec<String> = args.command.iter().map(|arg| arg.replace("{socket}", &socket)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(&command, Duration::from_secs(args.limit)));
    if let Some(file) = &args.daemon_log {
        let log = match &peer {
            Some(_) => fs::read(node.dir().join("containerd/log")).unwrap_or_default(),
            None => node.cri_log_text().into_bytes(),
        };
        fs::write(file, log).with_context(|| format!("cannot write {}", file.display()))?;
    }
    // The peer before the registry, and the node with all that is left.
    drop(peer);
    drop((registry, node));
    outcome
}

/// Runs the program until it ends, the time is over or somebody asks to stop; the node is swept in every case.
async fn run(command: &[String], limit: Duration) -> Result<ExitCode> {
    let (program, args) = command.split_first().context("no program is named")?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    tokio::select! {
        status = child.wait() => {
            let code = status.with_context(|| format!("cannot wait for {program}"))?.code();
            Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
        }
        () = tokio::time::sleep(limit) => bail!("{program} did not end in {} s", limit.as_secs()),
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}
