//! One instance of Corten: its places, and the record of how it was set up, from which `down` undoes it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::cli::Place;

/// Every path of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub root: PathBuf,
    pub state: PathBuf,
    pub config: PathBuf,
}

/// What the user may choose when an instance is made; fixed until `down`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub bridge: String,
    pub pod_cidr: String,
    pub network: String,
    /// Absolute in the cgroup file system, in every hierarchy.
    pub cgroup_parent: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bridge: "corten0".into(),
            pod_cidr: "10.88.0.0/16".into(),
            network: "corten".into(),
            cgroup_parent: "/corten".into(),
        }
    }
}

/// `root/instance.json`: written before anything else is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub settings: Settings,
    /// Directories that did not exist before; `down` removes those that are empty then. Parents first.
    pub made_dirs: Vec<PathBuf>,
    /// net.ipv4.ip_forward before the bridge plugin turned it on.
    pub ip_forward: String,
    /// nftables tables of the CNI plugins' names that were there before: somebody else's.
    pub tables: Vec<String>,
}

pub const RECORD_VERSION: u32 = 1;

impl Instance {
    pub fn at(place: &Place) -> Result<Self> {
        let absolute = |dir: &Path| {
            std::path::absolute(dir).with_context(|| format!("cannot make {} absolute", dir.display()))
        };
        let instance = Self {
            root: absolute(&place.root)?,
            state: absolute(&place.state)?,
            config: absolute(&place.config)?,
        };
        if instance.root == instance.state {
            bail!("--root and --state are both {}: they must differ", instance.root.display());
        }
        Ok(instance)
    }

    pub fn record_file(&self) -> PathBuf {
        self.root.join("instance.json")
    }
    pub fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }
    pub fn kubelet_root(&self) -> PathBuf {
        self.root.join("kubelet")
    }
    pub fn pod_logs(&self) -> PathBuf {
        self.root.join("log/pods")
    }
    pub fn ipam(&self) -> PathBuf {
        self.root.join("cni/networks")
    }
    pub fn cni_conf(&self) -> PathBuf {
        self.root.join("cni/net.d")
    }
    pub fn cni_bin(&self) -> PathBuf {
        self.root.join("cni/bin")
    }
    pub fn cri_config(&self) -> PathBuf {
        self.state.join("corten-cri.toml")
    }
    pub fn cri_socket(&self) -> PathBuf {
        self.state.join("cri.sock")
    }
    pub fn kubelet_state(&self) -> PathBuf {
        self.state.join("kubelet")
    }
    /// The built-in image while it is imported.
    pub fn demo_archive(&self) -> PathBuf {
        self.state.join("demo-image.tar")
    }
    pub fn kubelet_socket(&self) -> PathBuf {
        self.kubelet_state().join(corten_kubelet::status_api::SOCKET)
    }
    pub fn daemon_log(&self, daemon: &str) -> PathBuf {
        self.root.join("log").join(format!("{daemon}.log"))
    }
    pub fn daemon_record(&self, daemon: &str) -> PathBuf {
        self.state.join(format!("{daemon}.json"))
    }

    /// How the user has to call `corten` to reach this instance again.
    pub fn command(&self) -> String {
        let defaults = Place {
            root: "/var/lib/corten".into(),
            state: "/run/corten".into(),
            config: "/etc/corten".into(),
        };
        let mut words = vec![crate::programs::own_name()];
        for (flag, value, default) in [
            ("--root", &self.root, &defaults.root),
            ("--state", &self.state, &defaults.state),
            ("--config", &self.config, &defaults.config),
        ] {
            if value != default {
                words.push(format!("{flag} {}", value.display()));
            }
        }
        words.join(" ")
    }

    /// The record, when the instance exists.
    pub fn record(&self) -> Result<Option<Record>> {
        let file = self.record_file();
        let text = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        let record: Record =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
        if record.version > RECORD_VERSION {
            bail!(
                "{} is of version {}, newer than this corten; use the corten that wrote it",
                file.display(),
                record.version
            );
        }
        Ok(Some(record))
    }

    pub fn write_record(&self, record: &Record) -> Result<()> {
        write_whole(&self.record_file(), &serde_json::to_vec_pretty(record)?)
    }

    /// One `up` or `down` at a time. The lock lasts as long as the file is held, and dies with the process.
    pub fn lock(&self) -> Result<fs::File> {
        let dir =
            fs::File::open(&self.root).with_context(|| format!("cannot open {}", self.root.display()))?;
        flock(&dir, FlockOperation::NonBlockingLockExclusive).with_context(|| {
            format!("another `corten up` or `corten down` works on {}; wait for it", self.root.display())
        })?;
        Ok(dir)
    }
}

/// Makes `dir` and its parents (0755), returning those that were not there, parents first.
pub fn make_dirs(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut missing: Vec<PathBuf> =
        dir.ancestors().take_while(|d| !d.exists()).map(Path::to_path_buf).collect();
    missing.reverse();
    for dir in &missing {
        let made = fs::DirBuilder::new().mode(0o755).create(dir);
        if let Err(error) = made
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(error).with_context(|| format!("cannot make directory {}", dir.display()));
        }
    }
    Ok(missing)
}

/// Writes a file to a temporary name beside it and renames it: readers see the old or the new, never a part.
pub fn write_whole(file: &Path, bytes: &[u8]) -> Result<()> {
    let name = file.file_name().expect("a file has a name").to_string_lossy();
    // A leading dot: a kubelet passes over such files in its manifest directory.
    let temporary = file.with_file_name(format!(".{name}.tmp"));
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(root: &str, state: &str) -> Result<Instance> {
        Instance::at(&Place { root: root.into(), state: state.into(), config: "/etc/corten".into() })
    }

    #[test]
    fn root_and_state_must_differ() {
        assert!(instance("/x/a", "/x/a").unwrap_err().to_string().contains("must differ"));
    }

    #[test]
    fn a_record_reads_back_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let instance = instance(dir.path().to_str().unwrap(), "/nonexistent").unwrap();
        assert_eq!(instance.record().unwrap(), None);
        let mut record = Record {
            version: RECORD_VERSION,
            settings: Settings::default(),
            made_dirs: vec!["/var/lib/corten".into()],
            ip_forward: "0".into(),
            tables: vec![],
        };
        instance.write_record(&record).unwrap();
        assert_eq!(instance.record().unwrap().as_ref(), Some(&record));
        record.version += 1;
        instance.write_record(&record).unwrap();
        assert!(instance.record().unwrap_err().to_string().contains("newer"));
    }

    #[test]
    fn only_the_directories_that_were_missing_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("a/b"));
        assert_eq!(make_dirs(&b).unwrap(), [a.clone(), b.clone()]);
        assert_eq!(make_dirs(&b).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_second_up_on_one_root_is_told_to_wait() {
        let dir = tempfile::tempdir().unwrap();
        let instance = instance(dir.path().to_str().unwrap(), "/nonexistent").unwrap();
        let held = instance.lock().unwrap();
        assert!(format!("{:#}", instance.lock().unwrap_err()).contains("another `corten up`"));
        drop(held);
        instance.lock().unwrap();
    }
}
