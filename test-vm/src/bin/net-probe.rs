//! The one program that lanes and benches run inside nodes and pods.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use corten_test_vm::probe::{bulk, enter, rounds, serve, who};

/// Answers, asks, counts round trips and moves bytes in a network namespace.
#[derive(Parser)]
enum Probe {
    /// Run a program inside namespaces and a cgroup
    Enter(enter::Enter),
    /// Answer on addresses
    Serve(serve::Serve),
    /// Ask who answers
    Who(who::Who),
    /// Count requests and responses
    Rounds(rounds::Rounds),
    /// Move bytes until standard input ends, and check every one
    Bulk(bulk::Bulk),
}

fn main() -> ExitCode {
    match probe() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn probe() -> Result<()> {
    match Probe::parse() {
        Probe::Enter(args) => enter::enter(&args),
        Probe::Serve(args) => serve::serve(&args),
        Probe::Who(args) => who::who(&args),
        Probe::Rounds(args) => rounds::rounds(&args),
        Probe::Bulk(args) => bulk::bulk(&args),
    }
}
