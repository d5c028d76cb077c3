//! Mounts and their options. Source: runtime-spec config.md "Mounts", config-linux.md; runc specconv for what the
//! specification leaves open.

use std::path::{Component, Path, PathBuf};

use corten_sys::mount::{Attributes, MountAttrFlags, Parameter, Propagation};
use corten_sys::ns::Kind;
use oci_spec::runtime::Mount as Spec;

use super::{Namespaces, Result};
use crate::error::ConfigError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// In the container, absolute, without `..`.
    pub destination: PathBuf,
    pub kind: MountKind,
    /// For this mount.
    pub attributes: Attributes,
    /// For it and everything below (`rro` and its like).
    pub recursive: Attributes,
    /// In the order given; the flag: for everything below too.
    pub propagation: Vec<(Propagation, bool)>,
    /// Where in config.json, for errors.
    pub index: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    Bind {
        source: PathBuf,
        recursive: bool,
    },
    Filesystem {
        kind: String,
        source: String,
        parameters: Vec<Parameter>,
    },
    /// The container's own cgroup in every hierarchy.
    Cgroup,
}

impl Mount {
    pub fn is_bind(&self) -> bool {
        matches!(self.kind, MountKind::Bind { .. })
    }

    pub fn is_filesystem(&self, name: &str) -> bool {
        matches!(&self.kind, MountKind::Filesystem { kind, .. } if kind == name)
    }
}

pub(super) fn plan(specs: &[Spec], namespaces: &Namespaces, bundle: &Path) -> Result<Vec<Mount>> {
    specs.iter().enumerate().map(|(index, spec)| mount(index, spec, namespaces, bundle)).collect()
}

fn mount(index: usize, spec: &Spec, namespaces: &Namespaces, bundle: &Path) -> Result<Mount> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let mapped = |maps: &Option<Vec<_>>| {
        maps.as_ref().is_some_and(|maps: &Vec<oci_spec::runtime::LinuxIdMapping>| !maps.is_empty())
    };
    if mapped(spec.uid_mappings()) || mapped(spec.gid_mappings()) {
        return Err(ConfigError::unsupported(
            field("uidMappings"),
            "map the container's user namespace instead",
        ));
    }
    let destination = destination(&field("destination"), spec.destination())?;
    let options = Options::parse(spec.options().as_deref().unwrap_or_default()).map_err(|option| {
        ConfigError::unsupported(format!("{} {option:?}", field("options")), "leave it out")
    })?;
    let kind_name = spec.typ().as_deref().unwrap_or_default();
    let kind = match (kind_name, options.bind) {
        ("bind", recursive) => bind(&field("source"), spec, bundle, recursive.unwrap_or(false))?,
        (_, Some(recursive)) => bind(&field("source"), spec, bundle, recursive)?,
        ("cgroup" | "cgroup2", None) => MountKind::Cgroup,
        ("" | "none", None) => {
            return Err(ConfigError::invalid(field("type"), "is missing, and it is no bind mount"));
        }
        (kind, None) => filesystem(kind, spec, &options),
    };
    if let (MountKind::Bind { .. }, Some(parameter)) = (&kind, options.parameters.first()) {
        return Err(ConfigError::invalid(
            field("options"),
            format!("{parameter:?} has no meaning for a bind mount"),
        ));
    }
    check_proc(&field("destination"), &destination, &kind)?;
    // A sysfs shows the network namespace that it was mounted from; with the host's it would be the host's devices.
    if kind_name == "sysfs" && namespaces.has(Kind::User) && !namespaces.has(Kind::Network) {
        return Err(ConfigError::invalid(
            field("type"),
            "sysfs cannot be mounted in a user namespace with the host's network: bind /sys instead",
        ));
    }
    Ok(Mount {
        destination,
        kind,
        attributes: options.attributes,
        recursive: options.recursive,
        propagation: options.propagation,
        index,
    })
}

