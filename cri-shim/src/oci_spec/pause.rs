//! The spec of a pod's pause container: the process that holds the pod's ipc, uts and pid namespaces, and with which
//! the pod's sysctls are set.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use corten_cri_api::v1;
use oci_spec::runtime::{
    LinuxBuilder, LinuxCapabilities, LinuxNamespaceType, LinuxResources, ProcessBuilder, Spec, SpecBuilder,
    UserBuilder,
};

use super::namespaces::{joined, of_pod, own};
use super::{SPEC_VERSION, SpecError, mounts, root};

/// Everything a pause spec is made of.
pub struct PauseInput<'a> {
    pub id: &'a str,
    pub config: &'a v1::PodSandboxConfig,
    /// The pinned network namespace; `None` for the host's network.
    pub netns: Option<&'a Path>,
    pub rootfs: &'a Path,
    pub cgroup_parent: &'a str,
    pub hostname: &'a str,
    pub unprivileged_ports: bool,
}

/// The pause program's place in its rootfs.
pub const PROGRAM: &str = "/pause";

/// Builds it: as little as can be, since every pod pays for it. No /sys, no seccomp filter; it has no
/// capability, reads no byte of anybody and cannot open a file.
pub fn build(input: &PauseInput<'_>) -> Result<Spec, SpecError> {
    let options = of_pod(input.config);
    let mut namespaces = vec![own(LinuxNamespaceType::Mount)];
    if let Some(netns) = input.netns {
        namespaces.push(joined(LinuxNamespaceType::Network, netns));
        namespaces.push(own(LinuxNamespaceType::Uts));
    }
    if options.ipc() != v1::NamespaceMode::Node {
        namespaces.push(own(LinuxNamespaceType::Ipc));
    }
    if options.pid() != v1::NamespaceMode::Node {
        namespaces.push(own(LinuxNamespaceType::Pid));
    }
    let sysctls = sysctls(input)?;
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(LinuxResources::default())
        .cgroups_path(PathBuf::from(format!("{}/{}", input.cgroup_parent.trim_end_matches('/'), input.id)))
        .sysctl(sysctls.clone())
        .masked_paths(Vec::new())
        .readonly_paths(Vec::new())
        .build()
        .expect("every field has a default");
    // Sysctls are written through the container's own /proc; /dev is not the shared root's, which is everybody's.
    let mounts = vec![
        mounts::special("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mounts::special("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"]),
    ];
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(65535u32).gid(65535u32).build().expect("every field has a default"))
        .args(vec![PROGRAM.to_owned()])
        .env(Vec::new())
        .cwd("/")
        .capabilities(LinuxCapabilities::default())
        .no_new_privileges(true)
        .build()
        .expect("every field has a default");
    process.set_rlimits(None);
    process.set_capabilities(Some(no_capabilities()));
    let mut spec = SpecBuilder::default()
        .version(SPEC_VERSION)
        .root(root(input.rootfs, true))
        .process(process)
        .mounts(mounts)
        .annotations(annotations(input))
        .linux(linux)
        .build()
        .expect("every field has a default");
    // The crate's default spec has a name of its own.
    spec.set_hostname(input.netns.map(|_| input.hostname.to_owned()));
    Ok(spec)
}

fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None);
    none.set_effective(None);
    none.set_permitted(None);
    none.set_inheritable(None);
    none.set_ambient(None);
    none
}

