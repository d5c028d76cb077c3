//! The root file system: where it is, what is mounted in it, what is hidden.

use std::path::{Path, PathBuf};

use corten_sys::mount::Propagation;
use oci_spec::runtime::{Linux, Spec};

use super::{Device, Mount, Namespaces, Result, devices, mounts};
use crate::error::ConfigError;

#[derive(Debug)]
pub struct Rootfs {
    /// On the host, absolute.
    pub path: PathBuf,
    pub readonly: bool,
    /// Of the whole mount namespace: how the host's mounts reach the container and back.
    pub propagation: Option<(Propagation, bool)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// Whether /dev is the container's own, to be filled; not when the host's is bound there.
    pub own_dev: bool,
    pub masked: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
}

impl Rootfs {
    pub(super) fn new(spec: &Spec, linux: &Linux, namespaces: &Namespaces, bundle: &Path) -> Result<Self> {
        let root = spec.root().as_ref().ok_or_else(|| ConfigError::invalid("root", "is missing"))?;
        if root.path().as_os_str().is_empty() {
            return Err(ConfigError::invalid("root.path", "is empty"));
        }
        let mounts = mounts::plan(spec.mounts().as_deref().unwrap_or_default(), namespaces, bundle)?;
        let own_dev = !mounts.iter().any(|mount| mount.destination == Path::new("/dev") && mount.is_bind());
        let propagation = match linux.rootfs_propagation().as_deref().filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => Some(mounts::propagation(name).ok_or_else(|| {
                ConfigError::invalid("linux.rootfsPropagation", format!("{name:?} is no propagation type"))
            })?),
        };
        Ok(Self {
            path: bundle.join(root.path()),
            readonly: root.readonly().unwrap_or(false),
            propagation,
            mounts,
            devices: devices::plan(linux)?,
            own_dev,
            masked: absolute("linux.maskedPaths", linux.masked_paths().as_deref())?,
            readonly_paths: absolute("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
        })
    }
}

fn absolute(field: &str, paths: Option<&[String]>) -> Result<Vec<PathBuf>> {
    paths
        .unwrap_or_default()
        .iter()
        .map(|path| match Path::new(path) {
            path if path.is_absolute() => Ok(path.to_owned()),
            path => Err(ConfigError::invalid(field, format!("{} is not an absolute path", path.display()))),
        })
        .collect()
}
