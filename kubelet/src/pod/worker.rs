//! One task a pod: looks at the runtime, asks `sync` what to do, does it, looks again. It waits when there is nothing
//! to do: for the runtime to change, a probe's verdict, a timer, or the manifest to go.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corten_cri_api::v1 as cri;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::{Notify, watch};

use super::backoff::Backoff;
use super::observed::{Container, Observed, Sandbox, UnixNanos};
use super::start::Start;
use super::sync::{Action, Failure, Input, Intent, Plan, SANDBOX, backoff_key, plan};
use super::{
    PodDir, container, full_name, grace_seconds, labels, log_dir, name, sandbox_config, termination_message,
    uid,
};
use crate::cgroup::Cgroups;
use crate::clock::{instant, now_ns};
use crate::config::Config;
use crate::cri::{Code, Cri, CriError};
use crate::node::Node;
use crate::probe::Prober;
use crate::recorder::Recorder;
use crate::{dns, status, volume};

/// After what is not the image's or the container's own failure (upstream backOffPeriod).
const RETRY: Duration = Duration::from_secs(10);
/// After the runtime did not answer at all.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);

/// What all workers share.
pub struct Shared {
    pub config: Config,
    pub cri: Cri,
    pub node: Node,
    pub cgroups: Cgroups,
    pub recorder: Recorder,
    /// Pods with their status by UID: what `GET /pods` shows.
    pub published: Mutex<BTreeMap<String, Arc<Pod>>>,
}

impl Shared {
    pub fn publish(&self, pod: Arc<Pod>) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).insert(uid(&pod).to_owned(), pod);
    }
    pub fn unpublish(&self, uid: &str) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// The task's ends that others hold.
pub struct Handle {
    pub pod: Arc<Pod>,
    /// Look again: something of the pod changed in the runtime.
    pub changed: Arc<Notify>,
    terminate: watch::Sender<bool>,
}

impl Handle {
    /// Stops the pod and removes all of it. Cannot be taken back.
    pub fn terminate(&self) {
        self.terminate.send_replace(true);
        self.changed.notify_one();
    }
    pub fn is_terminating(&self) -> bool {
        *self.terminate.borrow()
    }
}

pub struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) dir: PodDir,
    changed: Arc<Notify>,
    terminate: watch::Receiver<bool>,
    terminating_since: Option<UnixNanos>,
    prober: Prober,
    backoff: Backoff,
    image_backoff: Backoff,
    failures: HashMap<String, Failure>,
    observed: Observed,
    /// What the last plan said of containers that wait.
    waiting: BTreeMap<String, super::sync::Waiting>,
    deadline_exceeded: bool,
    messages: HashMap<String, String>,
    first_seen_ns: UnixNanos,
    status: Option<PodStatus>,
}

impl Worker {
    /// Starts the worker of `pod`; `done` hears its UID when nothing of it is left.
    pub fn spawn(
        shared: Arc<Shared>,
        pod: Arc<Pod>,
        done: tokio::sync::mpsc::UnboundedSender<String>,
    ) -> Handle {
        let changed = Arc::new(Notify::new());
        let (terminate, receiver) = watch::channel(false);
        let prober = Prober::new(
            pod.clone(),
            shared.cri.clone(),
            shared.recorder.clone(),
            shared.node.host_ip.clone(),
            changed.clone(),
        );
        let mut worker = Self {
            dir: PodDir::new(&shared.config.root_dir, uid(&pod)),
            changed: changed.clone(),
            terminate: receiver,
            terminating_since: None,
            prober,
            backoff: Backoff::default(),
            image_backoff: Backoff::default(),
            failures: HashMap::new(),
            observed: Observed::default(),
            waiting: BTreeMap::new(),
            deadline_exceeded: false,
            messages: HashMap::new(),
            first_seen_ns: now_ns(),
            status: None,
            shared,
            pod: pod.clone(),
        };
        // At once: who sees no pod in `GET /pods` may take it that nothing runs.
        worker.publish();
        tokio::spawn(async move {
            let uid = uid(&worker.pod).to_owned();
            worker.run().await;
            let _ = done.send(uid);
        });
        Handle { pod, changed, terminate }
    }

