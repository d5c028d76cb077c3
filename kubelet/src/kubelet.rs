//! The whole: manifests → workers. It knows which pods should be and which are; each pod is its worker's business.
//!
//! A kubelet that is stopped leaves its pods running and finds them again by their UID. What runs without a manifest
//! is terminated, but only after the manifests were read. To end pods, remove their manifests and wait until
//! `GET /pods` has none: that is what `corten down` does; there is no other way to ask.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corten_cri_api::v1 as cri;
use corten_sys::errno::{Context as _, Failure};
use k8s_openapi::api::core::v1::Pod;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{mpsc, watch};

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::cri::{Code, Cri, CriError};
use crate::events;
use crate::manifest::{Source, SourceError};
use crate::node::Node;
use crate::pod::orphan;
use crate::pod::worker::{Handle, Shared, Worker};
use crate::pod::{full_name, labels, name, uid};
use crate::recorder::Recorder;
use crate::server::{Server, ServerError};
use crate::status_api::Manifest;

/// A runtime that is starting is waited for.
const RUNTIME_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Host(#[from] Failure),
    #[error("another kubelet uses the state directory {0}")]
    Running(String),
    #[error("runtime at {socket}: {source}")]
    Runtime { socket: String, source: CriError },
    #[error(
        "runtime at {0} uses the systemd cgroup driver; only cgroupfs is supported: set SystemdCgroup = false there"
    )]
    CgroupDriver(String),
    #[error("runtime at {socket} speaks CRI {version:?}; \"0.1.0\" (v1) is needed")]
    Version { socket: String, version: String },
}

/// What the endpoint shows besides pods.
#[derive(Default)]
pub struct View {
    pub manifests: Vec<Manifest>,
    /// Why the kubelet is not ready yet; `None`: it is.
    pub not_ready: Option<String>,
}

pub type SharedView = Arc<Mutex<View>>;

pub struct Kubelet {
    shared: Arc<Shared>,
    source: Source,
    view: SharedView,
    workers: HashMap<String, Handle>,
    done: (mpsc::UnboundedSender<String>, mpsc::UnboundedReceiver<String>),
    any_pods: watch::Sender<bool>,
    reported: BTreeMap<String, String>,
    _server: Server,
    _lock: File,
}

impl Kubelet {
    /// Takes the state directory, reads the manifests, opens the endpoint. Does nothing to any pod yet.
    pub fn new(config: Config) -> Result<Self, KubeletError> {
        for dir in [&config.state_dir, &config.root_dir, &config.log_dir] {
            std::fs::create_dir_all(dir).tried(|| format!("create {}", dir.display()))?;
        }
        let lock = lock(&config.state_dir)?;
        let source = Source::open(&config.manifests, &config.node_name)?;
        let node = Node::read(config.node_name.clone());
        let recorder = Recorder::new(config.node_name.clone());
        let shared = Arc::new(Shared {
            cri: Cri::new(config.runtime_socket.clone(), config.image_socket.clone()),
            cgroups: Cgroups::new(&config.cgroup_root, node.cpus),
            node,
            recorder,
            published: Mutex::default(),
            config,
        });
        let not_ready = Some("the runtime has not answered yet".to_owned());
        let view = SharedView::new(Mutex::new(View { not_ready, ..View::default() }));
        let server = Server::start(shared.clone(), view.clone())?;
        let mut kubelet = Self {
            shared,
            source,
            view,
            workers: HashMap::new(),
            done: mpsc::unbounded_channel(),
            any_pods: watch::Sender::new(false),
            reported: BTreeMap::new(),
            _server: server,
            _lock: lock,
        };
        kubelet.show_manifests();
        Ok(kubelet)
    }

