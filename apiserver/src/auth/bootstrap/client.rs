//! Requests to this server in its own process, by itself.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::api::Api;
use crate::auth::User;

pub struct Client {
    api: Arc<Api>,
}

#[derive(Debug)]
pub struct Failure {
    pub code: StatusCode,
    pub message: String,
}

impl Client {
    pub fn new(api: &Arc<Api>) -> Self {
        Self { api: Arc::clone(api) }
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let kind = if method == Method::PATCH { "application/apply-patch+yaml" } else { "application/json" };
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let mut request =
            Request::builder().method(method).uri(path).header(header::USER_AGENT, "kube-apiserver");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let mut request = request
            .body(Full::new(bytes))
            .map_err(|error| Failure { code: StatusCode::BAD_REQUEST, message: error.to_string() })?;
        request.extensions_mut().insert(User::loopback());
        let (parts, body) = self.api.handle(request).await.into_parts();
        let failure = |message: String| Failure { code: parts.status, message };
        let bytes = body.collect().await.map_err(|error| failure(error.to_string()))?.to_bytes();
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| failure(error.to_string()))?;
        if parts.status.is_success() {
            Ok(value)
        } else {
            Err(failure(value["message"].as_str().unwrap_or_default().to_owned()))
        }
    }
}
