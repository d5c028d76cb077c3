//! `spec [--bundle DIR] [--rootless]`: a config.json to begin with.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::Answer;
use crate::options::{Arguments, unknown_option};

pub fn run(mut arguments: Arguments) -> Answer {
    let (mut bundle, mut rootless) = (PathBuf::from("."), false);
    while let Some(name) = arguments.next()? {
        match name.as_str() {
            "bundle" | "b" => bundle = arguments.path()?,
            "rootless" => rootless = arguments.switch()?,
            other => return unknown_option(other),
        }
    }
    if !arguments.operands()?.is_empty() {
        bail!("spec takes no arguments");
    }
    let mut spec = example();
    if rootless {
        let status = rustix::process::geteuid();
        make_rootless(&mut spec, status.as_raw(), rustix::process::getegid().as_raw());
    }
    let path = bundle.join("config.json");
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path);
    let file = file.as_mut().map_err(|error| anyhow::anyhow!("create {}: {error}", path.display()))?;
    let text = format!("{}\n", serde_json::to_string_pretty(&spec)?);
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))?;
    Ok(0)
}

/// What runc gives, which users know.
fn example() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": corten_runtime::SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "corten",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// A user namespace with one id, the host's network, no limits.
fn make_rootless(spec: &mut Value, uid: u32, gid: u32) {
    let linux = &mut spec["linux"];
    let kept = |namespace: &Value| namespace["type"] != "network";
    let mut namespaces: Vec<Value> =
        linux["namespaces"].as_array().into_iter().flatten().filter(|n| kept(n)).cloned().collect();
    namespaces.push(json!({"type": "user"}));
    linux["namespaces"] = namespaces.into();
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    linux.as_object_mut().into_iter().for_each(|linux| drop(linux.remove("resources")));
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        match mount["destination"].as_str() {
            Some("/sys") => {
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
            }
            Some("/dev/pts") => {
                mount["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_examples_are_configurations_that_we_accept() {
        let mut spec = example();
        let accept = |spec: &Value| {
            let spec = serde_json::from_value(spec.clone()).unwrap();
            corten_runtime::plan::Plan::new(&spec, std::path::Path::new("/bundle")).unwrap()
        };
        assert!(accept(&spec).process.terminal);
        make_rootless(&mut spec, 1000, 1000);
        assert_eq!(accept(&spec).namespaces.uid_map, "0 1000 1\n");
    }
}
