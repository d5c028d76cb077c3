//! The content store: image records, unpacked layers shared by chain id, container snapshots. One process owns it.
//! Knows nothing of registries and mounts nothing.

mod durable;
mod ingest;
mod layout;
mod lease;
pub mod record;
mod recover;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use oci_spec::image::ImageConfiguration;

pub use ingest::Ingest;
pub use lease::{Claim, Lease};
pub use record::{ImageLayer, ImageRecord, LayerRecord, SnapshotRecord};
pub use snapshot::OverlayMount;

use crate::digest::Digest;
use crate::errno::Errno;
use crate::gc;
use crate::reference::{Reference, ReferenceError};
use crate::unpack::Usage;
use layout::Layout;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("image store {} is in use by {holder}: one daemon owns a store; stop it or use another root", .path.display())]
    Locked { path: PathBuf, holder: String },
    #[error("{operation} {}: {errno}", .path.display())]
    Io { operation: &'static str, path: PathBuf, errno: Errno },
    #[error("no image {0:?} in the store: pull or import it first")]
    NotFound(String),
    #[error("{0:?} is the start of more than one image id: give more digits")]
    Ambiguous(String),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("config of image {id} is malformed: {problem}")]
    Config { id: Digest, problem: String },
    #[error("snapshot key {0:?}: want 1 to 200 of letters, digits, `_`, `.`, `-`, not starting with `.`")]
    SnapshotKey(String),
    #[error("snapshot {0} exists already")]
    SnapshotExists(String),
    #[error("no snapshot {0}")]
    SnapshotNotFound(String),
}

impl StoreError {
    pub(crate) fn io(operation: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), errno: error.into() }
    }
}

pub struct Store {
    layout: Layout,
    state: Mutex<State>,
    /// One download and unpack of a layer at a time (I8).
    claims: Mutex<HashMap<Digest, std::sync::Weak<tokio::sync::Mutex<()>>>>,
    _lock: File,
}

#[derive(Default)]
struct State {
    images: BTreeMap<Digest, Arc<ImageRecord>>,
    layers: HashMap<Digest, LayerRecord>,
    /// Sizes of manifests and configs.
    blobs: HashMap<Digest, u64>,
    snapshots: BTreeMap<String, SnapshotRecord>,
    /// Chain ids and blobs that pulls in flight need (I9).
    leases: HashMap<u64, BTreeSet<Digest>>,
    next_lease: u64,
    generation: u64,
}

/// What the store's file system holds for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsUsage {
    /// The store's root, symbolic links resolved: CRI wants a path that a mount point can be found for.
    pub mountpoint: PathBuf,
    pub used: Usage,
}

/// A new image, its layers unpacked and committed.
pub struct NewImage<'a> {
    pub manifest: &'a [u8],
    pub config: &'a [u8],
    pub layers: Vec<ImageLayer>,
    pub names: &'a [Reference],
    pub user: String,
    pub pinned: bool,
}

impl Store {
    /// Opens or creates the store at `root`, takes its lock and mends what an earlier process left (see `recover`).
    pub fn open(root: &Path) -> Result<Arc<Self>, StoreError> {
        let make = |path: &Path| {
            let mut builder = std::fs::DirBuilder::new();
            // Private from creation (CVE-2024-25621): layers hold setuid programs of every age.
            let made = builder.recursive(true).mode(0o700).create(path);
            made.map_err(|error| StoreError::io("create directory", path, &error))
        };
        make(root)?;
        let root = root.canonicalize().map_err(|error| StoreError::io("resolve", root, &error))?;
        let layout = Layout::new(&root);
        let lock = lock(&layout)?;
        for directory in layout.directories() {
            make(&directory)?;
        }
        let state = recover::load(&layout)?;
        let store =
            Arc::new(Self { layout, state: Mutex::new(state), claims: Mutex::default(), _lock: lock });
        store.gc()?;
        Ok(store)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the state is locked: panics abort")
    }

