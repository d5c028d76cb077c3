//! Pod → CRI `PodSandboxConfig`. Pure; fields and defaults are upstream's (`kuberuntime_sandbox*.go`).

use std::collections::HashMap;
use std::path::Path;

use corten_cri_api::v1 as cri;
use cri::security_profile::ProfileType;
use k8s_openapi::api::core::v1::{ContainerPort, Pod, SELinuxOptions};

use super::{all_containers, kernel_hostname, labels, log_dir, name, namespace, resources, spec, uid};

/// What the config of a sandbox needs besides the Pod.
pub struct Context<'a> {
    pub logs: &'a Path,
    pub cgroup_parent: String,
    pub dns: cri::DnsConfig,
    pub cluster_domain: &'a str,
    pub attempt: u32,
}

/// # Errors
/// The host name cannot be one.
pub fn of_pod(pod: &Pod, context: Context<'_>) -> Result<cri::PodSandboxConfig, String> {
    let spec = spec(pod);
    let hostname = match spec.host_network {
        Some(true) => String::new(),
        _ => kernel_hostname(pod, context.cluster_domain)?,
    };
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name(pod).into(),
            uid: uid(pod).into(),
            namespace: namespace(pod).into(),
            attempt: context.attempt,
        }),
        hostname,
        log_directory: log_dir(context.logs, pod).display().to_string(),
        dns_config: Some(context.dns),
        port_mappings: spec
            .containers
            .iter()
            .flat_map(|c| c.ports.iter().flatten())
            .map(port_mapping)
            .collect(),
        labels: labels::of_sandbox(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(linux(pod, context.cgroup_parent)),
        windows: None,
    })
}

fn port_mapping(port: &ContainerPort) -> cri::PortMapping {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => cri::Protocol::Udp,
        Some("SCTP") => cri::Protocol::Sctp,
        _ => cri::Protocol::Tcp,
    };
    cri::PortMapping {
        protocol: protocol.into(),
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    }
}

fn linux(pod: &Pod, cgroup_parent: String) -> cri::LinuxPodSandboxConfig {
    let sc = spec(pod).security_context.clone().unwrap_or_default();
    let privileged = |c: &k8s_openapi::api::core::v1::Container| {
        c.security_context.as_ref().is_some_and(|sc| sc.privileged == Some(true))
    };
    let limits = resources::of_pod(pod);
    let sysctls: HashMap<_, _> =
        sc.sysctls.iter().flatten().map(|s| (s.name.replace('/', "."), s.value.clone())).collect();
    cri::LinuxPodSandboxConfig {
        cgroup_parent,
        security_context: Some(cri::LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(pod)),
            selinux_options: sc.se_linux_options.as_ref().map(selinux),
            run_as_user: sc.run_as_user.map(|value| cri::Int64Value { value }),
            run_as_group: sc.run_as_group.map(|value| cri::Int64Value { value }),
            supplemental_groups: supplemental_groups(pod),
            supplemental_groups_policy: groups_policy(pod),
            privileged: all_containers(pod).any(privileged),
            // The pause process is confined whatever the containers ask for.
            seccomp: Some(profile(ProfileType::RuntimeDefault, "")),
            ..Default::default()
        }),
        sysctls,
        overhead: None,
        resources: Some(cri::LinuxContainerResources {
            cpu_shares: limits.cpu_shares,
            cpu_period: limits.cpu_quota_us.map_or(0, |_| resources::CPU_PERIOD_US),
            cpu_quota: limits.cpu_quota_us.unwrap_or(0),
            memory_limit_in_bytes: limits.memory_limit_bytes.unwrap_or(0),
            ..Default::default()
        }),
    }
}

/// Which namespaces the pod has of its own, which it shares with the node, which each container has alone.
pub fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let spec = spec(pod);
    let node_or_pod = |host: Option<bool>| match host {
        Some(true) => cri::NamespaceMode::Node,
        _ => cri::NamespaceMode::Pod,
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => cri::NamespaceMode::Node,
        (_, Some(true)) => cri::NamespaceMode::Pod,
        _ => cri::NamespaceMode::Container,
    };
    cri::NamespaceOption {
        network: node_or_pod(spec.host_network).into(),
        pid: pid.into(),
        ipc: node_or_pod(spec.host_ipc).into(),
        target_id: String::new(),
        userns_options: None,
    }
}

