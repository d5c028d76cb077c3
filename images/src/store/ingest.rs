//! Work in progress: a directory that vanishes unless it is committed by one rename.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::Layout;
use super::record::{self, LayerRecord};
use super::{Store, StoreError};
use crate::digest::Digest;
use crate::tree;
use crate::unpack::{Unpacked, Usage};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// `ingest/<unique>/`, removed when dropped.
pub struct Ingest {
    path: PathBuf,
    committed: bool,
}

impl Ingest {
    pub(super) fn new(layout: &Layout) -> Result<Self, StoreError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = layout.ingest().join(format!("{}-{number}", std::process::id()));
        make_dir(&path, 0o700)?;
        Ok(Self { path, committed: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it. `mode` is exact whatever the umask.
    pub fn make_dir(&self, name: &str, mode: u32) -> Result<PathBuf, StoreError> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path.join(name);
        make_dir(&path, mode)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
            .map_err(|error| StoreError::io("set the mode of", &path, &error))?;
        Ok(path)
    }

    pub(super) fn write_record(&self, name: &str, record: &impl serde::Serialize) -> Result<(), StoreError> {
        let path = self.path.join(name);
        let json = serde_json::to_vec(record).expect("plain data has a JSON form");
        std::fs::write(&path, json).map_err(|error| StoreError::io("write", &path, &error))
    }

    pub(super) fn rename_to(mut self, path: &Path) -> Result<(), StoreError> {
        std::fs::rename(&self.path, path).map_err(|error| StoreError::io("commit", path, &error))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.committed
            && let Err(error) = remove_tree(&self.path)
        {
            tracing::warn!(%error, "leftover of an image store operation stays until the next start");
        }
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), StoreError> {
    let made = std::fs::DirBuilder::new().mode(mode).create(path);
    made.map_err(|error| StoreError::io("create directory", path, &error))
}

pub(super) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let opened = File::open(parent).map_err(|error| StoreError::io("open", parent, &error))?;
    tree::remove(&opened, path.file_name().unwrap_or(OsStr::new("."))).map_err(|errno| StoreError::Io {
        operation: "remove",
        path: path.to_owned(),
        errno: errno.into(),
    })
}

impl Store {
    pub fn ingest(&self) -> Result<Ingest, StoreError> {
        Ingest::new(&self.layout)
    }

    /// Where a committed layer's files are.
    pub fn layer_fs(&self, chain_id: Digest) -> PathBuf {
        self.layout.layer_fs(chain_id)
    }

    /// Layers as roots, uppermost first, for a look at what lies below a layer: `chain_ids` lowest first.
    pub fn lowers(&self, chain_ids: &[Digest]) -> Result<Vec<corten_sys::Root>, StoreError> {
        let mut lowers = Vec::with_capacity(chain_ids.len());
        for &chain_id in chain_ids.iter().rev() {
            let path = self.layer_fs(chain_id);
            let opened = corten_sys::Root::open_host(&path);
            lowers.push(opened.map_err(|errno| StoreError::Io {
                operation: "open",
                path,
                errno: errno.into(),
            })?);
            if self.state().layers.get(&chain_id).is_some_and(|layer| layer.root_opaque) {
                break;
            }
        }
        Ok(lowers)
    }

    pub fn has_layer(&self, chain_id: Digest) -> bool {
        self.state().layers.contains_key(&chain_id)
    }

    /// Gives an unpacked layer (`fs` in `ingest`) its name. It is synced when the first image that uses it is committed;
    /// until then no record names it, and a layer that no record names is removed at start.
    pub fn commit_layer(
        self: &Arc<Self>,
        ingest: Ingest,
        chain_id: Digest,
        diff_id: Digest,
        unpacked: &Unpacked,
        added: Usage,
    ) -> Result<(), StoreError> {
        let usage =
            Usage { bytes: unpacked.usage.bytes + added.bytes, inodes: unpacked.usage.inodes + added.inodes };
        let root_opaque = unpacked.root_opaque;
        let record = LayerRecord { version: record::VERSION, chain_id, diff_id, usage, root_opaque };
        ingest.write_record("layer.json", &record)?;
        let mut state = self.state();
        ingest.rename_to(&self.layout.layers().join(chain_id.hex()))?;
        state.layers.insert(chain_id, record);
        Ok(())
    }

    /// Moves a committed directory out of its place at once; its contents go with [`Store::empty_trash`].
    pub(super) fn discard(&self, path: &Path) -> Result<(), StoreError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let trash = self.layout.ingest().join(format!("trash-{}-{number}", std::process::id()));
        match std::fs::rename(path, &trash) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", path, &error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn empty_trash(&self) -> Result<(), StoreError> {
        let ingest = self.layout.ingest();
        let failed = |error: std::io::Error| StoreError::io("read", &ingest, &error);
        for entry in std::fs::read_dir(&ingest).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(b"trash-") {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}
