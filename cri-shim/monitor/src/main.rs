//! `corten-monitor`: `serve` holds one pod, `sweep` cleans up after a monitor that died, `pause` is the pause process.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use corten_monitor::serve::{Options, serve};
use corten_monitor::{pause, sweep};
use corten_sys::{Context as _, seal};

const USAGE: &str = "usage:
  corten-monitor serve --sandbox ID --dir DIR --oci-root DIR [--netns-dir DIR]
  corten-monitor sweep --dir DIR
  corten-monitor pause
  corten-monitor --version
";

fn main() -> ExitCode {
    if pause::is_called(std::env::args_os()) {
        return code(pause::run());
    }
    // The runtime is called in this process, whose executable a container must not get at (CVE-2019-5736).
    if let Err(failure) = seal::ensure().tried(|| "run from a sealed copy of the executable".to_owned()) {
        return code(Err(failure));
    }
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|word| word.to_str()) {
        Some("serve") => match Flags::parse(arguments).and_then(Flags::serve) {
            Some(options) => code(serve(&options, inherited())),
            None => usage(),
        },
        Some("sweep") => match Flags::parse(arguments).and_then(Flags::sweep) {
            Some(dir) => code(sweep::sweep(&dir)),
            None => usage(),
        },
        Some("--version") => {
            let _ = writeln!(std::io::stdout(), "corten-monitor {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

/// The daemon's connection, in place of which /dev/null becomes stdin.
fn inherited() -> Option<OwnedFd> {
    let stdin = std::io::stdin();
    rustix::net::sockopt::socket_type(&stdin).ok()?;
    let socket = rustix::io::fcntl_dupfd_cloexec(stdin.as_fd(), 3).ok()?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null").ok()?).ok()?;
    Some(socket)
}

fn code<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "corten-monitor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    let _ = std::io::stderr().write_all(USAGE.as_bytes());
    ExitCode::from(2)
}

#[derive(Default)]
struct Flags {
    sandbox: Option<String>,
    dir: Option<PathBuf>,
    oci_root: Option<PathBuf>,
    netns_dir: Option<PathBuf>,
}

impl Flags {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut flags = Self::default();
        while let Some(name) = arguments.next() {
            let value = arguments.next()?;
            match name.to_str()? {
                "--sandbox" => flags.sandbox = Some(value.into_string().ok()?),
                "--dir" => flags.dir = Some(value.into()),
                "--oci-root" => flags.oci_root = Some(value.into()),
                "--netns-dir" => flags.netns_dir = Some(value.into()),
                _ => return None,
            }
        }
        Some(flags)
    }

    fn serve(self) -> Option<Options> {
        let Self { sandbox, dir, oci_root, netns_dir } = self;
        Some(Options { sandbox: sandbox?, dir: dir?, oci_root: oci_root?, netns_dir })
    }

    fn sweep(self) -> Option<PathBuf> {
        let Self { sandbox, dir, oci_root, netns_dir } = self;
        if sandbox.is_none() && oci_root.is_none() && netns_dir.is_none() { dir } else { None }
    }
}
