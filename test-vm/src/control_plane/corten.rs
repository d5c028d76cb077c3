//! corten-apiserver.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::{ControlPlane, Process, free_port, wait_ready};
use crate::artifacts::{program, stock};

/// Where it keeps its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    Embedded,
    Memory,
}

/// Our server; started with nothing but directories and a port.
pub struct Corten {
    server: Process,
    url: String,
    dir: PathBuf,
    program: PathBuf,
    args: Vec<String>,
}

impl Corten {
    /// With its own controllers; `more` are further flags. Ready when this returns.
    pub fn start(dir: &Path, storage: Storage, more: &[&str]) -> Result<Self> {
        let mut started = Self::started(dir, storage, more)?;
        started.wait()?;
        Ok(started)
    }

    /// The same, not waited for.
    pub fn started(dir: &Path, storage: Storage, more: &[&str]) -> Result<Self> {
        let program = program("corten-apiserver").map_err(|missing| anyhow!("{missing}"))?;
        std::fs::create_dir_all(dir)?;
        let port = free_port();
        let mut args = vec![
            format!("--data-dir={}", dir.join("data").display()),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
        ];
        if storage == Storage::Memory {
            args.push("--storage=memory".to_owned());
        }
        args.extend(more.iter().map(|&flag| flag.to_owned()));
        let server = Process::start(dir, &program, &args)?;
        let url = format!("https://127.0.0.1:{port}");
        Ok(Self { server, url, dir: dir.to_owned(), program, args })
    }

    /// Kills it (SIGKILL) and starts it anew on what it had.
    pub fn restart_after_kill(&mut self) -> Result<()> {
        self.server.kill();
        self.server = Process::start(&self.dir, &self.program, &self.args)?;
        self.wait()
    }

    /// Ends it by SIGTERM and starts it anew.
    pub fn restart(&mut self) -> Result<()> {
        self.server.end();
        self.server = Process::start(&self.dir, &self.program, &self.args)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        let kubectl = stock("kubectl").map_err(|missing| anyhow!("{missing}"))?;
        let kubeconfig = self.kubeconfig();
        wait_ready(&kubectl, &kubeconfig, &mut self.server).map_err(|error| {
            error.context(format!("see {}", self.dir.join("corten-apiserver.log").display()))
        })
    }
}

impl ControlPlane for Corten {
    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("data/admin.conf")
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.server.pid()]
    }

    fn dir(&self) -> &Path {
        &self.dir
    }
}
