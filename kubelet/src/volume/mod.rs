//! Volumes of a pod: set up before its sandbox, mounted into its containers, removed with it. One file per kind.

pub mod empty_dir;
pub mod host_path;
pub mod sub_path;

use std::path::{Path, PathBuf};

use corten_cri_api::v1 as cri;
use corten_sys::errno::{Context as _, Failure};
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};

use crate::node::Node;
use crate::pod::{PodDir, spec};

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("volume {volume:?}: {source}")]
    Failed { volume: String, source: Failure },
    #[error("volume {volume:?}: hostPath type check failed: {path} is not a {wanted}")]
    HostPathType { volume: String, path: String, wanted: &'static str },
    #[error("subPath {path:?} of volume {volume:?}: {source}")]
    SubPath { volume: String, path: String, source: Failure },
    #[error("{0}")]
    Cleanup(#[from] Failure),
}

/// Makes what the volumes of `pod` need on this node. Idempotent: a volume that is set up stays as it is.
pub fn set_up(pod: &Pod, dir: &PodDir, node: &Node) -> Result<(), VolumeError> {
    let at = |source| VolumeError::Failed { volume: String::new(), source };
    std::fs::create_dir_all(dir.0.join("volumes"))
        .tried(|| format!("create {}", dir.0.display()))
        .map_err(at)?;
    std::fs::create_dir_all(dir.0.join("plugins"))
        .tried(|| format!("create {}", dir.0.display()))
        .map_err(at)?;
    for volume in spec(pod).volumes.iter().flatten() {
        if let Some(source) = &volume.host_path {
            host_path::check(&volume.name, source)?;
        } else if let Some(source) = &volume.empty_dir {
            let failed = |source| VolumeError::Failed { volume: volume.name.clone(), source };
            empty_dir::set_up(source, &dir.empty_dir(&volume.name), pod, node).map_err(failed)?;
        }
    }
    if uses_sub_paths(pod) {
        sub_path::share(&dir.sub_paths()).map_err(at)?;
    }
    Ok(())
}

fn uses_sub_paths(pod: &Pod) -> bool {
    crate::pod::all_containers(pod)
        .flat_map(|c| c.volume_mounts.iter().flatten())
        .any(|m| sub_path_of(m).is_some())
}

fn sub_path_of(mount: &VolumeMount) -> Option<&str> {
    mount.sub_path.as_deref().filter(|path| !path.is_empty())
}

/// The CRI mounts of a container's volumes, in the order of the manifest.
pub fn mounts(pod: &Pod, container: &Container, dir: &PodDir) -> Result<Vec<cri::Mount>, VolumeError> {
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volumes = spec(pod).volumes.as_deref().unwrap_or_default();
        let Some(volume) = volumes.iter().find(|v| v.name == mount.name) else { continue };
        let root = host_dir(volume, dir);
        let source = match sub_path_of(mount) {
            None => root,
            Some(path) => {
                let target = dir.sub_path(&volume.name, &container.name, index);
                let read_only = mount.read_only == Some(true);
                sub_path::bind(&root, path, &target, read_only, volume.host_path.is_none()).map_err(
                    |source| VolumeError::SubPath { volume: volume.name.clone(), path: path.into(), source },
                )?;
                target
            }
        };
        mounts.push(mount_of(mount, &source));
    }
    Ok(mounts)
}

fn host_dir(volume: &Volume, dir: &PodDir) -> PathBuf {
    volume
        .host_path
        .as_ref()
        .map_or_else(|| dir.empty_dir(&volume.name), |source| PathBuf::from(&source.path))
}

fn mount_of(mount: &VolumeMount, source: &Path) -> cri::Mount {
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        _ => cri::MountPropagation::PropagationPrivate,
    };
    // Relative to the root, as upstream makes it.
    let slash = if mount.mount_path.starts_with('/') { "" } else { "/" };
    cri::Mount {
        container_path: format!("{slash}{}", mount.mount_path),
        host_path: source.display().to_string(),
        readonly: mount.read_only == Some(true),
        propagation: propagation.into(),
        ..Default::default()
    }
}

/// Removes everything of a pod from this node's disk: every mount below its directory, then the directory. A mount
/// that stays keeps the directory: what is below it is not ours to delete.
pub fn tear_down(dir: &PodDir) -> Result<(), VolumeError> {
    for mount in mounts_below(&dir.0) {
        corten_sys::mount::unmount(&mount, false)
            .or_else(|_| corten_sys::mount::unmount(&mount, true))
            .tried(|| format!("unmount {}", mount.display()))?;
    }
    match std::fs::remove_dir_all(&dir.0) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("remove {}", dir.0.display()), error).into())
        }
        _ => Ok(()),
    }
}

/// Mount points at and below `dir`, innermost first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mut points: Vec<PathBuf> =
        crate::mountinfo::parse(&info).map(|m| m.point).filter(|p| p.starts_with(&dir)).collect();
    // Of mounts on one point the later covers the earlier: reversed order undoes them.
    points.reverse();
    points.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    points
}
