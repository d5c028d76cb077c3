//! A server in this process, and requests to it: within the process, or over TLS on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_apiserver::api::{Api, Body};
use corten_apiserver::http::{Limits, serve, tls};
use corten_apiserver::object::Object;
use corten_apiserver::registry::Registry;
use corten_store::{Config, Embedded, Put, Revision};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Whatever a test waits for comes within this time, or it fails.
pub const SOON: Duration = Duration::from_secs(20);

pub fn memory() -> Embedded {
    Embedded::memory(Config::default()).expect("a store in memory")
}

pub fn api() -> Arc<Api> {
    Api::open(Arc::new(memory()), Registry::built_in())
}

/// As [`api`], changed before anybody has it.
pub fn api_with(change: impl FnOnce(&mut Api)) -> Arc<Api> {
    let mut api = api();
    change(Arc::get_mut(&mut api).expect("nobody else has it"));
    api
}

/// Writes an object past all verbs.
pub async fn put(api: &Api, key: &str, value: Value) -> Revision {
    let key = format!("/registry/{key}").into_bytes();
    let read = api.store.get(&key, None).await.expect("a store");
    let expected = read.kv.map_or(0, |kv| kv.mod_revision);
    let value = Object::of(value).expect("an object").encode();
    let swap = api.store.put(Put::update(key, value, expected)).await.expect("a store");
    swap.done().expect("nobody else writes")
}

pub async fn remove(api: &Api, key: &str) -> Revision {
    let key = format!("/registry/{key}").into_bytes();
    let read = api.store.get(&key, None).await.expect("a store");
    let expected = read.kv.expect("it is there").mod_revision;
    api.store.delete(&key, expected).await.expect("a store").done().expect("nobody else writes")
}

pub fn config_map(name: &str, labels: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "labels": labels}, "data": {"a": "b"}})
}

pub async fn put_config_map(api: &Api, name: &str, labels: Value) -> Revision {
    put(api, &format!("configmaps/default/{name}"), config_map(name, labels)).await
}

pub fn request(path: &str) -> http::request::Builder {
    Request::get(path)
}

pub async fn send(api: &Arc<Api>, request: http::request::Builder) -> Response<Body> {
    api.handle(request.body(Full::new(Bytes::new())).expect("a request")).await
}

/// Code and JSON of an answer.
pub async fn get(api: &Arc<Api>, path: &str) -> (StatusCode, Value) {
    read(send(api, request(path)).await).await
}

pub async fn read(response: Response<Body>) -> (StatusCode, Value) {
    let code = response.status();
    let bytes = bytes(response).await;
    let value = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
    (code, value)
}

pub async fn bytes(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.expect("a whole body").to_bytes()
}

pub fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

/// A watch, event by event.
pub struct Watching {
    body: Body,
    read: Vec<u8>,
}

impl Watching {
    pub async fn start(api: &Arc<Api>, path: &str) -> Self {
        Self::of(send(api, request(path)).await)
    }

    pub fn of(response: Response<Body>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        Self { body: response.into_body(), read: Vec::new() }
    }

    /// `None`: the watch is over.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(SOON, self.line()).await.expect("an event in time")
    }

    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event is JSON"));
            }
            let frame = self.body.frame().await?.expect("a body");
            self.read.extend_from_slice(&frame.into_data().expect("data"));
        }
    }

    /// Type and name (of a bookmark its revision) of what comes next.
    pub async fn told(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event");
        let what = event["type"].as_str().expect("a type").to_owned();
        let meta = &event["object"]["metadata"];
        let name = if what == "BOOKMARK" { &meta["resourceVersion"] } else { &meta["name"] };
        (what, name.as_str().unwrap_or_default().to_owned())
    }

    pub async fn expect(&mut self, events: &[(&str, &str)]) {
        for (kind, name) in events {
            assert_eq!(self.told().await, ((*kind).to_owned(), (*name).to_owned()));
        }
    }

    /// Nothing has come up to now.
    pub async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.line()).await.is_err()
    }
}

/// A server on loopback with TLS; ends when dropped.
pub struct Server {
    pub address: SocketAddr,
    pub certificate: CertificateDer<'static>,
    stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<()>,
}

impl Server {
    pub async fn start(api: Arc<Api>, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = rustls::crypto::ring::sign::any_supported_type(&private).expect("a key that signs");
        let own = rustls::sign::CertifiedKey::new(vec![certificate.clone()], signing);
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(own));
        let tls = tls::config(resolver, Vec::new()).expect("TLS");
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(api, listener, Some(tls), limits, stopped));
        Self { address, certificate, stop: Some(stop), task }
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
    }
}
