//! Files that are there whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::PkiError;

pub const SECRET: u32 = 0o600;
pub const PUBLIC: u32 = 0o644;

/// A directory that only its owner enters, unless there is one already.
pub fn directory(path: &Path) -> Result<(), PkiError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| PkiError::Io { what: "make the directory", path: path.to_owned(), source })
}

/// `None`: there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Io { what: "read", path: path.to_owned(), source }),
    }
}

/// A file that must not be there yet.
pub fn create(path: &Path, mode: u32, text: &str) -> Result<(), PkiError> {
    write(path, mode, text, RenameFlags::NOREPLACE)
}

pub fn replace(path: &Path, mode: u32, text: &str) -> Result<(), PkiError> {
    write(path, mode, text, RenameFlags::empty())
}

fn write(path: &Path, mode: u32, text: &str, flags: RenameFlags) -> Result<(), PkiError> {
    let failed = |source: io::Error| PkiError::Io { what: "write", path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let written = (|| {
        // The mode at creation: a key is never readable by others, not even for a moment.
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        renameat_with(CWD, &beside, CWD, path, flags)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    })();
    written.map_err(|source| {
        fs::remove_file(&beside).ok();
        failed(source)
    })
}
