//! Paths that are no resources': discovery, descriptions, health, metrics, and documents that never change.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::text::{not_found, text};
use super::{discovery, health, openapi, version};
use crate::api::{Api, Body};
use crate::request::{Call, Offers, value_response, whole};
use crate::status::{Result, Status};

/// A document that somebody else made, by its path.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// `/openid/v1/jwks`.
    pub path: &'static str,
    pub content_type: &'static str,
    pub cache_control: &'static str,
    pub bytes: Bytes,
}

/// # Errors
/// 405, 406.
pub async fn serve(api: &Api, call: &Call) -> Result<Response<Body>> {
    let path = call.info.path.trim_matches('/');
    if let Some(fixed) = api.documents.iter().find(|fixed| fixed.path == call.info.path) {
        only_get(call)?;
        let mut response = whole(StatusCode::OK, fixed.content_type, fixed.bytes.clone());
        let cache = http::HeaderValue::from_static(fixed.cache_control);
        response.headers_mut().insert(http::header::CACHE_CONTROL, cache);
        return Ok(response);
    }
    if let Some(response) = health::serve(api, path, &call.query).await {
        return Ok(response);
    }
    let first = path.split('/').next().unwrap_or_default();
    if matches!(first, "" | "api" | "apis" | "openapi" | "version" | "metrics") {
        only_get(call)?;
    }
    Ok(match path {
        "" => {
            let mut paths = discovery::paths(api);
            paths.extend(api.documents.iter().map(|fixed| fixed.path.to_owned()));
            let others =
                ["/healthz", "/livez", "/metrics", "/openapi/v3", "/openapi/v3/", "/readyz", "/version"];
            paths.extend(others.map(str::to_owned));
            paths.sort_unstable();
            value_response(StatusCode::OK, &json!({"paths": paths}), call.accept(Offers::Plain)?)
        }
        "version" => value_response(StatusCode::OK, &version::document(), call.accept(Offers::Plain)?),
        "metrics" => {
            let mut response = text(StatusCode::OK, api.metrics.render(api).await);
            let content_type = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
            response
        }
        "openapi/v2" => openapi_v2(call)?,
        _ => match path.strip_prefix("openapi/v3") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                openapi::serve(api, &call.headers, rest.trim_matches('/'), &call.query)
            }
            _ => {
                // The aggregated form is none that is negotiated elsewhere.
                let accept = call.accept(Offers::Plain).unwrap_or_default();
                discovery::serve(api, &call.headers, path, accept).unwrap_or_else(not_found)
            }
        },
    })
}

fn only_get(call: &Call) -> Result<()> {
    if call.method == Method::GET || call.method == Method::HEAD {
        Ok(())
    } else {
        Err(Status::method_not_allowed())
    }
}

/// Version 2 without definitions, in the only form that clients read it in: kubectl asks for it when version 3 does not
/// know a kind, and goes on when version 2 does not either. Source: gnostic `openapiv2/OpenAPIv2.proto`.
fn openapi_v2(call: &Call) -> Result<Response<Body>> {
    const FORM: &str = "application/com.github.proto-openapi.spec.v2";
    // swagger = 1: "2.0"; info = 2: { title = 1: "Kubernetes", version = 2: "v1" }; paths = 8: {}.
    const DOCUMENT: &[u8] = b"\x0a\x032.0\x12\x10\x0a\x0aKubernetes\x12\x02v1\x42\x00";
    let accept =
        call.headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.contains(FORM) {
        const MESSAGE: &str = "OpenAPI v2 is not served as JSON: use /openapi/v3";
        return Err(Status::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", MESSAGE));
    }
    const SENT: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    Ok(whole(StatusCode::OK, SENT, Bytes::from_static(DOCUMENT)))
}
