//! config.json → [`Plan`]: pure. All validation happens here; nothing after it reads the specification again.

mod devices;
mod mounts;
mod namespaces;
mod process;
mod refuse;
mod rootfs;
mod sysctl;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hooks, LinuxResources, LinuxSeccomp, Spec};

pub use devices::{Device, DeviceKind};
pub use mounts::{Mount, MountKind, mount_options};
pub use namespaces::Namespaces;
pub use process::{Ids, Limit, MemoryPolicy, Process};
pub use rootfs::Rootfs;
pub use sysctl::Sysctl;

use crate::error::ConfigError;

type Result<T> = std::result::Result<T, ConfigError>;

/// Everything that is to be done to make one container.
#[derive(Debug)]
pub struct Plan {
    pub process: Process,
    pub namespaces: Namespaces,
    pub rootfs: Rootfs,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub sysctls: Vec<Sysctl>,
    pub personality: Option<u64>,
    pub memory_policy: Option<MemoryPolicy>,
    pub cgroups_path: Option<PathBuf>,
    pub resources: Option<LinuxResources>,
    pub seccomp: Option<LinuxSeccomp>,
    pub hooks: Hooks,
    pub annotations: BTreeMap<String, String>,
}

impl Plan {
    /// `bundle`: absolute directory that relative paths of the configuration start from.
    pub fn new(spec: &Spec, bundle: &Path) -> Result<Self> {
        check_version(spec.version())?;
        let linux = spec.linux().as_ref().ok_or_else(|| ConfigError::invalid("linux", "is missing"))?;
        refuse::unsupported(spec, linux)?;
        let namespaces = Namespaces::new(linux)?;
        let process = spec.process().as_ref().ok_or_else(|| ConfigError::invalid("process", "is missing"))?;
        let plan = Self {
            process: Process::new(process)?,
            rootfs: Rootfs::new(spec, linux, &namespaces, bundle)?,
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            sysctls: sysctl::plan(linux.sysctl().as_ref(), &namespaces)?,
            personality: linux.personality().as_ref().map(process::personality).transpose()?,
            memory_policy: linux.memory_policy().as_ref().map(MemoryPolicy::new).transpose()?,
            cgroups_path: linux.cgroups_path().clone(),
            resources: linux.resources().clone(),
            seccomp: linux.seccomp().clone(),
            hooks: check_hooks(spec.hooks().clone().unwrap_or_default())?,
            annotations: spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            namespaces,
        };
        plan.check_names()?;
        Ok(plan)
    }

    fn check_names(&self) -> Result<()> {
        for (field, name) in [("hostname", &self.hostname), ("domainname", &self.domainname)] {
            let Some(name) = name else { continue };
            if !self.namespaces.has(corten_sys::ns::Kind::Uts) {
                return Err(ConfigError::invalid(field, "needs a uts namespace (linux.namespaces)"));
            }
            if name.len() > 64 {
                return Err(ConfigError::invalid(field, "is longer than 64 bytes"));
            }
        }
        Ok(())
    }
}

/// Any 1.x is understood: later minors only add, and what they add is refused by name where it is not implemented.
fn check_version(version: &str) -> Result<()> {
    let major = version.split('.').next();
    if major == Some("1") {
        return Ok(());
    }
    Err(ConfigError::invalid("ociVersion", format!("{version:?} is not 1.x")))
}

fn check_hooks(hooks: Hooks) -> Result<Hooks> {
    let all = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, list) in all {
        for hook in list.iter().flatten() {
            if !hook.path().is_absolute() {
                return Err(ConfigError::invalid(
                    format!("hooks.{kind}.path"),
                    format!("{} is not an absolute path", hook.path().display()),
                ));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(ConfigError::invalid(
                    format!("hooks.{kind}.timeout"),
                    "must be greater than zero",
                ));
            }
        }
    }
    Ok(hooks)
}

