//! The machine, as far as specs depend on it: capabilities, security modules, devices, mount points.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use corten_cri_api::v1;

use crate::error::Error;
use crate::files::FileError;
use crate::oci_spec::{HostDevice, HostFacts, NodeKind, ResolvedMount, devices, mounts};

/// A directory given as a device may hold this many nodes; more is a mistake.
const DEVICES_LIMIT: usize = 4096;

/// Looks once, at start.
pub fn facts() -> HostFacts {
    let held = corten_sys::caps::held().map(|sets| sets.effective & sets.bounding).unwrap_or_default();
    let bare = |name: String| name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name);
    HostFacts {
        capabilities: corten_sys::caps::names(held).into_iter().map(bare).collect(),
        apparmor: fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|v| v.starts_with(b"Y")),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        swap_accounting: Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
            || Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        hugepage_sizes: hugepage_sizes(),
    }
}

/// `hugepages-2048kB` → `2MB`, for sizes the kernel has; the kubelet writes them so.
fn hugepage_sizes() -> Vec<String> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok().map(page_size))
        .collect()
}

fn page_size(kib: u64) -> String {
    match kib {
        kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
        kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
        kib => format!("{kib}KB"),
    }
}

/// The machine's name, and that of pods on its network.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The devices a container config asks for; a directory stands for every node below it.
pub fn devices(asked: &[v1::Device]) -> Result<Vec<HostDevice>, Error> {
    let mut found = Vec::new();
    for device in asked {
        devices::check(device)?;
        let host = canonical(Path::new(&device.host_path))?;
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        let before = found.len();
        collect(&host, &mounts::destination(&device.container_path), access, &mut found)?;
        if found.len() == before {
            let why = format!("{:?} is no device and holds none", device.host_path);
            return Err(Error::argument("devices[].host_path", why));
        }
    }
    Ok(found)
}

/// Every device of the machine, for a privileged container; what each container has of its own is left out.
pub fn all_devices() -> Result<Vec<HostDevice>, Error> {
    let mut found = Vec::new();
    for entry in read_dir(Path::new("/dev"))? {
        let own = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
        if !own.iter().any(|name| entry.file_name() == Some(name.as_ref())) {
            collect(&entry, &entry, "rwm", &mut found)?;
        }
    }
    Ok(found)
}

fn collect(host: &Path, path: &Path, access: &str, found: &mut Vec<HostDevice>) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(host) {
        Ok(metadata) => metadata,
        // A device that was unplugged just now.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(FileError::io("stat", host)(source).into()),
    };
    if metadata.is_dir() {
        for entry in read_dir(host)? {
            let name = entry.file_name().expect("an entry has a name").to_owned();
            collect(&entry, &path.join(name), access, found)?;
        }
    } else if let Some(kind) = node_kind(metadata.file_type()) {
        if found.len() >= DEVICES_LIMIT {
            return Err(Error::argument(
                "devices",
                format!("more than {DEVICES_LIMIT} device nodes, the last below {}", host.display()),
            ));
        }
        let number = metadata.rdev();
        found.push(HostDevice {
            path: path.into(),
            kind,
            major: rustix::fs::major(number),
            minor: rustix::fs::minor(number),
            mode: metadata.permissions().mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            access: access.into(),
        });
    }
    Ok(())
}

fn node_kind(kind: fs::FileType) -> Option<NodeKind> {
    if kind.is_block_device() {
        Some(NodeKind::Block)
    } else if kind.is_char_device() {
        Some(NodeKind::Char)
    } else {
        None
    }
}

fn read_dir(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(path).map_err(FileError::io("list", path))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|e| e.path()).collect();
    paths.sort();
    Ok(paths)
}

fn canonical(path: &Path) -> Result<PathBuf, Error> {
    Ok(path.canonicalize().map_err(FileError::io("resolve", path))?)
}

/// Looks at the host side of a container's mounts: a missing source becomes a directory, a symlink its target. One that
/// the pod's monitor, in the mount namespace it copied when the pod was made, does not see is refused.
pub fn mounts(asked: &[v1::Mount], monitor: Option<i32>) -> Result<Vec<ResolvedMount>, Error> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    asked.iter().try_for_each(mounts::check)?;
    let table = mount_table("self")?;
    let resolved: Vec<_> =
        asked.iter().map(|mount| resolve_mount(mount, &table)).collect::<Result<_, Error>>()?;
    if let Some(pid) = monitor {
        let copied = mount_table(&pid.to_string())?;
        resolved.iter().try_for_each(|mount| reaches(&mount.source, &table, &copied))?;
    }
    Ok(resolved)
}

fn mount_table(process: &str) -> Result<String, Error> {
    let path = PathBuf::from(format!("/proc/{process}/mountinfo"));
    Ok(fs::read_to_string(&path).map_err(FileError::io("read", &path))?)
}

/// The container would get the directory that the mount covers: other data than it was promised.
fn reaches(source: &Path, table: &str, copied: &str) -> Result<(), Error> {
    let (here, there) = (holding(source, table), holding(source, copied));
    if here.as_ref().map(Holding::identity) == there.as_ref().map(Holding::identity) {
        return Ok(());
    }
    let why = format!(
        "{} lies on a mount that was made or removed after the pod was, which the pod does not see because the mount \
         around it is not shared; `mount --make-rshared /` (or what holds the volumes), then make the pod again",
        source.display()
    );
    Err(Error::argument("mounts[].host_path", why))
}

