//! Which namespaces are made and which are joined, and what the user and time namespaces map.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use corten_sys::ns::Kind;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::Result;
use crate::error::ConfigError;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// New ones.
    pub create: Vec<Kind>,
    /// Existing ones, by an absolute host path.
    pub join: Vec<(Kind, PathBuf)>,
    /// Contents of uid_map and gid_map; empty without a new user namespace.
    pub uid_map: String,
    pub gid_map: String,
    /// Contents of timens_offsets.
    pub time_offsets: String,
}

impl Namespaces {
    pub(super) fn new(linux: &Linux) -> Result<Self> {
        let mut namespaces = Self::default();
        for namespace in linux.namespaces().iter().flatten() {
            let kind = kind(namespace.typ());
            if namespaces.has(kind) {
                return Err(invalid(format!("{} is listed twice", kind.proc_name())));
            }
            match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
                None => namespaces.create.push(kind),
                Some(path) if path.is_absolute() => namespaces.join.push((kind, path.clone())),
                Some(path) => return Err(invalid(format!("{} is not an absolute path", path.display()))),
            }
        }
        if !namespaces.has(Kind::Mount) {
            return Err(invalid(
                "a mount namespace is needed: the root file system cannot change without one".into(),
            ));
        }
        namespaces.id_maps(linux)?;
        namespaces.time(linux)?;
        Ok(namespaces)
    }

    pub fn creates(&self, kind: Kind) -> bool {
        self.create.contains(&kind)
    }

    /// Made or joined: not the caller's own.
    pub fn has(&self, kind: Kind) -> bool {
        self.creates(kind) || self.joins(kind).is_some()
    }

    pub fn joins(&self, kind: Kind) -> Option<&Path> {
        self.join.iter().find(|(joined, _)| *joined == kind).map(|(_, path)| path.as_path())
    }

    /// `CLONE_NEW*` bits of every namespace that is not the caller's.
    pub fn flags(&self) -> u32 {
        self.create
            .iter()
            .chain(self.join.iter().map(|(kind, _)| kind))
            .fold(0, |flags, kind| flags | kind.flag())
    }

    fn id_maps(&mut self, linux: &Linux) -> Result<()> {
        let new = self.creates(Kind::User);
        for (field, mappings, map) in [
            ("linux.uidMappings", linux.uid_mappings(), &mut self.uid_map),
            ("linux.gidMappings", linux.gid_mappings(), &mut self.gid_map),
        ] {
            let mappings = mappings.as_deref().unwrap_or_default();
            match (new, mappings.is_empty()) {
                (true, true) => {
                    return Err(ConfigError::invalid(field, "a new user namespace needs mappings"));
                }
                (false, false) => {
                    return Err(ConfigError::invalid(
                        field,
                        "there is no new user namespace to map (linux.namespaces)",
                    ));
                }
                _ => *map = id_map(mappings),
            }
        }
        Ok(())
    }

    fn time(&mut self, linux: &Linux) -> Result<()> {
        for (clock, offset) in linux.time_offsets().iter().flatten() {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(ConfigError::invalid(
                    "linux.timeOffsets",
                    format!("{clock:?} is not monotonic or boottime"),
                ));
            }
            let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            writeln!(self.time_offsets, "{clock} {seconds} {nanoseconds}").expect("a string grows");
        }
        if !self.time_offsets.is_empty() && !self.creates(Kind::Time) {
            return Err(ConfigError::invalid(
                "linux.timeOffsets",
                "there is no new time namespace (linux.namespaces)",
            ));
        }
        Ok(())
    }
}

fn id_map(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut map, m| {
        writeln!(map, "{} {} {}", m.container_id(), m.host_id(), m.size()).expect("a string grows");
        map
    })
}

fn kind(kind: LinuxNamespaceType) -> Kind {
    match kind {
        LinuxNamespaceType::Mount => Kind::Mount,
        LinuxNamespaceType::Cgroup => Kind::Cgroup,
        LinuxNamespaceType::Uts => Kind::Uts,
        LinuxNamespaceType::Ipc => Kind::Ipc,
        LinuxNamespaceType::User => Kind::User,
        LinuxNamespaceType::Pid => Kind::Pid,
        LinuxNamespaceType::Network => Kind::Network,
        LinuxNamespaceType::Time => Kind::Time,
    }
}

fn invalid(reason: String) -> ConfigError {
    ConfigError::invalid("linux.namespaces", reason)
}
