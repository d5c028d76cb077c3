//! What upstream's API defaulting and its static-pod conventions add to a manifest, so that nothing after this file
//! needs to know a default.
//!
//! Static-pod conventions (upstream `config/common.go`): the pod's name gets `-` and the node's name in lower case, the
//! namespace is `default` unless given, the UID is a hash of the content, the node and the file, and the annotations
//! `kubernetes.io/config.{source,hash,seen}` say where the pod came from. So an edited file is a new pod, which starts
//! when the old one is gone. The hash is not upstream's (that one is over Go's in-memory dump): for a hand-over that
//! keeps containers running, give `metadata.uid`.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};

pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// Fills in what the manifest leaves open. Pure: `seen` is now.
pub fn apply(pod: &mut Pod, node_name: &str, file: &Path, seen: Timestamp) {
    let uid =
        pod.metadata.uid.take().filter(|uid| !uid.is_empty()).unwrap_or_else(|| hash(pod, node_name, file));
    let meta = &mut pod.metadata;
    meta.name = Some(format!("{}-{}", meta.name.take().unwrap_or_default(), node_name.to_lowercase()));
    meta.namespace.get_or_insert_with(|| "default".into());
    meta.creation_timestamp = Some(Time(seen));
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(CONFIG_SOURCE.into(), "file".into());
    annotations.insert(CONFIG_HASH.into(), uid.clone());
    annotations.insert(CONFIG_SEEN.into(), seen.to_string());
    meta.uid = Some(uid);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    default_spec(spec);
}

/// 32 hex digits, as many as upstream's MD5 has.
fn hash(pod: &Pod, node_name: &str, file: &Path) -> String {
    let mut hasher = Sha256::new();
    hasher.update(serde_json::to_vec(pod).expect("a Pod is JSON"));
    hasher.update(format!("host:{node_name}file:{}", file.display()));
    let first: [u8; 16] = hasher.finalize()[..16].try_into().expect("SHA-256 has 32 bytes");
    format!("{:032x}", u128::from_be_bytes(first))
}

fn default_spec(spec: &mut PodSpec) {
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
    spec.termination_grace_period_seconds.get_or_insert(30);
    let host_network = spec.host_network == Some(true);
    let init = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(init) {
        default_container(container, host_network);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        if volume.host_path.is_none() {
            volume.empty_dir.get_or_insert_default();
        }
    }
}

fn default_container(container: &mut Container, host_network: bool) {
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
    container.termination_message_policy.get_or_insert_with(|| "File".into());
    let image = container.image.as_deref().unwrap_or_default();
    let policy = if tag(image) == "latest" { "Always" } else { "IfNotPresent" };
    container.image_pull_policy.get_or_insert_with(|| policy.into());
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
        if host_network && port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
    if let Some(resources) = &mut container.resources {
        default_requests(resources);
    }
    let probes =
        [&mut container.startup_probe, &mut container.readiness_probe, &mut container.liveness_probe];
    probes.into_iter().flatten().for_each(default_probe);
}

/// A limit without a request requests as much.
fn default_requests(resources: &mut ResourceRequirements) {
    let Some(limits) = &resources.limits else { return };
    let requests = resources.requests.get_or_insert_with(BTreeMap::new);
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

fn default_probe(probe: &mut Probe) {
    let at_least_one = |field: &mut Option<i32>, default| {
        if field.unwrap_or(0) == 0 {
            *field = Some(default);
        }
    };
    at_least_one(&mut probe.timeout_seconds, 1);
    at_least_one(&mut probe.period_seconds, 10);
    at_least_one(&mut probe.success_threshold, 1);
    at_least_one(&mut probe.failure_threshold, 3);
}

/// The tag of an image reference: `latest` when it names neither tag nor digest, empty when it names only a digest.
pub fn tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default();
    match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => tag,
        (None, Some(_)) => "",
        (None, None) => "latest",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "called with json! literals")]
    fn defaulted(spec: serde_json::Value) -> Pod {
        let mut pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).expect("pod");
        apply(&mut pod, "Node-A", Path::new("/m/web.yaml"), Timestamp::UNIX_EPOCH);
        pod
    }

    #[test]
    fn tags_decide_the_pull_policy() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("localhost:5000/busybox", "Always"),
            ("localhost:5000/busybox:1", "IfNotPresent"),
            ("busybox@sha256:aa", "IfNotPresent"),
            ("a/b:latest@sha256:aa", "Always"),
        ] {
            let pod = defaulted(json!({"containers": [{"name": "c", "image": image}]}));
            let container = &pod.spec.expect("spec").containers[0];
            assert_eq!(container.image_pull_policy.as_deref(), Some(policy), "{image}");
        }
    }

    #[test]
    fn a_static_pod_is_named_by_its_node_and_knows_its_source() {
        let pod = defaulted(json!({"containers": []}));
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node-a"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(crate::status_api::manifest_name(&pod), "web");
        let annotations = pod.metadata.annotations.expect("annotations");
        assert_eq!(annotations[CONFIG_SOURCE], "file");
        assert_eq!(annotations[CONFIG_HASH], pod.metadata.uid.expect("uid"));
        assert_eq!(annotations[CONFIG_SEEN], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn the_uid_follows_content_node_and_file_unless_it_is_given() {
        let uid = |name: &str, node: &str, file: &str, given: Option<&str>| {
            let mut pod: Pod =
                serde_json::from_value(json!({"metadata": {"name": name, "uid": given}})).expect("pod");
            apply(&mut pod, node, Path::new(file), Timestamp::UNIX_EPOCH);
            pod.metadata.uid.expect("uid")
        };
        let base = uid("a", "n", "f", None);
        assert_eq!(base.len(), 32);
        assert_eq!(base, uid("a", "n", "f", None));
        for other in [uid("b", "n", "f", None), uid("a", "m", "f", None), uid("a", "n", "g", None)] {
            assert_ne!(base, other);
        }
        assert_eq!(uid("a", "n", "f", Some("given")), "given");
    }

    #[test]
    fn limits_become_requests_and_host_network_ports_host_ports() {
        let pod = defaulted(json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i:1",
            "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Mi"}},
            "livenessProbe": {"tcpSocket": {"port": 80}}}], "volumes": [{"name": "v"}]}));
        let spec = pod.spec.expect("spec");
        let container = &spec.containers[0];
        assert_eq!(container.ports.as_ref().expect("ports")[0].host_port, Some(80));
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref()).expect("requests");
        assert_eq!(requests["cpu"].0, "1");
        let probe = container.liveness_probe.as_ref().expect("probe");
        assert_eq!((probe.timeout_seconds, probe.period_seconds), (Some(1), Some(10)));
        assert!(spec.volumes.expect("volumes")[0].empty_dir.is_some());
    }
}
