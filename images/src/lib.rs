//! Images: registry client, content store, unpacking, overlay snapshots.
//!
//! [`ImageStore`] is the door: `pull` and `import` bring images, `list`, `get`, `remove`, `untag` and `gc` keep them,
//! `prepare_snapshot` says what to mount for a container. Mounts nothing and knows no Kubernetes.
//!
//! What is kept of an image: its manifest, its config, and its layers unpacked. The compressed layers are not: keeping
//! them doubles the disk use (containerd #6649, moby #50103), and they can be pulled again. The price is that an image
//! cannot be pushed or exported with the digests it came with, which nothing here does.
#![forbid(unsafe_code)]

pub mod archive;
pub mod demo;
mod digest;
mod errno;
mod gc;
mod import;
mod install;
mod manifest;
mod platform;
mod pull;
mod reference;
mod registry;
mod store;
mod tree;
mod unpack;

use std::path::Path;
use std::sync::Arc;

pub use digest::{Digest, DigestError};
pub use errno::Errno;
pub use gc::Garbage;
pub use import::{ArchiveError, ImportError, ImportOptions};
pub use install::{InstallError, LayerState, Progress, ProgressFn};
pub use manifest::ManifestError;
pub use oci_spec::image::ImageConfiguration;
pub use platform::Platform;
pub use pull::{PullError, PullOptions};
pub use reference::{Reference, ReferenceError, Version};
pub use registry::{Auth, RegistryConfig, RegistryError};
pub use store::{FsUsage, ImageLayer, ImageRecord, OverlayMount, SnapshotRecord, Store, StoreError};
pub use unpack::{Limits, UnpackError, Usage};

/// A store and the registries it is filled from. Cheap to clone; [`Store`]'s methods are its own.
#[derive(Clone)]
pub struct ImageStore {
    store: Arc<Store>,
    registry: Arc<registry::Client>,
}

impl ImageStore {
    /// Opens or creates the store at `root`. Blocks: it reads all records and removes what earlier crashes left.
    ///
    /// # Errors
    /// [`StoreError::Locked`] names the process that owns the store.
    pub fn open(root: &Path, config: RegistryConfig) -> Result<Self, StoreError> {
        Ok(Self { store: Store::open(root)?, registry: Arc::new(registry::Client::new(config)) })
    }
}

impl std::ops::Deref for ImageStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}
