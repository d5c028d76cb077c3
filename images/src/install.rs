//! From manifest and config to a committed image: layers fetched, unpacked side by side, fixed up and committed from
//! the lowest upwards. The same for a registry and for an archive.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corten_sys::Root;
use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};

use crate::digest::Digest;
use crate::import::Archive;
use crate::manifest::{Descriptor, ManifestError};
use crate::platform::Platform;
use crate::registry::{Piece, RegistryError, Session, Sink};
use crate::store::{Claim, ImageLayer, Ingest, Lease, Store, StoreError};
use crate::unpack::{self, Limits, UnpackError, Unpacked, Usage};

/// Pieces of the network's size (up to a few hundred kB) between the connection and the unpacker.
const PIECES: usize = 16;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("image config: {0}")]
    Config(String),
    #[error("layer {layer}: {source}")]
    Layer { layer: Digest, source: UnpackError },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Archive(#[from] crate::import::ArchiveError),
}

impl InstallError {
    /// Whether layers that are finished should wait for the next try instead of being removed at once.
    pub fn try_again(&self) -> bool {
        matches!(self, Self::Registry(error) if error.unreachable())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    Downloading,
    /// Verified, unpacked and committed.
    Done,
    /// There before this pull, or brought by another one.
    Exists,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Of the compressed layer.
    pub layer: Digest,
    pub state: LayerState,
    pub bytes: u64,
    pub total_bytes: u64,
    /// Layers of the image.
    pub layers: usize,
}

/// Called from any thread, at most ten times a second for a layer besides its changes of state; must not block.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// What of a config concerns unpacking and listing.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    pub diff_ids: Vec<Digest>,
    pub user: String,
}

impl Config {
    pub fn parse(bytes: &[u8], layers: usize, platform: &Platform) -> Result<Self, InstallError> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            os: String,
            #[serde(default)]
            architecture: String,
            rootfs: RootFs,
        }
        #[derive(Deserialize)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Option<Vec<Digest>>,
        }
        let malformed = |error: serde_json::Error| InstallError::Config(error.to_string());
        let raw: Raw = serde_json::from_slice(bytes).map_err(malformed)?;
        // What the daemon will read at every container start is tried now.
        let whole: ImageConfiguration = serde_json::from_slice(bytes).map_err(malformed)?;
        let found = Platform { os: raw.os, architecture: raw.architecture, variant: None };
        if !found.os.is_empty() && !found.architecture.is_empty() && !platform.runs(&found) {
            let available = found.to_string();
            return Err(ManifestError::NoPlatform { wanted: platform.clone(), available }.into());
        }
        let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() != layers {
            return Err(ManifestError::LayerCount { diff_ids: diff_ids.len(), layers }.into());
        }
        let user = whole.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
        Ok(Self { diff_ids, user })
    }
}

/// Where layers come from.
#[derive(Clone)]
pub enum Source {
    Registry(Arc<Session>),
    Archive(Arc<Archive>),
}

pub struct Installer {
    pub store: Arc<Store>,
    pub source: Source,
    pub limits: Limits,
    pub max_concurrent_downloads: usize,
    pub progress: Option<ProgressFn>,
}

/// A layer whose files are in place but which has no name yet.
struct Fetched {
    ingest: Ingest,
    unpacked: Unpacked,
    claim: Claim,
}

impl Installer {
    /// Brings all layers; on error those that were committed stay unreferenced, for the collector or the next try.
    pub async fn layers(
        self: &Arc<Self>,
        lease: &Lease,
        blobs: &[Descriptor],
        diff_ids: &[Digest],
    ) -> Result<Vec<ImageLayer>, InstallError> {
        let layers = plan(blobs, diff_ids);
        let chain_ids: Vec<Digest> = layers.iter().map(|layer| layer.chain_id).collect();
        for &chain_id in &chain_ids {
            lease.hold(chain_id);
        }
        let permits = Arc::new(Semaphore::new(self.max_concurrent_downloads.max(1)));
        let mut running = JoinSet::new();
        let mut slots: Vec<Slot> = Vec::with_capacity(layers.len());
        for (index, layer) in layers.iter().enumerate() {
            let Some(claim) = self.store.claim(layer.chain_id).await else {
                self.report(layer, LayerState::Exists, layers.len());
                slots.push(Slot::Committed);
                continue;
            };
            let (installer, layer, permits, count) =
                (Arc::clone(self), layer.clone(), Arc::clone(&permits), layers.len());
            running.spawn(async move {
                let _permit = permits.acquire().await.expect("never closed");
                let (ingest, unpacked) = installer.fetch(&layer, count).await?;
                Ok::<_, InstallError>((index, Fetched { ingest, unpacked, claim }))
            });
            slots.push(Slot::Running);
        }
        let mut next = 0;
        while let Some(joined) = running.join_next().await {
            let (index, fetched) = joined.expect("panics abort, and nobody cancels a layer")?;
            slots[index] = Slot::Fetched(Box::new(fetched));
            while let Some(slot) = slots.get_mut(next) {
                match std::mem::replace(slot, Slot::Committed) {
                    Slot::Running => {
                        *slot = Slot::Running;
                        break;
                    }
                    Slot::Committed => {}
                    Slot::Fetched(fetched) => {
                        self.commit(&layers[next], *fetched, &chain_ids[..next]).await?;
                        self.report(&layers[next], LayerState::Done, layers.len());
                    }
                }
                next += 1;
            }
        }
        Ok(layers)
    }