    async fn run(mut self) {
        loop {
            if let Err(error) = self.observe().await {
                tracing::warn!(pod = full_name(&self.pod), "look at the runtime: {error}");
                self.publish();
                self.wait(Some(now_ns() + nanos(RUNTIME_RETRY))).await;
                continue;
            }
            let plan = self.plan();
            self.waiting.clone_from(&plan.waiting);
            self.deadline_exceeded = plan.deadline_exceeded;
            self.publish();
            if plan.gone && self.remove_traces() {
                self.shared.unpublish(uid(&self.pod));
                return;
            }
            if plan.actions.is_empty() {
                let retry = plan.gone.then(|| now_ns() + nanos(RETRY));
                self.wait(plan.wake_ns.or(retry)).await;
                continue;
            }
            for action in plan.actions {
                if self.is_terminating()
                    && !matches!(
                        action,
                        Action::StopPod { .. }
                            | Action::RemoveContainer { .. }
                            | Action::RemoveSandbox { .. }
                    )
                {
                    break;
                }
                self.act(action).await;
            }
        }
    }

    pub(super) fn is_terminating(&self) -> bool {
        *self.terminate.borrow()
    }

    /// Runs something long, unless the pod is to go: then `None`.
    pub(super) async fn unless_terminating<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut terminate = self.terminate.clone();
        tokio::select! {
            done = work => Some(done),
            _ = terminate.wait_for(|terminating| *terminating) => None,
        }
    }

    fn plan(&mut self) -> Plan {
        if self.is_terminating() && self.terminating_since.is_none() {
            self.terminating_since = Some(now_ns());
            // What failed before says nothing about stopping.
            self.failures.clear();
        }
        plan(&Input {
            pod: &self.pod,
            observed: &self.observed,
            intent: if self.is_terminating() { Intent::Terminate } else { Intent::Run },
            backoff: &self.backoff,
            failures: &self.failures,
            unhealthy: &self.prober.unhealthy(),
            now_ns: now_ns(),
        })
    }

    async fn wait(&self, until_ns: Option<UnixNanos>) {
        match until_ns {
            None => self.changed.notified().await,
            Some(at) => tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(instant(at)) => {}
            },
        }
    }

    async fn observe(&mut self) -> Result<(), CriError> {
        self.observed = observe(&self.shared.cri, uid(&self.pod)).await?;
        // A pod that terminates is not probed any more.
        let nothing = Observed::default();
        self.prober.follow(if self.is_terminating() { &nothing } else { &self.observed });
        let known = std::mem::take(&mut self.messages);
        for c in self.observed.containers.iter().filter(|c| c.exit().is_some()) {
            let read =
                || container(&self.pod, &c.name).map(|spec| termination_message::of_container(spec, c));
            let message = known.get(&c.id).cloned().or_else(read).unwrap_or_default();
            self.messages.insert(c.id.clone(), message);
        }
        Ok(())
    }

    fn publish(&mut self) {
        let status = status::of_pod(&status::Facts {
            pod: &self.pod,
            observed: &self.observed,
            waiting: &self.waiting,
            health: &self.prober.health(),
            messages: &self.messages,
            deadline_exceeded: self.deadline_exceeded,
            terminating: self.terminating_since.is_some(),
            host_ip: &self.shared.node.host_ip,
            first_seen_ns: self.first_seen_ns,
            now_ns: now_ns(),
            previous: self.status.as_ref(),
        });
        let mut pod = Pod::clone(&self.pod);
        if let Some(since) = self.terminating_since {
            let Time(at) =
                status::time(since + nanos(Duration::from_secs(grace_seconds(&self.pod).unsigned_abs())));
            pod.metadata.deletion_timestamp = Some(Time(at));
            pod.metadata.deletion_grace_period_seconds = Some(grace_seconds(&self.pod));
        }
        self.status = Some(status.clone());
        pod.status = Some(status);
        self.shared.publish(Arc::new(pod));
    }

    pub(super) fn ip(&self) -> String {
        let ip = self.observed.sandboxes.first().and_then(|s| s.ips.first());
        ip.unwrap_or(&self.shared.node.host_ip).clone()
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::StopPod { containers, sandboxes } => {
                let stopped = self.stop_pod(&containers, &sandboxes).await;
                self.note(SANDBOX, "KillPodSandboxError", stopped);
            }
            Action::Kill(kill) => {
                let killed = self.kill(&kill).await;
                self.note(&kill.name, "KillContainerError", killed);
            }
            Action::CreateSandbox { attempt } => self.create_sandbox(attempt).await,
            Action::StartContainer { name, attempt, sandbox_id, backoff_since_ns } => {
                self.start(&name, attempt, &sandbox_id, backoff_since_ns).await;
            }
            Action::RemoveContainer { id, name } => {
                let log =
                    self.observed.containers.iter().find(|c| c.id == id).map(|c| PathBuf::from(&c.log_path));
                let removed =
                    self.shared.cri.remove_container(cri::RemoveContainerRequest { container_id: id }).await;
                if removed.is_ok()
                    && let Some(log) = log.filter(|log| log.starts_with(&self.shared.config.log_dir))
                {
                    let _ = std::fs::remove_file(log);
                }
                self.note(&name, "RemoveContainerError", removed.map(|_| ()));
            }
            Action::RemoveSandbox { id } => {
                let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id };
                let removed = self.shared.cri.remove_pod_sandbox(request).await;
                self.note(SANDBOX, "RemovePodSandboxError", removed.map(|_| ()));
            }
        }
    }

    /// Remembers a failure until its retry, and forgets it after success. What is gone already is no failure.
    fn note(&mut self, key: &str, reason: &'static str, result: Result<(), CriError>) {
        match result {
            Err(error) if error.code() != Code::NotFound => {
                self.shared.recorder.warning(&self.pod, None, "FailedSync", error.to_string());
                self.fail(key, reason, error.to_string(), now_ns() + nanos(RETRY));
            }
            _ => {
                self.failures.remove(key);
            }
        }
    }

    fn fail(&mut self, key: &str, reason: &'static str, message: String, retry_ns: UnixNanos) {
        self.failures.insert(key.to_owned(), Failure { reason, message, retry_ns });
    }

    async fn create_sandbox(&mut self, attempt: u32) {
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.shared.recorder.normal(&self.pod, None, "SandboxChanged", message);
        }
        match self.try_create_sandbox(attempt).await {
            Ok(()) => {
                self.failures.remove(SANDBOX);
            }
            Err((reason, message)) => {
                self.shared.recorder.warning(&self.pod, None, reason, message.clone());
                self.fail(SANDBOX, reason, message, now_ns() + nanos(RETRY));
            }
        }
    }

    async fn try_create_sandbox(&mut self, attempt: u32) -> Result<(), (&'static str, String)> {
        self.shared.cgroups.create(&self.pod).map_err(|e| ("FailedCreatePodContainer", e.to_string()))?;
        volume::set_up(&self.pod, &self.dir, &self.shared.node)
            .map_err(|e| ("FailedMount", e.to_string()))?;
        let failed =
            |message: String| ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"));
        let logs = log_dir(&self.shared.config.log_dir, &self.pod);
        std::fs::create_dir_all(&logs)
            .map_err(|e| failed(format!("create {}: {}", logs.display(), crate::errno_name(&e))))?;
        let config = self.sandbox_config(attempt).map_err(failed)?;
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        self.shared.cri.run_pod_sandbox(request).await.map_err(|e| failed(e.to_string()))?;
        Ok(())
    }

    fn sandbox_config(&self, attempt: u32) -> Result<cri::PodSandboxConfig, String> {
        let config = &self.shared.config;
        let host = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
        let context = sandbox_config::Context {
            logs: &config.log_dir,
            cgroup_parent: self.shared.cgroups.of_pod(&self.pod),
            dns: dns::of_pod(&self.pod, &config.cluster_dns, &host),
            cluster_domain: &config.cluster_domain,
            attempt,
        };
        sandbox_config::of_pod(&self.pod, context)
    }

    async fn start(&mut self, name: &str, attempt: u32, sandbox_id: &str, failed_ns: Option<UnixNanos>) {
        let pod = self.pod.clone();
        let observed = self.observed.clone();
        let sandbox = observed.sandboxes.iter().find(|s| s.id == sandbox_id);
        let (Some(container), Some(sandbox)) = (container(&pod, name), sandbox) else { return };
        if let Some(since) = failed_ns {
            self.backoff.advance(&backoff_key(container), since, now_ns());
        }
        let sandbox_config = match self.sandbox_config(sandbox.attempt) {
            Ok(config) => config,
            Err(message) => {
                return self.fail(name, "CreateContainerConfigError", message, now_ns() + nanos(RETRY));
            }
        };
        let start = Start { container, attempt, sandbox, sandbox_config: &sandbox_config };
        match self.start_container(&start).await {
            Ok(()) => {
                self.failures.remove(name);
                self.image_backoff.forget(name);
            }
            Err(error) if error.image => {
                let now = now_ns();
                self.image_backoff.advance(name, now, now);
                let delay = self.image_backoff.delay(name);
                let (reason, message) = if error.reason == "ErrImagePull" {
                    let image = container.image.as_deref().unwrap_or_default();
                    (
                        "ImagePullBackOff",
                        format!("Back-off pulling image {image:?}: ErrImagePull: {}", error.message),
                    )
                } else {
                    (error.reason, error.message)
                };
                self.fail(name, reason, message, now + nanos(delay));
            }
            Err(error) => self.fail(name, error.reason, error.message, now_ns() + nanos(RETRY)),
        }
    }

    /// Volumes, cgroup and logs of a pod that is gone from the runtime. Goes on after an error; false: try again.
    fn remove_traces(&mut self) -> bool {
        let mut errors = Vec::new();
        errors.extend(volume::tear_down(&self.dir).err().map(|e| e.to_string()));
        errors.extend(self.shared.cgroups.remove(uid(&self.pod)).err().map(|e| e.to_string()));
        if !name(&self.pod).is_empty() {
            let logs = log_dir(&self.shared.config.log_dir, &self.pod);
            let removed =
                std::fs::remove_dir_all(&logs).err().filter(|e| e.kind() != std::io::ErrorKind::NotFound);
            errors.extend(removed.map(|e| format!("remove {}: {}", logs.display(), crate::errno_name(&e))));
        }
        for error in &errors {
            tracing::warn!(pod = full_name(&self.pod), "remove what is left: {error}");
        }
        errors.is_empty()
    }
}

