//! Removes and measures directory trees that hostile hands filled. Relative to descriptors, following no link, with
//! memory and descriptors bounded whatever the depth.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Deeper directories are moved up before they are emptied, so that a container cannot exhaust our descriptors.
const MAX_DEPTH: usize = 64;

/// Removes `name` in `parent` and all below it; absent is success.
pub fn remove(parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    let parent = parent.as_fd();
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let top = open_dir(parent, name)?;
    let mut hoisted = 0;
    loop {
        empty(&top, &top, 0, &mut hoisted)?;
        match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // Directories that were moved up are still in it.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(Errno::NOENT) => return Ok(()),
            other => return other,
        }
    }
}

fn empty(directory: &OwnedFd, top: &OwnedFd, depth: usize, hoisted: &mut u64) -> Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
        if depth >= MAX_DEPTH {
            *hoisted += 1;
            let up = CString::new(format!(".removing-{}-{hoisted}", std::process::id())).expect("no NUL");
            fs::renameat(directory, name, top, &up)?;
            continue;
        }
        empty(&open_dir(directory, OsStr::from_bytes(name.to_bytes()))?, top, depth + 1, hoisted)?;
        match fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn open_dir(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

/// Bytes on disk and inodes of everything in `directory`, itself included; hard links count once a name.
///
/// What vanishes meanwhile is left out. Below [`MAX_DEPTH`] × 4 levels nothing is counted.
pub fn usage(directory: &OwnedFd) -> Result<crate::unpack::Usage, Errno> {
    let mut sum = crate::unpack::Usage::default();
    add(&fs::fstat(directory)?, &mut sum);
    measure(directory, 0, &mut sum)?;
    Ok(sum)
}

fn add(stat: &fs::Stat, sum: &mut crate::unpack::Usage) {
    sum.bytes += stat.st_blocks as u64 * 512;
    sum.inodes += 1;
}

fn measure(directory: &OwnedFd, depth: usize, sum: &mut crate::unpack::Usage) -> Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        add(&stat, sum);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && depth < 4 * MAX_DEPTH {
            match open_dir(directory, OsStr::from_bytes(name.to_bytes())) {
                Ok(next) => measure(&next, depth + 1, sum)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_trees_deeper_than_descriptors_allow() {
        let top = tempfile::tempdir().unwrap();
        let parent = fs::open(top.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        fs::mkdirat(&parent, "tree", Mode::RWXU).unwrap();
        let mut current = open_dir(&parent, OsStr::new("tree")).unwrap();
        for _ in 0..1000 {
            fs::mkdirat(&current, "deeper-and-deeper", Mode::RWXU).unwrap();
            current = open_dir(&current, OsStr::new("deeper-and-deeper")).unwrap();
        }
        std::fs::write(top.path().join("outside"), "kept").unwrap();
        std::os::unix::fs::symlink(top.path(), top.path().join("tree/link")).unwrap();
        let tree = open_dir(&parent, OsStr::new("tree")).unwrap();
        assert!(usage(&tree).unwrap().inodes > 200);
        remove(&parent, OsStr::new("tree")).unwrap();
        assert!(!top.path().join("tree").exists());
        assert!(top.path().join("outside").exists());
        remove(&parent, OsStr::new("tree")).unwrap();
    }
}
