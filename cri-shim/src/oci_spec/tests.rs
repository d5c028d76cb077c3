//! Tables: what a config asks for, and what stands in the spec.

use std::path::{Path, PathBuf};

use corten_cri_api::v1;
use oci_spec::runtime::{Capability, LinuxDeviceType, LinuxNamespaceType, Spec};

use super::devices::{self, HostDevice, NodeKind};
use super::mounts::{self, ResolvedMount, SandboxFiles};
use super::namespaces::{PidNamespace, SandboxNamespaces};
use super::security::{SeccompChoice, seccomp};
use super::{HostFacts, ImageDefaults, Input, ResolvedUser, SpecError, build};

/// One container's input, owned, so that a test says only what differs.
struct Case {
    config: v1::ContainerConfig,
    sandbox: v1::PodSandboxConfig,
    image: ImageDefaults,
    user: ResolvedUser,
    mounts: Vec<ResolvedMount>,
    namespaces: SandboxNamespaces,
    devices: Vec<HostDevice>,
    host: HostFacts,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            config: v1::ContainerConfig::default(),
            sandbox: v1::PodSandboxConfig::default(),
            image: ImageDefaults { entrypoint: vec!["/entry".into()], ..Default::default() },
            user: ResolvedUser { uid: 0, gid: 0, groups: vec![0], home: Some("/root".into()) },
            mounts: Vec::new(),
            namespaces: SandboxNamespaces::default(),
            devices: Vec::new(),
            host: HostFacts {
                capabilities: ["CHOWN", "SYS_ADMIN", "NET_ADMIN", "KILL"].map(String::from).to_vec(),
                swap_accounting: true,
                hugepage_sizes: vec!["2MB".into()],
                ..Default::default()
            },
        }
    }
}

impl Case {
    fn with(change: impl FnOnce(&mut v1::ContainerConfig)) -> Self {
        let mut case = Self::default();
        change(&mut case.config);
        case
    }

    fn security(change: impl FnOnce(&mut v1::LinuxContainerSecurityContext)) -> Self {
        Self::with(|config| {
            let mut context = v1::LinuxContainerSecurityContext::default();
            change(&mut context);
            config.linux =
                Some(v1::LinuxContainerConfig { security_context: Some(context), ..Default::default() });
        })
    }

    fn resources(change: impl FnOnce(&mut v1::LinuxContainerResources)) -> Self {
        Self::with(|config| {
            let mut resources = v1::LinuxContainerResources::default();
            change(&mut resources);
            config.linux =
                Some(v1::LinuxContainerConfig { resources: Some(resources), ..Default::default() });
        })
    }

    fn build(&self) -> Result<Spec, SpecError> {
        let files = SandboxFiles {
            hostname: "/pod/hostname".into(),
            hosts: "/pod/hosts".into(),
            resolv_conf: "/pod/resolv.conf".into(),
            shm: "/pod/shm".into(),
        };
        build(&Input {
            id: "c1",
            sandbox_id: "p1",
            config: &self.config,
            sandbox: &self.sandbox,
            image: &self.image,
            image_name: "busybox:1",
            user: &self.user,
            mounts: &self.mounts,
            files: &files,
            namespaces: &self.namespaces,
            devices: &self.devices,
            seccomp: None,
            host: &self.host,
            hostname: "web",
            rootfs: Path::new("/bundle/rootfs"),
            cgroup_parent: "/kubepods/pod1",
        })
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn env(spec: &Spec) -> Vec<String> {
    spec.process().as_ref().unwrap().env().clone().unwrap()
}

fn capabilities(spec: &Spec) -> Vec<Capability> {
    let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
    assert_eq!(sets.bounding(), sets.effective());
    assert_eq!(sets.bounding(), sets.permitted());
    assert!(sets.inheritable().as_ref().unwrap().is_empty(), "CVE-2022-24769");
    assert!(sets.ambient().as_ref().unwrap().is_empty());
    let mut all: Vec<Capability> = sets.bounding().clone().unwrap().into_iter().collect();
    all.sort_by_key(ToString::to_string);
    all
}

fn option<'a>(spec: &'a Spec, destination: &str) -> Vec<&'a str> {
    let mounts = spec.mounts().as_ref().unwrap();
    let found: Vec<_> = mounts.iter().filter(|m| m.destination() == Path::new(destination)).collect();
    assert_eq!(found.len(), 1, "{destination} is mounted {} times", found.len());
    found[0].options().as_ref().unwrap().iter().map(String::as_str).collect()
}

