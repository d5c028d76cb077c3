//! Writes layer entries beneath a directory of ours. Everything is done relative to descriptors of directories that
//! were reached without following a link the layer made, or following it inside the root only (CVE-2021-32760,
//! CVE-2025-47290): nothing here joins path strings on the host.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use corten_sys::Root;
use corten_sys::root::beneath;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::error::UnpackError;
use super::path::{self, Marker};
use super::tar::{Entry, Kind, Sparse, TarReader};
use super::{Fixups, Limits, Unpacked, Usage};
use crate::tree;

/// As the kernel's own limit for one path (MAXSYMLINKS).
const MAX_LINKS: usize = 40;
const BUFFER_BYTES: usize = 256 << 10;
const PAGE_BYTES: u64 = 4096;
pub const OPAQUE: &str = "trusted.overlay.opaque";

type Result<T> = std::result::Result<T, UnpackError>;

pub struct Writer {
    root: Root,
    limits: Limits,
    entries: u64,
    bytes: u64,
    usage: Usage,
    /// The directory of the last entry: layers list a directory's entries together.
    parent: Option<Parent>,
    fixups: Fixups,
    root_opaque: bool,
    buffer: Vec<u8>,
}

#[derive(Clone)]
struct Parent {
    /// As the layer names it.
    named: Rc<[u8]>,
    /// Without symbolic links.
    real: Rc<[u8]>,
    fd: Rc<OwnedFd>,
}

impl Writer {
    pub fn new(root: OwnedFd, limits: Limits) -> Self {
        let fixups = Fixups { implicit_dirs: BTreeSet::from([Vec::new()]), ..Fixups::default() };
        Self {
            root: Root::from(root),
            limits,
            entries: 0,
            bytes: 0,
            usage: Usage { bytes: PAGE_BYTES, inodes: 1 },
            parent: None,
            fixups,
            root_opaque: false,
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    pub fn finish(self) -> Unpacked {
        Unpacked { usage: self.usage, fixups: self.fixups, root_opaque: self.root_opaque }
    }

    pub fn add<R: Read>(&mut self, entry: &Entry, archive: &mut TarReader<R>) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(UnpackError::Limit { what: "entries in one layer", limit: self.limits.entries });
        }
        let path = path::clean(&entry.path, self.limits.depth)?;
        let Some((parent, name)) = path::split(&path) else { return self.root_entry(entry) };
        let parent = self.parent(parent)?;
        match path::marker(name) {
            Some(Marker::Opaque) => return self.opaque(&parent),
            Some(Marker::Whiteout(hidden)) => return self.whiteout(&parent, hidden),
            Some(Marker::Aufs) => return Ok(()),
            None => {}
        }
        let real = path::join(&parent.real, name);
        match &entry.kind {
            Kind::Directory => return self.directory(&parent, name, real, entry),
            Kind::File { sparse } => self.file(&parent, name, &real, entry, sparse.as_ref(), archive)?,
            Kind::Hardlink { target } => return self.hardlink(&parent, name, real, target),
            Kind::Symlink { target } => self.symlink(&parent, name, &real, entry, target)?,
            Kind::CharDevice { major, minor } => {
                self.node(
                    &parent,
                    name,
                    &real,
                    entry,
                    FileType::CharacterDevice,
                    fs::makedev(*major, *minor),
                )?;
            }
            Kind::BlockDevice { major, minor } => {
                self.node(&parent, name, &real, entry, FileType::BlockDevice, fs::makedev(*major, *minor))?;
            }
            Kind::Fifo => self.node(&parent, name, &real, entry, FileType::Fifo, 0)?,
        }
        self.usage.inodes += 1;
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            let problem = "replaces the root directory by something else".into();
            return Err(UnpackError::Entry { path: entry.path.as_slice().into(), problem });
        }
        let fd = self
            .root
            .open("/", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(UnpackError::write("open", b"/"))?;
        set_metadata(&fd, entry, b"/")?;
        self.explicit_dir(Vec::new(), entry);
        Ok(())
    }

