//! The directory of a bench: bundles, state, built programs; and the v1 hierarchies of this host. Gone at the end.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{project, run};

pub struct Scene {
    pub dir: PathBuf,
    /// Mounts of cgroup v1.
    pub hierarchies: Vec<String>,
}

impl Scene {
    pub fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("corten-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let scene = Self { dir, hierarchies: v1_hierarchies(&fs::read_to_string("/proc/self/mountinfo")?) };
        if !scene.compile("true", "true.c")? || !scene.compile("pause", "pause.c")? {
            bail!("bench oci compiles the programs of its containers: install gcc and libc6-dev");
        }
        Ok(scene)
    }

    /// Compiles a file of xtask/floor/ into a static program; false if there is no compiler.
    pub fn compile(&self, program: &str, source: &str) -> Result<bool> {
        if run::find("cc").is_none() {
            return Ok(false);
        }
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-static", "-o"]).arg(self.dir.join(program));
        run::output(cc.arg(project::root().join("xtask/floor").join(source)))?;
        Ok(true)
    }

    /// A bundle that runs `program` (of those compiled).
    pub fn bundle(&self, bundle: &str, program: &str) -> Result<PathBuf> {
        let path = self.dir.join("bundles").join(bundle);
        for dir in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(path.join("rootfs").join(dir))?;
        }
        for program in ["true", "pause"] {
            fs::copy(self.dir.join(program), path.join("rootfs/bin").join(program))?;
        }
        let config = config(&format!("/bin/{program}"), &format!("/{}", cgroup(bundle)));
        fs::write(path.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
        Ok(path)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What a failed round left; contenders have deleted their containers by now.
        for hierarchy in &self.hierarchies {
            let ours = format!("corten-bench-{}-", std::process::id());
            let left = fs::read_dir(hierarchy).into_iter().flatten().flatten();
            for cgroup in left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours)) {
                let _ = fs::remove_dir(cgroup.path());
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The cgroup of a bundle: the same in every hierarchy, directly below its root.
pub fn cgroup(bundle: &str) -> String {
    format!("corten-bench-{}-{bundle}", std::process::id())
}

fn v1_hierarchies(mountinfo: &str) -> Vec<String> {
    let v1 = mountinfo.lines().filter(|line| line.contains(" - cgroup "));
    v1.filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

/// What `runc spec` writes, without a terminal.
fn config(program: &str, cgroups_path: &str) -> serde_json::Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let locked = ["nosuid", "noexec", "nodev"];
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": [program],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities, "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &locked),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "cgroupsPath": cgroups_path,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

#[test]
fn only_v1_mounts_count() {
    let mountinfo = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                     41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    assert_eq!(v1_hierarchies(mountinfo), ["/sys/fs/cgroup/cpu"]);
}
