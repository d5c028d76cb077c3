//! The measuring part of `cargo xtask bench net`: two nodes a contender, all on one machine at once, taking turns.
//! Prints the samples as JSON. What is printed for people is xtask's.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use corten_test_vm::cluster::sealed;
use corten_test_vm::measure::{self, Options};

/// Measures the ways between pods and prints samples as JSON.
#[derive(Parser)]
struct Args {
    /// Turns of every case
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Milliseconds of request and response in each turn
    #[arg(long, default_value_t = 500)]
    millis: u64,
    /// Seconds of iperf3 in each turn; 0 leaves it out
    #[arg(long, default_value_t = 1)]
    stream_seconds: u64,
    /// Leave out corten-netd: the kernel's paths alone
    #[arg(long)]
    without_netd: bool,
}

fn main() -> ExitCode {
    sealed::run(|| {
        let args = Args::parse();
        let options = Options {
            rounds: args.rounds,
            millis: args.millis,
            stream_seconds: args.stream_seconds,
            netd: !args.without_netd,
        };
        println!("{}", serde_json::to_string(&measure::all(&options)?)?);
        Ok(ExitCode::SUCCESS)
    })
}
