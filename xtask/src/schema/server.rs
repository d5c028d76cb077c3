//! A stock kube-apiserver to ask, with Debian's etcd behind it when it is started here.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{run, tools};

pub struct Server {
    url: String,
    token: String,
}

impl Server {
    pub fn at(url: &str, token: &str) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), token: token.to_owned() }
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        self.get_as(path, "application/json")
    }

    pub fn get_as(&self, path: &str, accept: &str) -> Result<Value> {
        let text = self.text(path, accept)?;
        serde_json::from_str(&text).with_context(|| format!("the answer to GET {path} is no JSON"))
    }

    fn text(&self, path: &str, accept: &str) -> Result<String> {
        // Its certificate is its own: it is one that we started, or one whose address was given to us.
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--insecure", "--max-time", "30", "-H"])
            .arg(format!("Accept: {accept}"))
            .arg("-H")
            .arg(format!("Authorization: Bearer {}", self.token))
            .arg(format!("{}{path}", self.url));
        run::output(&mut curl)
    }
}

/// Ends what it started when it is dropped.
pub struct Started {
    server: Server,
    children: Vec<Child>,
    dir: PathBuf,
}

impl Started {
    pub fn start() -> Result<Self> {
        let program = tools::kubernetes("kube-apiserver")?;
        let dir = std::env::temp_dir().join(format!("corten-schema-record-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (etcd, peer, port) = (free_port()?, free_port()?, free_port()?);
        let url = |port| format!("http://127.0.0.1:{port}");
        let server = Server::at(&format!("https://127.0.0.1:{port}"), "recorder");
        let mut started = Self { server, children: Vec::new(), dir };
        let path = |name: &str| started.dir.join(name);
        fs::write(path("tokens.csv"), "recorder,recorder,recorder,\"system:masters\"\n")
            .context("cannot write the file of tokens")?;
        run::output(Command::new("openssl").args(["genrsa", "-out"]).arg(path("sa.key")))?;
        let mut store = Command::new("etcd");
        store
            .args(["--name", "facts", "--data-dir"])
            .arg(path("etcd"))
            .args(["--listen-client-urls", &url(etcd), "--advertise-client-urls", &url(etcd)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("facts={}", url(peer))]);
        let mut api = Command::new(program);
        api.args([
            "--etcd-servers",
            &url(etcd),
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
        ])
        .arg(format!("--secure-port={port}"))
        .arg(format!("--cert-dir={}", path("cert").display()))
        .arg(format!("--token-auth-file={}", path("tokens.csv").display()))
        .arg(format!("--service-account-key-file={}", path("sa.key").display()))
        .arg(format!("--service-account-signing-key-file={}", path("sa.key").display()))
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=Node,RBAC"])
        .arg("--service-cluster-ip-range=10.96.0.0/16");
        started.spawn(&mut store)?;
        started.spawn(&mut api)?;
        started.wait()?;
        Ok(started)
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    fn spawn(&mut self, command: &mut Command) -> Result<()> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.children.push(child.with_context(|| format!("cannot start `{}`", run::shown(command)))?);
        Ok(())
    }

    /// Ready includes that the default roles are there.
    fn wait(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            if self.server.text("/readyz", "*/*").is_ok_and(|text| text == "ok") {
                return Ok(());
            }
            if let Some(status) = self.children.iter_mut().find_map(|child| child.try_wait().ok().flatten()) {
                bail!("etcd or kube-apiserver ended: {status}");
            }
            if Instant::now() > end {
                bail!("kube-apiserver is not ready after 90 s");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr().context("a listener has an address")?.port())
}
