//! The server without its sockets: a request in, a response out. Also how the controllers in this process talk to it.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use corten_store::Store;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

use crate::auth::Auth;
use crate::connect::Kubelets;
use crate::hooks::{Admission, AllowAll, Audit, Authenticator, Authorizer};
use crate::http::{Fixed, Health, InFlight, Metrics, OpenApi};
use crate::kinds::services;
use crate::leases::Leases;
use crate::registry::Registry;
use crate::watch::{BOOKMARKS_EVERY, Hub};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// All that answers requests.
pub struct Api {
    pub store: Arc<dyn Store>,
    pub registry: Arc<Registry>,
    pub watches: Hub,
    pub openapi: OpenApi,
    pub health: Health,
    pub metrics: Metrics,
    pub in_flight: InFlight,
    /// Documents that never change, beside those of this frame.
    pub documents: Vec<Fixed>,
    pub authenticator: Box<dyn Authenticator>,
    pub authorizer: Box<dyn Authorizer>,
    pub admission: Box<dyn Admission>,
    pub audit: Box<dyn Audit>,
    /// Of records that live for a while.
    pub leases: Leases,
    /// What answers questions about users and rights, and makes tokens; `None`: nothing does.
    pub auth: Option<Arc<Auth>>,
    pub kubelets: Kubelets,
    /// Addresses and ports of Services.
    pub services: services::Shared,
    pub config: Config,
}

/// Names and defaults are kube-apiserver's.
#[derive(Debug, Clone)]
pub struct Config {
    /// `--max-requests-inflight`: reads that are answered at once; 0: no limit.
    pub max_requests_inflight: usize,
    /// `--max-mutating-requests-inflight`.
    pub max_mutating_requests_inflight: usize,
    /// `--request-timeout`: of everything but watches, logs and streams.
    pub request_timeout: Duration,
    /// `--min-request-timeout`: a watch without timeoutSeconds lives once to twice as long.
    pub min_request_timeout: Duration,
    /// `--advertise-address` and port: what discovery says.
    pub advertised: String,
    /// `--event-ttl`: of kinds whose objects do not stay.
    pub event_ttl: Duration,
    /// Of a request's body.
    pub max_body_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            request_timeout: Duration::from_mins(1),
            min_request_timeout: Duration::from_mins(30),
            advertised: "127.0.0.1:6443".to_owned(),
            event_ttl: Duration::from_hours(1),
            max_body_bytes: 3 << 20,
        }
    }
}

impl Api {
    /// Everybody may do everything: for tests.
    pub fn open(store: Arc<dyn Store>, registry: Registry) -> Arc<Self> {
        Arc::new(Self::new(store, registry))
    }

    /// A server whose parts are still to be put in: as it is, everybody may do everything.
    pub fn new(store: Arc<dyn Store>, registry: Registry) -> Self {
        Self {
            watches: Hub::new(Arc::clone(&store), BOOKMARKS_EVERY),
            openapi: OpenApi::built_in(),
            health: Health::default(),
            metrics: Metrics::default(),
            in_flight: InFlight::default(),
            documents: Vec::new(),
            store,
            registry: Arc::new(registry),
            authenticator: Box::new(AllowAll),
            authorizer: Box::new(AllowAll),
            admission: Box::new(AllowAll),
            audit: Box::new(AllowAll),
            leases: Leases::default(),
            auth: None,
            kubelets: Kubelets::default(),
            services: services::Shared::new(services::Ranges::default()),
            config: Config::default(),
        }
    }

    /// This server as a `tower::Service`. A [`crate::auth::User`] in a request's extensions is who asks.
    pub fn service(self: &Arc<Self>) -> InProcess {
        InProcess(Arc::clone(self))
    }
}

#[derive(Clone)]
pub struct InProcess(Arc<Api>);

impl<B> tower::Service<Request<B>> for InProcess
where
    B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let response = self.0.handle(request);
        Box::pin(async move { Ok(response.await) })
    }
}