#[test]
fn command_replaces_entrypoint_and_cmd_and_args_replace_cmd() {
    for (command, args, entrypoint, cmd, expected) in [
        (&[][..], &[][..], &["e"][..], &["c"][..], Some(&["e", "c"][..])),
        (&[], &["a"], &["e"], &["c"], Some(&["e", "a"])),
        (&["x"], &[], &["e"], &["c"], Some(&["x"])),
        (&["x"], &["a"], &["e"], &["c"], Some(&["x", "a"])),
        (&[], &[], &[], &["c"], Some(&["c"])),
        (&[], &[], &[""], &["c"], Some(&["c"])),
        (&[], &[], &[], &[], None),
    ] {
        let config =
            v1::ContainerConfig { command: strings(command), args: strings(args), ..Default::default() };
        let image =
            ImageDefaults { entrypoint: strings(entrypoint), cmd: strings(cmd), ..Default::default() };
        let found = super::process::args(&config, &image).ok();
        assert_eq!(found, expected.map(strings), "{command:?} {args:?} {entrypoint:?} {cmd:?}");
    }
}

#[test]
fn the_environment_is_defaults_then_image_then_config() {
    let mut case = Case::with(|c| {
        c.envs = vec![
            v1::KeyValue { key: "A".into(), value: "config".into() },
            v1::KeyValue { key: "B".into(), value: "x=y".into() },
        ];
    });
    case.image.env = strings(&["PATH=/image", "A=image", "malformed"]);
    assert_eq!(
        env(&case.build().unwrap()),
        ["PATH=/image", "HOSTNAME=web", "A=config", "B=x=y", "HOME=/root"]
    );
    case.config.tty = true;
    case.config.envs = vec![v1::KeyValue { key: "HOME".into(), value: "/mine".into() }];
    let spec = case.build().unwrap();
    assert_eq!(env(&spec), ["PATH=/image", "TERM=xterm", "HOSTNAME=web", "A=image", "HOME=/mine"]);
    assert_eq!(spec.process().as_ref().unwrap().terminal(), Some(true));
}

#[test]
fn cve_2026_15809_an_environment_value_with_a_newline_stays_one_value() {
    let case = Case::with(|c| c.envs = vec![v1::KeyValue { key: "A".into(), value: "x\nHOME=/evil".into() }]);
    assert_eq!(env(&case.build().unwrap())[2..], ["A=x\nHOME=/evil", "HOME=/root"]);
    let case = Case::with(|c| c.envs = vec![v1::KeyValue { key: "A".into(), value: "x\0y".into() }]);
    assert!(case.build().is_err());
}

#[test]
fn capabilities_are_added_then_dropped_all_first() {
    use Capability::{Chown, Kill, NetAdmin, SysAdmin};
    for (add, drop, expected) in [
        (&["ALL"][..], &[][..], vec![Chown, Kill, NetAdmin, SysAdmin]),
        (&["all"], &["CAP_KILL"], vec![Chown, NetAdmin, SysAdmin]),
        (&["NET_ADMIN"], &["ALL"], vec![NetAdmin]),
        (&["cap_net_admin", "KILL"], &["ALL", "kill"], vec![NetAdmin]),
        (&[], &["ALL"], vec![]),
    ] {
        let case = Case::security(|s| {
            s.capabilities = Some(v1::Capability {
                add_capabilities: strings(add),
                drop_capabilities: strings(drop),
                ..Default::default()
            });
        });
        assert_eq!(capabilities(&case.build().unwrap()), expected, "{add:?} {drop:?}");
    }
    assert_eq!(capabilities(&Case::default().build().unwrap()).len(), 14);
    let unknown = Case::security(|s| {
        s.capabilities = Some(v1::Capability { add_capabilities: strings(&["FLY"]), ..Default::default() });
    });
    assert!(unknown.build().unwrap_err().to_string().contains("FLY"));
}

#[test]
fn privileged_has_what_the_host_has() {
    let mut case = Case::security(|s| {
        s.privileged = true;
        s.no_new_privs = true;
        s.masked_paths = strings(&["/proc/x"]);
    });
    case.devices = vec![device("/dev/fuse", 10, 229)];
    let spec = case.build().unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(capabilities(&spec).len(), case.host.capabilities.len());
    assert_eq!(linux.masked_paths().as_deref(), Some(&[][..]));
    assert_eq!(linux.readonly_paths().as_deref(), Some(&[][..]));
    assert!(option(&spec, "/sys").contains(&"rw") && option(&spec, "/sys/fs/cgroup").contains(&"rw"));
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    assert_eq!(rules.len(), 1);
    assert!(rules[0].allow());
    assert_eq!(linux.devices().as_ref().unwrap().len(), 1);
    assert_eq!(spec.process().as_ref().unwrap().no_new_privileges(), Some(false));
}

