//! The cgroups above a pod's containers: ROOT/kubepods[/burstable|/besteffort]/pod<uid>, cgroupfs driver, v1 and v2.
//! Made before the sandbox, removed after it; names and values are upstream's (`cm/`). A level that has no pod left is
//! removed too: a node without pods has no trace of them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corten_sys::errno::{Context as _, Failure};
use k8s_openapi::api::core::v1::Pod;

use crate::mountinfo;
use crate::pod::resources::{CPU_PERIOD_US, PodLimits, Qos, cpu_request_milli, of_pod, qos, shares};
use crate::pod::uid;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hierarchy {
    V1 { point: PathBuf, controllers: Vec<String> },
    V2 { point: PathBuf },
}

/// Pod cgroups of this node. Cheap to clone.
#[derive(Clone)]
pub struct Cgroups {
    hierarchies: Arc<Vec<Hierarchy>>,
    root: String,
    cpus: i64,
    /// CPU requests of the burstable pods that have a cgroup. Also the lock that keeps a level from being removed while
    /// a pod is made in it.
    burstable: Arc<Mutex<BTreeMap<String, i64>>>,
}

impl Cgroups {
    /// `root`: path below which `kubepods` is made, `/` as upstream's --cgroup-root.
    pub fn new(root: &str, cpus: i64) -> Self {
        let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let root = root.trim_matches('/');
        let root = if root.is_empty() { String::new() } else { format!("/{root}") };
        Self { hierarchies: Arc::new(hierarchies(&info)), root, cpus, burstable: Arc::default() }
    }

    /// The cgroup of a pod as CRI's `cgroup_parent`.
    pub fn of_pod(&self, pod: &Pod) -> String {
        format!("{}/pod{}", self.of_class(qos(pod)), uid(pod))
    }

    fn of_class(&self, class: Qos) -> String {
        let level = match class {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        };
        format!("{}/kubepods{level}", self.root)
    }

    /// Makes the pod's cgroup with its limits in every hierarchy. Idempotent.
    pub fn create(&self, pod: &Pod) -> Result<(), Failure> {
        let mut burstable = self.burstable.lock().unwrap_or_else(PoisonError::into_inner);
        let class = qos(pod);
        if class == Qos::Burstable {
            burstable.insert(uid(pod).into(), cpu_request_milli(pod));
        }
        let path = self.of_pod(pod);
        let mut limits = of_pod(pod);
        if class == Qos::BestEffort {
            limits = PodLimits { cpu_shares: shares(0), cpu_quota_us: None, memory_limit_bytes: None };
        }
        let all_burstable = burstable.values().sum();
        for hierarchy in self.hierarchies.iter() {
            hierarchy.make(&path)?;
            hierarchy.set_shares(&format!("{}/kubepods", self.root), shares(self.cpus * 1000))?;
            match class {
                Qos::Burstable => hierarchy.set_shares(&self.of_class(class), shares(all_burstable))?,
                Qos::BestEffort => hierarchy.set_shares(&self.of_class(class), shares(0))?,
                Qos::Guaranteed => {}
            }
            hierarchy.limit(&path, &limits)?;
        }
        Ok(())
    }

    /// Removes the pod's cgroup, wherever its class put it, with what a runtime left below it.
    pub fn remove(&self, uid: &str) -> Result<(), Failure> {
        let mut burstable = self.burstable.lock().unwrap_or_else(PoisonError::into_inner);
        burstable.remove(uid);
        for hierarchy in self.hierarchies.iter() {
            for class in [Qos::BestEffort, Qos::Burstable, Qos::Guaranteed] {
                let level = hierarchy.dir(&self.of_class(class));
                remove_tree(&level.join(format!("pod{uid}")))?;
                // Fails while other pods are in it, and that is right.
                let _ = std::fs::remove_dir(&level);
            }
            if !self.root.is_empty() {
                let _ = std::fs::remove_dir(hierarchy.dir(&self.root));
            }
        }
        Ok(())
    }
}

impl Hierarchy {
    fn dir(&self, path: &str) -> PathBuf {
        let (Self::V1 { point, .. } | Self::V2 { point }) = self;
        point.join(path.trim_start_matches('/'))
    }

