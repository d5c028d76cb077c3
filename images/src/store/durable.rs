//! Files that appear whole or not at all, also over a power cut (I2, I3).

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Writes `directory/name` by way of a temporary file beside it: fdatasync, rename, fsync of the directory.
pub fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    // Two pulls may write one blob at the same time.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!(".new-{number}-{name}"));
    let path = directory.join(name);
    let written = (|| {
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    })();
    written.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        StoreError::io("write", &path, &error)
    })
}

/// Removes `directory/name` for good; absent is success.
pub fn remove(directory: &Path, name: &str) -> Result<(), StoreError> {
    let path = directory.join(name);
    let removed = match std::fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(directory).and_then(|directory| directory.sync_all()),
    };
    removed.map_err(|error| StoreError::io("remove", &path, &error))
}