    /// Runs until `stop` is ready. Pods stay as they are then.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), KubeletError> {
        tokio::pin!(stop);
        tokio::select! {
            () = &mut stop => return Ok(()),
            ready = self.wait_for_runtime() => ready?,
        }
        self.terminate_orphans().await?;
        self.reconcile();
        self.set_not_ready(None);
        let (changed, mut changes) = mpsc::unbounded_channel();
        let pleg = events::watch(self.shared.cri.clone(), changed, self.any_pods.subscribe());
        tokio::pin!(pleg);
        loop {
            tokio::select! {
                () = &mut stop => return Ok(()),
                () = &mut pleg => {}
                read = self.source.changed() => {
                    read?;
                    self.show_manifests();
                    self.reconcile();
                }
                Some(uid) = changes.recv() => {
                    if let Some(worker) = self.workers.get(&uid) {
                        worker.changed.notify_one();
                    }
                }
                Some(uid) = self.done.1.recv() => {
                    self.workers.remove(&uid);
                    self.reconcile();
                }
            }
        }
    }

    async fn wait_for_runtime(&mut self) -> Result<(), KubeletError> {
        let socket = self.shared.config.runtime_socket.display().to_string();
        let answer = loop {
            match self.shared.cri.version(cri::VersionRequest { version: "0.1.0".into() }).await {
                Ok(answer) => break answer,
                Err(error) if error.code() == Code::Unavailable => {
                    self.set_not_ready(Some(error.to_string()));
                }
                Err(source) => return Err(KubeletError::Runtime { socket, source }),
            }
            tokio::time::sleep(RUNTIME_RETRY).await;
        };
        if answer.version != "0.1.0" {
            return Err(KubeletError::Version { socket, version: answer.version });
        }
        tracing::info!(runtime = answer.runtime_name, version = answer.runtime_version, "runtime answers");
        match self.shared.cri.runtime_config(cri::RuntimeConfigRequest {}).await {
            Ok(config) if config.linux.is_some_and(|l| l.cgroup_driver() == cri::CgroupDriver::Systemd) => {
                Err(KubeletError::CgroupDriver(socket))
            }
            // Older runtimes do not say; cgroupfs is what they have by default.
            _ => Ok(()),
        }
    }

    fn set_not_ready(&self, why: Option<String>) {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).not_ready = why;
    }

    fn show_manifests(&mut self) {
        let manifests = self.source.files().list();
        let errors = manifests.iter().filter_map(|m| Some((m.file.clone(), m.error.clone()?)));
        let errors: BTreeMap<String, String> = errors.collect();
        for (file, error) in errors.iter().filter(|(file, error)| self.reported.get(*file) != Some(error)) {
            self.shared.recorder.file(file, "InvalidManifest", error.clone());
        }
        self.reported = errors;
        self.view.lock().unwrap_or_else(PoisonError::into_inner).manifests = manifests;
    }

    /// Makes the workers fit the manifests. A pod waits while another of its name still terminates: two would fight
    /// for ports, names and volumes.
    fn reconcile(&mut self) {
        let wanted = self.source.files().pods();
        for worker in self.workers.values() {
            let stays = wanted.values().any(|pod| same(pod, &worker.pod));
            if !stays && !worker.is_terminating() {
                worker.terminate();
            }
        }
        for pod in wanted.values() {
            let taken =
                |worker: &Handle| full_name(&worker.pod) == full_name(pod) || uid(&worker.pod) == uid(pod);
            if !self.workers.values().any(taken) {
                self.spawn(pod.clone());
            }
        }
        self.any_pods.send_replace(!self.workers.is_empty());
    }

    fn spawn(&mut self, pod: Arc<Pod>) -> &Handle {
        let key = uid(&pod).to_owned();
        let worker = Worker::spawn(self.shared.clone(), pod, self.done.0.clone());
        self.workers.entry(key).insert_entry(worker).into_mut()
    }

    /// Pods of ours in the runtime, and pod directories, whose manifest is gone.
    async fn terminate_orphans(&mut self) -> Result<(), KubeletError> {
        let socket = self.shared.config.runtime_socket.display().to_string();
        let runtime = |source| KubeletError::Runtime { socket: socket.clone(), source };
        let wanted: BTreeSet<String> =
            self.source.files().pods().values().map(|p| uid(p).to_owned()).collect();
        let cri = self.shared.cri.clone();
        let sandboxes = cri.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.map_err(runtime)?;
        let containers = cri.list_containers(cri::ListContainersRequest::default()).await.map_err(runtime)?;
        let mut orphans: BTreeMap<String, Pod> = BTreeMap::new();
        for sandbox in sandboxes.items.iter().filter(|s| orphan::is_ours(s)) {
            let of_pod =
                |c: &&cri::Container| c.labels.get(labels::POD_UID) == sandbox.labels.get(labels::POD_UID);
            let own: Vec<_> = containers.containers.iter().filter(of_pod).cloned().collect();
            let pod = orphan::pod(sandbox, &own);
            orphans.insert(uid(&pod).to_owned(), pod);
        }
        for dir in pod_directories(&self.shared.config.root_dir) {
            orphans.entry(dir.clone()).or_insert_with(|| orphan::named(String::new(), String::new(), dir));
        }
        for (_, pod) in orphans.into_iter().filter(|(uid, _)| !wanted.contains(uid)) {
            tracing::info!(pod = name(&pod), uid = uid(&pod), "no manifest any more: terminating");
            self.spawn(Arc::new(pod)).terminate();
        }
        Ok(())
    }
}

/// The same pod: what its file says has not changed since it was first seen.
fn same(a: &Pod, b: &Pod) -> bool {
    uid(a) == uid(b) && a.spec == b.spec && a.metadata.labels == b.metadata.labels
}

fn lock(state_dir: &Path) -> Result<File, KubeletError> {
    let path = state_dir.join("kubelet.lock");
    let file =
        File::options().create(true).append(true).open(&path).tried(|| format!("open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(KubeletError::Running(state_dir.display().to_string())),
        Err(errno) => Err(Failure::new(format!("lock {}", path.display()), errno).into()),
    }
}

/// Names below ROOT/pods.
fn pod_directories(root_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root_dir.join("pods")).into_iter().flatten().flatten();
    entries.filter(|e| e.path().is_dir()).filter_map(|e| e.file_name().into_string().ok()).collect()
}