    pub fn list(&self) -> Vec<Arc<ImageRecord>> {
        self.state().images.values().cloned().collect()
    }

    /// By id, unique prefix of an id, or any reference.
    pub fn get(&self, text: &str) -> Result<Arc<ImageRecord>, StoreError> {
        record::find(self.state().images.values().cloned(), text)
    }

    pub fn image_config(&self, id: Digest) -> Result<ImageConfiguration, StoreError> {
        serde_json::from_slice(&self.blob(id)?)
            .map_err(|error| StoreError::Config { id, problem: error.to_string() })
    }

    /// A manifest or config as it came.
    pub fn blob(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.layout.blob(digest);
        std::fs::read(&path).map_err(|error| StoreError::io("read", &path, &error))
    }

    /// Removes the image that `text` names, with all its names (CRI RemoveImage), and what only it used.
    ///
    /// Layers under a container's snapshot stay until that goes.
    pub fn remove(&self, text: &str) -> Result<Arc<ImageRecord>, StoreError> {
        let image = {
            let mut state = self.state();
            let image = record::find(state.images.values().cloned(), text)?;
            durable::remove(&self.layout.images(), &Layout::image_file(image.id))?;
            state.images.remove(&image.id);
            image
        };
        self.gc()?;
        Ok(image)
    }

    /// Takes one name from its image; the image goes with its last name.
    pub fn untag(&self, reference: &Reference) -> Result<(), StoreError> {
        let last = {
            let mut state = self.state();
            let image = record::find(state.images.values().cloned(), &reference.to_string())?;
            let mut record = (*image).clone();
            record.untag(reference);
            let last = record.names().next().is_none();
            if !last {
                self.write_image(&mut state, record)?;
            }
            last.then_some(image)
        };
        last.map_or(Ok(()), |image| self.remove(&image.id.to_string()).map(drop))
    }

    pub fn set_pinned(&self, id: Digest, pinned: bool) -> Result<(), StoreError> {
        let mut state = self.state();
        let image = record::find(state.images.values().cloned(), &id.to_string())?;
        self.write_image(&mut state, ImageRecord { pinned, ..(*image).clone() })
    }

    /// Makes `image` exist: everything it refers to is on disk before its record is (I3).
    ///
    /// `lease` holds its layers and blobs against a collection in between.
    pub fn commit(&self, lease: &Lease, image: NewImage<'_>) -> Result<Arc<ImageRecord>, StoreError> {
        let (id, manifest) = (Digest::of(image.config), Digest::of(image.manifest));
        for (digest, bytes) in [(id, image.config), (manifest, image.manifest)] {
            lease.hold(digest);
            if !self.state().blobs.contains_key(&digest) {
                durable::write(&self.layout.blobs(), &digest.hex(), bytes)?;
                self.state().blobs.insert(digest, bytes.len() as u64);
            }
        }
        self.sync()?;
        let mut state = self.state();
        let known = state.images.get(&id);
        let mut repo_tags = known.map(|known| known.repo_tags.clone()).unwrap_or_default();
        let mut repo_digests = known.map(|known| known.repo_digests.clone()).unwrap_or_default();
        let pinned = image.pinned || known.is_some_and(|known| known.pinned);
        for name in image.names {
            if name.tag().is_some() { &mut repo_tags } else { &mut repo_digests }.insert(name.to_string());
        }
        let unpacked: u64 =
            image.layers.iter().filter_map(|l| state.layers.get(&l.chain_id)).map(|l| l.usage.bytes).sum();
        let size_bytes = unpacked + (image.config.len() + image.manifest.len()) as u64;
        let record = ImageRecord {
            version: record::VERSION,
            id,
            manifest,
            repo_tags,
            repo_digests,
            layers: image.layers,
            size_bytes,
            pinned,
            user: image.user,
            generation: 0,
        };
        self.write_image(&mut state, record)?;
        Ok(Arc::clone(&state.images[&id]))
    }

