//! `cargo xtask bench`: Corten beside its peers, in one run, interleaved. One file per bench.
//!
//! A figure means something only beside another of the same run on the same machine, so every bench takes turns
//! between its cases, and what it prints first are ratios.

mod api;
mod cni;
mod measured;
mod net;
mod oci;
mod pod;
mod report;
mod sample;
mod size;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

pub use report::{Report, Unit};
pub use sample::{Case, Pace, interleave};

/// Measures Corten beside its peers, interleaved in one run.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    bench: Bench,
    /// How to print the figures
    #[arg(short, long, global = true, default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Subcommand)]
enum Bench {
    Api(api::Args),
    Cni(cni::Args),
    Net(net::Args),
    Oci(oci::Args),
    Pod(pod::Args),
    Size(size::Args),
}

pub fn task(args: &Args) -> Result<ExitCode> {
    let report = match &args.bench {
        Bench::Api(args) => api::bench(args)?,
        Bench::Cni(args) => cni::bench(args)?,
        Bench::Net(args) => net::bench(args)?,
        Bench::Oci(args) => oci::bench(args)?,
        Bench::Pod(args) => pod::bench(args)?,
        Bench::Size(args) => size::bench(args)?,
    };
    match args.output {
        Format::Table => print!("{}", report.table()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(ExitCode::SUCCESS)
}
