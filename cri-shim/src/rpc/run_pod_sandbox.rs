//! RunPodSandbox: name and record first, then the network namespace, then at the same time the network (CNI ADD) and
//! the pod's processes (monitor, cgroup, pause). A failure is undone whole; what cannot be undone stays listed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_cri_api::v1;
use corten_monitor::protocol::{Handler, Shm, StartSandbox};
use corten_sys::ns;
use serde_json::{Map, Value, json};

use crate::cni::{self, Attachment, PodNetwork};
use crate::container::gather::{cgroup_parent, hostname, shm};
use crate::daemon::{Daemon, blocking, now_ns};
use crate::error::Error;
use crate::files::{private_dir, write_record};
use crate::monitor::{Events, Monitor};
use crate::oci_spec::namespaces::{check_pod, has_own_network, of_pod};
use crate::oci_spec::pause::{self, PauseInput};
use crate::oci_spec::security::check_selinux;
use crate::sandbox::record::{SandboxName, SandboxRecord, VERSION};
use crate::sandbox::state::{Event, Phase};
use crate::sandbox::{etc, teardown, watch};
use crate::store::Sandbox;
use crate::{id, sandbox};

pub async fn run_pod_sandbox(
    daemon: Arc<Daemon>,
    request: v1::RunPodSandboxRequest,
) -> Result<v1::RunPodSandboxResponse, Error> {
    let plan = Plan::new(&daemon, request)?;
    let (jobs, job) = (Arc::clone(&daemon.jobs), job_name(&plan.name));
    let pod_sandbox_id = jobs.run(job, move || make(daemon, plan)).await?;
    Ok(v1::RunPodSandboxResponse { pod_sandbox_id })
}

/// The name of the work that makes a sandbox.
pub fn job_name(name: &SandboxName) -> String {
    format!("sandbox {}", name.0)
}

/// A request that was found sound.
struct Plan {
    name: SandboxName,
    config: v1::PodSandboxConfig,
    runtime_handler: String,
    handler: Handler,
}

impl Plan {
    /// Everything that can be refused is refused here, before anything exists.
    fn new(daemon: &Daemon, request: v1::RunPodSandboxRequest) -> Result<Self, Error> {
        let config = request.config.ok_or_else(|| Error::argument("config", "it is missing"))?;
        let metadata =
            config.metadata.as_ref().ok_or_else(|| Error::argument("config.metadata", "it is missing"))?;
        if metadata.name.is_empty() || metadata.namespace.is_empty() || metadata.uid.is_empty() {
            return Err(Error::argument("config.metadata", "name, namespace and uid are needed"));
        }
        let name = SandboxName::new(metadata);
        let handler = daemon.handler(&request.runtime_handler)?;
        let options = of_pod(&config);
        check_pod(&options)?;
        if let Some(security) = config.linux.as_ref().and_then(|l| l.security_context.as_ref()) {
            check_selinux(security.selinux_options.as_ref(), &daemon.host)?;
        }
        for (name, value) in config.linux.as_ref().map(|l| &l.sysctls).into_iter().flatten() {
            pause::check_sysctl(name, value, &options)?;
        }
        if let Some(dns) = &config.dns_config {
            etc::resolv_conf(dns)?;
        }
        if config.hostname.len() > 64 || config.hostname.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            return Err(Error::argument(
                "config.hostname",
                "at most 64 characters without blanks are needed",
            ));
        }
        check_cgroup_parent(&cgroup_parent(daemon, &config))?;
        port_mappings(&config)?;
        Ok(Self { name, config, runtime_handler: request.runtime_handler, handler })
    }
}

fn check_cgroup_parent(parent: &str) -> Result<(), Error> {
    let wrong = |why: &str| Err(Error::argument("linux.cgroup_parent", format!("{parent:?}: {why}")));
    if !parent.starts_with('/') {
        return wrong(
            "an absolute path is needed; a systemd slice needs the systemd driver, this is cgroupfs",
        );
    }
    if parent.split('/').any(|part| part == ".." || part == ".") || parent.contains('\0') {
        return wrong("a path without . and .. is needed");
    }
    Ok(())
}

async fn make(daemon: Arc<Daemon>, plan: Plan) -> Result<String, Error> {
    let sandbox = reserve(&daemon, &plan)?;
    let _operation = sandbox.operation.write().await;
    match build(&daemon, &sandbox, &plan).await {
        Ok((monitor, events)) => {
            watch::start(&daemon, &sandbox, monitor, events);
            Ok(sandbox.id.clone())
        }
        Err(error) => Err(undo(&daemon, &sandbox, error).await),
    }
}

