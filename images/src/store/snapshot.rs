//! Container snapshots: a writable directory over an image's layers. Says what to mount; mounts nothing.

use std::fs::File;
use std::path::PathBuf;

use super::record::{self, SnapshotRecord};
use super::{Ingest, Store, StoreError};
use crate::digest::Digest;
use crate::tree;
use crate::unpack::Usage;

const MAX_KEY_BYTES: usize = 200;

/// What an overlay mount needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayMount {
    /// Uppermost first, as overlayfs wants them; never empty.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

impl Store {
    /// Makes the writable layer `key` (a container id) over `image`.
    ///
    /// Not synced: it dies with its container, and no container outlives a power cut.
    pub fn prepare_snapshot(&self, image: Digest, key: &str) -> Result<OverlayMount, StoreError> {
        check_key(key)?;
        let layers = {
            let state = self.state();
            let Some(record) = state.images.get(&image) else {
                return Err(StoreError::NotFound(image.to_string()));
            };
            record.layers.iter().map(|layer| layer.chain_id).collect()
        };
        let ingest = self.ingest()?;
        let snapshot = SnapshotRecord { version: record::VERSION, key: key.to_owned(), image, layers };
        let upper = ingest.make_dir("fs", 0o755)?;
        ingest.make_dir("work", 0o700)?;
        ingest.write_record("snapshot.json", &snapshot)?;
        let mount = self.commit_snapshot(ingest, snapshot)?;
        // The merged root shows the upper directory's owner and mode.
        copy_owner_and_mode(&mount.lower[0], &self.layout.snapshot(key).join("fs"))
            .map_err(|error| StoreError::io("set owner and mode of", &upper, &error))?;
        Ok(mount)
    }

    fn commit_snapshot(&self, ingest: Ingest, snapshot: SnapshotRecord) -> Result<OverlayMount, StoreError> {
        let mut state = self.state();
        let key = snapshot.key.clone();
        if state.snapshots.contains_key(&key) {
            return Err(StoreError::SnapshotExists(key));
        }
        // The image may have gone meanwhile, and its layers with it.
        if !snapshot.layers.iter().all(|layer| state.layers.contains_key(layer)) {
            return Err(StoreError::NotFound(snapshot.image.to_string()));
        }
        ingest.rename_to(&self.layout.snapshot(&key))?;
        state.snapshots.insert(key.clone(), snapshot);
        drop(state);
        self.snapshot_mount(&key)
    }

    /// The mount of an existing snapshot.
    pub fn snapshot_mount(&self, key: &str) -> Result<OverlayMount, StoreError> {
        let state = self.state();
        let snapshot =
            state.snapshots.get(key).ok_or_else(|| StoreError::SnapshotNotFound(key.to_owned()))?;
        let mut lower = Vec::with_capacity(snapshot.layers.len());
        for layer in snapshot.layers.iter().rev() {
            lower.push(self.layout.layer_fs(*layer));
            if state.layers.get(layer).is_some_and(|layer| layer.root_opaque) {
                break;
            }
        }
        if lower.is_empty() {
            lower.push(self.layout.empty());
        }
        let directory = self.layout.snapshot(key);
        Ok(OverlayMount { lower, upper: directory.join("fs"), work: directory.join("work") })
    }

    /// Every snapshot there is, for a daemon that looks for those without a container.
    pub fn snapshots(&self) -> Vec<SnapshotRecord> {
        self.state().snapshots.values().cloned().collect()
    }

    /// Removes a snapshot and, if its image is gone, the layers only it used. Absent is success. It must not be mounted.
    pub fn remove_snapshot(&self, key: &str) -> Result<(), StoreError> {
        let unused = {
            let mut state = self.state();
            let Some(snapshot) = state.snapshots.get(key) else { return Ok(()) };
            let image = snapshot.image;
            self.discard(&self.layout.snapshot(key))?;
            state.snapshots.remove(key);
            !state.images.contains_key(&image)
        };
        if unused { self.gc().map(drop) } else { self.empty_trash() }
    }

    /// Bytes and inodes of the writable layer; walks it.
    pub fn snapshot_usage(&self, key: &str) -> Result<Usage, StoreError> {
        if !self.state().snapshots.contains_key(key) {
            return Err(StoreError::SnapshotNotFound(key.to_owned()));
        }
        let path = self.layout.snapshot(key).join("fs");
        let opened = File::open(&path).map_err(|error| StoreError::io("open", &path, &error))?;
        tree::usage(&opened.into()).map_err(|errno| StoreError::Io {
            operation: "measure",
            path,
            errno: errno.into(),
        })
    }
}

fn check_key(key: &str) -> Result<(), StoreError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let fits = (1..=MAX_KEY_BYTES).contains(&key.len()) && !key.starts_with('.') && key.bytes().all(allowed);
    if fits { Ok(()) } else { Err(StoreError::SnapshotKey(key.chars().take(MAX_KEY_BYTES).collect())) }
}

fn copy_owner_and_mode(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let metadata = std::fs::metadata(from)?;
    chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    std::fs::set_permissions(to, metadata.permissions())
}
