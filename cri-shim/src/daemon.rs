//! What every call shares.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_images::{ImageStore, RegistryConfig};
use corten_monitor::mount_namespace::keep_private;
use corten_monitor::pause::install_rootfs;
use corten_monitor::protocol::Handler;
use tokio::sync::Notify;

use crate::cni::Cni;
use crate::config::{BUILT_IN_HANDLER, Config};
use crate::container::user::UserCache;
use crate::error::Error;
use crate::files::{self, DirLock, LockError};
use crate::host;
use crate::jobs::Jobs;
use crate::monitor::MonitorSpec;
use crate::oci_spec::HostFacts;
use crate::sandbox::record::SandboxDir;
use crate::store::Store;

/// The daemon without its socket.
pub struct Daemon {
    pub config: Config,
    pub boot_id: String,
    pub host: HostFacts,
    pub cni: Cni,
    pub images: ImageStore,
    pub store: Store,
    pub jobs: Arc<Jobs>,
    pub users: UserCache,
    /// Wakes the janitor: a teardown is owed.
    pub teardown_owed: Notify,
    /// What UpdateRuntimeConfig said last.
    pub pod_cidr: Mutex<String>,
    pub monitor_program: PathBuf,
    _locks: [DirLock; 2],
}

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("not root: network namespaces, mounts and cgroups need it; start corten-cri as root")]
    NotRoot,
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    File(#[from] files::FileError),
    #[error(transparent)]
    Images(#[from] corten_images::StoreError),
    #[error("no corten-monitor beside this program or in PATH; name it with `monitor` in the configuration")]
    NoMonitor,
    #[error("make the pause container's root filesystem at {rootfs}: {source}")]
    Pause { rootfs: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Mount(#[from] corten_sys::Failure),
}

impl Daemon {
    /// Takes hold of the directories and opens what is in them. Nothing is started or swept yet.
    pub fn open(config: Config) -> Result<Arc<Self>, StartError> {
        if !rustix::process::geteuid().is_root() {
            return Err(StartError::NotRoot);
        }
        config.check()?;
        for dir in [&config.root, &config.state, &config.pods_dir(), &config.netns_dir()] {
            files::private_dir(dir)?;
        }
        files::private_dir(&config.state.join("pods"))?;
        files::private_dir(&config.state.join("oci"))?;
        let locks = [DirLock::take(&config.root)?, DirLock::take(&config.state)?];
        let monitor_program = find_monitor(config.monitor.as_deref()).ok_or(StartError::NoMonitor)?;
        let pause = config.state.join("pause/rootfs");
        install_rootfs(&pause, &monitor_program)
            .map_err(|source| StartError::Pause { rootfs: pause.clone(), source })?;
        keep_private(&config.state)?;
        let cni = Cni {
            bin_dirs: config.cni.bin_dirs.clone(),
            conf_dir: config.cni.conf_dir.clone(),
            plugin_timeout: config.plugin_timeout(),
        };
        let registries = RegistryConfig { certs_dirs: config.registry.certs_dirs.clone() };
        Ok(Arc::new(Self {
            boot_id: files::boot_id()?,
            host: host::facts(),
            cni,
            images: ImageStore::open(&config.images_dir(), registries)?,
            store: Store::default(),
            jobs: Arc::default(),
            users: UserCache::default(),
            teardown_owed: Notify::new(),
            pod_cidr: Mutex::default(),
            monitor_program,
            config,
            _locks: locks,
        }))
    }

    pub fn sandbox_dir(&self, id: &str) -> SandboxDir {
        SandboxDir(self.config.pods_dir().join(id))
    }

    /// A monitor's directory.
    pub fn state_dir(&self, id: &str) -> PathBuf {
        self.config.state.join("pods").join(id)
    }

    pub fn netns(&self, id: &str) -> PathBuf {
        self.config.netns_dir().join(id)
    }

    pub fn pause_rootfs(&self) -> PathBuf {
        self.config.state.join("pause/rootfs")
    }

    pub fn oci_root(&self) -> PathBuf {
        self.config.state.join("oci")
    }

    pub fn monitor_spec<'a>(
        &'a self,
        sandbox: &'a str,
        dir: &'a Path,
        oci_root: &'a Path,
    ) -> MonitorSpec<'a> {
        MonitorSpec {
            program: &self.monitor_program,
            dir,
            sandbox,
            oci_root,
            netns_dir: self.config.netns_dir(),
        }
    }

    /// Who makes the containers of a RuntimeClass handler.
    pub fn handler(&self, name: &str) -> Result<Handler, Error> {
        if name.is_empty() || name == BUILT_IN_HANDLER {
            return Ok(Handler::BuiltIn);
        }
        let known = self.config.runtimes.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.config.runtimes.keys().map(String::as_str).collect();
            Error::argument(
                "runtime_handler",
                format!("{name:?} is not one of \"\", corten, {}", names.join(", ")),
            )
        })?;
        let root = self.config.state.join("oci-handlers").join(name);
        Ok(Handler::External { program: known.path.clone(), root })
    }

    pub fn teardown_retry(&self) -> Duration {
        Duration::from_secs(self.config.cni.teardown_retry_s.max(1))
    }
}

fn find_monitor(configured: Option<&Path>) -> Option<PathBuf> {
    const NAME: &str = "corten-monitor";
    if let Some(path) = configured {
        return path.is_file().then(|| path.to_path_buf());
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(NAME)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join(NAME));
    beside.into_iter().chain(in_path).find(|candidate| candidate.is_file())
}

/// Unix time in nanoseconds.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Runs work that blocks (unmounts, removals of trees) off the threads that serve.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("panics abort")
}
