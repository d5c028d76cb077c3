//! Labels and annotations by which a kubelet, ours or upstream's, finds its pods and containers again in a runtime.
//! Source: upstream `kuberuntime/labels.go` and `kubelet/types/labels.go`.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{hash, name, namespace, spec, uid};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
pub const PORTS: &str = "io.kubernetes.container.ports";
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

pub fn of_sandbox(pod: &Pod) -> HashMap<String, String> {
    let own = pod.metadata.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    own.chain(identity(pod)).collect()
}

pub fn of_container(pod: &Pod, container: &Container) -> HashMap<String, String> {
    identity(pod).into_iter().chain([(CONTAINER_NAME.into(), container.name.clone())]).collect()
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (POD_NAME.into(), name(pod).into()),
        (POD_NAMESPACE.into(), namespace(pod).into()),
        (POD_UID.into(), uid(pod).into()),
    ]
}

pub fn annotations_of_container(pod: &Pod, container: &Container, attempt: u32) -> HashMap<String, String> {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let mut annotations = HashMap::from([
        (HASH.into(), format!("{:x}", hash::of_container(container))),
        (RESTART_COUNT.into(), attempt.to_string()),
        (TERMINATION_MESSAGE_PATH.into(), text(&container.termination_message_path)),
        (TERMINATION_MESSAGE_POLICY.into(), text(&container.termination_message_policy)),
    ]);
    if let Some(seconds) = spec(pod).termination_grace_period_seconds {
        annotations.insert(GRACE_PERIOD.into(), seconds.to_string());
    }
    if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) {
        annotations.insert(PRE_STOP.into(), serde_json::to_string(hook).expect("a hook is JSON"));
    }
    if let Some(ports) = container.ports.as_ref().filter(|p| !p.is_empty()) {
        annotations.insert(PORTS.into(), serde_json::to_string(ports).expect("ports are JSON"));
    }
    annotations
}
