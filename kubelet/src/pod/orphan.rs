//! The Pod of a sandbox whose manifest is gone, as far as labels and annotations remember it: enough to stop its
//! containers with their grace and hooks, and to remove what is on disk.

use corten_cri_api::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Lifecycle, Pod, PodSpec};

use super::labels;
use crate::manifest::CONFIG_SOURCE;

/// Whether a sandbox belongs to a pod from a file: those of an API server are not ours to judge, and neither are
/// those nobody's kubelet made.
pub fn is_ours(sandbox: &cri::PodSandbox) -> bool {
    sandbox.labels.contains_key(labels::POD_UID)
        && sandbox.annotations.get(CONFIG_SOURCE).is_some_and(|source| source == "file")
}

/// `containers`: all of the pod, of any state.
pub fn pod(sandbox: &cri::PodSandbox, containers: &[cri::Container]) -> Pod {
    let label = |key: &str| sandbox.labels.get(key).cloned();
    let mut pod = named(
        label(labels::POD_NAMESPACE).unwrap_or_default(),
        label(labels::POD_NAME).unwrap_or_default(),
        label(labels::POD_UID).unwrap_or_default(),
    );
    let grace = containers.iter().find_map(|c| c.annotations.get(labels::GRACE_PERIOD)?.parse().ok());
    let mut spec =
        PodSpec { termination_grace_period_seconds: Some(grace.unwrap_or(30)), ..PodSpec::default() };
    for c in containers {
        let name = c.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default();
        let hook = c.annotations.get(labels::PRE_STOP).and_then(|json| serde_json::from_str(json).ok());
        if !spec.containers.iter().any(|known| known.name == name) {
            let lifecycle = Some(Lifecycle { pre_stop: hook, ..Lifecycle::default() });
            let ports = c.annotations.get(labels::PORTS).and_then(|json| serde_json::from_str(json).ok());
            spec.containers.push(Container { name, lifecycle, ports, ..Container::default() });
        }
    }
    pod.metadata.annotations = Some(sandbox.annotations.clone().into_iter().collect());
    pod.spec = Some(spec);
    pod
}

/// The Pod of a directory below ROOT/pods of which the runtime knows nothing.
pub fn named(namespace: String, name: String, uid: String) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.namespace = Some(namespace);
    pod.metadata.name = Some(name);
    pod.metadata.uid = Some(uid);
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{container, grace_seconds, uid};

    fn sandbox(source: Option<&str>) -> cri::PodSandbox {
        let mut s = cri::PodSandbox { id: "s".into(), ..Default::default() };
        for (key, value) in [(labels::POD_UID, "u"), (labels::POD_NAME, "p"), (labels::POD_NAMESPACE, "ns")] {
            s.labels.insert(key.into(), value.into());
        }
        if let Some(source) = source {
            s.annotations.insert(CONFIG_SOURCE.into(), source.into());
        }
        s
    }

    #[test]
    fn only_pods_from_files_are_ours() {
        assert!(is_ours(&sandbox(Some("file"))));
        assert!(!is_ours(&sandbox(Some("api"))));
        assert!(!is_ours(&sandbox(None)));
        assert!(!is_ours(&cri::PodSandbox::default()));
    }

    #[test]
    fn grace_and_hooks_are_remembered() {
        let mut c = cri::Container::default();
        for (key, value) in [(labels::GRACE_PERIOD, "7"), (labels::PRE_STOP, "{\"sleep\":{\"seconds\":2}}")] {
            c.annotations.insert(key.into(), value.into());
        }
        c.labels.insert(labels::CONTAINER_NAME.into(), "web".into());
        let pod = pod(&sandbox(Some("file")), &[c]);
        assert_eq!((uid(&pod), grace_seconds(&pod)), ("u", 7));
        let hook =
            container(&pod, "web").and_then(|c| c.lifecycle.as_ref()?.pre_stop.as_ref()?.sleep.as_ref());
        assert_eq!(hook.map(|s| s.seconds), Some(2));
    }
}
