//! Corten's own image service: import of archives, pulls that tell how far they are, names taken one by one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_cri_api::corten_v1::images_server::Images;
use corten_cri_api::corten_v1::{
    ImportRequest, ImportResponse, ImportedImage, PullProgress, PullRequest, RegistryAuth, UntagRequest,
    UntagResponse, pull_progress,
};
use corten_images::{Auth, ImportOptions, LayerState, Progress, PullOptions, Reference, StoreError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::pull_image::options;
use super::{Effect, Service, status_of};
use crate::daemon::{Daemon, blocking};
use crate::error::Error;

/// Progress that a slow client has not read yet; more is dropped, since the next message says it all again.
const BACKLOG: usize = 64;

#[tonic::async_trait]
impl Images for Service {
    async fn import(&self, request: Request<ImportRequest>) -> Result<Response<ImportResponse>, Status> {
        let request = request.into_inner();
        let subject = request.path.clone();
        let work = import(Arc::clone(&self.daemon), request);
        self.call("Import", Effect::Changes, subject, work).await
    }

    type PullStream = ReceiverStream<Result<PullProgress, Status>>;

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let request = request.into_inner();
        let reference = Reference::parse(&request.reference);
        let reference = reference.map_err(|e| status_of(&StoreError::from(e).into()))?;
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let daemon = Arc::clone(&self.daemon);
        tokio::spawn(async move {
            let pull = pull(&daemon, &reference, request.auth, sender.clone());
            let last = tokio::select! {
                last = Self::attached("Pull", Effect::Changes, reference.to_string(), pull) => last.map(Response::into_inner),
                // Whoever asked has gone: the pull is cancelled.
                () = sender.closed() => return,
            };
            let _ = sender.send(last).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn untag(&self, request: Request<UntagRequest>) -> Result<Response<UntagResponse>, Status> {
        let request = request.into_inner();
        let subject = request.reference.clone();
        let work = untag(Arc::clone(&self.daemon), request);
        self.call("Untag", Effect::Changes, subject, work).await
    }
}

async fn import(daemon: Arc<Daemon>, request: ImportRequest) -> Result<ImportResponse, Error> {
    let path = PathBuf::from(&request.path);
    if !path.is_absolute() {
        return Err(Error::argument("path", format!("{:?}: an absolute path is needed", request.path)));
    }
    let name = match request.name.as_str() {
        "" => None,
        name => Some(Reference::parse(name).map_err(StoreError::from)?),
    };
    let images = daemon.images.import(Path::new(&path), ImportOptions { name, pinned: request.pinned }).await;
    let images = images.map_err(|e| Error::Import(Box::new(e)))?;
    let imported = images.iter().map(|record| ImportedImage {
        id: record.id.to_string(),
        names: record.names().cloned().collect(),
        size_bytes: record.size_bytes,
    });
    Ok(ImportResponse { images: imported.collect() })
}

async fn pull(
    daemon: &Daemon,
    reference: &Reference,
    auth: Option<RegistryAuth>,
    sender: mpsc::Sender<Result<PullProgress, Status>>,
) -> Result<PullProgress, Error> {
    let progress = move |progress: Progress| {
        let _ = sender.try_send(Ok(message(&progress)));
    };
    let auth = auth.map(|a| Auth {
        username: a.username,
        password: a.password,
        auth: String::new(),
        server_address: a.server_address,
        identity_token: a.identity_token,
        registry_token: a.registry_token,
    });
    let options = PullOptions { auth, progress: Some(Arc::new(progress)), ..options(daemon) };
    let record = daemon.images.pull(reference, options).await.map_err(|e| Error::Pull(Box::new(e)))?;
    Ok(PullProgress {
        state: pull_progress::State::Done.into(),
        layers: u32::try_from(record.layers.len()).unwrap_or(u32::MAX),
        image_ref: record.id.to_string(),
        ..PullProgress::default()
    })
}

fn message(progress: &Progress) -> PullProgress {
    let state = match progress.state {
        LayerState::Downloading => pull_progress::State::Downloading,
        LayerState::Done => pull_progress::State::Done,
        LayerState::Exists => pull_progress::State::Exists,
    };
    PullProgress {
        layer: progress.layer.to_string(),
        state: state.into(),
        bytes: progress.bytes,
        total_bytes: progress.total_bytes,
        layers: u32::try_from(progress.layers).unwrap_or(u32::MAX),
        image_ref: String::new(),
    }
}

async fn untag(daemon: Arc<Daemon>, request: UntagRequest) -> Result<UntagResponse, Error> {
    let reference = Reference::parse(&request.reference).map_err(StoreError::from)?;
    blocking(move || daemon.images.untag(&reference)).await?;
    Ok(UntagResponse {})
}
