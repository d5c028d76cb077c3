//! What a layer needs from the layers below it, done after all are unpacked, so that unpacking itself needs no order:
//! hard links to lower files (copied up, as overlayfs would), metadata of directories the layer only passes through,
//! and times of directories, last.
//!
//! A lower *symbolic link* under the name of a directory that the layer passes through is hidden by that directory,
//! as in CRI-O and in containerd's parallel unpack.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use corten_sys::Root;
use corten_sys::root::beneath;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::error::UnpackError;
use super::writer::{OPAQUE, keep_xattr, timestamps};
use super::{Fixups, Usage, path};
use crate::tree;

type Result<T> = std::result::Result<T, UnpackError>;

/// `lowers`: the layers below, uppermost first. Returns what was added to the layer.
pub fn apply(layer: &Root, fixups: &Fixups, lowers: &[Root]) -> Result<Usage> {
    let mut usage = Usage::default();
    for directory in &fixups.implicit_dirs {
        if let Some(source) = find_dir(lowers, directory)? {
            copy_metadata(&source, &open_dir(layer, directory)?, directory)?;
        }
    }
    for (link, target) in &fixups.hardlinks {
        hardlink(layer, lowers, link, target, &mut usage)?;
    }
    for (directory, &(secs, nanos)) in &fixups.dir_times {
        let fd = open_dir(layer, directory)?;
        fs::futimens(&fd, &timestamps(secs, nanos))
            .map_err(UnpackError::write("set the times of", directory))?;
    }
    Ok(usage)
}

fn hardlink(layer: &Root, lowers: &[Root], link: &[u8], target: &[u8], usage: &mut Usage) -> Result<()> {
    let (target_dir, target_name) = path::split(target).expect("checked when the entry was read");
    let (link_dir, link_name) = path::split(link).expect("checked when the entry was read");
    if stat(layer, target)?.is_none() {
        let missing = || UnpackError::HardlinkTarget { path: link.into(), target: target.into() };
        let lower = find(lowers, target)?.ok_or_else(missing)?;
        let parent = make_dirs(layer, lowers, target_dir, usage)?;
        copy_up(&lower, &parent, target_name, target)?;
        usage.inodes += 1;
        usage.bytes += (lower.stat.st_size as u64).next_multiple_of(4096);
    }
    let from = open_dir(layer, target_dir)?;
    let to = open_dir(layer, link_dir)?;
    let create = || fs::linkat(&from, target_name, &to, link_name, AtFlags::empty());
    match create() {
        Err(Errno::EXIST) => {
            tree::remove(&to, OsStr::from_bytes(link_name)).map_err(UnpackError::write("replace", link))?;
            create()
        }
        other => other,
    }
    .map_err(UnpackError::write("create hard link", link))
}

/// A file of a lower layer.
struct Lower {
    /// The directory that holds it; `None` for the layer's root.
    parent: Option<OwnedFd>,
    handle: OwnedFd,
    stat: Stat,
}

/// What `path` is in the stack `lowers`, by overlayfs' rules: whiteouts and opaque directories end the search.
fn find(lowers: &[Root], path: &[u8]) -> Result<Option<Lower>> {
    'layers: for layer in lowers {
        let mut parent = None;
        let mut handle = layer.handle("/").map_err(UnpackError::write("open", b"/"))?;
        let mut stat = fs::fstat(&handle).map_err(UnpackError::write("stat", path))?;
        let mut opaque = false;
        let mut components = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = components.next() {
            let last = components.peek().is_none();
            let next = match beneath(
                &handle,
                OsStr::from_bytes(name),
                OFlags::PATH | OFlags::NOFOLLOW,
                Mode::empty(),
            ) {
                Ok(next) => next,
                Err(Errno::NOENT) if opaque => return Ok(None),
                Err(Errno::NOENT) => continue 'layers,
                // A link: NO_SYMLINKS refuses it even as the last component.
                Err(Errno::LOOP) if last => link_handle(&handle, name, path)?,
                Err(Errno::LOOP | Errno::NOTDIR) => return Ok(None),
                Err(errno) => return Err(UnpackError::write("open lower", path)(errno)),
            };
            parent = Some(std::mem::replace(&mut handle, next));
            stat = fs::fstat(&handle).map_err(UnpackError::write("stat", path))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::CharacterDevice if stat.st_rdev == 0 => return Ok(None),
                FileType::Directory => opaque |= is_opaque(&handle, path)?,
                _ if !last => return Ok(None),
                _ => {}
            }
        }
        return Ok(Some(Lower { parent, handle, stat }));
    }
    Ok(None)
}

fn link_handle(directory: &OwnedFd, name: &[u8], path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(directory, name, flags, Mode::empty()).map_err(UnpackError::write("open lower", path))
}

fn find_dir(lowers: &[Root], path: &[u8]) -> Result<Option<OwnedFd>> {
    match find(lowers, path)? {
        Some(lower) if FileType::from_raw_mode(lower.stat.st_mode) == FileType::Directory => {
            reopen(&lower.handle, path).map(Some)
        }
        _ => Ok(None),
    }
}

