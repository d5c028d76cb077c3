//! API servers to compare: ours, and stock Kubernetes with Debian's etcd behind it. Each has its own directory and
//! ports on loopback, and ends with its value.

mod corten;
mod stock;

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::wait::until;

pub use corten::{Corten, Storage};
pub use stock::{Controllers, Stock};

/// A server that answers.
pub trait ControlPlane {
    /// Of an administrator.
    fn kubeconfig(&self) -> PathBuf;
    /// `https://127.0.0.1:PORT`
    fn url(&self) -> &str;
    /// Of all its processes: store, server, controllers.
    fn pids(&self) -> Vec<u32>;
    /// Where its logs are.
    fn dir(&self) -> &Path;
}

/// A program of a control plane; ended with its value: politely first.
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    pub fn start(dir: &Path, program: &Path, args: &[String]) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = dir.join(format!("{name}.log"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{}", log.display()))?;
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).stdin(Stdio::null());
        command.stdout(log.try_clone().context("log")?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, name })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Fails when it has ended.
    pub fn alive(&mut self) -> Result<()> {
        if let Ok(Some(status)) = self.child.try_wait() {
            bail!("{} has ended: {status}", self.name);
        }
        Ok(())
    }

    /// SIGTERM, and SIGKILL after ten seconds.
    pub fn end(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        for _ in 0..1000 {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(std::time::Duration::from_millis(10)),
                _ => return,
            }
        }
        self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A port of loopback that nobody has now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    listener.local_addr().expect("it is bound").port()
}

/// Waits for `/readyz` to say ok, by stock kubectl.
fn wait_ready(kubectl: &Path, kubeconfig: &Path, server: &mut Process) -> Result<()> {
    let mut ended = None;
    until("the server is ready", || {
        if let Err(error) = server.alive() {
            ended = Some(error);
            return Ok(());
        }
        let mut command = Command::new(kubectl);
        command.arg("--kubeconfig").arg(kubeconfig).args(["get", "--raw", "/readyz"]);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    });
    ended.map_or(Ok(()), Err)
}