#[test]
fn ghsa_7ww5_powercap_is_masked_by_default_and_a_list_of_ones_own_replaces_it() {
    let spec = Case::default().build().unwrap();
    let masked = spec.linux().as_ref().unwrap().masked_paths().clone().unwrap();
    for path in ["/sys/devices/virtual/powercap", "/proc/kcore", "/proc/keys", "/sys/firmware"] {
        assert!(masked.iter().any(|m| m == path), "{path}");
    }
    let own = Case::security(|s| s.masked_paths = strings(&["/proc/x"])).build().unwrap();
    assert_eq!(own.linux().as_ref().unwrap().masked_paths().as_deref(), Some(&strings(&["/proc/x"])[..]));
}

#[test]
fn seccomp_new_field_over_old_string_and_nothing_is_unconfined() {
    let profile = |kind: v1::security_profile::ProfileType, reference: &str| v1::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: reference.into(),
    };
    use v1::security_profile::ProfileType::{Localhost, RuntimeDefault, Unconfined};
    let at = |path: &str| SeccompChoice::Localhost(PathBuf::from(path));
    for (new, old, privileged, expected) in [
        (None, "", false, Some(SeccompChoice::Unconfined)),
        (Some(profile(RuntimeDefault, "")), "unconfined", false, Some(SeccompChoice::RuntimeDefault)),
        (Some(profile(RuntimeDefault, "")), "", true, Some(SeccompChoice::Unconfined)),
        (Some(profile(Unconfined, "")), "", false, Some(SeccompChoice::Unconfined)),
        (Some(profile(Localhost, "/p.json")), "", false, Some(at("/p.json"))),
        (Some(profile(Localhost, "localhost//p.json")), "", false, Some(at("/p.json"))),
        (Some(profile(Localhost, "p.json")), "", false, None),
        (None, "runtime/default", false, Some(SeccompChoice::RuntimeDefault)),
        (None, "docker/default", false, Some(SeccompChoice::RuntimeDefault)),
        (None, "localhost//p.json", false, Some(at("/p.json"))),
        (None, "strange", false, None),
    ] {
        assert_eq!(seccomp(new.as_ref(), old, privileged).ok(), expected, "{new:?} {old}");
    }
}

#[test]
fn apparmor_of_ones_own_needs_apparmor_and_the_default_without_it_is_none() {
    use v1::security_profile::ProfileType::{Localhost, RuntimeDefault};
    for (kind, host, expected) in [
        (RuntimeDefault, false, Ok(None)),
        (Localhost, false, Err(())),
        (Localhost, true, Ok(Some("mine".to_owned()))),
    ] {
        let mut case = Case::security(|s| {
            s.apparmor = Some(v1::SecurityProfile {
                profile_type: kind.into(),
                localhost_ref: "localhost/mine".into(),
            });
        });
        case.host.apparmor = host;
        let found =
            case.build().map(|s| s.process().as_ref().unwrap().apparmor_profile().clone()).map_err(|_| ());
        assert_eq!(found, expected);
    }
}

fn volume(destination: &str, readonly: bool) -> ResolvedMount {
    ResolvedMount {
        source: "/host".into(),
        destination: destination.into(),
        readonly,
        recursive_read_only: false,
        propagation: v1::MountPropagation::PropagationPrivate,
    }
}

#[test]
fn volumes_come_outer_first_and_replace_the_defaults() {
    let mut case = Case {
        mounts: vec![volume("/a/b", false), volume("/etc/hosts", true), volume("/a", false)],
        ..Case::default()
    };
    let spec = case.build().unwrap();
    let order: Vec<_> = spec.mounts().as_ref().unwrap().iter().map(|m| m.destination().clone()).collect();
    let place = |path: &str| order.iter().position(|d| d == Path::new(path)).unwrap();
    assert!(place("/a") < place("/a/b"));
    assert_eq!(option(&spec, "/etc/hosts"), ["rbind", "rprivate", "ro"]);
    case.mounts = vec![volume("/dev", false)];
    let spec = case.build().unwrap();
    assert!(!spec.mounts().as_ref().unwrap().iter().any(|m| m.destination() == Path::new("/dev/pts")));
    case.mounts = vec![volume("/", false)];
    assert!(case.build().is_err());
}