    /// `mkdir -p`, and what a new level needs before it can hold processes.
    fn make(&self, path: &str) -> Result<(), Failure> {
        let mut at = String::new();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let parent = self.dir(&at);
            at = format!("{at}/{part}");
            let dir = self.dir(&at);
            match std::fs::create_dir(&dir) {
                Ok(()) => self.prepare(&parent, &dir)?,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Failure::new(format!("create cgroup {}", dir.display()), e)),
            }
        }
        Ok(())
    }

    fn prepare(&self, parent: &Path, dir: &Path) -> Result<(), Failure> {
        match self {
            // A new v1 cpuset is empty and takes no process.
            Self::V1 { controllers, .. } if controllers.iter().any(|c| c == "cpuset") => {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let value = std::fs::read_to_string(parent.join(file)).unwrap_or_default();
                    write(&dir.join(file), value.trim())?;
                }
                Ok(())
            }
            Self::V1 { .. } => Ok(()),
            Self::V2 { .. } => {
                let available =
                    std::fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
                for controller in available.split_whitespace() {
                    // One that cannot be enabled (threaded domain, realtime) is missed when a limit needs it.
                    let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
                }
                Ok(())
            }
        }
    }

    fn has(&self, path: &str, controller: &str) -> bool {
        match self {
            Self::V1 { controllers, .. } => controllers.iter().any(|c| c == controller),
            Self::V2 { .. } => {
                let list =
                    std::fs::read_to_string(self.dir(path).join("cgroup.controllers")).unwrap_or_default();
                list.split_whitespace().any(|c| c == controller)
            }
        }
    }

    fn set_shares(&self, path: &str, shares: i64) -> Result<(), Failure> {
        if !self.has(path, "cpu") {
            return Ok(());
        }
        match self {
            Self::V1 { .. } => write(&self.dir(path).join("cpu.shares"), &shares.to_string()),
            Self::V2 { .. } => write(&self.dir(path).join("cpu.weight"), &weight(shares).to_string()),
        }
    }

    fn limit(&self, path: &str, limits: &PodLimits) -> Result<(), Failure> {
        self.set_shares(path, limits.cpu_shares)?;
        let dir = self.dir(path);
        let v1 = matches!(self, Self::V1 { .. });
        if let Some(quota) = limits.cpu_quota_us.filter(|_| self.has(path, "cpu")) {
            if v1 {
                write(&dir.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
                write(&dir.join("cpu.cfs_quota_us"), &quota.to_string())?;
            } else {
                write(&dir.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"))?;
            }
        }
        if let Some(bytes) = limits.memory_limit_bytes.filter(|_| self.has(path, "memory")) {
            write(&dir.join(if v1 { "memory.limit_in_bytes" } else { "memory.max" }), &bytes.to_string())?;
        }
        Ok(())
    }
}

/// cgroup v1 shares [2, 262144] to v2 weight [1, 10000] (KEP-2254).
fn weight(shares: i64) -> i64 {
    1 + ((shares - 2) * 9999) / 262_142
}

fn hierarchies(info: &str) -> Vec<Hierarchy> {
    let all = mountinfo::parse(info).filter_map(|m| match m.fs_type.as_str() {
        "cgroup" => {
            let controllers =
                m.options.split(',').filter(|o| !matches!(*o, "rw" | "ro" | "xattr")).map(str::to_owned);
            Some(Hierarchy::V1 { controllers: controllers.collect(), point: m.point })
        }
        "cgroup2" => Some(Hierarchy::V2 { point: m.point }),
        _ => None,
    });
    let mut unique: Vec<Hierarchy> = Vec::new();
    for hierarchy in all {
        // The same controllers mounted a second time (bind mounts of containers) are the same cgroups.
        let same = |other: &Hierarchy| match (other, &hierarchy) {
            (Hierarchy::V1 { controllers: a, .. }, Hierarchy::V1 { controllers: b, .. }) => a == b,
            (Hierarchy::V2 { .. }, Hierarchy::V2 { .. }) => true,
            _ => false,
        };
        if !unique.iter().any(same) {
            unique.push(hierarchy);
        }
    }
    unique
}

fn write(file: &Path, value: &str) -> Result<(), Failure> {
    std::fs::write(file, value).tried(|| format!("write {value:?} to {}", file.display()))
}

/// How long the last processes of a pod may take to leave its cgroup after the runtime said they are gone.
const EMPTY_WITHIN: Duration = Duration::from_secs(2);

fn remove_tree(dir: &Path) -> Result<(), Failure> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for child in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove_tree(&child.path())?;
    }
    let deadline = std::time::Instant::now() + EMPTY_WITHIN;
    loop {
        match std::fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == ErrorKind::ResourceBusy && std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => {
                let hint = "a process of the pod is still in it";
                return Err(Failure::new(format!("remove cgroup {}", dir.display()), e).hint(hint));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hierarchies_of_a_hybrid_host() {
        let info = "1 0 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                    2 0 0:2 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    3 0 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    4 0 0:1 / /other rw - cgroup cgroup rw,cpu,cpuacct\n";
        let points: Vec<_> = hierarchies(info).iter().map(|h| h.dir("")).collect();
        assert_eq!(
            points,
            ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"].map(PathBuf::from)
        );
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 39, 10000]);
    }

    #[test]
    fn a_pods_cgroup_has_its_limits_and_leaves_nothing() {
        if !rustix::process::geteuid().is_root() {
            return println!("SKIP: not root");
        }
        let root = format!("corten-kubelet-unit-{}", std::process::id());
        let cgroups = Cgroups::new(&root, 2);
        let limits = json!({"cpu": "500m", "memory": "64Mi"});
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u1"}, "spec": {"containers": [
            {"name": "c", "resources": {"limits": limits, "requests": {"cpu": "250m", "memory": "64Mi"}}}]}}))
        .expect("pod");
        assert_eq!(cgroups.of_pod(&pod), format!("/{root}/kubepods/burstable/podu1"));
        cgroups.create(&pod).expect("create");
        cgroups.create(&pod).expect("again");
        for hierarchy in cgroups.hierarchies.iter() {
            let dir = hierarchy.dir(&cgroups.of_pod(&pod));
            let read =
                |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default().trim().to_owned();
            match hierarchy {
                Hierarchy::V1 { controllers, .. } if controllers.contains(&"cpu".into()) => {
                    assert_eq!(
                        (read("cpu.shares"), read("cpu.cfs_quota_us")),
                        ("256".into(), "50000".into())
                    );
                }
                Hierarchy::V1 { controllers, .. } if controllers.contains(&"memory".into()) => {
                    assert_eq!(read("memory.limit_in_bytes"), (64 << 20).to_string());
                }
                _ => assert!(dir.is_dir()),
            }
        }
        cgroups.remove("u1").expect("remove");
        for hierarchy in cgroups.hierarchies.iter() {
            assert!(!hierarchy.dir(&root).exists());
        }
    }
}