/// Relative ones are taken from `/`, as runc still does; `..` cannot be meant.
fn destination(field: &str, path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(ConfigError::invalid(field, "is empty"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(ConfigError::invalid(field, format!("{} contains ..", path.display())));
    }
    Ok(Path::new("/").join(path).components().collect())
}

fn bind(field: &str, spec: &Spec, bundle: &Path, recursive: bool) -> Result<MountKind> {
    let source = spec.source().as_ref().filter(|source| !source.as_os_str().is_empty());
    let source = source.ok_or_else(|| ConfigError::invalid(field, "is missing for a bind mount"))?;
    Ok(MountKind::Bind { source: bundle.join(source), recursive })
}

fn filesystem(kind: &str, spec: &Spec, options: &Options) -> MountKind {
    let source =
        spec.source().as_ref().map_or(kind.to_owned(), |source| source.to_string_lossy().into_owned());
    // Every devpts is an instance of its own since Linux 4.7, and the new mount API does not know the word.
    let known =
        |parameter: &&Parameter| !(kind == "devpts" && **parameter == Parameter::Flag("newinstance".into()));
    MountKind::Filesystem {
        kind: kind.to_owned(),
        source,
        parameters: options.parameters.iter().filter(known).cloned().collect(),
    }
}

/// What may lie over /proc: a fake file there would receive what the runtime writes, or lie to the container's tools
/// about its confinement (CVE-2019-16884, CVE-2019-19921). Source: runc libcontainer/rootfs_linux.go checkProcMount.
fn check_proc(field: &str, destination: &Path, kind: &MountKind) -> Result<()> {
    const ALLOWED: [&str; 11] = [
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "net/dev",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    ];
    let Ok(below) = destination.strip_prefix("/proc") else { return Ok(()) };
    if below.as_os_str().is_empty() {
        return match kind {
            MountKind::Filesystem { kind, .. } if kind == "proc" => Ok(()),
            // The host's /proc, with the host's pid namespace; that it is one is verified when it is mounted.
            MountKind::Bind { .. } => Ok(()),
            _ => Err(ConfigError::invalid(field, "only a proc file system can be mounted at /proc")),
        };
    }
    if ALLOWED.iter().any(|allowed| below == Path::new(allowed)) {
        return Ok(());
    }
    Err(ConfigError::invalid(
        field,
        format!("{} cannot be mounted over: it is inside /proc", destination.display()),
    ))
}

#[derive(Debug, Default)]
struct Options {
    /// Bind, and whether with everything below.
    bind: Option<bool>,
    attributes: Attributes,
    recursive: Attributes,
    propagation: Vec<(Propagation, bool)>,
    parameters: Vec<Parameter>,
}

impl Options {
    /// The option that is not supported is the error.
    fn parse(options: &[String]) -> std::result::Result<Self, String> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> std::result::Result<(), String> {
        match option {
            "defaults" | "remount" | "async" | "loud" | "nomand" | "noiversion" | "nolazytime" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "sync" | "dirsync" | "mand" | "iversion" | "lazytime" | "silent" => {
                self.parameters.push(Parameter::Flag(option.to_owned()));
            }
            "tmpcopyup" | "idmap" | "ridmap" | "copy-symlink" | "src-nofollow" | "dest-nofollow" => {
                return Err(option.to_owned());
            }
            _ => {
                if let Some(propagation) = propagation(option) {
                    self.propagation.push(propagation);
                } else if let Some((set, flag)) = attribute(option) {
                    change(&mut self.attributes, set, flag);
                } else if let Some((set, flag)) = option.strip_prefix('r').and_then(attribute) {
                    change(&mut self.recursive, set, flag);
                } else {
                    self.parameters.push(match option.split_once('=') {
                        Some((key, value)) => Parameter::Value(key.to_owned(), value.to_owned()),
                        None => Parameter::Flag(option.to_owned()),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The propagation types by their names; the flag: recursive.
pub(super) fn propagation(name: &str) -> Option<(Propagation, bool)> {
    Some(match name {
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

const ATTRIBUTES: [(&str, bool, MountAttrFlags); 16] = [
    ("ro", true, MountAttrFlags::MOUNT_ATTR_RDONLY),
    ("rw", false, MountAttrFlags::MOUNT_ATTR_RDONLY),
    ("nosuid", true, MountAttrFlags::MOUNT_ATTR_NOSUID),
    ("suid", false, MountAttrFlags::MOUNT_ATTR_NOSUID),
    ("nodev", true, MountAttrFlags::MOUNT_ATTR_NODEV),
    ("dev", false, MountAttrFlags::MOUNT_ATTR_NODEV),
    ("noexec", true, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ("exec", false, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ("nosymfollow", true, MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
    ("symfollow", false, MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
    ("noatime", true, MountAttrFlags::MOUNT_ATTR_NOATIME),
    ("atime", false, MountAttrFlags::MOUNT_ATTR_NOATIME),
    ("strictatime", true, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
    ("nostrictatime", false, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
    ("nodiratime", true, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    ("diratime", false, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
];

/// Every option that is understood beside a file system's own, sorted, for `features`.
pub fn mount_options() -> Vec<String> {
    let propagations = ["shared", "slave", "private", "unbindable"];
    let plain = [
        "async",
        "bind",
        "defaults",
        "dirsync",
        "iversion",
        "lazytime",
        "loud",
        "mand",
        "noiversion",
        "nolazytime",
        "nomand",
        "norelatime",
        "rbind",
        "relatime",
        "remount",
        "silent",
        "sync",
    ];
    let mut names: Vec<String> = plain.into_iter().map(str::to_owned).collect();
    for name in ATTRIBUTES.iter().map(|(name, ..)| *name).chain(propagations) {
        names.extend([name.to_owned(), format!("r{name}")]);
    }
    names.extend(["rnorelatime", "rrelatime"].map(str::to_owned));
    names.sort_unstable();
    names
}

/// Whether an option sets or clears, and what. `relatime` is the zero of the access-time modes, and the default.
fn attribute(option: &str) -> Option<(bool, MountAttrFlags)> {
    if matches!(option, "relatime" | "norelatime") {
        return Some((false, MountAttrFlags::MOUNT_ATTR__ATIME));
    }
    ATTRIBUTES.iter().find(|(name, ..)| *name == option).map(|(_, set, flag)| (*set, *flag))
}

/// The last word on a flag counts.
fn change(attributes: &mut Attributes, set: bool, flag: MountAttrFlags) {
    let bits = u64::from(flag.bits());
    let atime = u64::from(MountAttrFlags::MOUNT_ATTR__ATIME.bits());
    let group = if bits & atime == 0 { bits } else { atime };
    attributes.set &= !group;
    attributes.clear &= !group;
    if set {
        attributes.set |= bits;
    } else {
        attributes.clear |= group;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Options {
        Options::parse(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn bits(flag: MountAttrFlags) -> u64 {
        flag.bits().into()
    }

    #[test]
    fn flags_data_and_propagation_are_told_apart() {
        let parsed = options(&["rbind", "ro", "nosuid", "rprivate", "mode=755", "rnoexec"]);
        assert_eq!(parsed.bind, Some(true));
        assert_eq!(
            parsed.attributes.set,
            bits(MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID)
        );
        assert_eq!(parsed.recursive.set, bits(MountAttrFlags::MOUNT_ATTR_NOEXEC));
        assert_eq!(parsed.propagation, [(Propagation::Private, true)]);
        assert_eq!(parsed.parameters, [Parameter::Value("mode".into(), "755".into())]);
    }

    #[test]
    fn the_last_word_on_a_flag_counts() {
        let parsed = options(&["ro", "rw", "noatime", "strictatime"]);
        assert_eq!(parsed.attributes.set, bits(MountAttrFlags::MOUNT_ATTR_STRICTATIME));
        assert_eq!(
            parsed.attributes.clear & bits(MountAttrFlags::MOUNT_ATTR_RDONLY),
            bits(MountAttrFlags::MOUNT_ATTR_RDONLY)
        );
        assert_eq!(options(&["noatime", "relatime"]).attributes.set, 0);
    }

    #[test]
    fn cve_2019_16884_only_known_files_may_lie_over_proc() {
        let bind = MountKind::Bind { source: "/x".into(), recursive: false };
        for (destination, allowed) in [
            ("/proc/cpuinfo", true),
            ("/proc/self", false),
            ("/proc/sys/kernel", false),
            ("/procfs", true),
            ("/proc", true),
        ] {
            assert_eq!(check_proc("f", Path::new(destination), &bind).is_ok(), allowed, "{destination}");
        }
        let tmpfs =
            MountKind::Filesystem { kind: "tmpfs".into(), source: String::new(), parameters: Vec::new() };
        check_proc("f", Path::new("/proc"), &tmpfs).unwrap_err();
    }
}