    fn directory(&mut self, parent: &Parent, name: &[u8], real: Vec<u8>, entry: &Entry) -> Result<()> {
        let fd = loop {
            match fs::mkdirat(&*parent.fd, name, Mode::RWXU) {
                Ok(()) => {
                    self.usage.inodes += 1;
                    self.usage.bytes += PAGE_BYTES;
                    break open_dir(&parent.fd, name, &real)?;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(UnpackError::write("create directory", &real)(errno)),
            }
            match kind_of(&parent.fd, name, &real)? {
                Some(Found::Directory) => break open_dir(&parent.fd, name, &real)?,
                Some(Found::Whiteout) => break self.dir_over_whiteout(parent, name, &real)?,
                _ => self.vacate(parent, name, &real)?,
            }
        };
        set_metadata(&fd, entry, &real)?;
        self.explicit_dir(real, entry);
        Ok(())
    }

    /// The layer removed `name` and made it anew: what is below stays hidden.
    fn dir_over_whiteout(&mut self, parent: &Parent, name: &[u8], real: &[u8]) -> Result<OwnedFd> {
        self.vacate(parent, name, real)?;
        fs::mkdirat(&*parent.fd, name, Mode::from(0o755))
            .map_err(UnpackError::write("create directory", real))?;
        let fd = open_dir(&parent.fd, name, real)?;
        set_opaque(&fd, real)?;
        Ok(fd)
    }

    fn explicit_dir(&mut self, real: Vec<u8>, entry: &Entry) {
        self.fixups.implicit_dirs.remove(&real);
        self.fixups.dir_times.insert(real, (entry.mtime_secs, entry.mtime_nanos));
    }

    fn file<R: Read>(
        &mut self,
        parent: &Parent,
        name: &[u8],
        real: &[u8],
        entry: &Entry,
        sparse: Option<&Sparse>,
        archive: &mut TarReader<R>,
    ) -> Result<()> {
        let create = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::openat(&*parent.fd, name, flags, Mode::RUSR | Mode::WUSR)
        };
        let file = match create() {
            Err(Errno::EXIST) => {
                self.vacate(parent, name, real)?;
                create()
            }
            other => other,
        }
        .map_err(UnpackError::write("create", real))?;
        match sparse {
            None => self.copy(&file, real, archive, 0, u64::MAX)?,
            Some(sparse) => {
                self.count_bytes(sparse.real_size)?;
                fs::ftruncate(&file, sparse.real_size)
                    .map_err(UnpackError::write("set the size of", real))?;
                for &(offset, length) in &sparse.extents {
                    self.copy(&file, real, archive, offset, length)?;
                }
            }
        }
        set_metadata(&file, entry, real)?;
        let times = timestamps(entry.mtime_secs, entry.mtime_nanos);
        fs::futimens(&file, &times).map_err(UnpackError::write("set the times of", real))
    }

    /// Copies at most `length` bytes of the entry to `offset`.
    fn copy<R: Read>(
        &mut self,
        file: &OwnedFd,
        real: &[u8],
        archive: &mut TarReader<R>,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let mut copied = 0;
        while copied < length {
            let want = usize::try_from(length - copied).unwrap_or(usize::MAX).min(BUFFER_BYTES);
            let got = archive.read_data(&mut self.buffer[..want])?;
            if got == 0 {
                break;
            }
            let mut written = 0;
            while written < got {
                let at = offset + copied + written as u64;
                match rustix::io::pwrite(file, &self.buffer[written..got], at) {
                    Ok(bytes) => written += bytes,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(UnpackError::write("write", real)(errno)),
                }
            }
            copied += got as u64;
        }
        self.usage.bytes += copied.next_multiple_of(PAGE_BYTES);
        self.count_bytes(copied)
    }

    fn count_bytes(&mut self, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes {
            return Err(UnpackError::Limit { what: "bytes in one layer", limit: self.limits.bytes });
        }
        Ok(())
    }

