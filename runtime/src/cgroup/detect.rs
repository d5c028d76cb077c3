//! Which cgroup hierarchies this host has, from mountinfo(5) and /proc/self/cgroup.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::CgroupError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    V1,
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub version: Version,
    /// v1: the controllers mounted together (or `name=systemd`); v2: those of its root's `cgroup.controllers`.
    pub controllers: Vec<String>,
    pub mount: PathBuf,
    /// The caller's own cgroup, relative to `mount`; empty at the root.
    pub own: PathBuf,
}

/// All hierarchies of this host, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies(Vec<Hierarchy>);

impl Hierarchies {
    /// Look at the mounts and at the cgroups of the calling process.
    pub fn detect() -> Result<Self, CgroupError> {
        let read = |path: &'static str| {
            std::fs::read_to_string(path).map_err(|error| CgroupError::io("read", path, &error))
        };
        let mut found = Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        for hierarchy in &mut found.0 {
            if hierarchy.version == Version::V2 {
                let path = hierarchy.mount.join("cgroup.controllers");
                let controllers = super::files::read(&path)?;
                hierarchy.controllers = controllers.split_whitespace().map(str::to_owned).collect();
            }
        }
        if found.0.is_empty() { Err(CgroupError::NoHierarchies) } else { Ok(found) }
    }

    /// The pure part of [`Self::detect`]: it leaves the controllers of v2, which no mount line tells, empty.
    pub fn parse(mountinfo: &str, own_cgroups: &str) -> Self {
        let mut found: Vec<Hierarchy> = Vec::new();
        for mount in mountinfo.lines().filter_map(MountLine::parse) {
            let known = own_cgroups.lines().filter_map(OwnLine::parse);
            let Some(own) = known.into_iter().find(|own| own.is_of(&mount)) else { continue };
            let hierarchy = Hierarchy {
                version: mount.version,
                controllers: own.controllers.iter().map(|&name| name.to_owned()).collect(),
                mount: PathBuf::from(&mount.point),
                own: own.path.strip_prefix(&mount.root).unwrap_or(Path::new("")).to_owned(),
            };
            // Mounted twice: the first one is the host's own; later ones are views given to containers.
            let again =
                |h: &Hierarchy| h.version == hierarchy.version && h.controllers == hierarchy.controllers;
            if !found.iter().any(again) {
                found.push(hierarchy);
            }
        }
        Self(found)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Hierarchy> {
        self.0.iter()
    }

    /// Only cgroup v2.
    pub fn is_unified(&self) -> bool {
        self.0.iter().all(|h| h.version == Version::V2)
    }

    /// In words for people: `v1`, `v2` or `hybrid`.
    pub fn mode(&self) -> &'static str {
        let v1_controllers =
            |h: &Hierarchy| h.version == Version::V1 && !h.controllers.iter().all(|c| c.starts_with("name="));
        match (self.0.iter().any(v1_controllers), self.0.iter().any(|h| h.version == Version::V2)) {
            (true, true) => "hybrid",
            (true, false) => "v1",
            (false, _) => "v2",
        }
    }
}

/// `36 35 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct`
struct MountLine<'a> {
    version: Version,
    root: PathBuf,
    point: String,
    options: Vec<&'a str>,
}

impl<'a> MountLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let version = match right.next()? {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => return None,
        };
        let options = right.nth(1)?.split(',').collect();
        let mut left = left.split(' ').skip(3);
        Some(Self { version, root: unescape(left.next()?).into(), point: unescape(left.next()?), options })
    }
}

/// `3:cpu,cpuacct:/user.slice`, `1:name=systemd:/`, `0::/`
struct OwnLine<'a> {
    controllers: Vec<&'a str>,
    path: PathBuf,
}

impl<'a> OwnLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?.split(',').filter(|name| !name.is_empty()).collect();
        Some(Self { controllers, path: fields.next()?.into() })
    }

    /// The mount of v1 repeats the controllers among its options; v2 is the one without any.
    fn is_of(&self, mount: &MountLine<'_>) -> bool {
        match mount.version {
            Version::V2 => self.controllers.is_empty(),
            Version::V1 => {
                !self.controllers.is_empty()
                    && self.controllers.iter().all(|name| mount.options.contains(name))
            }
        }
    }
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            out.push(char::from(code));
            rest = &rest[at + 4..];
        } else {
            out.push('\\');
            rest = &rest[at + 1..];
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &Hierarchies) -> Vec<String> {
        let line = |h: &Hierarchy| {
            format!(
                "{:?} {} {} own={}",
                h.version,
                h.controllers.join(","),
                h.mount.display(),
                h.own.display()
            )
        };
        found.iter().map(line).collect()
    }

    #[test]
    fn v1_with_controllers_mounted_together_and_a_named_hierarchy() {
        let found = Hierarchies::parse(
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n",
            "5:memory:/a\n4:cpu,cpuacct:/user.slice\n1:name=systemd:/init.scope\n",
        );
        assert_eq!(
            names(&found),
            [
                "V1 cpu,cpuacct /sys/fs/cgroup/cpu,cpuacct own=user.slice",
                "V1 memory /sys/fs/cgroup/memory own=a",
                "V1 name=systemd /sys/fs/cgroup/systemd own=init.scope",
            ]
        );
        assert_eq!((found.mode(), found.is_unified()), ("v1", false));
    }

    #[test]
    fn hybrid_keeps_both_versions() {
        let found = Hierarchies::parse(
            "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "4:memory:/\n0::/\n",
        );
        assert_eq!(
            names(&found),
            ["V1 memory /sys/fs/cgroup/memory own=", "V2  /sys/fs/cgroup/unified own="]
        );
        assert_eq!((found.mode(), found.is_unified()), ("hybrid", false));
    }

    #[test]
    fn unified_alone() {
        let found = Hierarchies::parse(
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/system.slice/x\n",
        );
        assert_eq!(names(&found), ["V2  /sys/fs/cgroup own=system.slice/x"]);
        assert_eq!((found.mode(), found.is_unified()), ("v2", true));
    }

    #[test]
    fn a_view_below_the_root_and_a_second_mount() {
        let found = Hierarchies::parse(
            "33 31 0:30 /box/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             39 31 0:30 / /mnt/with\\040space rw - cgroup cgroup rw,memory\n",
            "4:memory:/box/1/inner\n",
        );
        assert_eq!(names(&found), ["V1 memory /sys/fs/cgroup/memory own=inner"]);
        assert_eq!(unescape("/mnt/with\\040space\\1"), "/mnt/with space\\1");
    }
}
