//! `pods/<sandbox>/containers/<container>/container.json`: written before anything of the container exists.

use std::path::{Path, PathBuf};

use corten_cri_api::v1;
use serde::{Deserialize, Serialize};

use super::state::Facts;
use crate::files::{FileError, read_record, write_record};
use crate::oci_spec::ResolvedUser;
use crate::sandbox::record::known_version;

/// The form this program writes. Older ones are read; a newer one is refused.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub version: u32,
    pub id: String,
    pub sandbox_id: String,
    pub config: v1::ContainerConfig,
    /// The id (config digest) of the image it runs.
    pub image_id: String,
    /// Unix time in nanoseconds.
    pub created_at_ns: i64,
    pub log_path: Option<PathBuf>,
    pub user: ResolvedUser,
    /// Number of the signal that StopContainer sends first.
    pub stop_signal: i32,
    /// Its first process, once made; another's once it has exited.
    pub pid: Option<i32>,
    pub facts: Facts,
}

/// What makes a container one and the same for a kubelet that tries again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerName(pub String);

impl ContainerName {
    pub fn new(sandbox_id: &str, metadata: &v1::ContainerMetadata) -> Self {
        Self(format!("{}_{sandbox_id}_{}", metadata.name, metadata.attempt))
    }
}

impl ContainerRecord {
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("container.json")
    }

    /// Writes it into `dir`, the container's own.
    pub fn write(&self, dir: &Path) -> Result<(), FileError> {
        write_record(&Self::path(dir), self)
    }

    pub fn read(dir: &Path) -> Result<Option<Self>, FileError> {
        let path = Self::path(dir);
        known_version(read_record(&path)?, |r: &Self| r.version, VERSION, &path)
    }

    pub fn name(&self) -> ContainerName {
        ContainerName::new(&self.sandbox_id, &self.config.metadata.clone().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::state::State;

    /// What release 0.1.0 wrote.
    const V1: &str = r#"{"version":1,"id":"c","sandbox_id":"s","config":{"metadata":{"name":"web","attempt":1},
        "image":{"image":"busybox"},"mounts":[{"container_path":"/v","host_path":"/h","propagation":1}],
        "stop_signal":13},"image_id":"sha256:x","created_at_ns":5,"log_path":"/log/web/0.log",
        "user":{"uid":1,"gid":2,"groups":[2],"home":null},"stop_signal":15,"pid":77,
        "facts":{"created":true,"started_at_ns":9,"exit":null,"removing":false}}"#;

    #[test]
    fn a_record_of_version_1_reads() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(ContainerRecord::path(dir.path()), V1).unwrap();
        let record = ContainerRecord::read(dir.path()).unwrap().unwrap();
        assert_eq!(record.facts.state(), State::Running);
        assert_eq!(record.name(), ContainerName("web_s_1".into()));
        record.write(dir.path()).unwrap();
        assert_eq!(ContainerRecord::read(dir.path()).unwrap().unwrap(), record);
    }
}