    fn symlink(
        &mut self,
        parent: &Parent,
        name: &[u8],
        real: &[u8],
        entry: &Entry,
        target: &[u8],
    ) -> Result<()> {
        let failed = |errno| UnpackError::write("create symbolic link", real)(errno);
        let create = || fs::symlinkat(OsStr::from_bytes(target), &*parent.fd, name);
        match create() {
            Err(Errno::EXIST) => {
                self.vacate(parent, name, real)?;
                create().map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        owner_and_times(parent, name, real, entry)
    }

    fn node(
        &mut self,
        parent: &Parent,
        name: &[u8],
        real: &[u8],
        entry: &Entry,
        kind: FileType,
        device: u64,
    ) -> Result<()> {
        let failed = |errno| UnpackError::write("create device or fifo", real)(errno);
        let create = || fs::mknodat(&*parent.fd, name, kind, Mode::empty(), device);
        match create() {
            Err(Errno::EXIST) => {
                self.vacate(parent, name, real)?;
                create().map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        owner_and_times(parent, name, real, entry)?;
        // Follows links, but this name was made above and the directory is ours alone.
        fs::chmodat(&*parent.fd, name, Mode::from(entry.mode), AtFlags::empty())
            .map_err(UnpackError::write("set the mode of", real))
    }

    /// Links to a file of this layer; one of a layer below is left to the fix-up.
    fn hardlink(&mut self, parent: &Parent, name: &[u8], real: Vec<u8>, target: &[u8]) -> Result<()> {
        let named = path::clean(target, self.limits.depth).map_err(|error| match error {
            UnpackError::Escape { .. } => UnpackError::Escape {
                path: real.as_slice().into(),
                how: "it is a hard link whose target contains `..`",
            },
            other => other,
        })?;
        let Some((target_parent, target_name)) = path::split(&named) else {
            let problem = "is a hard link to the root directory".into();
            return Err(UnpackError::Entry { path: real.as_slice().into(), problem });
        };
        if named == real {
            let problem = "is a hard link to itself".into();
            return Err(UnpackError::Entry { path: real.as_slice().into(), problem });
        }
        let found = match self.existing_dir(target_parent)? {
            Some((directory, _)) => kind_of(&directory, target_name, &real)?.map(|kind| (directory, kind)),
            None => None,
        };
        let directory = match found {
            Some((directory, Found::Other)) => directory,
            Some((_, Found::Directory)) => {
                let problem = "is a hard link to a directory".into();
                return Err(UnpackError::Entry { path: real.as_slice().into(), problem });
            }
            Some((_, Found::Whiteout)) | None => {
                self.fixups.hardlinks.push((real, named));
                return Ok(());
            }
        };
        let link = || fs::linkat(&directory, target_name, &*parent.fd, name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                self.vacate(parent, name, &real)?;
                link()
            }
            other => other,
        }
        .map_err(UnpackError::write("create hard link", &real))
    }

    fn opaque(&mut self, parent: &Parent) -> Result<()> {
        if parent.real.is_empty() {
            self.root_opaque = true;
            return Ok(());
        }
        let fd = self
            .root
            .open(Path::new(OsStr::from_bytes(&parent.real)), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(UnpackError::write("open", &parent.real))?;
        set_opaque(&fd, &parent.real)
    }

    /// Hides `hidden` of the layers below; what this layer itself has under the name stays (OCI layer.md: whiteouts
    /// apply to lower layers only).
    fn whiteout(&mut self, parent: &Parent, hidden: &[u8]) -> Result<()> {
        let real = path::join(&parent.real, hidden);
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Escape {
                path: real.as_slice().into(),
                how: "it is a whiteout of `.` or `..`",
            });
        }
        match kind_of(&parent.fd, hidden, &real)? {
            Some(Found::Directory) => set_opaque(&open_dir(&parent.fd, hidden, &real)?, &real),
            Some(Found::Whiteout | Found::Other) => Ok(()),
            None => {
                self.usage.inodes += 1;
                fs::mknodat(&*parent.fd, hidden, FileType::CharacterDevice, Mode::empty(), fs::makedev(0, 0))
                    .map_err(UnpackError::write("create whiteout", &real))
            }
        }
    }

    /// Makes room for another entry of the same name.
    fn vacate(&mut self, parent: &Parent, name: &[u8], real: &[u8]) -> Result<()> {
        tree::remove(&*parent.fd, OsStr::from_bytes(name)).map_err(UnpackError::write("replace", real))?;
        let below = path::join(real, b"");
        let gone = |path: &[u8]| path == real || path.starts_with(&below);
        self.fixups.implicit_dirs.retain(|path| !gone(path));
        self.fixups.dir_times.retain(|path, _| !gone(path));
        self.fixups.hardlinks.retain(|(link, _)| !gone(link));
        self.parent = None;
        Ok(())
    }

    fn parent(&mut self, named: &[u8]) -> Result<Parent> {
        if let Some(parent) = self.parent.as_ref().filter(|parent| *parent.named == *named) {
            return Ok(parent.clone());
        }
        let (real, fd) = match self.directory_handle(named) {
            Ok(fd) => (named.to_vec(), fd),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {
                let real = self.walk(named, true)?.expect("a walk that creates finds");
                let fd = self.directory_handle(&real).map_err(UnpackError::write("open", &real))?;
                (real, fd)
            }
            Err(errno) => return Err(UnpackError::write("open", named)(errno)),
        };
        let parent = Parent { named: named.into(), real: real.into(), fd: Rc::new(fd) };
        self.parent = Some(parent.clone());
        Ok(parent)
    }

    /// The directory that `named` means in this layer, if it is there.
    fn existing_dir(&mut self, named: &[u8]) -> Result<Option<(OwnedFd, Vec<u8>)>> {
        let Some(real) = self.walk(named, false)? else { return Ok(None) };
        let fd = self.directory_handle(&real).map_err(UnpackError::write("open", &real))?;
        Ok(Some((fd, real)))
    }

    /// A handle of a directory reached without links. The dot at the end makes the kernel refuse anything else.
    fn directory_handle(&self, real: &[u8]) -> std::result::Result<OwnedFd, Errno> {
        self.root.handle_without_links(Path::new(OsStr::from_bytes(&path::join(real, b"."))))
    }

    /// Resolves the layer's own symbolic links by hand, so that one that climbs above the root is an error and not
    /// silently kept inside. Absolute targets start at the image's root, as they will when the image runs.
    fn walk(&mut self, named: &[u8], create: bool) -> Result<Option<Vec<u8>>> {
        let components = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|&byte| byte == b'/')
                .filter(|part| !matches!(*part, b"" | b"."))
                .map(<[u8]>::to_vec)
                .collect()
        };
        let entry = |problem: &str| UnpackError::Entry { path: named.into(), problem: problem.into() };
        let mut pending = VecDeque::from(components(named));
        let mut done: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == b".." {
                let Some((parent, _)) = path::split(&done) else {
                    let how = "a symbolic link on its way climbs above the image's root";
                    return Err(UnpackError::Escape { path: named.into(), how });
                };
                done = parent.to_vec();
                continue;
            }
            let directory = self.directory_handle(&done).map_err(UnpackError::write("open", &done))?;
            let real = path::join(&done, &name);
            match kind_of(&directory, &name, &real)? {
                Some(Found::Directory) => done = real,
                Some(Found::Whiteout) if create => {
                    let parent = Parent {
                        named: done.as_slice().into(),
                        real: done.as_slice().into(),
                        fd: Rc::new(directory),
                    };
                    self.dir_over_whiteout(&parent, &name, &real)?;
                    self.implicit_dir(&real);
                    done = real;
                }
                None if create => {
                    fs::mkdirat(&directory, &name, Mode::from(0o755))
                        .map_err(UnpackError::write("create directory", &real))?;
                    self.implicit_dir(&real);
                    done = real;
                }
                None | Some(Found::Whiteout) => return Ok(None),
                Some(Found::Other) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(entry("more than 40 symbolic links on its way"));
                    }
                    let target = match fs::readlinkat(&directory, &name, Vec::new()) {
                        Ok(target) => target.into_bytes(),
                        Err(Errno::INVAL) => return Err(entry("a parent of it is no directory")),
                        Err(errno) => return Err(UnpackError::write("read link", &real)(errno)),
                    };
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    components(&target).into_iter().rev().for_each(|part| pending.push_front(part));
                    if pending.len() > self.limits.depth {
                        return Err(UnpackError::Limit {
                            what: "components in one path",
                            limit: self.limits.depth as u64,
                        });
                    }
                }
            }
        }
        Ok(Some(done))
    }

    fn implicit_dir(&mut self, real: &[u8]) {
        self.usage.inodes += 1;
        self.usage.bytes += PAGE_BYTES;
        self.fixups.implicit_dirs.insert(real.to_vec());
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Directory,
    Whiteout,
    Other,
}

