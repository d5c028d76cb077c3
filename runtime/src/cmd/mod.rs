//! The commands, one a file: arguments, the call, the printed shape. Here: global options, dispatch, exit codes.

mod create;
mod delete;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod resume;
mod run;
mod spec;
mod start;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use corten_runtime::Runtime;
use lexopt::ValueExt;
use lexopt::prelude::{Long, Short, Value};

use crate::log::{Format, Log};
use crate::options::Arguments;

const USAGE: &str = "\
corten-oci - OCI runtime, with runc's command line

USAGE:
   corten-oci [global options] command [command options] [arguments...]

COMMANDS:
   create    create a container
   delete    delete any resources held by the container
   exec      execute a new process inside the container
   features  show the enabled features
   kill      send a signal to the container's init process
   list      list containers started with the given root
   pause     suspend all processes inside the container
   ps        list the processes running inside the container
   resume    resume all processes that have been paused
   run       create and run a container
   spec      create a new specification file
   start     execute the user defined process in a created container
   state     output the state of a container

GLOBAL OPTIONS:
   --debug             log more
   --log FILE          append the log to FILE (default: standard error)
   --log-format FORMAT text or json (default: text)
   --root DIR          directory for the state of containers (default: /run/corten/oci)
   --rootless VALUE    false, or auto for root; nothing else is supported
   --systemd-cgroup    refused: the systemd driver is not supported, use cgroupfs
   --help, -h
   --version, -v
";

/// What a command works with.
pub struct Context {
    pub runtime: Runtime,
    pub log: Log,
}

/// How a command ends when it does not fail.
type Answer = anyhow::Result<u8>;

struct Global {
    root: PathBuf,
    log: Option<PathBuf>,
    format: Format,
}

enum Invocation {
    Command(Global, String, lexopt::Parser),
    Help,
    Version,
}

pub fn run() -> ExitCode {
    let invocation = match parse(lexopt::Parser::from_env()) {
        Ok(invocation) => invocation,
        Err(error) => return usage_error(&error),
    };
    let (global, name, parser) = match invocation {
        Invocation::Command(global, name, parser) => (global, name, parser),
        Invocation::Help => return print(USAGE),
        Invocation::Version => return print(&version()),
    };
    let log = match Log::open(global.log.as_ref(), global.format) {
        Ok(log) => log,
        Err(error) => return usage_error(&error),
    };
    let context = Context { runtime: Runtime::new(global.root), log };
    match dispatch(&name, parser, &context) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let message = format!("{error:#}");
            context.log.error(&message);
            if context.log.is_file() {
                eprintln!("corten-oci: {message}");
            }
            // runc's: exec fails with 255, so that it is told from what the process answered.
            ExitCode::from(if name == "exec" { 255 } else { 1 })
        }
    }
}

fn dispatch(name: &str, parser: lexopt::Parser, context: &Context) -> Answer {
    if matches!(name, "create" | "run" | "exec") {
        seal()?;
    }
    match name {
        "create" => create::run(Arguments::new(parser, usize::MAX), context),
        "delete" => delete::run(Arguments::new(parser, usize::MAX), context),
        "exec" => exec::run(Arguments::new(parser, 2), context),
        "features" => features::run(),
        "kill" => kill::run(Arguments::new(parser, usize::MAX), context),
        "list" => list::run(Arguments::new(parser, usize::MAX), context),
        "pause" => pause::run(Arguments::new(parser, usize::MAX), context),
        "ps" => ps::run(Arguments::new(parser, 2), context),
        "resume" => resume::run(Arguments::new(parser, usize::MAX), context),
        "run" => run::run(Arguments::new(parser, usize::MAX), context),
        "spec" => spec::run(Arguments::new(parser, usize::MAX)),
        "start" => start::run(Arguments::new(parser, usize::MAX), context),
        "state" => state::run(Arguments::new(parser, usize::MAX), context),
        _ => bail!("unknown command {name:?}: see corten-oci --help"),
    }
}

/// Containers must not get at the executable on the host (CVE-2019-5736).
fn seal() -> anyhow::Result<()> {
    use corten_sys::Context as _;
    Ok(corten_sys::seal::ensure().tried(|| "run from a sealed copy of the executable".to_owned())?)
}

fn parse(mut parser: lexopt::Parser) -> anyhow::Result<Invocation> {
    let mut global = Global { root: "/run/corten/oci".into(), log: None, format: Format::Text };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("root") => global.root = parser.value()?.into(),
            Long("log") => {
                global.log = Some(PathBuf::from(parser.value()?)).filter(|path| !path.as_os_str().is_empty());
            }
            Long("log-format") => global.format = parser.value()?.string()?.parse()?,
            Long("debug") => drop(parser.optional_value()),
            Long("rootless") => rootless(&parser.value()?.string()?)?,
            Long("systemd-cgroup") => systemd(parser.optional_value())?,
            Long("help") | Short('h') => return Ok(Invocation::Help),
            Long("version") | Short('v') => return Ok(Invocation::Version),
            Value(name) if name == "help" => return Ok(Invocation::Help),
            Value(name) => return Ok(Invocation::Command(global, name.string()?, parser)),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Invocation::Help)
}

fn rootless(value: &str) -> anyhow::Result<()> {
    match value {
        "false" | "auto" => Ok(()),
        _ => bail!("--rootless={value} is not supported: run as root"),
    }
}

fn systemd(value: Option<std::ffi::OsString>) -> anyhow::Result<()> {
    match value {
        Some(value) if value == "false" => Ok(()),
        _ => bail!("--systemd-cgroup is not supported: use the cgroupfs driver"),
    }
}

fn usage_error(error: &anyhow::Error) -> ExitCode {
    eprintln!("corten-oci: {error:#}");
    ExitCode::from(1)
}

fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// runc's shape: callers read the first word of each line.
fn version() -> String {
    format!("corten-oci version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), corten_runtime::SPEC_VERSION)
}

/// Prints to standard output; a reader that has gone away is no error.
pub fn output(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
