//! `import`: an OCI layout (directory or tar) or a `docker save` tar to committed images. Archives may be compressed.
//! Nothing in an archive is extracted: its entries are looked up by offset.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use crate::ImageStore;
use crate::digest::{Digest, Hasher};
use crate::install::{Config, InstallError, Installer, Source};
use crate::manifest::{self, Descriptor, ImageManifest, MAX_JSON_BYTES, Manifest, ManifestError};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Piece, RegistryError, Sink};
use crate::store::{ImageRecord, NewImage};
use crate::unpack::tar::{Kind, TarReader};
use crate::unpack::{self, Limits, UnpackError};

const MAX_ENTRIES: usize = 100_000;
const MAX_INDEX_DEPTH: usize = 3;
const CHUNK_BYTES: usize = 256 << 10;
/// What containerd and Docker write beside a manifest: the whole reference, and by the OCI's spec the tag alone.
const FULL_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: neither an OCI layout (index.json) nor a `docker save` archive (manifest.json)", .0.display())]
    Unknown(PathBuf),
    #[error("archive: {0}")]
    Tar(UnpackError),
    #[error("archive: {file} is missing")]
    Missing { file: String },
    #[error("archive: {file}: {problem}")]
    Malformed { file: String, problem: String },
    #[error("archive: {file} is larger than {limit} bytes")]
    TooLarge { file: String, limit: u64 },
    #[error("archive: blob {expected} has content {found}")]
    Digest { expected: Digest, found: Digest },
    #[error("archive: blob {digest} has {found} bytes, its manifest says {expected}")]
    Size { digest: Digest, expected: u64, found: u64 },
    #[error("archive holds {0} images: a name can be given only to a single one")]
    ManyImages(usize),
    #[error("archive holds no image for {0}")]
    NoImage(Platform),
}

#[derive(Debug, thiserror::Error)]
#[error("import {}: {source}", .path.display())]
pub struct ImportError {
    pub path: PathBuf,
    pub source: InstallError,
}

#[derive(Clone, Default)]
pub struct ImportOptions {
    /// Name for the one image of the archive, instead of those the archive gives.
    pub name: Option<Reference>,
    pub pinned: bool,
}

impl ImageStore {
    /// Imports every image of `path` that runs on this machine.
    pub async fn import(
        &self,
        path: &Path,
        options: ImportOptions,
    ) -> Result<Vec<Arc<ImageRecord>>, ImportError> {
        let imported = self.import_all(path, options).await;
        imported.map_err(|source| {
            if let Err(error) = self.gc() {
                tracing::warn!(%error, "leftovers of a failed import stay until the next start");
            }
            ImportError { path: path.to_owned(), source }
        })
    }

    async fn import_all(
        &self,
        path: &Path,
        options: ImportOptions,
    ) -> Result<Vec<Arc<ImageRecord>>, InstallError> {
        let (owned, store) = (path.to_owned(), Arc::clone(&self.store));
        let opened = spawn_blocking(move || -> Result<_, InstallError> {
            let ingest = store.ingest()?;
            let archive = Archive::open(&owned, ingest.path())?;
            let images = archive.images(&Platform::host())?;
            Ok((Arc::new(archive), images))
        });
        let (archive, images) = opened.await.expect("panics abort")?;
        if options.name.is_some() && images.len() != 1 {
            return Err(ArchiveError::ManyImages(images.len()).into());
        }
        let mut records = Vec::new();
        for mut image in images {
            if let Some(name) = &options.name {
                image.names = vec![name.clone()];
            }
            records.push(self.import_one(&archive, image, options.pinned).await?);
        }
        Ok(records)
    }

    async fn import_one(
        &self,
        archive: &Arc<Archive>,
        image: ArchivedImage,
        pinned: bool,
    ) -> Result<Arc<ImageRecord>, InstallError> {
        let ArchivedImage { manifest, image, config, names } = image;
        let Config { diff_ids, user } = Config::parse(&config, image.layers.len(), &Platform::host())?;
        let lease = self.store.lease();
        let installer = Arc::new(Installer {
            store: Arc::clone(&self.store),
            source: Source::Archive(Arc::clone(archive)),
            limits: Limits::default(),
            max_concurrent_downloads: 2,
            progress: None,
        });
        let layers = installer.layers(&lease, &image.layers, &diff_ids).await?;
        let store = Arc::clone(&self.store);
        let committed = spawn_blocking(move || {
            let image =
                NewImage { manifest: &manifest, config: &config, layers, names: &names, user, pinned };
            store.commit(&lease, image)
        });
        Ok(committed.await.expect("panics abort")?)
    }
}

