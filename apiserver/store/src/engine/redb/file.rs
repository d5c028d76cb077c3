//! The file under redb: one process at a time, and its blocks reserved when it grows, so that a full disk is met while
//! growing and never while writing what was promised to have room (such as the repair after it).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, FlockOperation};

use crate::StoreError;

#[derive(Debug)]
pub struct DiskFile {
    file: File,
}

impl DiskFile {
    /// Opens or makes the file, and locks it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |doing| move |error: io::Error| StoreError::file(doing, path, &error);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(failed("open"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { file: path.to_owned() }),
            Err(error) => Err(failed("lock")(error.into())),
        }
    }

    /// The first bytes: what kind of file it is. Empty for a new one.
    pub fn magic(&self) -> io::Result<Vec<u8>> {
        let mut magic = [0; 9];
        let count = self.file.read_at(&mut magic, 0)?;
        Ok(magic[..count].to_vec())
    }
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let present = self.len()?;
        if len > present {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), present, len - present) {
                // A file system that cannot reserve.
                Err(rustix::io::Errno::OPNOTSUPP) => {}
                reserved => reserved?,
            }
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}
