//! Where things lie beneath the store's root; the one place that knows.
//!
//! ```text
//! lock                      held by the one process that owns the store; names it
//! blobs/sha256/<hex>        manifests and configs (layers are not kept: see the crate's page)
//! images/<config hex>.json  ImageRecord: what makes an image exist
//! layers/<chain hex>/       layer.json (commit mark), fs/ (the unpacked layer)
//! snapshots/<key>/          snapshot.json, fs/ (upper), work/
//! ingest/                   whatever is not finished; emptied at every start
//! empty/                    the lower directory of an image without layers
//! ```

use std::path::{Path, PathBuf};

use crate::digest::Digest;

#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub fn blob(&self, digest: Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub fn image_file(id: Digest) -> String {
        format!("{}.json", id.hex())
    }

    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub fn layer_fs(&self, chain_id: Digest) -> PathBuf {
        self.layers().join(chain_id.hex()).join("fs")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub fn snapshot(&self, key: &str) -> PathBuf {
        self.snapshots().join(key)
    }

    pub fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    pub fn directories(&self) -> [PathBuf; 6] {
        [self.blobs(), self.images(), self.layers(), self.snapshots(), self.ingest(), self.empty()]
    }
}
