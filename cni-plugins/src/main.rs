//! `corten-cni`: parses, calls, turns the result into an exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    corten_cni::command::run(std::env::args_os())
}
