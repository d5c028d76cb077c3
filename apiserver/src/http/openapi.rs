//! `/openapi/v3`: one document a group and version, compressed as it was built, and an index of their hashes.
//! Source: kube-openapi `pkg/handler3/handler.go`.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::text::text;
use crate::api::{Api, Body};
use crate::request::{Query, whole};

/// The description of one group and version.
#[derive(Debug, Clone)]
pub struct Document {
    /// Changes with the document.
    pub hash: String,
    pub gzip: Bytes,
}

/// The documents there are, by path below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
#[derive(Default)]
pub struct OpenApi {
    built_in: BTreeMap<String, Arc<Document>>,
    custom: RwLock<BTreeMap<String, Arc<Document>>>,
}

impl OpenApi {
    /// The documents of built-in kinds, which lie in the program.
    pub fn built_in() -> Self {
        let document = |one: &corten_schema::openapi::BuiltIn| {
            let document = Document { hash: one.hash.to_owned(), gzip: Bytes::from_static(one.gzip) };
            (one.path.to_owned(), Arc::new(document))
        };
        let built_in = corten_schema::openapi::documents().iter().map(document).collect();
        Self { built_in, ..Self::default() }
    }

    /// The documents of custom resources, instead of those that were before.
    pub fn replace_custom(&self, documents: impl IntoIterator<Item = (String, Document)>) {
        let mut custom = self.custom.write().unwrap_or_else(PoisonError::into_inner);
        *custom = documents.into_iter().map(|(path, document)| (path, Arc::new(document))).collect();
    }

    fn find(&self, path: &str) -> Option<Arc<Document>> {
        let custom = self.custom.read().unwrap_or_else(PoisonError::into_inner);
        self.built_in.get(path).or_else(|| custom.get(path)).map(Arc::clone)
    }

    fn index(&self) -> Value {
        let custom = self.custom.read().unwrap_or_else(PoisonError::into_inner);
        let entry = |(path, document): (&String, &Arc<Document>)| {
            (path.clone(), json!({"serverRelativeURL": url(path, document)}))
        };
        let paths: Map<String, Value> = custom.iter().chain(&self.built_in).map(entry).collect();
        json!({"paths": paths})
    }
}

fn url(path: &str, document: &Document) -> String {
    format!("/openapi/v3/{path}?hash={}", document.hash)
}

/// `path` is what follows `openapi/v3`, without slashes at its ends.
pub fn serve(api: &Api, headers: &HeaderMap, path: &str, query: &Query) -> Response<Body> {
    if path.is_empty() {
        return text(StatusCode::OK, api.openapi.index().to_string());
    }
    let Some(document) = api.openapi.find(path) else {
        return empty(StatusCode::NOT_FOUND);
    };
    let etag = HeaderValue::from_str(&format!("\"{}\"", document.hash)).expect("hashes are hex");
    let mut response = match query.get("hash") {
        Some(hash) if !hash.is_empty() && hash != document.hash => {
            let mut moved = empty(StatusCode::MOVED_PERMANENTLY);
            let location = HeaderValue::from_str(&url(path, &document)).expect("a path and hex");
            moved.headers_mut().insert(header::LOCATION, location);
            moved
        }
        _ if headers.get(header::IF_NONE_MATCH) == Some(&etag) => empty(StatusCode::NOT_MODIFIED),
        _ => body(headers, &document),
    };
    let headers = response.headers_mut();
    if query.get("hash") == Some(&document.hash) {
        // This path never has another answer.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    headers.insert(header::ETAG, etag);
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    response
}

/// Compressed, for those who take it: nobody else pays for memory that is ten times the document's.
fn body(headers: &HeaderMap, document: &Document) -> Response<Body> {
    let takes_gzip = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|one| matches!(one.trim(), "gzip" | "*")));
    if takes_gzip {
        let mut response = whole(StatusCode::OK, "application/json", document.gzip.clone());
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        return response;
    }
    let mut plain = Vec::new();
    match flate2::read::GzDecoder::new(&*document.gzip).read_to_end(&mut plain) {
        Ok(_) => whole(StatusCode::OK, "application/json", plain.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the document is damaged: {error}\n")),
    }
}

fn empty(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = code;
    response
}
