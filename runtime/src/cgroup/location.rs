//! Where `linux.cgroupsPath` lies in a hierarchy.

use std::path::{Component, Path, PathBuf};

use super::detect::{Hierarchy, Version};

/// A place that is the same in every hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Below the mount.
    Absolute(PathBuf),
    /// Below the caller's own cgroup.
    Relative(PathBuf),
}

pub(super) fn place(cgroups_path: Option<&Path>, id: &str, default_parent: Option<&Path>) -> Place {
    let chosen = cgroups_path.filter(|path| !path.as_os_str().is_empty());
    let path = match (chosen, default_parent) {
        (Some(path), _) => path.to_owned(),
        (None, Some(parent)) => parent.join(id),
        (None, None) => PathBuf::from(id),
    };
    if path.is_absolute() { Place::Absolute(clean(&path)) } else { Place::Relative(clean(&path)) }
}

/// `.` and `..` taken away without ever leaving the root, so that no path points outside of it.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

pub(super) fn resolve(place: &Place, hierarchy: &Hierarchy) -> PathBuf {
    match (place, hierarchy.version) {
        (Place::Absolute(path), _) => hierarchy.mount.join(path),
        (Place::Relative(path), Version::V1) => hierarchy.mount.join(&hierarchy.own).join(path),
        // v2 allows no processes beside children with controllers: a sibling of the caller's cgroup, as runc does.
        (Place::Relative(path), Version::V2) => {
            hierarchy.mount.join(hierarchy.own.parent().unwrap_or(Path::new(""))).join(path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_the_same_as_for_runc() {
        let v1 = Hierarchy {
            version: Version::V1,
            controllers: vec![],
            mount: "/cg/cpu".into(),
            own: "me/here".into(),
        };
        let v2 = Hierarchy {
            version: Version::V2,
            controllers: vec![],
            mount: "/cg".into(),
            own: "me/here".into(),
        };
        for (path, parent, in_v1, in_v2) in [
            (Some("/k8s/pod1/c1"), None, "/cg/cpu/k8s/pod1/c1", "/cg/k8s/pod1/c1"),
            (Some("rel/c1"), None, "/cg/cpu/me/here/rel/c1", "/cg/me/rel/c1"),
            (None, Some("/corten"), "/cg/cpu/corten/id1", "/cg/corten/id1"),
            (Some(""), Some("/corten"), "/cg/cpu/corten/id1", "/cg/corten/id1"),
            (None, None, "/cg/cpu/me/here/id1", "/cg/me/id1"),
            (Some("/../../etc/./x"), None, "/cg/cpu/etc/x", "/cg/etc/x"),
            (Some("../../../x"), None, "/cg/cpu/me/here/x", "/cg/me/x"),
            (Some("/"), None, "/cg/cpu/", "/cg/"),
        ] {
            let place = place(path.map(Path::new), "id1", parent.map(Path::new));
            assert_eq!(resolve(&place, &v1), Path::new(in_v1), "{path:?}");
            assert_eq!(resolve(&place, &v2), Path::new(in_v2), "{path:?}");
        }
    }
}