fn annotations(input: &PauseInput<'_>) -> HashMap<String, String> {
    let pod = input.config.metadata.clone().unwrap_or_default();
    [
        ("io.kubernetes.cri.container-type", "sandbox".to_owned()),
        ("io.kubernetes.cri.sandbox-id", input.id.to_owned()),
        ("io.kubernetes.cri.sandbox-name", pod.name),
        ("io.kubernetes.cri.sandbox-namespace", pod.namespace),
        ("io.kubernetes.cri.sandbox-uid", pod.uid),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn sysctls(input: &PauseInput<'_>) -> Result<HashMap<String, String>, SpecError> {
    let options = of_pod(input.config);
    let asked: BTreeMap<String, String> =
        input.config.linux.as_ref().map(|l| l.sysctls.clone().into_iter().collect()).unwrap_or_default();
    let mut all = HashMap::new();
    if input.unprivileged_ports && input.netns.is_some() {
        all.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        all.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    }
    for (name, value) in asked {
        let name = dotted(&name);
        check_sysctl(&name, &value, &options)?;
        all.insert(name, value);
    }
    Ok(all)
}

/// `net/ipv4/ip_forward` is the same as `net.ipv4.ip_forward`. With slashes as separators, a dot is part of a name
/// (an interface `eth0.5`), as in sysctl(8).
fn dotted(name: &str) -> String {
    match (name.find('/'), name.find('.')) {
        (Some(slash), dot) if dot.is_none_or(|dot| slash < dot) => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// Only sysctls of namespaces the pod does not share with the host, and nothing that could smuggle a second one
/// (CVE-2022-0811).
pub fn check_sysctl(name: &str, value: &str, options: &v1::NamespaceOption) -> Result<(), SpecError> {
    let refuse = |why| Err(SpecError::Sysctl { name: name.into(), why });
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    if name.is_empty() || !name.bytes().all(letter) || name.split(['.', '/']).any(str::is_empty) {
        return refuse("not a sysctl name");
    }
    if value.bytes().any(|b| b == b'+' || b.is_ascii_control() && b != b'\t') {
        return refuse("the value has a separator or control character in it");
    }
    const IPC: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if name.starts_with("net.") {
        return match options.network() {
            v1::NamespaceMode::Node => {
                refuse("it would change the host: the pod uses the host's network namespace")
            }
            _ => Ok(()),
        };
    }
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return match options.ipc() {
            v1::NamespaceMode::Node => {
                refuse("it would change the host: the pod uses the host's IPC namespace")
            }
            _ => Ok(()),
        };
    }
    refuse(
        "it belongs to no namespace (net.*, fs.mqueue.*, kernel.msg*, kernel.sem, kernel.shm* do): it would change the host",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(network: v1::NamespaceMode, ipc: v1::NamespaceMode) -> v1::NamespaceOption {
        v1::NamespaceOption { network: network.into(), ipc: ipc.into(), ..Default::default() }
    }

    #[test]
    fn sysctls_must_belong_to_a_namespace_of_the_pod() {
        use v1::NamespaceMode::{Node, Pod};
        for (name, value, network, ipc, fine) in [
            ("net.ipv4.ip_local_port_range", "1024\t65535", Pod, Pod, true),
            ("net.ipv4.ip_forward", "1", Node, Pod, false),
            ("kernel.shm_rmid_forced", "1", Pod, Pod, true),
            ("kernel.shm_rmid_forced", "1", Pod, Node, false),
            ("fs.mqueue.msg_max", "10", Pod, Pod, true),
            ("kernel.core_pattern", "|/x", Pod, Pod, false),
            ("vm.swappiness", "1", Pod, Pod, false),
            ("net..x", "1", Pod, Pod, false),
            ("", "1", Pod, Pod, false),
        ] {
            assert_eq!(check_sysctl(name, value, &namespaces(network, ipc)).is_ok(), fine, "{name}");
        }
    }

    #[test]
    fn cve_2022_0811_a_sysctl_value_cannot_carry_a_second_one() {
        let pod = v1::NamespaceOption::default();
        for value in ["1+kernel.core_pattern=|/x", "1\nkernel.core_pattern=|/x", "1\0"] {
            assert!(check_sysctl("net.ipv4.ip_forward", value, &pod).is_err(), "{value:?}");
        }
    }

    #[test]
    fn slashes_separate_as_dots_do() {
        assert_eq!(dotted("net/ipv4/conf/eth0.5/forwarding"), "net.ipv4.conf.eth0/5.forwarding");
        assert_eq!(dotted("net.ipv4.ip_forward"), "net.ipv4.ip_forward");
    }

    #[test]
    fn a_pause_joins_the_pods_network_and_makes_the_rest() {
        let config = v1::PodSandboxConfig::default();
        let input = PauseInput {
            id: "p",
            config: &config,
            netns: Some(Path::new("/run/netns/p")),
            rootfs: Path::new("/r"),
            cgroup_parent: "/kubepods/podx",
            hostname: "web",
            unprivileged_ports: false,
        };
        let spec = build(&input).unwrap();
        let kinds: Vec<_> = spec
            .linux()
            .as_ref()
            .unwrap()
            .namespaces()
            .as_ref()
            .unwrap()
            .iter()
            .map(oci_spec::runtime::LinuxNamespace::typ)
            .collect();
        assert_eq!(
            kinds,
            [
                LinuxNamespaceType::Mount,
                LinuxNamespaceType::Network,
                LinuxNamespaceType::Uts,
                LinuxNamespaceType::Ipc,
                LinuxNamespaceType::Pid
            ]
        );
        assert_eq!(spec.hostname().as_deref(), Some("web"));
        assert_eq!(
            spec.linux().as_ref().unwrap().cgroups_path().as_deref(),
            Some(Path::new("/kubepods/podx/p"))
        );
    }

    #[test]
    fn a_pod_on_the_hosts_network_keeps_the_hosts_name() {
        let options = namespaces(v1::NamespaceMode::Node, v1::NamespaceMode::Node);
        let context =
            v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = v1::LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() };
        let config = v1::PodSandboxConfig { linux: Some(linux), ..Default::default() };
        let input = PauseInput {
            id: "p",
            config: &config,
            netns: None,
            rootfs: Path::new("/r"),
            cgroup_parent: "/x",
            hostname: "web",
            unprivileged_ports: true,
        };
        let spec = build(&input).unwrap();
        assert_eq!(spec.hostname(), &None);
        assert!(spec.linux().as_ref().unwrap().sysctl().as_ref().unwrap().is_empty());
    }
}