/// An opened archive: what it calls its files, and where they are.
pub struct Archive {
    path: PathBuf,
    files: Files,
    /// `docker save` names layers and configs as it likes.
    renamed: HashMap<Digest, String>,
}

enum Files {
    Directory(PathBuf),
    /// Entry name to offset and length. The file may be an unpacked copy that has no name any more.
    Tar {
        file: Arc<File>,
        entries: HashMap<String, (u64, u64)>,
    },
}

struct ArchivedImage {
    manifest: Vec<u8>,
    image: ImageManifest,
    config: Vec<u8>,
    names: Vec<Reference>,
}

impl Archive {
    /// `scratch`: a directory for the decompressed copy of a compressed archive.
    fn open(path: &Path, scratch: &Path) -> Result<Self, ArchiveError> {
        let failed = |source: io::Error| ArchiveError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let files = if file.metadata().map_err(failed)?.is_dir() {
            Files::Directory(path.to_owned())
        } else {
            let file = decompressed(file, scratch).map_err(failed)?;
            Files::Tar { entries: index(&file).map_err(ArchiveError::Tar)?, file: Arc::new(file) }
        };
        let mut archive = Self { path: path.to_owned(), files, renamed: HashMap::new() };
        if !archive.has("index.json") && archive.has("manifest.json") {
            archive.rename_blobs()?;
        }
        Ok(archive)
    }

    fn has(&self, name: &str) -> bool {
        match &self.files {
            Files::Directory(root) => root.join(name).is_file(),
            Files::Tar { entries, .. } => entries.contains_key(name),
        }
    }