fn nanos(duration: Duration) -> UnixNanos {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// All the runtime has of one pod.
async fn observe(cri: &Cri, uid: &str) -> Result<Observed, CriError> {
    let selector = || HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
    let filter = cri::PodSandboxFilter { label_selector: selector(), ..Default::default() };
    let sandboxes = cri.list_pod_sandbox(cri::ListPodSandboxRequest { filter: Some(filter) });
    let filter = cri::ContainerFilter { label_selector: selector(), ..Default::default() };
    let containers = cri.list_containers(cri::ListContainersRequest { filter: Some(filter) });
    let (sandboxes, containers) = tokio::try_join!(sandboxes, containers)?;
    let mut observed = Observed::default();
    for sandbox in sandboxes.items {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.id, verbose: false };
        // What is removed between the list and this is not there.
        if let Some(status) = present(cri.pod_sandbox_status(request).await)?.and_then(|a| a.status) {
            observed.sandboxes.push(Sandbox::of_status(status));
        }
    }
    for c in containers.containers {
        let request = cri::ContainerStatusRequest { container_id: c.id, verbose: false };
        if let Some(status) = present(cri.container_status(request).await)?.and_then(|a| a.status) {
            observed.containers.push(Container::of_status(status, c.pod_sandbox_id));
        }
    }
    observed.sort();
    Ok(observed)
}

fn present<T>(answer: Result<T, CriError>) -> Result<Option<T>, CriError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
