//! Writes through the whole server, in process, on a store in memory.

mod apply;
mod concurrency;
mod create;
mod delete;
mod hostile;
mod managers;
mod patch;
mod subresources;
mod update;

use std::sync::Arc;

use bytes::Bytes;
use corten_apiserver::api::Api;
use corten_apiserver::registry::Registry;
use corten_store::{Config, Embedded};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

/// A server of its own.
pub struct Server(pub Arc<Api>);

/// What it answered.
#[derive(Debug)]
pub struct Told {
    pub code: u16,
    pub body: Value,
    pub warnings: Vec<String>,
}

impl Told {
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.code), "{self:?}");
        self.body
    }

    /// A failure: its code, reason and message.
    #[track_caller]
    pub fn failure(&self) -> (u16, &str, &str) {
        assert_eq!(self.body["kind"], "Status", "{self:?}");
        let text = |key: &str| self.body[key].as_str().unwrap_or_default();
        (self.code, text("reason"), text("message"))
    }
}

pub const JSON: &str = "application/json";
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    pub fn new() -> Self {
        let store = Embedded::memory(Config::default()).expect("memory is there");
        Self(Api::open(Arc::new(store), Registry::built_in()))
    }

    pub async fn send(&self, method: Method, path: &str, media: &str, body: impl Into<Bytes>) -> Told {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media)
            .header("user-agent", "tester/1.0")
            .body(Full::new(body.into()))
            .expect("a request");
        let response = self.0.handle(request).await;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|one| one.to_str().expect("text").to_owned()).collect();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        Told { code, body: serde_json::from_slice(&bytes).unwrap_or_default(), warnings }
    }

    pub async fn get(&self, path: &str) -> Told {
        self.send(Method::GET, path, "", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Told {
        self.send(Method::POST, path, JSON, body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Told {
        self.send(Method::PUT, path, JSON, body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Told {
        self.send(Method::PATCH, path, "application/merge-patch+json", body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Told {
        self.send(Method::DELETE, path, "", "").await
    }

    pub async fn delete_with(&self, path: &str, options: &Value) -> Told {
        self.send(Method::DELETE, path, JSON, options.to_string()).await
    }
}

/// `kind: ConfigMap` of this name.
pub fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

pub fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}}})
}
