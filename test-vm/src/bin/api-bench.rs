//! The measuring part of `cargo xtask bench api`: corten-apiserver and a stock kube-apiserver with etcd, both at once,
//! taking turns. Prints the samples as JSON. What is printed for people is xtask's.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use corten_test_vm::api_measure::{self, Options};

/// Measures two API servers and prints samples as JSON.
#[derive(Parser)]
struct Args {
    /// Turns of each request
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Pods of the largest list
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Watchers of the largest fan-out
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let options = Options { rounds: args.rounds, pods: args.pods, watchers: args.watchers };
    println!("{}", serde_json::to_string(&api_measure::all(&options).await?)?);
    Ok(())
}
