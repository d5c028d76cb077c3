//! Runs a program against a corten-apiserver of its own: the lanes `client-go`, `kube-rs` and `helm` of
//! `cargo xtask conformance`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use corten_test_vm::artifacts;
use corten_test_vm::control_plane::{ControlPlane, Controllers, Corten, Stock, Storage};

/// Starts a server, runs the program with KUBECONFIG set, ends both; exits as the program does.
#[derive(Parser)]
struct Args {
    /// The stock kube-apiserver instead of ours
    #[arg(long, conflicts_with = "restarts")]
    stock: bool,
    /// Restart the server so often while the program runs, by SIGTERM and by SIGKILL in turn
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    restarts: u32,
    /// Time from one restart to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    every: u64,
    /// End the program after so long
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    limit: u64,
    /// Keep the server's directory (log, store) here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let temporary = tempfile::Builder::new().prefix("corten-server-").tempdir()?;
    let dir = args.keep.as_deref().unwrap_or(temporary.path());
    let status = if args.stock {
        let server = Stock::start(dir, Controllers::Essential, &[])?;
        run(&args, &server)?.wait(&args, |_| Ok(()))?
    } else {
        let mut server = Corten::start(dir, Storage::Embedded, &[])?;
        let program = run(&args, &server)?;
        program.wait(&args, |number| {
            println!("restart {} of {}", number + 1, args.restarts);
            if number % 2 == 0 { server.restart() } else { server.restart_after_kill() }
        })?
    };
    Ok(u8::try_from(status.code().unwrap_or(1)).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Ended with its value.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(args: &Args, server: &dyn ControlPlane) -> Result<Program> {
    let client = artifacts::stock("kubectl").map_err(|missing| anyhow!("{missing}"))?;
    let bin = client.parent().context("kubectl is in a directory")?.display();
    let (program, rest) = args.command.split_first().context("a program")?;
    let mut command = Command::new(program);
    command.args(rest).env("KUBECONFIG", server.kubeconfig()).env("CORTEN_TEST_SERVER", server.url());
    command.env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap_or_default()));
    Ok(Program(command.spawn().with_context(|| format!("cannot start {program}"))?))
}

impl Program {
    /// Until it ends; `restart` is called with its number.
    fn wait(mut self, args: &Args, mut restart: impl FnMut(u32) -> Result<()>) -> Result<ExitStatus> {
        let (start, every) = (Instant::now(), Duration::from_secs(args.every));
        let mut restarted = 0;
        let mut last = start;
        loop {
            if let Some(status) = self.0.try_wait()? {
                if restarted < args.restarts {
                    bail!("the program ended after {restarted} of {} restarts: {status}", args.restarts);
                }
                return Ok(status);
            }
            if start.elapsed() > Duration::from_secs(args.limit) {
                bail!("the program takes more than {} s", args.limit);
            }
            if restarted < args.restarts && last.elapsed() > every {
                restart(restarted)?;
                (restarted, last) = (restarted + 1, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
