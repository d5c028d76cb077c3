//! Container → CRI `ContainerConfig`. Pure; fields and defaults are upstream's (`kuberuntime_container*.go`,
//! `security_context.go`).

use std::collections::BTreeMap;
use std::path::Path;

use corten_cri_api::v1 as cri;
use cri::security_profile::ProfileType;
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile, SecurityContext};

use super::env::{expand, variables};
use super::sandbox_config::{groups_policy, namespaces, profile, selinux, supplemental_groups};
use super::{env, labels, resources, spec};
use crate::node::Node;

/// What an unprivileged container may not see or not write below /proc and /sys.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the config of a container needs besides the Pod.
pub struct Context<'a> {
    pub node: &'a Node,
    pub facts: &'a env::Facts,
    pub attempt: u32,
    /// Id of the image as the runtime has it.
    pub image_ref: String,
    pub user: ImageUser,
    pub mounts: Vec<cri::Mount>,
    /// Directory of `Localhost` seccomp profiles.
    pub seccomp_dir: &'a Path,
}

/// The user an image names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageUser {
    Uid(i64),
    Name(String),
}

impl ImageUser {
    /// Without either the image runs as root, as upstream reads it.
    pub fn of_image(image: &cri::Image) -> Self {
        match &image.uid {
            Some(uid) => Self::Uid(uid.value),
            None if image.username.is_empty() => Self::Uid(0),
            None => Self::Name(image.username.clone()),
        }
    }
}

/// # Errors
/// `runAsNonRoot`, and the container would run as root or nobody knows as whom.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    context: Context<'_>,
) -> Result<cri::ContainerConfig, String> {
    let sc = effective(pod, container);
    verify_non_root(&sc, &context.user)?;
    let env = variables(pod, container, context.node, context.facts);
    let values: BTreeMap<String, String> = env.iter().cloned().collect();
    let expanded = |list: &Option<Vec<String>>| list.iter().flatten().map(|s| expand(s, &values)).collect();
    let image = container.image.clone().unwrap_or_default();
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: context.attempt }),
        image: Some(cri::ImageSpec {
            image: context.image_ref,
            user_specified_image: image,
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels: labels::of_container(pod, container),
        annotations: labels::annotations_of_container(pod, container, context.attempt),
        log_path: format!("{}/{}.log", container.name, context.attempt),
        envs: env.into_iter().map(|(key, value)| cri::KeyValue { key, value }).collect(),
        mounts: context.mounts,
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::of_container(pod, container, context.node.memory_bytes)),
            security_context: Some(security(pod, &sc, &context.user, context.seccomp_dir)),
        }),
        stop_signal: stop_signal(container),
        ..Default::default()
    })
}

/// The container's security context over what the pod's gives to all.
fn effective(pod: &Pod, container: &Container) -> SecurityContext {
    let mut sc = container.security_context.clone().unwrap_or_default();
    if let Some(pod) = &spec(pod).security_context {
        sc.run_as_user = sc.run_as_user.or(pod.run_as_user);
        sc.run_as_group = sc.run_as_group.or(pod.run_as_group);
        sc.run_as_non_root = sc.run_as_non_root.or(pod.run_as_non_root);
        sc.se_linux_options = sc.se_linux_options.or_else(|| pod.se_linux_options.clone());
        sc.seccomp_profile = sc.seccomp_profile.or_else(|| pod.seccomp_profile.clone());
        sc.app_armor_profile = sc.app_armor_profile.or_else(|| pod.app_armor_profile.clone());
    }
    sc
}

fn verify_non_root(sc: &SecurityContext, user: &ImageUser) -> Result<(), String> {
    let refuse = |why: &str| Err(why.to_owned());
    match (sc.run_as_non_root, sc.run_as_user, user) {
        (Some(true), Some(0), _) => refuse("container's runAsUser breaks non-root policy"),
        (Some(true), None, ImageUser::Uid(0)) => {
            refuse("container has runAsNonRoot and image will run as root")
        }
        (Some(true), None, ImageUser::Name(name)) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        )),
        _ => Ok(()),
    }
}

fn security(
    pod: &Pod,
    sc: &SecurityContext,
    user: &ImageUser,
    seccomp_dir: &Path,
) -> cri::LinuxContainerSecurityContext {
    let (uid, username) = match (sc.run_as_user, user) {
        (Some(uid), _) => (Some(uid), String::new()),
        (None, ImageUser::Uid(uid)) => (Some(*uid), String::new()),
        (None, ImageUser::Name(name)) => (None, name.clone()),
    };
    let privileged = sc.privileged == Some(true);
    let paths = |list: &[&str]| -> Vec<String> {
        if privileged { vec![] } else { list.iter().map(ToString::to_string).collect() }
    };
    let apparmor = sc.app_armor_profile.as_ref();
    cri::LinuxContainerSecurityContext {
        capabilities: sc.capabilities.as_ref().map(|c| cri::Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces(pod)),
        selinux_options: sc.se_linux_options.as_ref().map(selinux),
        run_as_user: uid.map(|value| cri::Int64Value { value }),
        run_as_group: sc.run_as_group.map(|value| cri::Int64Value { value }),
        run_as_username: username,
        readonly_rootfs: sc.read_only_root_filesystem == Some(true),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: sc.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READONLY),
        seccomp: Some(seccomp(sc.seccomp_profile.as_ref(), seccomp_dir)),
        apparmor: apparmor.map(|p| match p.type_.as_str() {
            "Unconfined" => profile(ProfileType::Unconfined, ""),
            "Localhost" => {
                profile(ProfileType::Localhost, p.localhost_profile.as_deref().unwrap_or_default())
            }
            _ => profile(ProfileType::RuntimeDefault, ""),
        }),
        ..Default::default()
    }
}

