//! The lane of `cargo xtask conformance components`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use corten_test_vm::components::{self, Plan};

/// Stock kube-controller-manager and kube-scheduler on corten-apiserver, with nodes and pods that a test keeps alive.
#[derive(Parser)]
struct Args {
    /// On the stock kube-apiserver instead: does the lane itself work?
    #[arg(long)]
    stock: bool,
    /// How long rounds of workloads are begun
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    minutes: u64,
    /// Keep directories (logs, stores) here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let temporary = tempfile::Builder::new().prefix("corten-components-").tempdir()?;
    let dir = args.keep.unwrap_or_else(|| temporary.path().to_owned());
    let plan = Plan { dir, stock: args.stock, time: Duration::from_secs(args.minutes * 60) };
    let board = components::run(plan).await?;
    println!("{board}");
    Ok(if board.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
