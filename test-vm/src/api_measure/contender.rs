//! One of the two servers, a client, and what its processes use.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::control_plane::{ControlPlane, Controllers, Corten, Stock, Storage};

pub struct Contender {
    server: Box<dyn ControlPlane + Send + Sync>,
    pub client: kube::Client,
}

impl Contender {
    /// Also the time from its start to its first `/readyz`, in microseconds.
    pub async fn corten(dir: &Path) -> Result<(Self, f64)> {
        let start = Instant::now();
        let server = Corten::started(dir, Storage::Embedded, &[])?;
        Self::ready(Box::new(server), start).await
    }

    /// The same of the stock server; etcd's start is not counted.
    pub async fn stock(dir: &Path) -> Result<(Self, f64)> {
        let (server, start) = Stock::started(dir, Controllers::Essential)?;
        Self::ready(Box::new(server), start).await
    }

    async fn ready(server: Box<dyn ControlPlane + Send + Sync>, start: Instant) -> Result<(Self, f64)> {
        let deadline = start + Duration::from_mins(1);
        loop {
            if let Ok(client) = client(&server.kubeconfig()).await {
                let contender = Self { server, client };
                while contender.text(Method::GET, "/readyz", "").await.is_err() {
                    ensure!(Instant::now() < deadline, "not ready within a minute");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                return Ok((contender, start.elapsed().as_secs_f64() * 1e6));
            }
            if Instant::now() > deadline {
                bail!("no kubeconfig within a minute: see {}", server.dir().display());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Of a connection of its own.
    pub async fn another_client(&self) -> Result<kube::Client> {
        client(&self.server.kubeconfig()).await
    }

    pub async fn send(
        client: &kube::Client,
        method: Method,
        path: &str,
        body: &str,
    ) -> Result<Response<Body>> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(Body::from(body.as_bytes().to_vec()))?;
        let response = client.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        bail!("{path}: {status}: {}", String::from_utf8_lossy(&text));
    }

    /// An answer, whole.
    pub async fn text(&self, method: Method, path: &str, body: &str) -> Result<bytes::Bytes> {
        let response = Self::send(&self.client, method, path, body).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }

    /// Of all its processes, in bytes.
    pub fn pss(&self) -> Result<f64> {
        let mut all = 0.0;
        for pid in self.server.pids() {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = text.lines().find(|line| line.starts_with("Pss:")).context("Pss")?;
            let kilobytes: f64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
            all += kilobytes * 1024.0;
        }
        Ok(all)
    }

    /// CPU time of all its processes so far, in microseconds.
    pub fn cpu(&self) -> Result<f64> {
        let mut ticks = 0.0;
        for pid in self.server.pids() {
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let (_, rest) = text.rsplit_once(')').context("a name in brackets")?;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            ticks += fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        }
        Ok(ticks * 10_000.0)
    }
}

async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.read_timeout = None;
    Ok(kube::Client::try_from(config)?)
}