/// No profile is Unconfined: upstream's default too (its gate SeccompDefault is off).
fn seccomp(given: Option<&SeccompProfile>, dir: &Path) -> cri::SecurityProfile {
    match given.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref().unwrap_or_default())) {
        Some(("RuntimeDefault", _)) => profile(ProfileType::RuntimeDefault, ""),
        Some(("Localhost", file)) => profile(ProfileType::Localhost, &dir.join(file).display().to_string()),
        _ => profile(ProfileType::Unconfined, ""),
    }
}

fn stop_signal(container: &Container) -> i32 {
    let name = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref());
    name.and_then(signal).unwrap_or(cri::Signal::RuntimeDefault).into()
}

/// `SIGRTMIN+1` in Kubernetes is `SIGRTMINPLUS1` in CRI.
pub fn signal(name: &str) -> Option<cri::Signal> {
    let name = name.replace('+', "PLUS").replace('-', "MINUS");
    cri::Signal::from_str_name(&name).filter(|_| name.starts_with("SIG"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn build(spec: &Value, user: ImageUser) -> Result<cri::ContainerConfig, String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": spec}))
            .expect("pod");
        let context = Context {
            node: &Node { memory_bytes: 1 << 30, ..Node::default() },
            facts: &env::Facts::default(),
            attempt: 3,
            image_ref: "sha256:1".into(),
            user,
            mounts: vec![],
            seccomp_dir: Path::new("/root/seccomp"),
        };
        of_container(&pod, &spec_of(&pod).containers[0], context)
    }
    fn spec_of(pod: &Pod) -> &k8s_openapi::api::core::v1::PodSpec {
        super::spec(pod)
    }
    fn security(spec: &Value, user: ImageUser) -> cri::LinuxContainerSecurityContext {
        build(spec, user).expect("config").linux.and_then(|l| l.security_context).expect("security")
    }

    #[test]
    fn a_stock_kubelet_would_recognise_the_container() {
        let c = build(
            &json!({"terminationGracePeriodSeconds": 5, "containers": [{"name": "c", "image": "i:1",
                "command": ["sh", "$(A)"], "args": ["$(B)", "$$(A)"], "env": [{"name": "A", "value": "x"}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "lifecycle": {"preStop": {"sleep": {"seconds": 1}}, "stopSignal": "SIGRTMIN+3"}}]}),
            ImageUser::Uid(0),
        )
        .expect("config");
        assert_eq!(
            (c.command, c.args),
            (vec!["sh".into(), "x".into()], vec!["$(B)".into(), "$(A)".to_string()])
        );
        assert_eq!(c.log_path, "c/3.log");
        assert_eq!(c.labels["io.kubernetes.container.name"], "c");
        for (key, value) in [
            ("io.kubernetes.container.restartCount", "3"),
            ("io.kubernetes.container.terminationMessagePath", "/dev/termination-log"),
            ("io.kubernetes.container.terminationMessagePolicy", "File"),
            ("io.kubernetes.container.preStopHandler", "{\"sleep\":{\"seconds\":1}}"),
            ("io.kubernetes.pod.terminationGracePeriod", "5"),
        ] {
            assert_eq!(c.annotations[key], value);
        }
        assert!(c.annotations["io.kubernetes.container.hash"].bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(c.stop_signal, i32::from(cri::Signal::Sigrtminplus3));
    }

    #[test]
    fn non_root_is_verified() {
        let spec = |sc: Value| json!({"containers": [{"name": "c", "securityContext": sc}]});
        for (sc, user, error) in [
            (json!({"runAsNonRoot": true}), ImageUser::Uid(0), "image will run as root"),
            (json!({"runAsNonRoot": true}), ImageUser::Name("www".into()), "non-numeric user (www)"),
            (
                json!({"runAsNonRoot": true, "runAsUser": 0}),
                ImageUser::Uid(5),
                "runAsUser breaks non-root policy",
            ),
            (json!({"runAsNonRoot": true}), ImageUser::Uid(5), ""),
            (json!({"runAsNonRoot": true, "runAsUser": 5}), ImageUser::Name("www".into()), ""),
            (json!({}), ImageUser::Uid(0), ""),
        ] {
            let got = build(&spec(sc.clone()), user).err().unwrap_or_default();
            assert!(if error.is_empty() { got.is_empty() } else { got.contains(error) }, "{sc}: {got}");
        }
    }

    #[test]
    fn the_containers_security_wins_over_the_pods() {
        let spec = json!({"securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 9,
                "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"runAsUser": 3, "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true}}]});
        let sc = security(&spec, ImageUser::Uid(0));
        assert_eq!(sc.run_as_user.map(|u| u.value), Some(3));
        assert_eq!(sc.run_as_group.map(|u| u.value), Some(2));
        assert_eq!(sc.supplemental_groups, [9]);
        assert_eq!(sc.capabilities.map(|c| c.drop_capabilities), Some(vec!["ALL".into()]));
        assert!(sc.no_new_privs && sc.readonly_rootfs && !sc.privileged);
        assert_eq!(sc.seccomp.map(|s| s.profile_type()), Some(ProfileType::RuntimeDefault));
        assert!(sc.masked_paths.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn privileged_is_unmasked_and_localhost_profiles_have_their_directory() {
        let sc = security(
            &json!({"containers": [{"name": "c", "securityContext": {"privileged": true,
            "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}}}]}),
            ImageUser::Name("www".into()),
        );
        assert!(sc.privileged && sc.masked_paths.is_empty() && sc.readonly_paths.is_empty());
        assert_eq!(sc.seccomp.map(|s| s.localhost_ref).as_deref(), Some("/root/seccomp/a/b.json"));
        assert_eq!((sc.run_as_user, sc.run_as_username.as_str()), (None, "www"));
    }
}
