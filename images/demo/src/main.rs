//! The demo image's only program: an HTTP server and a client that talks to it. Standard library, and signals from
//! `corten-sys`: PID 1 of a container never sees a SIGTERM that it does not handle.
#![forbid(unsafe_code)]

mod args;
mod client;
mod serve;

use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    let command = match args::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("corten-demo: {problem}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    let run = match command {
        Command::Help => {
            println!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Command::Version => {
            println!("corten-demo {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Command::Serve { port } => until_signal(|| serve::start(port)),
        Command::Client { url, interval } => until_signal(|| {
            client::start(url, interval);
            Ok(())
        }),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("corten-demo: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the work on threads of its own, which inherit the blocked signals, and ends with the first SIGTERM or SIGINT.
fn until_signal(start: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    let failed = |errno| format!("wait for signals: {}", corten_sys::errno::describe(errno));
    let signals = corten_sys::signal::signalfd(&[SIGTERM, SIGINT]).map_err(failed)?;
    start()?;
    let mut waiting = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut waiting, None) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
    }
}