    fn report(&self, layer: &ImageLayer, state: LayerState, layers: usize) {
        if let Some(progress) = &self.progress {
            let total_bytes = layer.compressed_bytes;
            progress(Progress { layer: layer.digest, state, bytes: total_bytes, total_bytes, layers });
        }
    }

    async fn fetch(&self, layer: &ImageLayer, layers: usize) -> Result<(Ingest, Unpacked), InstallError> {
        let hosts: Vec<usize> = match &self.source {
            Source::Registry(session) => {
                (0..session.hosts()).filter(|&host| session.can_pull(host)).collect()
            }
            Source::Archive(_) => vec![0],
        };
        let mut errors = Vec::new();
        for host in hosts {
            match self.fetch_from(host, layer, layers).await {
                Ok(fetched) => return Ok(fetched),
                // Another host may have the right bytes; it cannot mend this machine.
                Err(error @ InstallError::Registry(_)) => errors.push(error),
                Err(InstallError::Layer { source, layer }) if source.blames_content() => {
                    errors.push(InstallError::Layer { source, layer });
                }
                Err(error) => return Err(error),
            }
        }
        Err(combined(errors))
    }

    async fn fetch_from(
        &self,
        host: usize,
        layer: &ImageLayer,
        layers: usize,
    ) -> Result<(Ingest, Unpacked), InstallError> {
        let ingest = self.store.ingest()?;
        let path = ingest.make_dir("fs", 0o755)?;
        let root = Root::open_host(&path)
            .map_err(|errno| StoreError::Io { operation: "open", path, errno: errno.into() })?
            .into_fd();
        let (pieces, received) = mpsc::channel(PIECES);
        let content_at_fault = Arc::new(AtomicBool::new(false));
        let sink = Sink {
            pieces,
            content_at_fault: Arc::clone(&content_at_fault),
            progress: self.throttled(layer, layers),
        };
        let (diff_id, limits) = (layer.diff_id, self.limits);
        // The thread owns the ingest: when the pull is cancelled, it ends with its input and takes the files along.
        let unpacking = spawn_blocking(move || {
            let unpacked = unpack_pieces(received, diff_id, root, limits, &content_at_fault);
            (ingest, unpacked)
        });
        let descriptor = Descriptor {
            media_type: String::new(),
            digest: layer.digest,
            size: layer.compressed_bytes,
            platform: None,
            annotations: None,
        };
        let fetched = match &self.source {
            Source::Registry(session) => {
                session.blob(host, &descriptor, sink).await.map_err(InstallError::from)
            }
            Source::Archive(archive) => archive.send(&descriptor, sink).await,
        };
        let (ingest, unpacked) = unpacking.await.expect("panics abort");
        let unpacked = unpacked.map_err(|source| InstallError::Layer { layer: layer.digest, source });
        match (fetched, unpacked) {
            (Ok(()) | Err(InstallError::Registry(RegistryError::Aborted)), Err(at_fault)) => Err(at_fault),
            (Err(error), _) => Err(error),
            (Ok(()), Ok(unpacked)) => Ok((ingest, unpacked)),
        }
    }

    fn throttled(&self, layer: &ImageLayer, layers: usize) -> Box<dyn Fn(u64) + Send + Sync> {
        let Some(progress) = self.progress.clone() else { return Box::new(|_| {}) };
        let (layer, total_bytes) = (layer.digest, layer.compressed_bytes);
        let last = Mutex::new(None::<Instant>);
        Box::new(move |bytes| {
            let mut last = last.lock().expect("panics abort");
            if last.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY) {
                *last = Some(Instant::now());
                progress(Progress { layer, state: LayerState::Downloading, bytes, total_bytes, layers });
            }
        })
    }

    async fn commit(
        &self,
        layer: &ImageLayer,
        fetched: Fetched,
        below: &[Digest],
    ) -> Result<(), InstallError> {
        let Fetched { ingest, unpacked, claim } = fetched;
        let lowers = self.store.lowers(below)?;
        let (ingest, unpacked, added) = spawn_blocking(move || {
            let added = fix_up(&ingest, &unpacked, &lowers);
            (ingest, unpacked, added)
        })
        .await
        .expect("panics abort");
        let added = added.map_err(|source| InstallError::Layer { layer: layer.digest, source })?;
        self.store.commit_layer(ingest, layer.chain_id, layer.diff_id, &unpacked, added)?;
        drop(claim);
        Ok(())
    }
}

