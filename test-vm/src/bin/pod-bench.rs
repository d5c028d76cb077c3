//! The measuring part of `cargo xtask bench pod`: drives corten-cri and containerd by gRPC, in turn, each on a private
//! node, and prints the samples as JSON. What is printed for people, and what a percentile is, is xtask's.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use corten_cri_api::v1;
use corten_test_vm::artifacts::{self, Missing};
use corten_test_vm::containerd::Containerd;
use corten_test_vm::cri::Cri;
use corten_test_vm::node::Node;
use corten_test_vm::registry::Registry;
use serde::Serialize;

const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
const PAUSE: &str = "registry.k8s.io/pause:3.9";
/// Ends at once on SIGTERM, as a well-behaved program does.
const COMMAND: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"];
/// Pods that run while memory is measured.
const PODS: usize = 10;

/// Measures the life of a pod through CRI and prints samples as JSON.
#[derive(Parser)]
struct Args {
    /// Pods per daemon that are timed
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Milliseconds between operations
    #[arg(long, default_value_t = 40)]
    gap_ms: u64,
}

/// The operations of one pod, in the order in which they happen.
const OPERATIONS: [&str; 6] = [
    "RunPodSandbox",
    "Create+StartContainer",
    "ExecSync true",
    "StopContainer",
    "StopPodSandbox",
    "Remove both",
];

/// A daemon under measurement, alive until the sender of `end` is dropped.
struct Contender {
    name: String,
    socket: PathBuf,
    pid: u32,
    /// Name of the node's cgroup and its directory: what processes of pods are known by.
    cgroup: String,
    dir: PathBuf,
    end: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Contender {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Serialize)]
struct Output {
    rows: Vec<Row>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    what: String,
    /// `micros` or `bytes`.
    unit: &'static str,
    samples: Vec<Samples>,
}

#[derive(Serialize)]
struct Samples {
    name: String,
    values: Vec<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut notes = Vec::new();
    let mut contenders = vec![start(false).map_err(|missing| anyhow!("{missing}"))?];
    match start(true) {
        Ok(containerd) => contenders.push(containerd),
        Err(missing) => notes.push(format!("containerd is not measured: {missing}")),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(measure(&contenders, &args))?;
    println!("{}", serde_json::to_string(&Output { rows, notes })?);
    Ok(())
}

/// Starts a daemon on a node of its own: the thread that made the node stays in its namespaces until the end.
fn start(peer: bool) -> Result<Contender, Missing> {
    let (ready, started) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let begin = || -> Result<_, Missing> {
            let mut node = Node::new()?;
            let registry = Registry::start(&artifacts::registry_storage()?, &node.dir().join("registry"))?;
            node.mirror(&["registry.k8s.io"], &registry.address);
            let containerd = if peer { Some(Containerd::start(&node)?) } else { None };
            if !peer {
                node.start_cri();
            }
            Ok((node, registry, containerd))
        };
        let (node, registry, containerd) = match begin() {
            Ok(stack) => stack,
            Err(missing) => return ready.send(Err(missing)).expect("the main thread waits"),
        };
        let (name, socket, pid) = match &containerd {
            Some(containerd) => (containerd.version.clone(), containerd.socket.clone(), containerd.pid()),
            None => ("corten-cri".into(), node.socket(), node.cri_pid().expect("it was started")),
        };
        let facts = (name, socket, pid, node.cgroup.clone(), node.dir().to_path_buf());
        ready.send(Ok(facts)).expect("the main thread waits");
        let _ = ended.recv();
        // The daemon first, then the registry, and the node with all that is left.
        drop(containerd);
        drop((registry, node));
    });
    let (name, socket, pid, cgroup, dir) =
        started.recv().map_err(|_| Missing("its node could not be made".into()))??;
    Ok(Contender { name, socket, pid, cgroup, dir, end: Some(end), thread: Some(thread) })
}

async fn measure(contenders: &[Contender], args: &Args) -> Result<Vec<Row>> {
    let mut clients = Vec::new();
    for contender in contenders {
        let mut cri = Cri::connect(&contender.socket).await?;
        for image in [IMAGE, PAUSE] {
            let image = Some(v1::ImageSpec { image: image.into(), ..Default::default() });
            let request = v1::PullImageRequest { image, ..Default::default() };
            cri.images.pull_image(request).await.with_context(|| format!("{}: pull", contender.name))?;
        }
        clients.push(cri);
    }
    let gap = Duration::from_millis(args.gap_ms);
    let warmup = 2;
    let mut times = vec![vec![Vec::new(); OPERATIONS.len()]; contenders.len()];
    for round in 0..warmup + args.rounds {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let contender = &contenders[index];
            let took = Box::pin(pod_life(&mut clients[index], contender, round, gap))
                .await
                .with_context(|| format!("{}, round {round}", contender.name))?;
            if round >= warmup {
                for (samples, took) in times[index].iter_mut().zip(took) {
                    samples.push(took.as_secs_f64() * 1e6);
                }
            }
        }
    }
    let mut rows: Vec<Row> = OPERATIONS
        .iter()
        .enumerate()
        .map(|(operation, what)| Row {
            what: (*what).into(),
            unit: "micros",
            samples: contenders
                .iter()
                .zip(&times)
                .map(|(c, t)| Samples { name: c.name.clone(), values: t[operation].clone() })
                .collect(),
        })
        .collect();
    let mut memory = Vec::new();
    for (contender, cri) in contenders.iter().zip(&mut clients) {
        memory.push(pods_memory(contender, cri).await.with_context(|| contender.name.clone())?);
    }
    let row = |what: &str, value: fn(&Memory) -> f64| Row {
        what: what.into(),
        unit: "bytes",
        samples: contenders
            .iter()
            .zip(&memory)
            .map(|(c, m)| Samples { name: c.name.clone(), values: vec![value(m)] })
            .collect(),
    };
    rows.push(row("memory a pod (PSS, no container)", |m| m.pod_bytes));
    rows.push(row("daemon with 10 pods (RSS)", |m| m.daemon_bytes));
    Ok(rows)
}

