//! What the operator may set: `config.toml`, then flags over it. Knows no CRI and opens nothing but the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// The documented table that `corten-cri config default` prints. It parses to [`Config::default`] (a test holds it so).
pub const DEFAULT_TOML: &str = include_str!("config_default.toml");

/// Where the file lies when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/corten/config.toml";

/// The handler that Corten's own runtime answers to, beside the empty name.
pub const BUILT_IN_HANDLER: &str = "corten";

/// Everything the daemon can be told. Unknown keys are refused by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Durable data: images, snapshots, pod records.
    pub root: PathBuf,
    /// Volatile state: monitors, network namespaces, OCI state. Empty after a reboot.
    pub state: PathBuf,
    /// The CRI socket; `state`/cri.sock when absent.
    pub socket: Option<PathBuf>,
    /// cgroup of pods that bring no `cgroup_parent` of their own.
    pub cgroup_parent: String,
    /// The monitor program; beside this program, then PATH, when absent.
    pub monitor: Option<PathBuf>,
    pub log: LogConfig,
    pub cni: CniConfig,
    pub registry: RegistryConfig,
    pub sandbox: SandboxConfig,
    pub exec: ExecConfig,
    /// RuntimeClass handlers that are other OCI runtimes, by name.
    pub runtimes: BTreeMap<String, RuntimeHandler>,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A `tracing` filter: a level, or `target=level,...`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// The caller's side of CNI.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CniConfig {
    /// Searched in order; also handed to plugins as `CNI_PATH`.
    pub bin_dirs: Vec<PathBuf>,
    /// The first `.conf`, `.conflist` or `.json` in name order is the pod network.
    pub conf_dir: PathBuf,
    /// A plugin that runs longer is killed with everything it started. Seconds.
    pub plugin_timeout_s: u64,
    /// How long a failed teardown waits before it is tried again. Seconds.
    pub teardown_retry_s: u64,
}

/// Where registries are described.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Directories of `HOST/hosts.toml`; of those that know a registry the first decides.
    pub certs_dirs: Vec<PathBuf>,
    /// A pull without a byte for this long is given up. Seconds.
    pub progress_timeout_s: u64,
}

/// Defaults of pod sandboxes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// Size of the pod's /dev/shm.
    pub shm_size_bytes: u64,
    /// Let unprivileged processes bind ports below 1024 and send ICMP echo, in pods with their own network.
    pub unprivileged_ports: bool,
}

/// ExecSync.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecConfig {
    /// How long output is still read after the process ended while a child of it keeps the pipe open. Seconds.
    pub drain_timeout_s: u64,
}

/// Another OCI runtime, driven by runc's command line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeHandler {
    pub path: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/corten".into(),
            state: "/run/corten".into(),
            socket: None,
            cgroup_parent: "/corten".into(),
            monitor: None,
            log: LogConfig::default(),
            cni: CniConfig::default(),
            registry: RegistryConfig::default(),
            sandbox: SandboxConfig::default(),
            exec: ExecConfig::default(),
            runtimes: BTreeMap::new(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Default for CniConfig {
    fn default() -> Self {
        Self {
            bin_dirs: vec!["/opt/cni/bin".into()],
            conf_dir: "/etc/cni/net.d".into(),
            plugin_timeout_s: 60,
            teardown_retry_s: 10,
        }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            certs_dirs: vec!["/etc/corten/certs.d".into(), "/etc/containerd/certs.d".into()],
            progress_timeout_s: 300,
        }
    }
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self { shm_size_bytes: 64 << 20, unprivileged_ports: false }
    }
}

impl Default for ExecConfig {
    fn default() -> Self {
        Self { drain_timeout_s: 2 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{key} = {value:?}: {wanted}")]
    Value { key: String, value: String, wanted: &'static str },
}

impl Config {
    /// Reads `path`. Without `path` the default place is read, and its absence means defaults.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let place = path.unwrap_or(Path::new(DEFAULT_PATH));
        let text = match std::fs::read_to_string(place) {
            Ok(text) => text,
            Err(e) if path.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => return Err(ConfigError::Read { path: place.into(), source }),
        };
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: place.into(), source: Box::new(source) })
    }

