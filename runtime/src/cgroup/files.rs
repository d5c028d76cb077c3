//! Reading and writing cgroup files, with errors that name them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;

use corten_sys::Errno;

use super::error::{CgroupError, errno};

/// Write `value` in one call. A file that is not there is ENOENT: nothing is created.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let written =
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|error| CgroupError::Write {
        path: path.into(),
        value: value.into(),
        errno: errno(&error),
    })
}

pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    read_text(path).map_err(|error| CgroupError::io("read", path, &error))
}

/// Their size reads 0, and an empty buffer would be filled in steps of 32 bytes.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::with_capacity(4096);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// The single number of a file; `None` for `max` and for a file this kernel does not have.
pub(super) fn number(path: &Path) -> Result<Option<u64>, CgroupError> {
    let content = match read_text(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| CgroupError::io("read", path, &error))?,
    };
    match content.trim() {
        "max" => Ok(None),
        text => text.parse().map(Some).map_err(|_| CgroupError::Unexpected {
            path: path.into(),
            content: text.into(),
            expected: "a number",
        }),
    }
}

/// The value of `key` in a file of `key value` lines.
pub(super) fn keyed(path: &Path, key: &str) -> Result<Option<u64>, CgroupError> {
    Ok(value_of(&read(path)?, key))
}

pub(super) fn value_of(content: &str, key: &str) -> Option<u64> {
    let line = content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// The processes of this directory alone. A directory that is gone has none.
pub(super) fn pids(dir: &Path) -> Result<Vec<i32>, CgroupError> {
    let path = dir.join("cgroup.procs");
    match read_text(&path) {
        Ok(content) => Ok(content.lines().filter_map(|line| line.parse().ok()).collect()),
        // ENODEV: removed between open and read.
        Err(error) if error.kind() == ErrorKind::NotFound || errno(&error) == Errno::NODEV => Ok(Vec::new()),
        Err(error) => Err(CgroupError::io("read", path, &error)),
    }
}

/// The processes of `dir` and of every cgroup below it.
pub(super) fn pids_below(dir: &Path) -> Result<Vec<i32>, CgroupError> {
    let mut all = pids(dir)?;
    for child in children(dir)? {
        all.extend(pids_below(&child)?);
    }
    Ok(all)
}

/// The cgroups directly below `dir`. Only real directories count: a symbolic link is never followed.
pub(super) fn children(dir: &Path) -> Result<Vec<std::path::PathBuf>, CgroupError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CgroupError::io("list", dir, &error)),
    };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.map(|entry| entry.path()).collect())
}