fn kind_of(directory: impl AsFd, name: &[u8], real: &[u8]) -> Result<Option<Found>> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Directory,
            FileType::CharacterDevice if stat.st_rdev == 0 => Found::Whiteout,
            _ => Found::Other,
        })),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(UnpackError::write("stat", real)(errno)),
    }
}

fn open_dir(parent: &OwnedFd, name: &[u8], real: &[u8]) -> Result<OwnedFd> {
    beneath(parent, OsStr::from_bytes(name), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .map_err(UnpackError::write("open", real))
}

fn set_opaque(directory: &OwnedFd, real: &[u8]) -> Result<()> {
    fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())
        .map_err(UnpackError::write("set trusted.overlay.opaque of", real))
}

/// Owner, then mode (chown clears setuid), then xattrs (chown clears capabilities).
fn set_metadata(fd: &OwnedFd, entry: &Entry, real: &[u8]) -> Result<()> {
    let (uid, gid) = owner(entry);
    fs::fchown(fd, uid, gid).map_err(UnpackError::write("set the owner of", real))?;
    fs::fchmod(fd, Mode::from(entry.mode)).map_err(UnpackError::write("set the mode of", real))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| keep_xattr(name)) {
        match fs::fsetxattr(fd, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            Ok(()) => {}
            // Without its capability a program does not work; the others are decoration.
            Err(Errno::OPNOTSUPP) if name != b"security.capability" => {}
            Err(errno) => return Err(UnpackError::write("set xattrs of", real)(errno)),
        }
    }
    Ok(())
}

/// Drops what would steer overlayfs or a security module of the host.
pub fn keep_xattr(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"system.posix_acl_")
        || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}

fn owner_and_times(parent: &Parent, name: &[u8], real: &[u8], entry: &Entry) -> Result<()> {
    let (uid, gid) = owner(entry);
    fs::chownat(&*parent.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(UnpackError::write("set the owner of", real))?;
    let times = timestamps(entry.mtime_secs, entry.mtime_nanos);
    fs::utimensat(&*parent.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(UnpackError::write("set the times of", real))
}

fn owner(entry: &Entry) -> (Option<fs::Uid>, Option<fs::Gid>) {
    (Some(fs::Uid::from_raw(entry.uid)), Some(fs::Gid::from_raw(entry.gid)))
}

pub fn timestamps(secs: i64, nanos: u32) -> Timestamps {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