/// One pod from nothing to nothing; how long each operation took.
async fn pod_life(
    cri: &mut Cri,
    contender: &Contender,
    round: usize,
    gap: Duration,
) -> Result<[Duration; 6]> {
    let mut took = [Duration::ZERO; 6];
    let config = pod_config(&format!("bench{round}"), contender);
    let mut clock = |index: usize, since: Instant| took[index] = since.elapsed();

    tokio::time::sleep(gap).await;
    let start = Instant::now();
    let pod_sandbox_id = run_pod(cri, config.clone()).await?;
    clock(0, start);

    tokio::time::sleep(gap).await;
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: COMMAND.map(String::from).to_vec(),
            log_path: "main.log".into(),
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        sandbox_config: Some(config),
    };
    let start = Instant::now();
    let container_id =
        cri.runtime.create_container(request).await.context("CreateContainer")?.into_inner().container_id;
    let request = v1::StartContainerRequest { container_id: container_id.clone() };
    cri.runtime.start_container(request).await.context("StartContainer")?;
    clock(1, start);

    tokio::time::sleep(gap).await;
    let request =
        v1::ExecSyncRequest { container_id: container_id.clone(), cmd: vec!["true".into()], timeout: 10 };
    let start = Instant::now();
    let answer = cri.runtime.exec_sync(request).await.context("ExecSync")?.into_inner();
    clock(2, start);
    anyhow::ensure!(answer.exit_code == 0, "ExecSync true: exit code {}", answer.exit_code);

    tokio::time::sleep(gap).await;
    let request = v1::StopContainerRequest { container_id: container_id.clone(), timeout: 10 };
    let start = Instant::now();
    cri.runtime.stop_container(request).await.context("StopContainer")?;
    clock(3, start);

    tokio::time::sleep(gap).await;
    let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
    let start = Instant::now();
    cri.runtime.stop_pod_sandbox(request).await.context("StopPodSandbox")?;
    clock(4, start);

    tokio::time::sleep(gap).await;
    let start = Instant::now();
    cri.runtime
        .remove_container(v1::RemoveContainerRequest { container_id })
        .await
        .context("RemoveContainer")?;
    cri.runtime
        .remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id })
        .await
        .context("RemovePodSandbox")?;
    clock(5, start);
    Ok(took)
}

/// As a kubelet asks: own network, PID namespace per container.
fn namespaces() -> v1::NamespaceOption {
    v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() }
}

fn pod_config(name: &str, contender: &Contender) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.into(),
            uid: name.into(),
            namespace: "bench".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: contender.dir.join("logs").join(name).display().to_string(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: format!("/{}", contender.cgroup),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn run_pod(cri: &mut Cri, config: v1::PodSandboxConfig) -> Result<String> {
    let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    Ok(cri.runtime.run_pod_sandbox(request).await.context("RunPodSandbox")?.into_inner().pod_sandbox_id)
}

struct Memory {
    pod_bytes: f64,
    daemon_bytes: f64,
}

async fn pods_memory(contender: &Contender, cri: &mut Cri) -> Result<Memory> {
    let mut pods = Vec::new();
    for index in 0..PODS {
        pods.push(run_pod(cri, pod_config(&format!("memory{index}"), contender)).await?);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let pss: f64 =
        pod_processes(contender).into_iter().map(|pid| kilobytes(pid, "smaps_rollup", "Pss:") * 1024.0).sum();
    let daemon_bytes = kilobytes(contender.pid, "status", "VmRSS:") * 1024.0;
    for pod_sandbox_id in pods {
        let stop = v1::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        cri.runtime.stop_pod_sandbox(stop).await.context("StopPodSandbox")?;
        cri.runtime
            .remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id })
            .await
            .context("RemovePodSandbox")?;
    }
    #[expect(clippy::cast_precision_loss, reason = "ten pods")]
    let pod_bytes = pss / PODS as f64;
    Ok(Memory { pod_bytes, daemon_bytes })
}

/// What runs for pods: pause processes by their cgroup, monitors and shims by the directory in their command line.
fn pod_processes(contender: &Contender) -> BTreeSet<u32> {
    let read = |pid: u32, file: &str| {
        fs::read(format!("/proc/{pid}/{file}"))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    };
    let holders = ["corten-monitor", "containerd-shim"];
    let is_of_a_pod = |pid: &u32| {
        let line = read(*pid, "cmdline");
        let holds =
            holders.iter().any(|name| line.split('\0').next().is_some_and(|program| program.contains(name)));
        let member = read(*pid, "cgroup").contains(&format!("/{}", contender.cgroup));
        *pid != contender.pid && (member || holds && line.contains(&contender.dir.display().to_string()))
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_of_a_pod).collect()
}

fn kilobytes(pid: u32, file: &str, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