enum Slot {
    Running,
    Fetched(Box<Fetched>),
    Committed,
}

fn plan(blobs: &[Descriptor], diff_ids: &[Digest]) -> Vec<ImageLayer> {
    let mut parent = None;
    let with_chain = |(blob, &diff_id): (&Descriptor, &Digest)| {
        let chain_id = diff_id.chain_id(parent);
        parent = Some(chain_id);
        ImageLayer { chain_id, diff_id, digest: blob.digest, compressed_bytes: blob.size }
    };
    blobs.iter().zip(diff_ids).map(with_chain).collect()
}

fn combined(mut errors: Vec<InstallError>) -> InstallError {
    if errors.len() == 1 {
        return errors.remove(0);
    }
    // A layer that one host served broken says more than that another could not be reached.
    if let Some(at) = errors.iter().position(|error| matches!(error, InstallError::Layer { .. })) {
        return errors.remove(at);
    }
    let registry = errors.into_iter().filter_map(|error| match error {
        InstallError::Registry(error) => Some(error),
        _ => None,
    });
    crate::registry::combined(registry.collect(), "pull").into()
}

fn fix_up(ingest: &Ingest, unpacked: &Unpacked, lowers: &[Root]) -> Result<Usage, UnpackError> {
    let failed = |errno: corten_sys::Errno| UnpackError::Write {
        operation: "open",
        path: unpack::error::EntryPath(b"/".to_vec()),
        errno: errno.into(),
    };
    let layer = Root::open_host(ingest.path().join("fs")).map_err(failed)?;
    // A layer that hides all below takes nothing from there.
    unpack::apply_fixups(&layer, &unpacked.fixups, if unpacked.root_opaque { &[] } else { lowers })
}

fn unpack_pieces(
    received: mpsc::Receiver<Piece>,
    diff_id: Digest,
    root: OwnedFd,
    limits: Limits,
    content_at_fault: &AtomicBool,
) -> Result<Unpacked, UnpackError> {
    let mut reader = PieceReader { received, piece: Bytes::new(), verified: false };
    let unpacked = unpack::unpack(&mut reader, diff_id, root, limits);
    if unpacked.as_ref().is_err_and(UnpackError::blames_content) {
        // Before `received` is dropped: the sender looks here when it finds the channel closed.
        content_at_fault.store(true, Ordering::Release);
    }
    unpacked
}

/// The compressed layer as the decompressor reads it. Its end counts only when the sender has verified the digest.
struct PieceReader {
    received: mpsc::Receiver<Piece>,
    piece: Bytes,
    verified: bool,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.verified {
                return Ok(0);
            }
            match self.received.blocking_recv() {
                Some(Piece::Data(data)) => self.piece = data,
                Some(Piece::Verified) => self.verified = true,
                None => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer was given up"));
                }
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_config(extra: &str, diff_ids: &str) -> String {
        let Platform { os, architecture, .. } = Platform::host();
        format!(
            r#"{{"os":"{os}","architecture":"{architecture}",{extra}"rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#
        )
    }

    #[test]
    fn configs_are_checked_against_manifest_and_machine() {
        let d = Digest::of(b"");
        let fine = host_config(r#""config":{"User":"65532:65532"},"#, &format!("\"{d}\""));
        let config = Config::parse(fine.as_bytes(), 1, &Platform::host()).unwrap();
        assert_eq!(config, Config { diff_ids: vec![d], user: "65532:65532".into() });
        let error = Config::parse(fine.as_bytes(), 2, &Platform::host()).unwrap_err();
        assert!(matches!(
            error,
            InstallError::Manifest(ManifestError::LayerCount { diff_ids: 1, layers: 2 })
        ));
        let foreign = fine.replace(&Platform::host().architecture, "s390x");
        let error = Config::parse(foreign.as_bytes(), 1, &Platform::host()).unwrap_err();
        assert!(matches!(error, InstallError::Manifest(ManifestError::NoPlatform { .. })));
        for bad in ["", "[]", "{}", "null"] {
            assert!(
                matches!(Config::parse(bad.as_bytes(), 0, &Platform::host()), Err(InstallError::Config(_))),
                "{bad}"
            );
        }
        let scratch = host_config(r#""config":null,"history":null,"#, "");
        assert_eq!(Config::parse(scratch.as_bytes(), 0, &Platform::host()).unwrap().user, "");
    }
}