#[test]
fn propagation_opens_the_rootfs_as_far_as_needed() {
    use v1::MountPropagation::{PropagationBidirectional, PropagationHostToContainer, PropagationPrivate};
    for (propagation, option_name, rootfs) in [
        (PropagationPrivate, "rprivate", "rprivate"),
        (PropagationHostToContainer, "rslave", "rslave"),
        (PropagationBidirectional, "rshared", "rshared"),
    ] {
        let case =
            Case { mounts: vec![ResolvedMount { propagation, ..volume("/v", false) }], ..Case::default() };
        let spec = case.build().unwrap();
        assert!(option(&spec, "/v").contains(&option_name));
        assert_eq!(spec.linux().as_ref().unwrap().rootfs_propagation().as_deref(), Some(rootfs));
    }
}

#[test]
fn recursive_read_only_is_never_silently_less() {
    let asked = |readonly, propagation: v1::MountPropagation| v1::Mount {
        container_path: "/v".into(),
        host_path: "/h".into(),
        readonly,
        recursive_read_only: true,
        propagation: propagation.into(),
        ..Default::default()
    };
    use v1::MountPropagation::{PropagationHostToContainer, PropagationPrivate};
    assert!(mounts::check(&asked(true, PropagationPrivate)).is_ok());
    assert!(mounts::check(&asked(false, PropagationPrivate)).is_err());
    assert!(mounts::check(&asked(true, PropagationHostToContainer)).is_err());
    let case = Case {
        mounts: vec![ResolvedMount { recursive_read_only: true, ..volume("/v", true) }],
        ..Case::default()
    };
    assert!(option(&case.build().unwrap(), "/v").contains(&"rro"));
}

#[test]
fn mounts_that_cannot_be_made_are_refused_by_name() {
    let base = v1::Mount { container_path: "/v".into(), host_path: "/h".into(), ..Default::default() };
    let image = v1::ImageSpec { image: "busybox".into(), ..Default::default() };
    for (mount, field) in [
        (v1::Mount { image: Some(image), ..base.clone() }, "mounts[].image"),
        (v1::Mount { uid_mappings: vec![v1::IdMapping::default()], ..base.clone() }, "uidMappings"),
        (v1::Mount { host_path: "h".into(), ..base.clone() }, "host_path"),
        (v1::Mount { container_path: "/a/../b".into(), ..base.clone() }, "container_path"),
        (v1::Mount { container_path: String::new(), ..base.clone() }, "container_path"),
    ] {
        let error = mounts::check(&mount).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    assert_eq!(mounts::destination("a//b/./c/"), Path::new("/a/b/c"));
}

#[test]
fn namespaces_follow_the_pod_and_pid_is_the_containers_choice() {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let pod = SandboxNamespaces {
        net: Some("/n".into()),
        ipc: Some("/i".into()),
        uts: Some("/u".into()),
        pid: PidNamespace::Own,
    };
    let host = SandboxNamespaces { pid: PidNamespace::Host, ..Default::default() };
    let shared = SandboxNamespaces { pid: PidNamespace::Join("/p".into()), ..pod.clone() };
    for (namespaces, expected) in [
        (pod, vec![(Mount, false), (Cgroup, false), (Network, true), (Ipc, true), (Uts, true), (Pid, false)]),
        (host, vec![(Mount, false), (Cgroup, false)]),
        (
            shared,
            vec![(Mount, false), (Cgroup, false), (Network, true), (Ipc, true), (Uts, true), (Pid, true)],
        ),
    ] {
        let spec = Case { namespaces, ..Case::default() }.build().unwrap();
        let found: Vec<_> = spec
            .linux()
            .as_ref()
            .unwrap()
            .namespaces()
            .as_ref()
            .unwrap()
            .iter()
            .map(|n| (n.typ(), n.path().is_some()))
            .collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_user_namespace_is_refused_by_name() {
    let case = Case::security(|s| {
        let user = v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), ..Default::default() };
        s.namespace_options = Some(v1::NamespaceOption { userns_options: Some(user), ..Default::default() });
    });
    assert!(case.build().unwrap_err().to_string().contains("userns_options"));
}

#[test]
fn limits_are_the_configs_and_swap_is_not_extra() {
    let case = Case::resources(|r| {
        r.cpu_shares = 512;
        r.cpu_quota = 50_000;
        r.cpu_period = 100_000;
        r.memory_limit_in_bytes = 64 << 20;
        r.cpuset_cpus = "0-1".into();
        r.oom_score_adj = 900;
        r.hugepage_limits = vec![
            v1::HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 },
            v1::HugepageLimit { page_size: "1GB".into(), limit: 0 },
        ];
        r.unified.insert("memory.high".into(), "1".into());
    });
    let spec = case.build().unwrap();
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    let (cpu, memory) = (resources.cpu().clone().unwrap(), resources.memory().unwrap());
    assert_eq!((cpu.shares(), cpu.quota(), cpu.period()), (Some(512), Some(50_000), Some(100_000)));
    assert_eq!(cpu.cpus().as_deref(), Some("0-1"));
    assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(64 << 20)));
    assert_eq!(resources.hugepage_limits().as_ref().unwrap().len(), 1);
    assert_eq!(resources.unified().as_ref().unwrap()["memory.high"], "1");
    assert_eq!(spec.process().as_ref().unwrap().oom_score_adj(), Some(900));
    assert_eq!(
        spec.linux().as_ref().unwrap().cgroups_path().as_deref(),
        Some(Path::new("/kubepods/pod1/c1"))
    );
}

