//! The lane of `cargo xtask conformance kubectl`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use corten_test_vm::artifacts;
use corten_test_vm::control_plane::{ControlPlane, Controllers, Corten, Stock, Storage};
use corten_test_vm::kubectl::{self, User};

/// Runs the script of kubectl commands against corten-apiserver and a stock kube-apiserver and compares.
#[derive(Parser)]
struct Args {
    /// Only sections of the script whose title contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    /// Keep the servers' directories (logs, stores) here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Compare the stock server with another of its kind: what differs then, the lane takes for a difference wrongly
    #[arg(long)]
    stock_twice: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/kubectl");
    let read = |name: &str| std::fs::read_to_string(files.join(name)).context(name.to_owned());
    let mut steps = kubectl::steps(&read("script.txt")?);
    steps.retain(|step| step.section.contains(&args.only));
    let mut explanations = kubectl::explanations(&read("explained.txt")?)?;
    explanations.retain(|one| steps.iter().any(|step| one.of.is_match(&step.line)));
    let temporary = tempfile::Builder::new().prefix("corten-kubectl-").tempdir()?;
    let dir = args.keep.as_deref().unwrap_or(temporary.path());
    let client = artifacts::stock("kubectl").map_err(|missing| anyhow!("{missing}"))?;
    let stock = Stock::start(&dir.join("stock"), Controllers::Essential, &[])?;
    let ours: Box<dyn ControlPlane> = if args.stock_twice {
        explanations.clear();
        Box::new(Stock::start(&dir.join("second"), Controllers::Essential, &[])?)
    } else {
        Box::new(Corten::start(&dir.join("corten"), Storage::Embedded, &[])?)
    };
    let report = kubectl::compare(
        &User::of(&*ours, &client, &files)?,
        &User::of(&stock, &client, &files)?,
        &steps,
        &explanations,
    )?;
    println!("{report}");
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