/// Name, directories, record: from here on a restart knows of it.
fn reserve(daemon: &Daemon, plan: &Plan) -> Result<Arc<Sandbox>, Error> {
    let id = id::new().map_err(|source| Error::System { tried: "make an id".into(), source })?;
    daemon.store.reserve_sandbox(&plan.name, &id)?;
    let record = SandboxRecord {
        version: VERSION,
        id: id.clone(),
        boot_id: daemon.boot_id.clone(),
        config: plan.config.clone(),
        runtime_handler: plan.runtime_handler.clone(),
        created_at_ns: now_ns(),
        phase: Phase::Creating,
        netns: has_own_network(&plan.config).then(|| daemon.netns(&id)),
        ips: Vec::new(),
        reason: None,
        pause_pid: None,
    };
    let dir = daemon.sandbox_dir(&id);
    let written = dir.create().and_then(|()| record.write(&dir));
    if let Err(error) = written {
        let _ = dir.remove();
        daemon.store.release_sandbox(&plan.name);
        return Err(error.into());
    }
    let sandbox = Arc::new(Sandbox::new(record, dir, daemon.state_dir(&id)));
    daemon.store.add_sandbox(Arc::clone(&sandbox));
    Ok(sandbox)
}

async fn build(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    plan: &Plan,
) -> Result<(Monitor, Events), Error> {
    let name = hostname(&plan.config);
    etc::write(&sandbox.dir, &plan.config, &name)?;
    let netns = sandbox.record().netns;
    if let Some(path) = netns.clone() {
        let shown = path.display().to_string();
        let made = blocking(move || new_network(&path)).await;
        made.map_err(|errno| Error::system(format!("make network namespace {shown}"), errno))?;
    }
    // Both to their end: whatever either made must be there to be undone.
    let (ips, processes) = tokio::join!(
        network(daemon, sandbox, &plan.config, netns.clone()),
        processes(daemon, sandbox, plan, netns, &name)
    );
    let (ips, (monitor, events, pause_pid)) = match (ips, processes) {
        (Ok(ips), Ok(processes)) => (ips, processes),
        (Err(error), processes) => {
            keep_monitor(sandbox, processes);
            return Err(error);
        }
        (Ok(_), Err(error)) => return Err(error),
    };
    let recorded = sandbox.update(|r| {
        r.ips = ips;
        r.pause_pid = Some(pause_pid);
        r.phase = sandbox::state::step(r.phase, Event::Created).unwrap_or(r.phase);
    });
    if let Err(error) = recorded {
        sandbox.set_monitor(Some(monitor));
        return Err(error.into());
    }
    Ok((monitor, events))
}

/// With `lo` up, however the plugins are configured (containerd #10244); an exec of a plugin is not needed for that.
fn new_network(path: &Path) -> corten_sys::Result<()> {
    ns::pin_new_network(path)?;
    ns::in_network(ns::open(path, ns::Kind::Network)?, corten_sys::net::loopback_up)?
}

/// The undo ends the monitor that did start.
fn keep_monitor(sandbox: &Sandbox, processes: Result<(Monitor, Events, i32), Error>) {
    if let Ok((monitor, ..)) = processes {
        sandbox.set_monitor(Some(monitor));
    }
}

async fn network(
    daemon: &Daemon,
    sandbox: &Sandbox,
    config: &v1::PodSandboxConfig,
    netns: Option<PathBuf>,
) -> Result<Vec<String>, Error> {
    let Some(netns) = netns else { return Ok(Vec::new()) };
    let network = cni::load(&daemon.cni.conf_dir).map_err(cni::CniError::from)?;
    let metadata = config.metadata.clone().unwrap_or_default();
    let pod = PodNetwork {
        sandbox_id: sandbox.id.clone(),
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        netns,
        capabilities: capabilities(config)?,
    };
    let mut attachment = Attachment::new(pod, network);
    Ok(cni::add(&daemon.cni, &mut attachment, &sandbox.dir.cni()).await?)
}

/// Capability arguments, by the names that containerd uses.
fn capabilities(config: &v1::PodSandboxConfig) -> Result<Map<String, Value>, Error> {
    let mut all = Map::new();
    let ports = port_mappings(config)?;
    if !ports.is_empty() {
        all.insert("portMappings".into(), json!(ports));
    }
    if let Some(dns) = &config.dns_config {
        let value = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
        all.insert("dns".into(), value);
    }
    if let Some(linux) = config.linux.as_ref().filter(|l| !l.cgroup_parent.is_empty()) {
        all.insert("cgroupPath".into(), json!(linux.cgroup_parent));
    }
    all.insert("io.kubernetes.cri.pod-annotations".into(), json!(config.annotations));
    Ok(all)
}

