//! Command line of the kubelet: parses, runs, turns the result into an exit code.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use corten_kubelet::config::Config;
use corten_kubelet::cri::socket_path;
use corten_kubelet::dns::ClusterDns;
use corten_kubelet::kubelet::Kubelet;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Runs the Pods of a directory of manifests on a container runtime, without an API server.
///
/// Put a v1 Pod (YAML or JSON, one a file) into the manifest directory and it runs; edit the file and the pod is
/// replaced; remove it and the pod is stopped, with its grace period, and all of it removed. A field that is not
/// supported is refused by name, never ignored: see GET /manifests.
///
/// Stopping the kubelet (SIGTERM) leaves all pods running; the next one takes them over.
///
/// What it knows is told on the unix socket STATE/kubelet.sock (HTTP): /pods /manifests /events?follow /healthz, as in
/// `curl --unix-socket STATE/kubelet.sock http://kubelet/pods`.
#[derive(Parser)]
#[command(version, name = "corten-kubelet")]
struct Arguments {
    /// Directory of Pod manifests; made when missing
    #[arg(long, value_name = "DIR", default_value = "/etc/corten/manifests")]
    manifests: PathBuf,
    /// CRI v1 socket of the runtime
    #[arg(long, value_name = "unix://PATH", default_value = "unix:///run/corten/cri.sock")]
    runtime_endpoint: String,
    /// CRI v1 socket of the image service, when it is another one
    #[arg(long, value_name = "unix://PATH")]
    image_endpoint: Option<String>,
    /// Volumes and files of pods: DIR/pods/UID
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    root_dir: PathBuf,
    /// Container logs: DIR/NAMESPACE_POD_UID/CONTAINER/N.log
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    log_dir: PathBuf,
    /// Socket and lock of this kubelet
    #[arg(long, value_name = "DIR", default_value = "/run/corten/kubelet")]
    state: PathBuf,
    /// Name of this node; pods are called POD-NODE. The host name unless given
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// cgroup below which kubepods is made
    #[arg(long, value_name = "PATH", default_value = "/")]
    cgroup_root: String,
    /// Address of a cluster DNS server (repeat or separate by commas); without one, pods use the node's DNS
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    cluster_dns: Vec<std::net::IpAddr>,
    /// Domain of the cluster, for search paths and full host names
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// The node's resolv.conf
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter such as corten_kubelet=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
}

impl Arguments {
    fn config(self) -> anyhow::Result<Config> {
        let runtime_socket = socket_path(&self.runtime_endpoint).context("--runtime-endpoint")?;
        let image_socket = match &self.image_endpoint {
            Some(endpoint) => socket_path(endpoint).context("--image-endpoint")?,
            None => runtime_socket.clone(),
        };
        let node_name = match self.node_name {
            Some(name) => name,
            None => rustix::system::uname().nodename().to_str().context("host name")?.to_lowercase(),
        };
        Ok(Config {
            manifests: std::path::absolute(self.manifests)?,
            runtime_socket,
            image_socket,
            root_dir: std::path::absolute(self.root_dir)?,
            log_dir: std::path::absolute(self.log_dir)?,
            state_dir: std::path::absolute(self.state)?,
            node_name,
            cgroup_root: self.cgroup_root,
            cluster_dns: ClusterDns {
                servers: self.cluster_dns.iter().map(ToString::to_string).collect(),
                domain: self.cluster_domain.clone(),
            },
            cluster_domain: self.cluster_domain,
            resolv_conf: self.resolv_conf,
            hosts_file: "/etc/hosts".into(),
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corten-kubelet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    let filter: Targets = arguments.log_level.parse().context("--log-level")?;
    let log = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if arguments.log_format == "json" {
        log.with(lines.json()).init();
    } else {
        log.with(lines.with_ansi(false)).init();
    }
    let config = arguments.config()?;
    // Pods wait for the runtime, not for this process: two threads serve any number of them.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        Kubelet::new(config)?.run(stop).await?;
        Ok(())
    })
}
