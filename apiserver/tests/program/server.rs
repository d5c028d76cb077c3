//! A server of the shipped program, on a directory and a port of its own.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_corten-apiserver");
const LIMIT: Duration = Duration::from_mins(1);

pub struct Server {
    pub child: Child,
    pub data: PathBuf,
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

impl Server {
    /// Starts it and waits until it answers.
    pub async fn start(data: &Path, arguments: &[&str]) -> Self {
        Self::on(data, free_port(), arguments).await
    }

    pub async fn on(data: &Path, port: u16, arguments: &[&str]) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(data.join("log"));
        let child = Command::new(PROGRAM)
            .args(["--bind-address=127.0.0.1", "--advertise-address=192.0.2.10"])
            .arg(format!("--secure-port={port}"))
            .arg(format!("--data-dir={}", data.join("d").display()))
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("the program starts");
        let mut server = Self { child, data: data.join("d"), port };
        let until = Instant::now() + LIMIT;
        while !server.is_ready().await {
            assert!(server.child.try_wait().expect("a child").is_none(), "it ended: {}", log_of(data));
            assert!(Instant::now() < until, "it does not get ready: {}", log_of(data));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    pub async fn is_ready(&self) -> bool {
        if !self.data.join("super-admin.conf").exists() {
            return false;
        }
        let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
        match self.try_client().await {
            Some(client) => client.request_text(request).await.is_ok_and(|text| text == "ok"),
            None => false,
        }
    }

    async fn try_client(&self) -> Option<Client> {
        let file = Kubeconfig::read_from(self.data.join("super-admin.conf")).ok()?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.ok()?;
        Client::try_from(config).ok()
    }

    /// Of somebody who may do everything.
    pub async fn client(&self) -> Client {
        self.try_client().await.expect("a client")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a signal is sent");
    }

    /// Waits for its end; its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub fn log_of(data: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = std::fs::File::open(data.join("log")) {
        file.read_to_string(&mut text).ok();
    }
    text
}

/// Runs the program to its end: whether it succeeded, and what it said.
pub fn run(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Asks again until it is so.
pub async fn until<F>(what: &str, is: impl Fn() -> F)
where
    F: Future<Output = bool>,
{
    let end = Instant::now() + LIMIT;
    while !is().await {
        assert!(Instant::now() < end, "it does not come about: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
