//! The revision that was last made durable, in a small file of its own: `FILE.acknowledged`.
//!
//! redb mends a damaged last commit by going back to the one before. After a crash that is right, since the last was
//! not answered; after a flipped bit it would drop what was answered and let its revisions come again. The two look
//! the same inside the file, so what was answered stands outside: written after each commit, without a sync of its
//! own. It may lag after a power cut, which only makes the check weaker; it is never ahead.
//!
//! Layout: 8 bytes `CORTENSR`, i64 revision, u32 CRC-32 of both; little-endian.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::api::Revision;

const MAGIC: &[u8; 8] = b"CORTENSR";
const SIZE: usize = 20;

pub struct Acknowledged {
    file: File,
    pub revision: Revision,
}

pub fn path_of(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".acknowledged");
    name.into()
}

impl Acknowledged {
    /// Of the store in `store`; 0 when there is no such file yet, as beside a copy.
    pub fn open(store: &Path) -> Result<Self, StoreError> {
        let path = path_of(store);
        let failed = |error: io::Error| StoreError::file("open", &path, &error);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(failed)?;
        let mut bytes = Vec::new();
        file.by_ref().take(SIZE as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let revision = match bytes.as_slice() {
            [] => 0,
            bytes => decode(bytes).ok_or_else(|| StoreError::Corrupted {
                file: path.clone(),
                what: format!(
                    "it should hold the last revision; remove it to trust {} as it is",
                    store.display()
                ),
            })?,
        };
        Ok(Self { file, revision })
    }

    pub fn set(&mut self, revision: Revision) -> io::Result<()> {
        if revision == self.revision {
            return Ok(());
        }
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&revision.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..16]);
        bytes[16..].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all_at(&bytes, 0)?;
        self.revision = revision;
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Option<Revision> {
    let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
    let checksum = u32::from_le_bytes(bytes[16..].try_into().ok()?);
    (bytes[..8] == *MAGIC && crc32fast::hash(&bytes[..16]) == checksum)
        .then(|| i64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes")))
}
