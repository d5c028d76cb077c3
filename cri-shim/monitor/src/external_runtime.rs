//! Another OCI runtime, driven by runc's command line (runc, crun, kata, runsc take it).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as Std};
use std::time::Duration;

use corten_sys::{pidfd, pty};
use oci_spec::runtime::Process;
use serde::Deserialize;

use crate::oci::{Made, Stdio, kind_of};
use crate::protocol::{Failure, FailureKind, TerminalSize};
use crate::socket;

/// A runtime that takes longer is killed: meanwhile the monitor reads no log.
const PATIENCE: Duration = Duration::from_mins(1);
/// How much of a runtime's log is read for its error.
const MAX_LOG_BYTES: u64 = 64 * 1024;

#[derive(Debug)]
pub struct External {
    program: PathBuf,
    root: PathBuf,
    /// For files that last as long as one command; commands run one after the other.
    scratch: PathBuf,
}

impl External {
    pub fn new(program: &Path, root: &Path, scratch: &Path) -> Self {
        Self { program: program.to_owned(), root: root.to_owned(), scratch: scratch.to_owned() }
    }

    pub fn create(&self, id: &str, bundle: &Path, stdio: Stdio) -> Result<Made, Failure> {
        let mut command = self.command();
        command.arg("create").arg("--bundle").arg(bundle);
        self.make(command, id, stdio)
    }

    pub fn start(&self, id: &str) -> Result<(), Failure> {
        self.plain(&["start", id])
    }

    pub fn exec(&self, id: &str, process: &Process, stdio: Stdio) -> Result<Made, Failure> {
        let spec = self.scratch.join("process.json");
        let json = serde_json::to_vec(process).map_err(|error| failed("encode the process spec", &error))?;
        fs::write(&spec, json).map_err(|error| failed(&format!("write {}", spec.display()), &error))?;
        let mut command = self.command();
        command.args(["exec", "--detach", "--process"]).arg(&spec);
        let made = self.make(command, id, stdio);
        let _ = fs::remove_file(&spec);
        made
    }

    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Failure> {
        let signal = signal.to_string();
        if all { self.plain(&["kill", "--all", id, &signal]) } else { self.plain(&["kill", id, &signal]) }
    }

    /// `delete --force` of a container that is not there succeeds, by runc's word.
    pub fn delete(&self, id: &str) -> Result<(), Failure> {
        self.plain(&["delete", "--force", id])
    }

    fn log(&self) -> PathBuf {
        self.scratch.join("runtime.log")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--log").arg(self.log()).args(["--log-format", "json"]);
        command
    }

    fn plain(&self, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = self.command();
        command.args(arguments).stdin(Std::null()).stdout(Std::null()).stderr(Std::null());
        self.run(command)
    }

    /// `create` and `exec` differ in nothing but their first arguments.
    fn make(&self, mut command: Command, id: &str, stdio: Stdio) -> Result<Made, Failure> {
        let pid_file = self.scratch.join("runtime.pid");
        command.arg("--pid-file").arg(&pid_file);
        let console = match stdio {
            Stdio::Files { stdin, stdout, stderr } => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
            Stdio::Tty(size) => {
                let console = Console::listen(self.scratch.join("console.sock"), size)?;
                command.arg("--console-socket").arg(&console.path);
                command.stdin(Std::null()).stdout(Std::null()).stderr(Std::null());
                Some(console)
            }
        };
        command.arg(id);
        self.run(command)?;
        let read = fs::read_to_string(&pid_file);
        let _ = fs::remove_file(&pid_file);
        let text = read.map_err(|error| failed(&format!("read {}", pid_file.display()), &error))?;
        let pid =
            text.trim().parse().map_err(|error| failed("read the pid a runtime has written", &error))?;
        Ok(Made { pid, master: console.map(|console| console.master()).transpose()? })
    }

    /// Runs a command to its end. The error is what it logged.
    fn run(&self, mut command: Command) -> Result<(), Failure> {
        let program = self.program.display();
        let _ = fs::remove_file(self.log());
        let mut child = command.spawn().map_err(|error| failed(&format!("start {program}"), &error))?;
        // The command holds the container's ends of the pipes.
        drop(command);
        let ended = wait(&mut child).map_err(|error| failed(&format!("wait for {program}"), &error))?;
        let message = last_error(&self.log());
        let _ = fs::remove_file(self.log());
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(refused(message.unwrap_or_else(|| format!("{program}: {status}")))),
            None => Err(refused(format!("{program}: killed after {} s", PATIENCE.as_secs()))),
        }
    }
}

/// None when it had to be killed.
fn wait(child: &mut Child) -> io::Result<Option<std::process::ExitStatus>> {
    let handle = pidfd::open(child.id() as i32)?;
    let in_time = pidfd::wait_exit(&handle, Some(PATIENCE))?;
    if !in_time {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(in_time.then_some(status))
}

#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

fn last_error(log: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(log).ok()?.take(MAX_LOG_BYTES).read_to_string(&mut text).ok()?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<LogLine>(line).ok());
    lines.filter(|line| line.level == "error" || line.level == "fatal").map(|line| line.msg).next_back()
}

fn failed(tried: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Runtime, message: format!("{tried}: {error}") }
}

fn refused(message: String) -> Failure {
    Failure { kind: kind_of(&message), message }
}

/// Where a runtime sends the master of a PTY.
struct Console {
    path: PathBuf,
    listener: OwnedFd,
    size: Option<TerminalSize>,
}

impl Console {
    fn listen(path: PathBuf, size: Option<TerminalSize>) -> Result<Self, Failure> {
        let listener = socket::listen_stream(&path)
            .map_err(|error| failed(&format!("listen on {}", path.display()), &error))?;
        Ok(Self { path, listener, size })
    }

    fn master(&self) -> Result<OwnedFd, Failure> {
        let master = socket::accept_descriptor(&self.listener)
            .map_err(|error| failed("receive the console of a container", &error))?;
        if let Some(size) = self.size {
            pty::set_size(master.as_fd(), size.rows, size.columns)
                .map_err(|errno| failed("set the size of a terminal", &corten_sys::errno::describe(errno)))?;
        }
        Ok(master)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_found_between_other_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(last_error(&log), None);
        fs::write(
            &log,
            "not json\n{\"level\":\"warning\",\"msg\":\"a\"}\n{\"level\":\"error\",\"msg\":\"b\"}\n",
        )
        .unwrap();
        assert_eq!(last_error(&log).as_deref(), Some("b"));
    }
}
