//! Stock kube-apiserver on Debian's etcd, with those stock controllers that a lane wants.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use super::{ControlPlane, Process, free_port, wait_ready};
use crate::artifacts::{Missing, stock, tool};
use crate::wait::until_true;

/// Which of kube-controller-manager's controllers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controllers {
    None,
    /// Those that every API server of ours has in itself.
    Essential,
}

const ESSENTIAL: &str = "--controllers=namespace-controller,serviceaccount-controller,\
root-ca-certificate-publisher-controller,garbage-collector-controller,clusterrole-aggregation-controller";

/// Ends its parts in reverse order of their start.
pub struct Stock {
    controllers: Option<Process>,
    server: Process,
    etcd: Process,
    url: String,
    dir: PathBuf,
}

impl Stock {
    /// `more` are further flags of the API server. Ready when this returns.
    pub fn start(dir: &Path, controllers: Controllers, more: &[&str]) -> Result<Self> {
        let kubectl = found(stock("kubectl"))?;
        let (mut started, _) = Self::without_controllers(dir, more)?;
        wait_ready(&kubectl, &started.kubeconfig(), &mut started.server)?;
        started.add(controllers)?;
        Ok(started)
    }

    /// Not waited for; when the API server was started, behind etcd.
    pub fn started(dir: &Path, controllers: Controllers) -> Result<(Self, Instant)> {
        let (mut started, when) = Self::without_controllers(dir, &[])?;
        started.add(controllers)?;
        Ok((started, when))
    }

    fn without_controllers(dir: &Path, more: &[&str]) -> Result<(Self, Instant)> {
        let (etcd, apiserver) = (found(tool("etcd"))?, found(stock("kube-apiserver"))?);
        fs::create_dir_all(dir)?;
        let file = |name: &str| dir.join(name).display().to_string();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let etcd = Process::start(
            dir,
            &etcd,
            &[
                format!("--data-dir={}", file("etcd")),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
            ],
        )?;
        let key = Command::new("openssl").args(["genrsa", "-out", &file("sa.key"), "2048"]).output();
        ensure!(key.context("openssl: cannot start")?.status.success(), "openssl cannot make a key");
        fs::write(
            dir.join("tokens.csv"),
            "admin,kubernetes-admin,1,\"system:masters,kubeadm:cluster-admins\"\n",
        )?;
        let mut args = vec![
            format!("--etcd-servers={client}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", file("pki")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", file("sa.key")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
        ];
        args.extend(more.iter().map(|&flag| flag.to_owned()));
        let when = Instant::now();
        let server = Process::start(dir, &apiserver, &args)?;
        let url = format!("https://127.0.0.1:{port}");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": file("pki/apiserver.crt")}}],
            "users": [{"name": "u", "user": {"token": "admin"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(dir.join("admin.conf"), kubeconfig.to_string())?;
        Ok((Self { controllers: None, server, etcd, url, dir: dir.to_owned() }, when))
    }

    fn add(&mut self, controllers: Controllers) -> Result<()> {
        if controllers == Controllers::None {
            return Ok(());
        }
        let manager = found(stock("kube-controller-manager"))?;
        let file = |name: &str| self.dir.join(name).display().to_string();
        // It reads the server's certificate, which the server makes.
        until_true("the server has its certificate", || self.dir.join("pki/apiserver.crt").is_file());
        let flags = [
            format!("--kubeconfig={}", file("admin.conf")),
            format!("--service-account-private-key-file={}", file("sa.key")),
            format!("--root-ca-file={}", file("pki/apiserver.crt")),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            ESSENTIAL.to_owned(),
        ];
        self.controllers = Some(Process::start(&self.dir, &manager, &flags)?);
        Ok(())
    }
}

fn found(found: Result<PathBuf, Missing>) -> Result<PathBuf> {
    found.map_err(|missing| anyhow!("{missing}"))
}

impl ControlPlane for Stock {
    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.conf")
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn pids(&self) -> Vec<u32> {
        let controllers = self.controllers.as_ref().map(Process::pid);
        [self.etcd.pid(), self.server.pid()].into_iter().chain(controllers).collect()
    }

    fn dir(&self) -> &Path {
        &self.dir
    }
}