/// A C string from the configuration; a NUL byte in it is an error of the field.
fn c_string(field: &str, text: impl Into<Vec<u8>>) -> Result<std::ffi::CString> {
    std::ffi::CString::new(text).map_err(|_| ConfigError::invalid(field, "contains a NUL byte"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec(change: impl FnOnce(&mut serde_json::Value)) -> Spec {
        let mut json = serde_json::json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}]}
        });
        change(&mut json);
        serde_json::from_value(json).unwrap()
    }

    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        Plan::new(&spec(change), Path::new("/bundle")).unwrap_err().to_string()
    }

    #[test]
    fn the_least_configuration_is_a_plan() {
        let plan = Plan::new(&spec(|_| {}), Path::new("/bundle")).unwrap();
        assert_eq!(plan.rootfs.path, Path::new("/bundle/rootfs"));
        assert_eq!(plan.process.capabilities, corten_sys::caps::Sets::default());
    }

    #[test]
    fn what_is_wrong_is_refused_by_the_name_of_its_field() {
        type Change = fn(&mut serde_json::Value);
        let table: &[(Change, &str)] = &[
            (|c| c["ociVersion"] = "2.0".into(), "ociVersion: "),
            (|c| drop(c.as_object_mut().unwrap().remove("linux")), "linux: is missing"),
            (|c| drop(c.as_object_mut().unwrap().remove("process")), "process: is missing"),
            (|c| drop(c.as_object_mut().unwrap().remove("root")), "root: is missing"),
            (|c| c["process"]["args"] = serde_json::json!([]), "process.args: "),
            (|c| c["process"]["cwd"] = "relative".into(), "process.cwd: "),
            (|c| c["process"]["env"] = serde_json::json!(["=x"]), "process.env: "),
            (|c| c["process"]["args"] = serde_json::json!(["a\0b"]), "process.args: contains a NUL byte"),
            (|c| c["process"]["apparmorProfile"] = "x".into(), "process.apparmorProfile is not supported"),
            (|c| c["process"]["selinuxLabel"] = "x".into(), "process.selinuxLabel is not supported"),
            (
                |c| c["linux"]["intelRdt"] = serde_json::json!({"closID": "x"}),
                "linux.intelRdt is not supported",
            ),
            (
                |c| c["linux"]["netDevices"] = serde_json::json!({"eth0": {}}),
                "linux.netDevices is not supported",
            ),
            (
                |c| c["linux"]["namespaces"] = serde_json::json!([{"type": "pid"}]),
                "linux.namespaces: a mount namespace",
            ),
            (
                |c| c["linux"]["sysctl"] = serde_json::json!({"net.ipv4.ip_forward": "1"}),
                "linux.sysctl: net.ipv4.ip_forward",
            ),
            (
                |c| c["linux"]["sysctl"] = serde_json::json!({"vm.swappiness": "1"}),
                "linux.sysctl: vm.swappiness",
            ),
            (
                |c| {
                    c["linux"]["uidMappings"] =
                        serde_json::json!([{"containerID": 0, "hostID": 0, "size": 1}]);
                },
                "linux.uidMappings: ",
            ),
            (
                |c| c["linux"]["timeOffsets"] = serde_json::json!({"monotonic": {"secs": 1}}),
                "linux.timeOffsets: ",
            ),
            (|c| c["linux"]["rootfsPropagation"] = "sideways".into(), "linux.rootfsPropagation: "),
            (
                |c| {
                    c["mounts"] =
                        serde_json::json!([{"destination": "/x", "type": "tmpfs", "options": ["tmpcopyup"]}]);
                },
                "mounts[0].options",
            ),
            (
                |c| {
                    c["mounts"] =
                        serde_json::json!([{"destination": "/x", "type": "none", "options": ["bind"]}]);
                },
                "mounts[0].source",
            ),
            (
                |c| {
                    c["mounts"] = serde_json::json!([{"destination": "/proc/sys", "source": "/x", "options": ["bind"]}]);
                },
                "mounts[0].destination",
            ),
            (|c| c["hooks"] = serde_json::json!({"poststop": [{"path": "x"}]}), "hooks.poststop.path"),
            (
                |c| c["hooks"] = serde_json::json!({"prestart": [{"path": "/x", "timeout": 0}]}),
                "hooks.prestart.timeout",
            ),
        ];
        for (change, expected) in table {
            let refusal = refusal(change);
            assert!(refusal.contains(expected), "{refusal:?} does not contain {expected:?}");
        }
    }

    #[test]
    fn a_hostname_needs_a_uts_namespace() {
        let error = refusal(|c| {
            c["hostname"] = "x".into();
            c["linux"]["namespaces"] = serde_json::json!([{"type": "mount"}]);
        });
        assert!(error.starts_with("hostname: needs a uts namespace"), "{error}");
    }
}