#[test]
fn limits_that_mean_nothing_are_refused() {
    for case in [
        Case::resources(|r| r.cpu_shares = -1),
        Case::resources(|r| r.oom_score_adj = 5000),
        Case::resources(|r| {
            r.hugepage_limits = vec![v1::HugepageLimit { page_size: "1GB".into(), limit: 1 }];
        }),
    ] {
        case.build().unwrap_err();
    }
    let swap = Case { host: HostFacts::default(), ..Case::resources(|r| r.memory_limit_in_bytes = 1 << 20) };
    let spec = swap.build().unwrap();
    assert_eq!(spec.linux().as_ref().unwrap().resources().as_ref().unwrap().memory().unwrap().swap(), None);
}

fn device(path: &str, major: u32, minor: u32) -> HostDevice {
    HostDevice {
        path: path.into(),
        kind: NodeKind::Char,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
        access: "rw".into(),
    }
}

#[test]
fn devices_get_a_node_and_a_rule() {
    let case = Case { devices: vec![device("/dev/fuse", 10, 229)], ..Case::default() };
    let spec = case.build().unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.devices().as_ref().unwrap()[0].path(), Path::new("/dev/fuse"));
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    assert!(!rules[0].allow() && rules[0].major().is_none(), "deny first");
    assert_eq!(
        (rules[1].typ(), rules[1].major(), rules[1].minor()),
        (Some(LinuxDeviceType::C), Some(10), Some(229))
    );
    assert_eq!(rules[1].access().as_deref(), Some("rw"));
    let asked = |permissions: &str| v1::Device {
        container_path: "/dev/x".into(),
        host_path: "/dev/x".into(),
        permissions: permissions.into(),
    };
    assert!(devices::check(&asked("rwm")).is_ok());
    assert!(devices::check(&asked("rx")).is_err());
}

#[test]
fn cve_2026_53488_labels_and_annotations_of_pod_and_image_do_not_reach_the_spec() {
    let case = Case::with(|c| {
        c.annotations.insert("cdi.k8s.io/x".into(), "vendor.com/gpu=0".into());
        c.labels.insert("io.kubernetes.cri.container-type".into(), "sandbox".into());
    });
    let spec = case.build().unwrap();
    let annotations = spec.annotations().as_ref().unwrap();
    assert_eq!(annotations["io.kubernetes.cri.container-type"], "container");
    assert_eq!(annotations["io.kubernetes.cri.sandbox-id"], "p1");
    assert!(annotations.keys().all(|k| k.starts_with("io.kubernetes.cri.")));
}

#[test]
fn cdi_devices_are_refused_by_name() {
    let case = Case::with(|c| c.cdi_devices = vec![v1::CdiDevice { name: "vendor.com/gpu=0".into() }]);
    assert!(case.build().unwrap_err().to_string().contains("CDI_devices"));
}

#[test]
fn a_readonly_rootfs_has_readonly_pod_files() {
    let spec = Case::security(|s| s.readonly_rootfs = true).build().unwrap();
    assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
    for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        assert!(option(&spec, file).contains(&"ro"), "{file}");
    }
    assert!(option(&spec, "/dev/shm").contains(&"rw"));
}

#[test]
fn the_working_directory_is_the_configs_then_the_images_then_the_root() {
    for (config, image, expected) in
        [("", "", Some("/")), ("", "/srv", Some("/srv")), ("/w", "/srv", Some("/w")), ("w", "", None)]
    {
        let mut case = Case::with(|c| c.working_dir = config.into());
        case.image.working_dir = image.into();
        let found = case.build().ok().map(|s| s.process().as_ref().unwrap().cwd().clone());
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
