//! `cargo xtask`: everything about this repository that is not `cargo build`. One file per task.
#![forbid(unsafe_code)]
// Sizes and times are printed with three figures.
#![expect(clippy::cast_precision_loss)]

mod bench;
mod build;
mod conformance;
mod down;
mod ebpf;
mod images;
mod packages;
mod project;
mod run;
mod say;
mod schema;
mod test;
mod tools;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, starts, tests and measures Corten from this source tree.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Start here:\n  cargo xtask up      build everything and run a pod\n  \
                  cargo xtask down    stop it and remove every trace\n  cargo xtask test    run all tests, installing what they need"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Up(up::Args),
    Down(down::Args),
    Test(test::Args),
    Build(build::Args),
    Packages(packages::Args),
    Bench(bench::Args),
    Conformance(conformance::Args),
    Ebpf(ebpf::Args),
    Schema(schema::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Up(args) => up::task(&args),
        Task::Down(args) => down::task(&args),
        Task::Test(args) => test::task(&args),
        Task::Build(args) => build::task(&args),
        Task::Packages(args) => packages::task(&args),
        Task::Bench(args) => bench::task(&args),
        Task::Conformance(args) => conformance::task(&args),
        Task::Ebpf(args) => ebpf::task(&args),
        Task::Schema(args) => schema::task(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
