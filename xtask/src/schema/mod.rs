//! `cargo xtask schema record`: takes the facts of `apiserver/schema/facts` from a stock kube-apiserver and from the Go
//! modules of the same version. Facts only: names, numbers, keys, defaults; no descriptions.

mod file;
mod go;
mod resources;
mod server;
mod types;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Records what the API server's table of kinds is made from.
#[derive(Parser)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Writes apiserver/schema/facts anew; review the difference.
    Record(Record),
}

#[derive(Parser)]
struct Record {
    /// A stock kube-apiserver that runs (https://...), with `--token` of one who may read everything; without it one is
    /// built and started, with etcd, and ended.
    #[arg(long, requires = "token")]
    server: Option<String>,
    #[arg(long)]
    token: Option<String>,
}

pub fn task(args: &Args) -> Result<ExitCode> {
    let What::Record(record) = &args.what;
    let started;
    let server = if let (Some(url), Some(token)) = (&record.server, &record.token) {
        &server::Server::at(url, token)
    } else {
        started = server::Started::start()?;
        started.server()
    };
    types::record(server)?;
    resources::record(server)?;
    Ok(ExitCode::SUCCESS)
}
