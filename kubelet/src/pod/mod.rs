//! One Pod: what it is (this file), what the runtime has of it (`observed`), what to do next (`sync`, pure), the CRI
//! messages that say so (`sandbox_config`, `container_config`, pure) and who does it (`worker`).

pub mod backoff;
pub mod container_config;
pub mod env;
pub mod hash;
pub mod labels;
pub mod observed;
pub mod orphan;
pub mod resources;
pub mod sandbox_config;
mod start;
mod stop;
pub mod sync;
#[cfg(test)]
mod sync_test;
pub mod sysctl;
pub mod termination_message;
pub mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// Longest host name the kernel takes (`HOST_NAME_MAX`), and longest label of a domain name.
const MAX_FQDN: usize = 64;
const MAX_LABEL: usize = 63;

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);

pub fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&NO_SPEC)
}
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}
/// `NAMESPACE/NAME`: unique on a node.
pub fn full_name(pod: &Pod) -> String {
    format!("{}/{}", namespace(pod), name(pod))
}
pub fn metadata_map<'a>(pod: &'a Pod, which: &str) -> Option<&'a BTreeMap<String, String>> {
    if which == "labels" { pod.metadata.labels.as_ref() } else { pod.metadata.annotations.as_ref() }
}
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    init_containers(pod).iter().chain(&spec(pod).containers)
}
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    all_containers(pod).find(|c| c.name == name)
}
pub fn grace_seconds(pod: &Pod) -> i64 {
    spec(pod).termination_grace_period_seconds.unwrap_or(30)
}

/// The host name inside: `spec.hostname`, or the pod's name cut to what a label may be.
pub fn hostname(pod: &Pod) -> String {
    let given = spec(pod).hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(name(pod));
    given[..given.len().min(MAX_LABEL)].trim_end_matches(['-', '.']).to_owned()
}

/// Host name and, with a subdomain, the domain `SUBDOMAIN.NAMESPACE.svc.CLUSTER`.
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let subdomain = spec(pod).subdomain.as_deref().filter(|s| !s.is_empty());
    (hostname(pod), subdomain.map(|sub| format!("{sub}.{}.svc.{cluster_domain}", namespace(pod))))
}

/// What `uname -n` says inside; an FQDN that the kernel would cut is an error, as upstream.
pub fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    match hostname_and_domain(pod, cluster_domain) {
        (short, Some(domain)) if spec(pod).set_hostname_as_fqdn == Some(true) => {
            let fqdn = format!("{short}.{domain}");
            if fqdn.len() > MAX_FQDN {
                return Err(format!(
                    "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({MAX_FQDN} is the max, {} characters requested)",
                    fqdn.len()
                ));
            }
            Ok(fqdn)
        }
        (short, _) => Ok(short),
    }
}

/// Where upstream keeps what belongs to a pod: `ROOT/pods/UID/...`.
#[derive(Debug, Clone)]
pub struct PodDir(pub PathBuf);

impl PodDir {
    pub fn new(root_dir: &Path, uid: &str) -> Self {
        Self(root_dir.join("pods").join(uid))
    }
    pub fn empty_dir(&self, volume: &str) -> PathBuf {
        self.0.join("volumes/kubernetes.io~empty-dir").join(volume)
    }
    pub fn etc_hosts(&self) -> PathBuf {
        self.0.join("etc-hosts")
    }
    pub fn container(&self, container: &str) -> PathBuf {
        self.0.join("containers").join(container)
    }
    pub fn sub_paths(&self) -> PathBuf {
        self.0.join("volume-subpaths")
    }
    pub fn sub_path(&self, volume: &str, container: &str, index: usize) -> PathBuf {
        self.sub_paths().join(volume).join(container).join(index.to_string())
    }
}

/// `LOGS/NAMESPACE_NAME_UID`
pub fn log_dir(logs: &Path, pod: &Pod) -> PathBuf {
    logs.join(format!("{}_{}_{}", namespace(pod), name(pod), uid(pod)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn host_names() {
        let pod = |spec: serde_json::Value| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"name": format!("{}-n", "x".repeat(62)), "namespace": "ns"},
                "spec": spec}),
            )
            .expect("pod")
        };
        assert_eq!(
            hostname(&pod(json!({"containers": []}))),
            "x".repeat(62),
            "cut at 63, then the hyphen goes"
        );
        let fqdn =
            pod(json!({"containers": [], "hostname": "a", "subdomain": "s", "setHostnameAsFQDN": true}));
        assert_eq!(kernel_hostname(&fqdn, "c.l").as_deref(), Ok("a.s.ns.svc.c.l"));
        assert!(
            kernel_hostname(&fqdn, &"long.".repeat(20))
                .expect_err("long")
                .contains("is too long (64 is the max")
        );
        let short = pod(json!({"containers": [], "hostname": "a", "subdomain": "s"}));
        assert_eq!(kernel_hostname(&short, "c.l").as_deref(), Ok("a"));
    }
}