/// Those with a host port; a kubelet lists the others too.
fn port_mappings(config: &v1::PodSandboxConfig) -> Result<Vec<Value>, Error> {
    let port = |field: &'static str, number: i32| match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Error::argument(field, format!("{number} is not a port"))),
    };
    let mut all = Vec::new();
    for mapping in config.port_mappings.iter().filter(|m| m.host_port > 0) {
        let protocol = mapping.protocol().as_str_name().to_lowercase();
        let host_port = port("port_mappings[].host_port", mapping.host_port)?;
        let container_port = port("port_mappings[].container_port", mapping.container_port)?;
        if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::argument(
                "port_mappings[].host_ip",
                format!("{:?} is no address", mapping.host_ip),
            ));
        }
        all.push(json!({"hostPort": host_port, "containerPort": container_port, "protocol": protocol, "hostIP": mapping.host_ip}));
    }
    Ok(all)
}

async fn processes(
    daemon: &Daemon,
    sandbox: &Sandbox,
    plan: &Plan,
    netns: Option<PathBuf>,
    name: &str,
) -> Result<(Monitor, Events, i32), Error> {
    let spec = pause::build(&PauseInput {
        id: &sandbox.id,
        config: &plan.config,
        netns: netns.as_deref(),
        rootfs: &daemon.pause_rootfs(),
        cgroup_parent: &cgroup_parent(daemon, &plan.config),
        hostname: name,
        unprivileged_ports: daemon.config.sandbox.unprivileged_ports,
    })?;
    let bundle = sandbox.bundle(&sandbox.id);
    private_dir(&bundle)?;
    write_record(&bundle.join("config.json"), &spec)?;
    let oci_root = daemon.oci_root();
    let (monitor, events) = Monitor::spawn(&daemon.monitor_spec(&sandbox.id, &sandbox.state_dir, &oci_root))?;
    let own_ipc = of_pod(&plan.config).ipc() != v1::NamespaceMode::Node;
    let size_bytes = daemon.config.sandbox.shm_size_bytes;
    let request = StartSandbox {
        id: sandbox.id.clone(),
        bundle,
        shm: own_ipc.then(|| Shm { path: shm(&sandbox.state_dir), size_bytes }),
        handler: plan.handler.clone(),
    };
    match monitor.start_sandbox(request).await {
        Ok((pid, _)) => Ok((monitor, events, pid)),
        Err(error) => {
            sandbox.set_monitor(Some(monitor));
            Err(error.into())
        }
    }
}

/// Gives everything back. What resists stays listed as not ready, and is tried again until it is gone.
async fn undo(daemon: &Daemon, sandbox: &Arc<Sandbox>, error: Error) -> Error {
    let undone = async {
        sandbox.happened(Event::Fail, Some(error.to_string()))?;
        teardown::sandbox(daemon, sandbox).await?;
        Ok(sandbox.dir.remove()?)
    };
    match undone.await {
        Ok(()) => {
            daemon.store.remove_sandbox(sandbox);
            error
        }
        Err(second) => Error::Undo(Box::new(error), Box::new(second)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_mappings_are_passed_as_cni_names_them() {
        let mapping = |host_port, container_port| v1::PortMapping {
            protocol: v1::Protocol::Udp.into(),
            host_port,
            container_port,
            host_ip: "127.0.0.1".into(),
        };
        let with =
            |list: Vec<v1::PortMapping>| v1::PodSandboxConfig { port_mappings: list, ..Default::default() };
        let found = capabilities(&with(vec![mapping(8080, 80), mapping(0, 81)])).unwrap();
        let expected = json!([{"hostPort":8080,"containerPort":80,"protocol":"udp","hostIP":"127.0.0.1"}]);
        assert_eq!(found["portMappings"], expected);
        assert!(capabilities(&with(vec![mapping(70_000, 80)])).is_err());
    }

    #[test]
    fn cgroup_parents() {
        for (parent, fine) in
            [("/kubepods/x", true), ("kubepods.slice", false), ("/a/../b", false), ("", false)]
        {
            assert_eq!(check_cgroup_parent(parent).is_ok(), fine, "{parent}");
        }
    }
}
