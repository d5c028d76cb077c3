//! One attachment of a pod to its network, as it was asked for: written before ADD, so that DEL can always be run,
//! whatever happened to the configuration or to this daemon since (requirement L1).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::NetworkList;
use crate::files::{FileError, read_record, remove_file, write_record};

const VERSION: u32 = 1;

/// Who is attached, and what the plugins are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    pub sandbox_id: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub netns: PathBuf,
    /// Capability arguments by name (`portMappings`, ...); a plugin gets those it says it can use.
    pub capabilities: serde_json::Map<String, Value>,
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub version: u32,
    pub pod: PodNetwork,
    pub network: NetworkList,
    /// `None` until ADD has finished.
    pub result: Option<Value>,
}

impl Attachment {
    pub fn new(pod: PodNetwork, network: NetworkList) -> Self {
        Self { version: VERSION, pod, network, result: None }
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("attachment.json")
    }

    /// Writes the record into `dir`, the pod's own.
    pub fn write(&self, dir: &Path) -> Result<(), FileError> {
        write_record(&Self::path(dir), self)
    }

    /// The record of `dir`, if an ADD was ever begun.
    pub fn read(dir: &Path) -> Result<Option<Self>, FileError> {
        let path = Self::path(dir);
        let found: Option<Self> = read_record(&path)?;
        match found {
            Some(a) if a.version > VERSION => {
                Err(FileError::Version { path, found: a.version, known: VERSION })
            }
            other => Ok(other),
        }
    }

    /// Forgets it, after a DEL that succeeded.
    pub fn remove(dir: &Path) -> Result<(), FileError> {
        remove_file(&Self::path(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_version_1_reads() {
        let text = r#"{"version":1,"pod":{"sandbox_id":"s","name":"n","namespace":"d","uid":"u","netns":"/run/n",
            "capabilities":{"portMappings":[]}},"network":{"name":"net","cni_version":"1.0.0",
            "plugins":[{"type":"bridge"}]},"result":null}"#;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("attachment.json"), text).unwrap();
        let attachment = Attachment::read(dir.path()).unwrap().unwrap();
        assert_eq!(attachment.network.name, "net");
        Attachment::remove(dir.path()).unwrap();
        assert_eq!(Attachment::read(dir.path()).unwrap(), None);
    }
}
