//! Small records on disk: whole or not at all, and what is not there is no error.

use std::fs::{self, DirBuilder, DirEntry, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use corten_sys::Context;

use crate::Result;

/// The directory and those above it, for root alone.
pub fn create_dir(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    Ok(made.tried(|| format!("create data directory {}", dir.display()))?)
}

/// By a file `.<name>` beside it, renamed: killed in between, this leaves the old content. Names of records do not
/// begin with a dot.
pub fn replace(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let (path, new) = (dir.join(name), dir.join(format!(".{name}")));
    let mut options = OpenOptions::new();
    let written = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&new, &path));
    Ok(written.tried(|| format!("write {}", path.display()))?)
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
        match entry.file_name().into_string() {
            Ok(name) if !name.starts_with('.') => all.push((name, entry)),
            _ => {}
        }
    }
    Ok(all)
}
