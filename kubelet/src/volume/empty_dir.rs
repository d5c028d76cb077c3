//! `emptyDir`: a directory that lives as long as the pod, on disk or in memory.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use corten_sys::errno::{Context as _, Failure};
use corten_sys::mount::{Parameter, attach_host, filesystem, is_mount_point};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use rustix::mount::MountAttrFlags;

use crate::node::Node;
use crate::pod::resources::{Kind, amount};
use crate::pod::{all_containers, spec};
use crate::quantity::Amount;

/// Containers of any user share it.
const MODE: u32 = 0o777;
/// With fsGroup: writable by the group, and new files belong to it.
const GROUP_MODE: u32 = 0o2070;

pub fn set_up(source: &EmptyDirVolumeSource, dir: &Path, pod: &Pod, node: &Node) -> Result<(), Failure> {
    let in_memory = source.medium.as_deref() == Some("Memory");
    if dir.is_dir() && (!in_memory || is_mount_point(dir).unwrap_or(false)) {
        return Ok(());
    }
    std::fs::create_dir_all(dir).tried(|| format!("create {}", dir.display()))?;
    if in_memory {
        let size = size_bytes(source, pod, node);
        let options = [
            Parameter::Value("size".into(), size.to_string()),
            Parameter::Value("mode".into(), "0777".into()),
        ];
        let tmpfs = filesystem("tmpfs", "tmpfs", &options, MountAttrFlags::empty())
            .tried(|| "create tmpfs".into())?;
        attach_host(&tmpfs, dir).tried(|| format!("mount tmpfs at {}", dir.display()))?;
    }
    set_owner(dir, spec(pod).security_context.as_ref().and_then(|sc| sc.fs_group))
        .tried(|| format!("set owner of {}", dir.display()))
}

fn set_owner(dir: &Path, fs_group: Option<i64>) -> std::io::Result<()> {
    let mode = MODE | fs_group.map_or(0, |_| GROUP_MODE);
    if let Some(group) = fs_group.and_then(|g| u32::try_from(g).ok())
        && std::fs::metadata(dir)?.gid() != group
    {
        chown(dir, None, Some(group))?;
    }
    // After chown, which clears the setgid bit.
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode))
}

/// The least of sizeLimit, the memory limit of the pod and the node's memory: the pages count against the pod anyway.
fn size_bytes(source: &EmptyDirVolumeSource, pod: &Pod, node: &Node) -> i64 {
    let limits: Vec<Option<Amount>> =
        all_containers(pod).map(|c| amount(c, Kind::Limits, "memory")).collect();
    let of_pod = limits.into_iter().sum::<Option<Amount>>().map(Amount::units).filter(|n| *n > 0);
    let own =
        source.size_limit.as_ref().and_then(|q| Amount::parse(&q.0)).map(Amount::units).filter(|n| *n > 0);
    [own, of_pod, Some(node.memory_bytes)].into_iter().flatten().min().unwrap_or(node.memory_bytes)
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |a, b| a + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn memory_is_bounded_by_the_least_limit() {
        let node = Node { memory_bytes: 1000, ..Node::default() };
        let size = |limit: Option<&str>, containers: serde_json::Value| {
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}}))
                    .expect("pod");
            let source: EmptyDirVolumeSource =
                serde_json::from_value(json!({"medium": "Memory", "sizeLimit": limit})).expect("source");
            size_bytes(&source, &pod, &node)
        };
        let limited = |memory: &str| json!({"name": "c", "resources": {"limits": {"memory": memory}}});
        assert_eq!(size(None, json!([{"name": "c"}])), 1000);
        assert_eq!(size(Some("10"), json!([{"name": "c"}])), 10);
        assert_eq!(size(Some("500"), json!([limited("100"), limited("200")])), 300);
        assert_eq!(size(None, json!([limited("100"), {"name": "d"}])), 1000);
    }

    #[test]
    fn a_group_owns_it_and_a_second_set_up_changes_nothing() {
        let base = tempfile::tempdir().expect("dir");
        let dir = base.path().join("v");
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {}, "spec": {"containers": [], "securityContext": {"fsGroup": 1234}}}),
        )
        .expect("pod");
        let source = EmptyDirVolumeSource::default();
        if rustix::process::geteuid().is_root() {
            set_up(&source, &dir, &pod, &Node::default()).expect("set up");
            let meta = std::fs::metadata(&dir).expect("meta");
            assert_eq!((meta.gid(), meta.mode() & 0o7777), (1234, 0o2777));
            std::fs::write(dir.join("f"), "x").expect("write");
            set_up(&source, &dir, &pod, &Node::default()).expect("again");
            assert!(dir.join("f").exists());
        } else {
            println!("SKIP: not root");
        }
    }
}