/// A handle as a directory that can be read.
fn reopen(handle: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat(handle, ".", flags, Mode::empty()).map_err(UnpackError::write("open lower", path))
}

fn is_opaque(handle: &OwnedFd, path: &[u8]) -> Result<bool> {
    let mut value = [0u8; 4];
    match fs::fgetxattr(&reopen(handle, path)?, OPAQUE, &mut value) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(UnpackError::write("read xattrs of lower", path)(errno)),
    }
}

/// The directory `path` of this layer, made with the metadata it has below where it is missing.
fn make_dirs(layer: &Root, lowers: &[Root], path: &[u8], usage: &mut Usage) -> Result<OwnedFd> {
    let Some((parent, name)) = path::split(path) else { return open_dir(layer, path) };
    let parent = make_dirs(layer, lowers, parent, usage)?;
    match fs::mkdirat(&parent, name, Mode::from(0o755)) {
        Ok(()) => {
            usage.inodes += 1;
            usage.bytes += 4096;
            let made = open_dir(layer, path)?;
            if let Some(source) = find_dir(lowers, path)? {
                copy_metadata(&source, &made, path)?;
            }
            Ok(made)
        }
        Err(Errno::EXIST) => open_dir(layer, path),
        Err(errno) => Err(UnpackError::write("create directory", path)(errno)),
    }
}

fn copy_up(lower: &Lower, to: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
    let failed = |errno| UnpackError::write("copy up", path)(errno);
    let (Lower { stat, .. }, Some(from)) = (lower, &lower.parent) else { return Err(directory_target(path)) };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
            let opened =
                beneath(from, OsStr::from_bytes(name), OFlags::RDONLY, Mode::empty()).map_err(failed)?;
            copy_bytes(&opened, &made).map_err(failed)?;
            copy_metadata(&opened, &made, path)
        }
        FileType::Directory => Err(directory_target(path)),
        FileType::Symlink => {
            let target = fs::readlinkat(from, name, Vec::new()).map_err(failed)?;
            fs::symlinkat(target, to, name).map_err(failed)?;
            own_by_name(stat, to, name).map_err(failed)
        }
        kind => {
            fs::mknodat(to, name, kind, Mode::empty(), stat.st_rdev).map_err(failed)?;
            own_by_name(stat, to, name).map_err(failed)?;
            fs::chmodat(to, name, Mode::from(stat.st_mode & 0o7777), AtFlags::empty()).map_err(failed)
        }
    }
}

fn directory_target(path: &[u8]) -> UnpackError {
    UnpackError::Entry { path: path.into(), problem: "is a directory and the target of a hard link".into() }
}

fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> std::result::Result<(), Errno> {
    let mut from = File::from(from.try_clone().map_err(|error| errno(&error))?);
    let mut to = File::from(to.try_clone().map_err(|error| errno(&error))?);
    std::io::copy(&mut from, &mut to).map(drop).map_err(|error| errno(&error))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn own_by_name(stat: &Stat, parent: &OwnedFd, name: &[u8]) -> std::result::Result<(), Errno> {
    let (uid, gid) = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
    fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    fs::utimensat(
        parent,
        name,
        &timestamps(stat.st_mtime, stat.st_mtime_nsec as u32),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

fn copy_metadata(from: &OwnedFd, to: &OwnedFd, path: &[u8]) -> Result<()> {
    let failed = |errno| UnpackError::write("copy metadata of", path)(errno);
    let stat = fs::fstat(from).map_err(failed)?;
    let (uid, gid) = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
    fs::fchown(to, Some(uid), Some(gid)).map_err(failed)?;
    fs::fchmod(to, Mode::from(stat.st_mode & 0o7777)).map_err(failed)?;
    copy_xattrs(from, to).map_err(failed)?;
    fs::futimens(to, &timestamps(stat.st_mtime, stat.st_mtime_nsec as u32)).map_err(failed)
}

fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> std::result::Result<(), Errno> {
    let mut names = vec![0; 64 << 10];
    let length = match fs::flistxattr(from, &mut names) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    let mut value = vec![0; 64 << 10];
    for name in names[..length].split(|&byte| byte == 0).filter(|name| keep_xattr(name)) {
        let name = OsStr::from_bytes(name);
        let length = fs::fgetxattr(from, name, &mut value)?;
        fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

fn open_dir(root: &Root, path: &[u8]) -> Result<OwnedFd> {
    root.open(Path::new(OsStr::from_bytes(path)), OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(UnpackError::write("open", path))
}

/// The layer's own file at `path`; a whiteout is none.
fn stat(root: &Root, path: &[u8]) -> Result<Option<Stat>> {
    match root.lstat(Path::new(OsStr::from_bytes(path))) {
        Ok(stat)
            if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0 =>
        {
            Ok(None)
        }
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(UnpackError::write("stat", path)(errno)),
    }
}