    fn reader(&self, name: &str) -> Result<(Range, u64), ArchiveError> {
        let missing = || ArchiveError::Missing { file: name.to_owned() };
        match &self.files {
            Files::Directory(root) => {
                let file = File::open(root.join(name)).map_err(|_| missing())?;
                let failed = |source: io::Error| ArchiveError::Io { path: self.path.join(name), source };
                let length = file.metadata().map_err(failed)?.len();
                Ok((Range { file: Arc::new(file), at: 0, end: length }, length))
            }
            Files::Tar { file, entries } => {
                let &(at, length) = entries.get(name).ok_or_else(missing)?;
                Ok((Range { file: Arc::clone(file), at, end: at + length }, length))
            }
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let (mut reader, length) = self.reader(name)?;
        if length > MAX_JSON_BYTES {
            return Err(ArchiveError::TooLarge { file: name.to_owned(), limit: MAX_JSON_BYTES });
        }
        let mut bytes = Vec::new();
        let failed = |source| ArchiveError::Io { path: self.path.clone(), source };
        reader.read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn blob_name(&self, digest: Digest) -> String {
        self.renamed.get(&digest).cloned().unwrap_or_else(|| format!("blobs/sha256/{}", digest.hex()))
    }

    /// A small blob, verified.
    fn blob(&self, digest: Digest) -> Result<Vec<u8>, ArchiveError> {
        let bytes = self.read(&self.blob_name(digest))?;
        let found = Digest::of(&bytes);
        if found == digest { Ok(bytes) } else { Err(ArchiveError::Digest { expected: digest, found }) }
    }

    fn images(&self, platform: &Platform) -> Result<Vec<ArchivedImage>, InstallError> {
        let images = if self.has("index.json") {
            self.oci_images(platform)?
        } else if self.has("manifest.json") {
            self.docker_images()?
        } else {
            return Err(ArchiveError::Unknown(self.path.clone()).into());
        };
        if images.is_empty() { Err(ArchiveError::NoImage(platform.clone()).into()) } else { Ok(images) }
    }

    fn oci_images(&self, platform: &Platform) -> Result<Vec<ArchivedImage>, InstallError> {
        let Manifest::Index(index) = Manifest::parse(&self.read("index.json")?, manifest::OCI_INDEX)? else {
            return Err(ManifestError::NotAnImage("index.json".to_owned()).into());
        };
        let mut images: Vec<ArchivedImage> = Vec::new();
        for descriptor in index {
            if descriptor.platform.as_ref().is_some_and(|other| !platform.runs(other)) {
                continue;
            }
            let names: Vec<_> = names(&descriptor).into_iter().collect();
            let image = self.oci_image(descriptor, names, platform)?;
            // `docker save` lists an image of several tags once for each.
            match images.iter_mut().find(|known| known.manifest == image.manifest) {
                Some(known) => known.names.extend(image.names),
                None => images.push(image),
            }
        }
        Ok(images)
    }

    fn oci_image(
        &self,
        descriptor: Descriptor,
        names: Vec<Reference>,
        platform: &Platform,
    ) -> Result<ArchivedImage, InstallError> {
        let mut descriptor = descriptor;
        for _ in 0..MAX_INDEX_DEPTH {
            let bytes = self.blob(descriptor.digest)?;
            match Manifest::parse(&bytes, &descriptor.media_type)? {
                Manifest::Index(index) => descriptor = manifest::select(&index, platform)?.clone(),
                Manifest::Image(image) => {
                    let config = self.blob(image.config.digest)?;
                    return Ok(ArchivedImage { manifest: bytes, image, config, names });
                }
            }
        }
        Err(ManifestError::NotAnImage("a chain of indexes without end".to_owned()).into())
    }

    fn docker_manifest(&self) -> Result<Vec<DockerImage>, ArchiveError> {
        let file = "manifest.json";
        serde_json::from_slice(&self.read(file)?)
            .map_err(|error| ArchiveError::Malformed { file: file.to_owned(), problem: error.to_string() })
    }

    /// Hashes the files of a `docker save` archive, so that they can be named by digest like any others.
    fn rename_blobs(&mut self) -> Result<(), ArchiveError> {
        for image in self.docker_manifest()? {
            for name in image.layers.into_iter().chain([image.config]) {
                let (digest, _) = self.hash(&name)?;
                self.renamed.insert(digest, name);
            }
        }
        Ok(())
    }

    fn hash(&self, name: &str) -> Result<(Digest, u64), ArchiveError> {
        let (mut reader, length) = self.reader(name)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let got = reader
                .read(&mut buffer)
                .map_err(|source| ArchiveError::Io { path: self.path.clone(), source })?;
            if got == 0 {
                return Ok((hasher.finish(), length));
            }
            hasher.update(&buffer[..got]);
        }
    }

    fn docker_images(&self) -> Result<Vec<ArchivedImage>, InstallError> {
        let mut images = Vec::new();
        for docker in self.docker_manifest()? {
            let describe = |name: &String, media_type: &str| -> Result<Descriptor, ArchiveError> {
                let (digest, size) = self.hash(name)?;
                Ok(Descriptor {
                    media_type: media_type.to_owned(),
                    digest,
                    size,
                    platform: None,
                    annotations: None,
                })
            };
            let config = describe(&docker.config, manifest::OCI_CONFIG)?;
            let layers = docker.layers.iter().map(|layer| describe(layer, manifest::OCI_LAYER));
            let image = ImageManifest { layers: layers.collect::<Result<_, _>>()?, config };
            let manifest = manifest::encode(&image);
            let config = self.read(&docker.config)?;
            let tags = docker.repo_tags.unwrap_or_default();
            let names = tags
                .iter()
                .map(|tag| Reference::parse(tag))
                .collect::<Result<_, _>>()
                .map_err(crate::store::StoreError::from)?;
            images.push(ArchivedImage { manifest, image, config, names });
        }
        Ok(images)
    }

    /// Streams a layer into `sink`, verified as if it came from a registry.
    pub async fn send(self: &Arc<Self>, descriptor: &Descriptor, sink: Sink) -> Result<(), InstallError> {
        let (archive, descriptor) = (Arc::clone(self), descriptor.clone());
        spawn_blocking(move || archive.send_blocking(&descriptor, &sink)).await.expect("panics abort")
    }

    fn send_blocking(&self, descriptor: &Descriptor, sink: &Sink) -> Result<(), InstallError> {
        let Descriptor { digest, size: expected, .. } = *descriptor;
        let (mut reader, found) = self.reader(&self.blob_name(digest))?;
        if found != expected {
            return Err(ArchiveError::Size { digest, expected, found }.into());
        }
        let mut hasher = Hasher::default();
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let got = reader
                .read(&mut chunk)
                .map_err(|source| ArchiveError::Io { path: self.path.clone(), source })?;
            if got == 0 {
                break;
            }
            chunk.truncate(got);
            hasher.update(&chunk);
            (sink.progress)(hasher.bytes());
            if sink.pieces.blocking_send(Piece::Data(Bytes::from(chunk))).is_err()
                && !sink.content_at_fault.load(std::sync::atomic::Ordering::Acquire)
            {
                return Err(RegistryError::Aborted.into());
            }
        }
        let found = hasher.finish();
        if found != digest {
            return Err(ArchiveError::Digest { expected: digest, found }.into());
        }
        sink.pieces.blocking_send(Piece::Verified).map_err(|_| RegistryError::Aborted.into())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A name that is no reference (a bare tag, by the OCI's spec) names nothing here.
fn names(descriptor: &Descriptor) -> Option<Reference> {
    let annotations = descriptor.annotations.as_ref()?;
    let complete = |name: &String| name.contains([':', '/']).then(|| Reference::parse(name).ok()).flatten();
    annotations.get(FULL_NAME).or_else(|| annotations.get(REF_NAME)).and_then(complete)
}

/// A part of a file, read without moving anybody's offset.
struct Range {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// The file itself, or a decompressed copy in `scratch` without a name.
fn decompressed(mut file: File, scratch: &Path) -> io::Result<File> {
    use io::Seek;
    let mut magic = [0; 4];
    let got = unpack::fill(&mut file, &mut magic)?;
    file.rewind()?;
    if !unpack::is_compressed(&magic[..got]) {
        return Ok(file);
    }
    let path = scratch.join("archive");
    let mut copy = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let mut decoder = unpack::decoder(file)?.take(Limits::default().bytes);
    io::copy(&mut decoder, &mut copy)?;
    Ok(copy)
}

/// Offsets of the archive's files; links are followed within the archive (old `docker save` links equal layers).
fn index(file: &File) -> Result<HashMap<String, (u64, u64)>, UnpackError> {
    let length = file.metadata().map_err(UnpackError::Read)?.len();
    let file = Arc::new(file.try_clone().map_err(UnpackError::Read)?);
    let mut reader = TarReader::new(io::BufReader::with_capacity(4096, Range { file, at: 0, end: length }));
    let mut entries = HashMap::new();
    let mut links = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        if entries.len() + links.len() >= MAX_ENTRIES {
            return Err(UnpackError::Limit { what: "entries in one archive", limit: MAX_ENTRIES as u64 });
        }
        let name = String::from_utf8_lossy(&unpack::path::clean(&entry.path, 16)?).into_owned();
        match entry.kind {
            Kind::File { sparse: None } => {
                let buffered = reader.get_ref();
                let at = buffered.get_ref().at - buffered.buffer().len() as u64;
                entries.insert(name, (at, reader.data_left()));
                reader.skip_data(|buffered, bytes| {
                    let buffer = buffered.buffer().len() as u64;
                    io::BufRead::consume(buffered, bytes.min(buffer) as usize);
                    let range = buffered.get_mut();
                    range.at += bytes.saturating_sub(buffer);
                    range.at <= range.end
                })?;
            }
            Kind::Symlink { target } | Kind::Hardlink { target } => {
                links.push((name, String::from_utf8_lossy(&target).into_owned()));
            }
            _ => {}
        }
    }
    for (name, target) in links {
        let beside = Path::new(&name).parent().unwrap_or(Path::new("")).join(&target);
        let resolved = lexical(&beside);
        if let Some(&place) = entries.get(&resolved).or_else(|| entries.get(&target)) {
            entries.insert(name, place);
        }
    }
    Ok(entries)
}

/// `a/../b` is `b`: names inside an archive, never of files.
fn lexical(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => drop(parts.pop()),
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    parts.join("/")
}
