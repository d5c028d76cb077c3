//! Small records on disk: whole or not at all, and what is not there is no error.

use std::fs::{self, DirBuilder, DirEntry, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use corten_sys::Context;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};

use crate::Result;

/// The directory and those above it, for root alone.
pub fn create_dir(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    Ok(made.tried(|| format!("create data directory {}", dir.display()))?)
}

/// A new record is a file without a name that gets one when it is whole: killed in between, this leaves nothing to
/// sweep. What exists, and where the filesystem has no such files, is written in place; readers take half a record.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    let written = match link_new(path, content) {
        Err(_) => {
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(true).write(true).mode(0o600).open(path);
            file.and_then(|mut file| file.write_all(content))
        }
        ok => ok,
    };
    Ok(written.tried(|| format!("write {}", path.display()))?)
}

fn link_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(content)?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).tried(|| format!("read {}", path.display())).map_err(Into::into),
    }
}

pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).tried(|| format!("remove {}", path.display())).map_err(Into::into)
        }
        _ => Ok(()),
    }
}

/// Name and entry of every record.
pub fn list(dir: &Path) -> Result<Vec<(String, DirEntry)>> {
    let what = || format!("list {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).tried(what).map_err(Into::into),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.tried(what)?;
        all.extend(entry.file_name().into_string().ok().map(|name| (name, entry)));
    }
    Ok(all)
}
