//! `corten-oci`: runc's command line over the runtime library.
#![forbid(unsafe_code)]

mod cmd;
mod foreground;
mod log;
mod options;

use std::process::ExitCode;

fn main() -> ExitCode {
    cmd::run()
}