    /// Writes a record, then takes its tags from the images that had them; a crash in between is settled by the
    /// generation when the store is opened.
    fn write_image(&self, state: &mut State, mut record: ImageRecord) -> Result<(), StoreError> {
        state.generation += 1;
        record.generation = state.generation;
        self.persist(&record)?;
        let id = record.id;
        let losers: Vec<_> = state
            .images
            .values()
            .filter(|other| other.id != id && !other.repo_tags.is_disjoint(&record.repo_tags))
            .cloned()
            .collect();
        for loser in losers {
            state.generation += 1;
            let repo_tags = loser.repo_tags.difference(&record.repo_tags).cloned().collect();
            let loser = ImageRecord { repo_tags, generation: state.generation, ..(*loser).clone() };
            self.persist(&loser)?;
            state.images.insert(loser.id, Arc::new(loser));
        }
        state.images.insert(id, Arc::new(record));
        Ok(())
    }

    fn persist(&self, record: &ImageRecord) -> Result<(), StoreError> {
        let json = serde_json::to_vec_pretty(record).expect("plain data has a JSON form");
        durable::write(&self.layout.images(), &Layout::image_file(record.id), &json)
    }

    /// Everything written to the store's file system reaches the disk.
    fn sync(&self) -> Result<(), StoreError> {
        let root = self.layout.root();
        let opened = File::open(root).map_err(|error| StoreError::io("open", root, &error))?;
        rustix::fs::syncfs(opened).map_err(|errno| StoreError::Io {
            operation: "sync the file system of",
            path: root.to_owned(),
            errno: errno.into(),
        })
    }

    /// Removes layers and blobs that no image, no snapshot and no pull in flight refers to (I9).
    pub fn gc(&self) -> Result<gc::Garbage, StoreError> {
        let garbage = {
            let mut state = self.state();
            let garbage = state.garbage();
            for layer in &garbage.layers {
                // The commit mark goes with the name, so that a crash leaves nothing that looks like a layer.
                self.discard(&self.layout.layers().join(layer.hex()))?;
                state.layers.remove(layer);
            }
            for blob in &garbage.blobs {
                durable::remove(&self.layout.blobs(), &blob.hex())?;
                state.blobs.remove(blob);
            }
            garbage
        };
        self.empty_trash()?;
        Ok(garbage)
    }

    /// Bytes and inodes of all layers, configs and manifests. Container snapshots are measured one by one.
    pub fn fs_usage(&self) -> FsUsage {
        let state = self.state();
        let mut used = Usage { bytes: state.blobs.values().sum(), inodes: state.blobs.len() as u64 };
        for layer in state.layers.values() {
            used.bytes += layer.usage.bytes;
            used.inodes += layer.usage.inodes;
        }
        FsUsage { mountpoint: self.layout.root().to_owned(), used }
    }
}

impl State {
    fn garbage(&self) -> gc::Garbage {
        let mut roots = gc::Roots::default();
        for image in self.images.values() {
            roots.blobs.extend([image.id, image.manifest]);
            roots.layers.extend(image.layers.iter().map(|layer| layer.chain_id));
        }
        roots.layers.extend(self.snapshots.values().flat_map(|snapshot| &snapshot.layers));
        for held in self.leases.values() {
            roots.layers.extend(held);
            roots.blobs.extend(held);
        }
        gc::garbage(&roots, self.layers.keys().copied(), self.blobs.keys().copied())
    }
}

fn lock(layout: &Layout) -> Result<File, StoreError> {
    use std::io::{Read, Seek, Write};
    let path = layout.lock();
    let failed = |error: std::io::Error| StoreError::io("lock", &path, &error);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = Read::by_ref(&mut file).take(200).read_to_string(&mut holder);
            return Err(StoreError::Locked { path: layout.root().to_owned(), holder });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    let program =
        std::env::current_exe().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let holder = format!("{} (pid {})", program.as_deref().unwrap_or("a process"), std::process::id());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(holder.as_bytes()))
        .map_err(failed)?;
    Ok(file)
}
