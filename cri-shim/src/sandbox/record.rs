//! `pods/<sandbox>/sandbox.json`: written before anything of the sandbox exists.

use std::path::{Path, PathBuf};

use corten_cri_api::v1;
use serde::{Deserialize, Serialize};

use super::state::Phase;
use crate::files::{FileError, private_dir, read_record, remove_tree, write_record};

/// The form this program writes. Older ones are read; a newer one is refused.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub version: u32,
    pub id: String,
    /// The boot in which it was made.
    pub boot_id: String,
    pub config: v1::PodSandboxConfig,
    pub runtime_handler: String,
    /// Unix time in nanoseconds.
    pub created_at_ns: i64,
    pub phase: Phase,
    /// The pinned network namespace; `None` for a pod on the host's network.
    pub netns: Option<PathBuf>,
    /// The first is the primary one.
    pub ips: Vec<String>,
    /// Why it is not ready, where it should be.
    pub reason: Option<String>,
    /// Pid of the pause process, whose namespaces containers join.
    pub pause_pid: Option<i32>,
}

/// What makes a sandbox one and the same for a kubelet that tries again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxName(pub String);

impl SandboxName {
    pub fn new(metadata: &v1::PodSandboxMetadata) -> Self {
        let v1::PodSandboxMetadata { name, uid, namespace, attempt } = metadata;
        // None of the four can hold an underscore in Kubernetes; containerd builds the same.
        Self(format!("{name}_{namespace}_{uid}_{attempt}"))
    }
}

/// The places of one sandbox below `pods`.
#[derive(Clone, Debug)]
pub struct SandboxDir(pub PathBuf);

impl SandboxDir {
    pub fn record(&self) -> PathBuf {
        self.0.join("sandbox.json")
    }

    /// Attachment records.
    pub fn cni(&self) -> PathBuf {
        self.0.join("cni")
    }

    /// The pod's hostname, hosts and resolv.conf.
    pub fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    pub fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// Makes the directories, 0700.
    pub fn create(&self) -> Result<(), FileError> {
        [self.0.clone(), self.cni(), self.etc(), self.containers()]
            .iter()
            .try_for_each(|dir| private_dir(dir))
    }

    pub fn remove(&self) -> Result<(), FileError> {
        remove_tree(&self.0)
    }
}

impl SandboxRecord {
    pub fn write(&self, dir: &SandboxDir) -> Result<(), FileError> {
        write_record(&dir.record(), self)
    }

    pub fn read(dir: &SandboxDir) -> Result<Option<Self>, FileError> {
        known_version(read_record(&dir.record())?, |r: &Self| r.version, VERSION, &dir.record())
    }

    pub fn name(&self) -> SandboxName {
        SandboxName::new(&self.config.metadata.clone().unwrap_or_default())
    }
}

/// Refuses a record from a newer release, whose meaning is not known.
pub fn known_version<T>(
    record: Option<T>,
    version: impl Fn(&T) -> u32,
    known: u32,
    path: &Path,
) -> Result<Option<T>, FileError> {
    match record {
        Some(r) if version(&r) > known => {
            Err(FileError::Version { path: path.into(), found: version(&r), known })
        }
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What release 0.1.0 wrote.
    const V1: &str = r#"{"version":1,"id":"s","boot_id":"b","config":{"metadata":{"name":"n","uid":"u",
        "namespace":"d","attempt":2},"hostname":"h","labels":{"a":"b"},
        "linux":{"security_context":{"namespace_options":{"network":2}}}},"runtime_handler":"",
        "created_at_ns":5,"phase":"ready","netns":null,"ips":["10.0.0.2"],"reason":null,"pause_pid":7}"#;

    #[test]
    fn a_record_of_version_1_reads_and_a_newer_one_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = SandboxDir(temp.path().join("s"));
        dir.create().unwrap();
        assert_eq!(SandboxRecord::read(&dir).unwrap(), None);
        std::fs::write(dir.record(), V1).unwrap();
        let record = SandboxRecord::read(&dir).unwrap().unwrap();
        assert_eq!((record.phase, record.name()), (Phase::Ready, SandboxName("n_d_u_2".into())));
        record.write(&dir).unwrap();
        assert_eq!(SandboxRecord::read(&dir).unwrap().unwrap(), record);
        std::fs::write(dir.record(), V1.replace("\"version\":1", "\"version\":2")).unwrap();
        assert!(SandboxRecord::read(&dir).unwrap_err().to_string().contains("newer"));
        dir.remove().unwrap();
        dir.remove().unwrap();
    }
}
