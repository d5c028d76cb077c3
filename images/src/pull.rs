//! `pull`: a reference to a committed image.

use std::sync::Arc;
use std::time::Duration;

use crate::ImageStore;
use crate::install::{Config, InstallError, Installer, ProgressFn, Source};
use crate::manifest::{self, ImageManifest, Manifest, ManifestError};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Auth, FetchedManifest, Session};
use crate::store::{ImageRecord, NewImage};
use crate::unpack::Limits;

/// Indexes inside indexes.
const MAX_INDEX_DEPTH: usize = 3;

/// containerd's defaults where it has them.
#[derive(Clone)]
pub struct PullOptions {
    pub auth: Option<Auth>,
    pub platform: Platform,
    pub progress: Option<ProgressFn>,
    /// A transfer that brings no byte for so long is cancelled; a slow one that progresses is not.
    pub no_progress_timeout: Duration,
    pub max_concurrent_downloads: usize,
    pub limits: Limits,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            auth: None,
            platform: Platform::host(),
            progress: None,
            no_progress_timeout: Duration::from_mins(5),
            max_concurrent_downloads: 3,
            limits: Limits::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("pull {reference}: {source}")]
pub struct PullError {
    pub reference: Reference,
    pub source: InstallError,
}

impl ImageStore {
    /// Pulls an image; layers that are here already are not fetched again. May be cancelled by dropping the future.
    ///
    /// # Errors
    /// Nothing of a failed pull stays, except finished layers when the registry could not be reached any more: those
    /// wait for the next try, and go with the next removal or start.
    pub async fn pull(
        &self,
        reference: &Reference,
        options: PullOptions,
    ) -> Result<Arc<ImageRecord>, PullError> {
        let pulled = self.pull_once(reference, options).await;
        pulled.map_err(|source| {
            if !source.try_again()
                && let Err(error) = self.gc()
            {
                tracing::warn!(%error, "leftovers of a failed pull stay until the next start");
            }
            PullError { reference: reference.clone(), source }
        })
    }

    async fn pull_once(
        &self,
        reference: &Reference,
        options: PullOptions,
    ) -> Result<Arc<ImageRecord>, InstallError> {
        let session = self.registry.session(reference, options.auth.as_ref(), options.no_progress_timeout)?;
        let top = session.resolve().await?;
        let top_digest = top.digest;
        let (manifest, image) = platform_manifest(&session, top, &options.platform).await?;
        let config = session.small_blob(&image.config).await?;
        let Config { diff_ids, user } = Config::parse(&config, image.layers.len(), &options.platform)?;
        let lease = self.store.lease();
        let installer = Arc::new(Installer {
            store: Arc::clone(&self.store),
            source: Source::Registry(Arc::new(session)),
            limits: options.limits,
            max_concurrent_downloads: options.max_concurrent_downloads,
            progress: options.progress,
        });
        let layers = installer.layers(&lease, &image.layers, &diff_ids).await?;
        let mut names = vec![reference.at(top_digest)];
        names.extend(reference.tag().is_some().then(|| reference.clone()));
        let store = Arc::clone(&self.store);
        let committed = tokio::task::spawn_blocking(move || {
            let image =
                NewImage { manifest: &manifest, config: &config, layers, names: &names, user, pinned: false };
            store.commit(&lease, image)
        });
        Ok(committed.await.expect("panics abort")?)
    }
}

/// Descends from an index to this platform's manifest.
async fn platform_manifest(
    session: &Session,
    top: FetchedManifest,
    platform: &Platform,
) -> Result<(Vec<u8>, ImageManifest), InstallError> {
    let mut current = top;
    for _ in 0..MAX_INDEX_DEPTH {
        match current.manifest {
            Manifest::Image(image) => return Ok((current.bytes, image)),
            Manifest::Index(index) => {
                current = session.child(manifest::select(&index, platform)?).await?;
            }
        }
    }
    Err(ManifestError::NotAnImage("a chain of indexes without end".to_owned()).into())
}
