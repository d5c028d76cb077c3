//! The lane of `cargo xtask conformance nodes`, sealed off from the machine.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use corten_test_vm::cluster::sealed;
use corten_test_vm::lane::{self, Extent};

/// Three nodes made of namespaces, and everything that passes between them.
#[derive(Parser)]
struct Args {
    /// Fewer repetitions, and not the rows that another shows nearly as well
    #[arg(long)]
    short: bool,
    /// Only groups whose name contains this, such as `vxlan` or `host-gw, fast path on`
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
}

fn main() -> ExitCode {
    sealed::run(|| {
        let args = Args::parse();
        let board = lane::run(if args.short { Extent::SHORT } else { Extent::WHOLE }, &args.only)?;
        println!("{board}");
        Ok(if board.failed.is_empty() && board.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
