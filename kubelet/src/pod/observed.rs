//! What the runtime has of one pod, as plain facts. Made from CRI answers; nothing here asks.

use corten_cri_api::v1 as cri;

use super::labels;

/// Nanoseconds since 1970.
pub type UnixNanos = i64;

/// All sandboxes and containers of a pod, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_ns: UnixNanos,
    /// Empty on the host network, and for a sandbox that is not ready.
    pub ips: Vec<String>,
    pub host_network: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    /// See [`super::hash`]; `None`: the container was not made by a kubelet we know.
    pub hash: Option<u64>,
    pub created_ns: UnixNanos,
    pub state: State,
    pub image: String,
    pub image_ref: String,
    /// Host file of the termination message.
    pub message_file: Option<String>,
    pub log_path: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Created,
    Running {
        started_ns: UnixNanos,
    },
    Exited(Exit),
    /// The runtime lost it.
    Unknown,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exit {
    pub code: i32,
    pub started_ns: UnixNanos,
    pub finished_ns: UnixNanos,
    pub reason: String,
    pub message: String,
}

impl Container {
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }
    pub fn exit(&self) -> Option<&Exit> {
        if let State::Exited(exit) = &self.state { Some(exit) } else { None }
    }
    /// Whether something of it may still run.
    pub fn may_be_alive(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Unknown)
    }
    pub fn of_status(status: cri::ContainerStatus, sandbox_id: String) -> Self {
        let state = match status.state() {
            cri::ContainerState::ContainerCreated => State::Created,
            cri::ContainerState::ContainerRunning => State::Running { started_ns: status.started_at },
            cri::ContainerState::ContainerUnknown => State::Unknown,
            cri::ContainerState::ContainerExited => State::Exited(Exit {
                code: status.exit_code,
                started_ns: status.started_at,
                finished_ns: status.finished_at,
                reason: status.reason,
                message: status.message,
            }),
        };
        let path = status.annotations.get(labels::TERMINATION_MESSAGE_PATH);
        let message_mount = status.mounts.iter().find(|m| Some(&m.container_path) == path);
        let metadata = status.metadata.unwrap_or_default();
        let count = status.annotations.get(labels::RESTART_COUNT).and_then(|n| n.parse().ok());
        Self {
            id: status.id,
            sandbox_id,
            name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
            attempt: count.unwrap_or(metadata.attempt),
            hash: status.annotations.get(labels::HASH).and_then(|h| u64::from_str_radix(h, 16).ok()),
            created_ns: status.created_at,
            state,
            image: status.image.unwrap_or_default().image,
            image_ref: status.image_ref,
            message_file: message_mount.map(|m| m.host_path.clone()),
            log_path: status.log_path,
        }
    }
}

impl Sandbox {
    pub fn of_status(status: cri::PodSandboxStatus) -> Self {
        let network = status.network.clone().unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        let options = status.linux.as_ref().and_then(|l| l.namespaces.as_ref()?.options.as_ref());
        Self {
            ready: status.state() == cri::PodSandboxState::SandboxReady,
            host_network: options.is_some_and(|o| o.network() == cri::NamespaceMode::Node),
            ips: [network.ip].into_iter().chain(more).filter(|ip| !ip.is_empty()).collect(),
            created_ns: status.created_at,
            attempt: status.metadata.map_or(0, |m| m.attempt),
            id: status.id,
        }
    }
}

impl Observed {
    pub fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_ns, s.attempt)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.created_ns, c.attempt)));
    }
    /// The newest instance of a container.
    pub fn newest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }
    /// The newest instance of a container in one sandbox.
    pub fn newest_in(&self, name: &str, sandbox_id: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name && c.sandbox_id == sandbox_id)
    }
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }
    /// When the pod began, as far as the runtime remembers.
    pub fn first_created_ns(&self) -> Option<UnixNanos> {
        self.sandboxes.iter().map(|s| s.created_ns).min()
    }
}
