//! The endpoint of [`crate::status_api`]: HTTP/1.1 on a unix socket, reads only.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use corten_sys::errno::Failure;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Event, Pod};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};

use crate::kubelet::SharedView;
use crate::pod::worker::Shared;
use crate::status_api::{EVENTS, HEALTHZ, MANIFESTS, ManifestList, PODS, SOCKET};

/// Clients at once; more wait.
const MAX_CLIENTS: usize = 64;

type Body = BoxBody<Bytes, Infallible>;

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ServerError(#[from] Failure);

/// The listening endpoint; dropping it closes and removes the socket.
pub struct Server {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Server {
    /// The caller holds the lock of the state directory: a socket found there is a dead kubelet's.
    pub fn start(shared: Arc<Shared>, view: SharedView) -> Result<Self, ServerError> {
        let path = shared.config.state_dir.join(SOCKET);
        let at = |error: std::io::Error| Failure::new(format!("listen on {}", path.display()), error);
        let _ = std::fs::remove_file(&path);
        // Bound under a private name: nobody can connect before the mode is right.
        let private = path.with_extension("new");
        let _ = std::fs::remove_file(&private);
        let listener = UnixListener::bind(&private).map_err(at)?;
        std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600)).map_err(at)?;
        std::fs::rename(&private, &path).map_err(at)?;
        let task = tokio::spawn(serve(listener, shared, view));
        Ok(Self { path, task })
    }
}

async fn serve(listener: UnixListener, shared: Arc<Shared>, view: SharedView) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let mut clients = UnixListenerStream::new(listener);
    while let Some(client) = clients.next().await {
        let (Ok(client), Ok(place)) = (client, places.clone().acquire_owned().await) else { continue };
        let (shared, view) = (shared.clone(), view.clone());
        tokio::spawn(async move {
            connection(client, shared, view).await;
            drop(place);
        });
    }
}

async fn connection(client: UnixStream, shared: Arc<Shared>, view: SharedView) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &shared, &view);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // A client that went away is the client's business.
    let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(client), service).await;
}

fn answer(request: &Request<Incoming>, shared: &Shared, view: &SharedView) -> Response<Body> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET: pods are changed by their manifests\n");
    }
    match request.uri().path() {
        HEALTHZ => match &view.lock().unwrap_or_else(PoisonError::into_inner).not_ready {
            None => text(StatusCode::OK, "ok"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        PODS => {
            let pods = shared.published.lock().unwrap_or_else(PoisonError::into_inner);
            let items: Vec<Pod> = pods.values().map(|pod| Pod::clone(pod)).collect();
            json(&List { items, ..List::default() })
        }
        MANIFESTS => {
            let items = view.lock().unwrap_or_else(PoisonError::into_inner).manifests.clone();
            json(&ManifestList { items })
        }
        EVENTS => {
            let follows = request
                .uri()
                .query()
                .is_some_and(|q| q.split('&').any(|p| p == "follow" || p == "follow=true"));
            events(shared, follows)
        }
        _ => text(StatusCode::NOT_FOUND, "there are /healthz, /pods, /manifests and /events[?follow]\n"),
    }
}

fn events(shared: &Shared, follows: bool) -> Response<Body> {
    let (kept, more) = shared.recorder.follow();
    let kept = tokio_stream::iter(kept);
    let body = if follows {
        lines(kept.chain(BroadcastStream::new(more).filter_map(Result::ok)))
    } else {
        lines(kept)
    };
    respond(StatusCode::OK, "application/json", body)
}

fn lines(events: impl Stream<Item = Arc<Event>> + Send + Sync + 'static) -> Body {
    let frames = events.map(|event| {
        let mut line = serde_json::to_vec(&*event).expect("an Event is JSON");
        line.push(b'\n');
        Ok(Frame::data(Bytes::from(line)))
    });
    BodyExt::boxed(StreamBody::new(frames))
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    let body = serde_json::to_vec(value).expect("API types are JSON");
    respond(StatusCode::OK, "application/json", Full::new(Bytes::from(body)).boxed())
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", Full::new(Bytes::from(text.to_owned())).boxed())
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