fn resolve_mount(mount: &v1::Mount, table: &str) -> Result<ResolvedMount, Error> {
    let host = Path::new(&mount.host_path);
    if !host.exists() {
        fs::create_dir_all(host).map_err(FileError::io("create the missing host_path", host))?;
    }
    let source = canonical(host)?;
    let shared = propagation_of(&source, table);
    let needed = match mount.propagation() {
        v1::MountPropagation::PropagationPrivate => true,
        v1::MountPropagation::PropagationHostToContainer => shared != HostPropagation::Private,
        v1::MountPropagation::PropagationBidirectional => shared == HostPropagation::Shared,
    };
    if !needed {
        let why = format!(
            "{} lies on a mount that is not shared, so {} cannot work; `mount --make-rshared` it",
            source.display(),
            mount.propagation().as_str_name()
        );
        return Err(Error::argument("mounts[].propagation", why));
    }
    Ok(ResolvedMount {
        source,
        destination: mounts::destination(&mount.container_path),
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation: mount.propagation(),
    })
}

/// How events of a mount point travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostPropagation {
    Shared,
    Slave,
    Private,
}

/// The fields of a mountinfo line. Source: proc_pid_mountinfo(5).
struct Holding<'t> {
    fields: Vec<&'t str>,
}

impl Holding<'_> {
    /// Device, root within its file system and mount point: what is the same in a copy of the mount table.
    fn identity(&self) -> &[&str] {
        &self.fields[2..5]
    }

    fn propagation(&self) -> HostPropagation {
        let mut optional = self.fields[6..].iter().take_while(|f| **f != "-");
        if optional.clone().any(|f| f.starts_with("shared:")) {
            HostPropagation::Shared
        } else if optional.any(|f| f.starts_with("master:")) {
            HostPropagation::Slave
        } else {
            HostPropagation::Private
        }
    }
}

/// The mount that `path` lies on, read from a mountinfo table: the last of the longest mount points above it.
fn holding<'t>(path: &Path, table: &'t str) -> Option<Holding<'t>> {
    let lines = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let point = PathBuf::from(unescape(fields.get(4)?));
        (fields.len() > 6 && path.starts_with(&point)).then(|| (point.as_os_str().len(), Holding { fields }))
    });
    lines.max_by_key(|(length, _)| *length).map(|(_, mount)| mount)
}

fn propagation_of(path: &Path, table: &str) -> HostPropagation {
    holding(path, table).map_or(HostPropagation::Private, |mount| mount.propagation())
}

/// mountinfo writes blanks and the like as `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        if let Some(byte) = octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n2 1 0:5 / /mnt rw master:2 - tmpfs t rw\n\
        3 1 0:6 / /mnt/a\\040b rw - tmpfs t rw\n4 1 0:7 / /mnt/a\\040b rw shared:9 - tmpfs t rw\n";

    #[test]
    fn propagation_is_that_of_the_last_mount_above() {
        for (path, expected) in [
            ("/x", HostPropagation::Shared),
            ("/mnt/y", HostPropagation::Slave),
            ("/mnt/a b/c", HostPropagation::Shared),
            ("/mntx", HostPropagation::Shared),
        ] {
            assert_eq!(propagation_of(Path::new(path), TABLE), expected, "{path}");
        }
    }

    #[test]
    fn a_mount_that_the_pod_does_not_see_is_refused() {
        // The copy has other ids; the last mount at /mnt/a b came after it.
        let copied = "7 6 8:1 / / rw - ext4 /dev/sda rw\n8 7 0:5 / /mnt rw - tmpfs t rw\n\
            9 7 0:6 / /mnt/a\\040b rw - tmpfs t rw\n";
        for (path, seen) in [("/x", true), ("/mnt/y", true), ("/mnt/a b/c", false), ("/mnt/a b", false)] {
            assert_eq!(reaches(Path::new(path), TABLE, copied).is_ok(), seen, "{path}");
            assert_eq!(reaches(Path::new(path), copied, TABLE).is_ok(), seen, "{path}, unmounted since");
        }
    }

    #[test]
    fn page_sizes_are_written_as_a_kubelet_does() {
        assert_eq!([page_size(2048), page_size(1 << 20), page_size(64)], ["2MB", "1GB", "64KB"]);
    }

    #[test]
    fn a_missing_host_path_becomes_a_directory_and_a_symlink_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&root, root.join("link")).unwrap();
        let mount = |host: PathBuf| v1::Mount {
            container_path: "/v".into(),
            host_path: host.display().to_string(),
            ..Default::default()
        };
        let found = mounts(&[mount(root.join("link")), mount(root.join("new/deep"))], None).unwrap();
        assert_eq!(found[0].source, root);
        assert!(root.join("new/deep").is_dir());
    }

    #[test]
    fn devices_are_found_by_file_and_by_directory() {
        let asked = |host: &str, to: &str| v1::Device {
            host_path: host.into(),
            container_path: to.into(),
            permissions: "rw".into(),
        };
        let null = devices(&[asked("/dev/null", "/dev/mine")]).unwrap();
        assert_eq!((null[0].path.as_path(), null[0].major, null[0].minor), (Path::new("/dev/mine"), 1, 3));
        let dir = tempfile::tempdir().unwrap();
        let error = devices(&[asked(dir.path().to_str().unwrap(), "/dev/x")]).unwrap_err().to_string();
        assert!(error.contains("holds none"), "{error}");
        assert!(all_devices().unwrap().iter().any(|d| d.path == Path::new("/dev/null")));
    }
}
