//! A process on a node that runs beside the lane and ends with its value.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

pub struct Running {
    child: Child,
    what: String,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Starts it with its input and output in the lane's hands; what it says on standard error goes to `log` or the
    /// lane's own.
    pub fn start(command: &mut Command, what: &str, log: Option<File>) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(log) = log {
            command.stderr(log);
        }
        let mut child = command.spawn().with_context(|| format!("start {what}"))?;
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("asked for a pipe"));
        Ok(Self { child, what: what.into(), stdin, lines })
    }

    /// The next line it prints.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).with_context(|| format!("read from {}", self.what))?;
        if line.is_empty() {
            let status = self.child.wait()?;
            bail!("{} ended ({status})", self.what);
        }
        Ok(line.trim_end().to_string())
    }

    /// Ends its standard input: programs of the lane take that as the sign to finish.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended by itself, and how.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        self.child.try_wait().with_context(|| format!("look at {}", self.what))
    }

    /// SIGKILL, and waits.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.what))?;
        self.child.wait().with_context(|| format!("wait for {}", self.what)).map(drop)
    }

    /// SIGTERM, and waits.
    pub fn terminate(&mut self) -> Result<std::process::ExitStatus> {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
            .with_context(|| format!("end {}", self.what))?;
        self.child.wait().with_context(|| format!("wait for {}", self.what))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