    /// Refuses what cannot work. Called once, after the flags have been laid over the file.
    pub fn check(&self) -> Result<(), ConfigError> {
        let absolute = |key: &str, path: &Path| {
            let fine = path.is_absolute() && !path.components().any(|c| c == std::path::Component::ParentDir);
            let wrong = || ConfigError::Value {
                key: key.into(),
                value: path.display().to_string(),
                wanted: "an absolute path without `..` is needed",
            };
            if fine { Ok(()) } else { Err(wrong()) }
        };
        absolute("root", &self.root)?;
        absolute("state", &self.state)?;
        absolute("cgroup_parent", Path::new(&self.cgroup_parent))?;
        absolute("cni.conf_dir", &self.cni.conf_dir)?;
        for dir in &self.cni.bin_dirs {
            absolute("cni.bin_dirs", dir)?;
        }
        if let Some(socket) = &self.socket {
            absolute("socket", socket)?;
        }
        for (name, handler) in &self.runtimes {
            if name.is_empty() || name == BUILT_IN_HANDLER {
                return Err(ConfigError::Value {
                    key: "runtimes".into(),
                    value: name.clone(),
                    wanted: "this name is the built-in runtime's; choose another",
                });
            }
            absolute(&format!("runtimes.{name}.path"), &handler.path)?;
        }
        Ok(())
    }

    /// The CRI socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.state.join("cri.sock"))
    }

    /// Where image content and snapshots lie.
    pub fn images_dir(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Where pod records lie.
    pub fn pods_dir(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Where network namespaces are pinned.
    pub fn netns_dir(&self) -> PathBuf {
        self.state.join("netns")
    }

    /// True when `handler` names the built-in runtime or one of `runtimes`.
    pub fn knows_handler(&self, handler: &str) -> bool {
        handler.is_empty() || handler == BUILT_IN_HANDLER || self.runtimes.contains_key(handler)
    }

    pub fn plugin_timeout(&self) -> Duration {
        Duration::from_secs(self.cni.plugin_timeout_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_table_is_the_defaults() {
        let printed: Config = toml::from_str(DEFAULT_TOML).unwrap();
        let socket = Some(PathBuf::from("/run/corten/cri.sock"));
        assert_eq!(printed, Config { socket: socket.clone(), ..Config::default() });
        assert_eq!(Some(Config::default().socket()), socket);
        printed.check().unwrap();
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<Config>("[cni]\nbin_dir = \"/x\"").unwrap_err().to_string();
        assert!(error.contains("bin_dir"), "{error}");
    }

    #[test]
    fn a_file_that_was_named_must_exist_but_the_default_place_need_not() {
        let error = Config::load(Some(Path::new("/nonexistent/config.toml"))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/config.toml"), "{error}");
    }

    #[test]
    fn relative_paths_and_the_built_in_name_are_refused() {
        for (text, key) in [
            ("root = \"var\"", "root"),
            ("cgroup_parent = \"pods\"", "cgroup_parent"),
            ("state = \"/run/../x\"", "state"),
            ("[runtimes.corten]\npath = \"/usr/sbin/runc\"", "runtimes"),
            ("[runtimes.runc]\npath = \"runc\"", "runtimes.runc.path"),
        ] {
            let error = toml::from_str::<Config>(text).unwrap().check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }

    #[test]
    fn handlers_are_the_built_in_names_and_the_table() {
        let config: Config = toml::from_str("[runtimes.runc]\npath = \"/usr/sbin/runc\"").unwrap();
        for (name, known) in [("", true), ("corten", true), ("runc", true), ("kata", false)] {
            assert_eq!(config.knows_handler(name), known, "{name}");
        }
    }
}
