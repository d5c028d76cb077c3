//! What the kubelet of an instance tells about its pods, over HTTP on its unix socket.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use corten_kubelet::status_api::{EVENTS, HEALTHZ, MANIFESTS, ManifestList, PODS};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::instance::Instance;

/// The part of a v1 PodList that a person asks for.
#[derive(Debug, Default, Deserialize)]
struct PodList {
    #[serde(default)]
    items: Vec<Pod>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub metadata: Metadata,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    pub uid: String,
    pub namespace: String,
    pub deletion_timestamp: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub node_name: String,
    pub containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    pub container_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    pub phase: String,
    pub reason: Option<String>,
    pub message: Option<String>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    pub conditions: Vec<Condition>,
    pub init_container_statuses: Vec<ContainerStatus>,
    pub container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    pub name: String,
    pub ready: bool,
    pub restart_count: u32,
    pub state: State,
    pub last_state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct State {
    pub waiting: Option<Reason>,
    pub running: Option<serde_json::Value>,
    pub terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reason {
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
}

/// A pod as `status -o json` prints it.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Summary {
    pub namespace: String,
    pub name: String,
    pub ip: String,
    pub phase: String,
    pub ready: bool,
    pub containers: Vec<ContainerSummary>,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct ContainerSummary {
    pub name: String,
    pub image: String,
    pub ready: bool,
    pub restarts: u32,
    /// `Running`, or why it does not run.
    pub state: String,
}

impl Pod {
    /// The name in its manifest: a static pod's name ends in its node's.
    pub fn manifest_name(&self) -> &str {
        let name = self.metadata.name.as_str();
        name.strip_suffix(self.spec.node_name.as_str()).and_then(|n| n.strip_suffix('-')).unwrap_or(name)
    }

    pub fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True")
    }

    /// Nothing more will happen: it ran to its end.
    pub fn is_done(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    pub fn ip(&self) -> &str {
        self.status.pod_ip.as_deref().unwrap_or("-")
    }

    /// `2/2 Ready`, `1/2 Running`, `0/2 Terminating`.
    pub fn readiness(&self) -> String {
        let ready = self.status.container_statuses.iter().filter(|c| c.ready).count();
        let word = match () {
            () if self.metadata.deletion_timestamp.is_some() => "Terminating",
            () if self.is_ready() => "Ready",
            () if self.status.phase.is_empty() => "Pending",
            () => &self.status.phase,
        };
        format!("{ready}/{} {word}", self.spec.containers.len())
    }

    /// Why it is not Ready: one line per container that is not, or the pod's own reason.
    pub fn reasons(&self) -> Vec<String> {
        let own = self
            .status
            .reason
            .iter()
            .map(|reason| join(reason, self.status.message.as_deref().unwrap_or("")));
        let waiting = self.status.init_container_statuses.iter().filter(|c| !c.ready);
        let containers = waiting.chain(self.status.container_statuses.iter().filter(|c| !c.ready));
        own.chain(containers.map(|c| format!("container {}: {}", c.name, c.describe()))).collect()
    }

    pub fn summary(&self) -> Summary {
        let containers = self.spec.containers.iter().map(|container| {
            let status = self.status.container_statuses.iter().find(|s| s.name == container.name);
            ContainerSummary {
                name: container.name.clone(),
                image: container.image.clone(),
                ready: status.is_some_and(|s| s.ready),
                restarts: status.map_or(0, |s| s.restart_count),
                state: status.map_or_else(|| "Waiting".into(), ContainerStatus::describe),
            }
        });
        Summary {
            namespace: self.metadata.namespace.clone(),
            name: self.manifest_name().into(),
            ip: self.ip().into(),
            phase: self.status.phase.clone(),
            ready: self.is_ready(),
            containers: containers.collect(),
        }
    }
}

impl ContainerStatus {
    pub fn describe(&self) -> String {
        let ended = |t: &Terminated| join(&format!("{} (exit code {})", t.reason, t.exit_code), &t.message);
        match &self.state {
            State { running: Some(_), .. } => {
                if self.ready { "Running" } else { "Running, not ready" }.into()
            }
            State { terminated: Some(t), .. } => ended(t),
            State { waiting: Some(w), .. } => match &self.last_state.terminated {
                Some(last) => format!("{}; before: {}", join(&w.reason, &w.message), ended(last)),
                None => join(&w.reason, &w.message),
            },
            State { .. } => "Waiting".into(),
        }
    }
}

fn join(reason: &str, message: &str) -> String {
    if message.is_empty() { reason.into() } else { format!("{reason}: {message}") }
}

/// Every pod the kubelet knows, those that terminate included.
pub async fn pods(instance: &Instance) -> Result<Vec<Pod>> {
    let body = get(&instance.kubelet_socket(), PODS).await?;
    let list: PodList = serde_json::from_slice(&body).context("the kubelet's pod list is no v1 PodList")?;
    Ok(list.items)
}

/// Every manifest file and what is wrong with it.
pub async fn manifests(instance: &Instance) -> Result<ManifestList> {
    let body = get(&instance.kubelet_socket(), MANIFESTS).await?;
    serde_json::from_slice(&body).context("the kubelet's manifest list cannot be read")
}

/// The last events of a pod, as lines for people.
pub async fn events(instance: &Instance, pod: &str) -> Result<Vec<String>> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Event {
        involved_object: Object,
        reason: String,
        message: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Object {
        name: String,
    }
    let body = get(&instance.kubelet_socket(), EVENTS).await?;
    let events = serde_json::Deserializer::from_slice(&body).into_iter::<Event>().map_while(Result::ok);
    Ok(events.filter(|e| e.involved_object.name == pod).map(|e| join(&e.reason, &e.message)).collect())
}

pub async fn answers(instance: &Instance) -> bool {
    get(&instance.kubelet_socket(), HEALTHZ).await.is_ok()
}

async fn get(socket: &Path, path: &str) -> Result<Bytes> {
    let asked = || format!("GET {path} on {}", socket.display());
    let stream = UnixStream::connect(socket).await.with_context(asked)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(asked)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, "kubelet").body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await.with_context(asked)?;
    let status = answer.status();
    let body = answer.into_body().collect().await.with_context(asked)?.to_bytes();
    connection.abort();
    ensure!(!body.is_empty() || status.is_success(), "{}: {status}", asked());
    if !status.is_success() {
        bail!("{}: {status}: {}", asked(), String::from_utf8_lossy(&body).trim());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "hello-node1", "namespace": "default"},
            "spec": {"nodeName": "node1", "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_ready_pod_reads_as_in_the_issue() {
        let pod = pod(&serde_json::json!({
            "phase": "Running", "podIP": "10.88.0.2", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}, {"name": "b", "ready": true}],
        }));
        assert_eq!(
            (pod.manifest_name(), pod.ip(), pod.readiness().as_str()),
            ("hello", "10.88.0.2", "2/2 Ready")
        );
        assert!(pod.reasons().is_empty());
    }

    #[test]
    fn a_crashing_container_says_how_it_ended() {
        let pod = pod(&serde_json::json!({
            "phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [
                {"name": "a", "ready": true, "state": {"running": {}}},
                {"name": "b", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                 "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}},
            ],
        }));
        assert_eq!(pod.readiness(), "1/2 Running");
        assert_eq!(
            pod.reasons(),
            ["container b: CrashLoopBackOff: back-off 10s; before: Error (exit code 3)"]
        );
    }

    #[test]
    fn a_pod_without_a_status_is_pending() {
        assert_eq!(pod(&serde_json::json!({})).readiness(), "0/2 Pending");
    }
}
