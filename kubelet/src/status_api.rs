//! The read-only endpoint of a running kubelet: HTTP/1.1 on the unix socket `STATE/kubelet.sock` (mode 0600).
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200 `ok` once the manifests are read and the runtime answers, 503 and the reason before |
//! | `GET /pods` | v1 `PodList`, each Pod with its status, as the kubelet's own `/pods`. A pod whose manifest was removed stays in it, with `metadata.deletionTimestamp`, until the last trace is gone |
//! | `GET /manifests` | [`ManifestList`]: every file of the directory and what is wrong with it |
//! | `GET /events` | the last events, one v1 `Event` a line (JSON) |
//! | `GET /events?follow` | the same, and then each new one until the client goes |
//!
//! Pod names are a static pod's: manifest name, `-`, node name. [`manifest_name`] gives the first back.
//! Event reasons are upstream's: `Pulling Pulled Created Started Killing BackOff Failed Unhealthy ErrImageNeverPull
//! FailedCreatePodSandBox SandboxChanged FailedMount FailedPostStartHook FailedPreStopHook DeadlineExceeded`, and
//! `InvalidManifest` (object of kind `File`, named by its path).

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// File name of the socket inside the state directory.
pub const SOCKET: &str = "kubelet.sock";
pub const HEALTHZ: &str = "/healthz";
pub const PODS: &str = "/pods";
pub const MANIFESTS: &str = "/manifests";
pub const EVENTS: &str = "/events";

/// Answer of `GET /manifests`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestList {
    pub items: Vec<Manifest>,
}

/// One file of the manifest directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub file: String,
    /// [`content_sha256`] of the content that `pod`, `uid` and `error` speak of; empty when it could not be read. Who has
    /// just written the file knows by it that the kubelet has seen it.
    #[serde(default)]
    pub content_sha256: String,
    /// `NAMESPACE/NAME` (the static pod's name) of the Pod this file runs: of the last good version when `error` is set
    /// and there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// `metadata.uid` of that Pod, as in `GET /pods`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Why the present content of the file is not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// 64 hex digits.
pub fn content_sha256(content: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(content).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The name in the manifest of a static pod: its name without the node's.
pub fn manifest_name(pod: &Pod) -> &str {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
    name.strip_suffix(&format!("-{}", node.to_lowercase())).unwrap_or(name)
}