/// fsGroup is a supplementary group too: volumes belong to it.
pub fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let sc = spec(pod).security_context.as_ref();
    let fs_group = sc.and_then(|sc| sc.fs_group);
    fs_group
        .into_iter()
        .chain(sc.into_iter().flat_map(|sc| sc.supplemental_groups.iter().flatten().copied()))
        .collect()
}

pub fn groups_policy(pod: &Pod) -> i32 {
    let policy = spec(pod).security_context.as_ref().and_then(|sc| sc.supplemental_groups_policy.as_deref());
    i32::from(match policy {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict,
        _ => cri::SupplementalGroupsPolicy::Merge,
    })
}

pub fn selinux(options: &SELinuxOptions) -> cri::SeLinuxOption {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    cri::SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

pub fn profile(kind: ProfileType, localhost_ref: &str) -> cri::SecurityProfile {
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: localhost_ref.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config(spec: &Value) -> cri::PodSandboxConfig {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "web-n", "namespace": "ns", "uid": "u",
            "labels": {"app": "web"}, "annotations": {"kubernetes.io/config.source": "file"}}, "spec": spec}))
            .expect("pod");
        let context = Context {
            logs: Path::new("/var/log/pods"),
            cgroup_parent: "/kubepods/besteffort/podu".into(),
            dns: cri::DnsConfig::default(),
            cluster_domain: "c.l",
            attempt: 2,
        };
        of_pod(&pod, context).expect("config")
    }

    #[test]
    fn a_stock_kubelet_would_recognise_the_sandbox() {
        let c = config(
            &json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}]}]}),
        );
        assert_eq!(c.log_directory, "/var/log/pods/ns_web-n_u");
        assert_eq!(c.hostname, "web-n");
        assert_eq!(c.metadata.as_ref().map(|m| (m.uid.as_str(), m.attempt)), Some(("u", 2)));
        for (key, value) in [
            ("app", "web"),
            ("io.kubernetes.pod.name", "web-n"),
            ("io.kubernetes.pod.namespace", "ns"),
            ("io.kubernetes.pod.uid", "u"),
        ] {
            assert_eq!(c.labels[key], value);
        }
        assert_eq!(c.annotations["kubernetes.io/config.source"], "file");
        let port = &c.port_mappings[0];
        assert_eq!((port.protocol(), port.container_port, port.host_port), (cri::Protocol::Udp, 80, 8080));
    }

    #[test]
    fn namespaces_follow_the_pod() {
        use cri::NamespaceMode::{Container, Node, Pod};
        for (spec, wanted) in [
            (json!({"containers": []}), (Pod, Container, Pod)),
            (
                json!({"containers": [], "hostNetwork": true, "hostPID": true, "hostIPC": true}),
                (Node, Node, Node),
            ),
            (json!({"containers": [], "shareProcessNamespace": true}), (Pod, Pod, Pod)),
        ] {
            let linux = config(&spec).linux.expect("linux");
            let o = linux.security_context.and_then(|s| s.namespace_options).expect("options");
            assert_eq!((o.network(), o.pid(), o.ipc()), wanted, "{spec}");
        }
        assert_eq!(config(&json!({"containers": [], "hostNetwork": true})).hostname, "");
    }

    #[test]
    fn security_of_the_pod_reaches_the_sandbox() {
        let c = config(
            &json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}], "securityContext":
            {"runAsUser": 7, "fsGroup": 5, "supplementalGroups": [6], "sysctls": [{"name": "net/ipv4/tcp_syncookies", "value": "1"}]}}),
        );
        let linux = c.linux.expect("linux");
        assert_eq!(linux.sysctls["net.ipv4.tcp_syncookies"], "1");
        let sc = linux.security_context.expect("security");
        assert!(sc.privileged);
        assert_eq!(sc.supplemental_groups, [5, 6]);
        assert_eq!(sc.run_as_user.map(|u| u.value), Some(7));
        assert_eq!(sc.seccomp.map(|s| s.profile_type()), Some(ProfileType::RuntimeDefault));
    }
}
