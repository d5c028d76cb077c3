//! What the audit log wants of bodies: kept beside the call while they pass.

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::api::{Body, BoxError};
use crate::hooks::Level;
use crate::request::Call;
use crate::status::{Result, Status};

/// Keeps what is sent, where it is wanted.
///
/// # Errors
/// It is too large, or breaks off.
pub async fn request(
    call: &Call,
    level: Level,
    request: Request<Body>,
    limit: usize,
) -> Result<Request<Body>> {
    let has_body = matches!(call.info.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    // A stream has no body that ends.
    if level < Level::Request || !has_body || request.headers().contains_key(http::header::UPGRADE) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let bytes = read(body, limit).await?;
    if !bytes.is_empty() {
        call.keep(|bodies| bodies.request = Some(value(&bytes)));
    }
    Ok(Request::from_parts(parts, whole(bytes)))
}

/// Keeps what is answered, where it is wanted: of failures always, they are what a log is read for.
pub async fn response(call: &Call, level: Level, response: Response<Body>) -> Response<Body> {
    let failed = response.status().is_client_error() || response.status().is_server_error();
    if level == Level::None || (level < Level::RequestResponse && !failed) {
        return response;
    }
    let (parts, body) = response.into_parts();
    // Ours, and as large as it is.
    let bytes = read(body, usize::MAX).await.unwrap_or_default();
    call.keep(|bodies| bodies.response = Some(value(&bytes)));
    Response::from_parts(parts, whole(bytes))
}

async fn read(mut body: Body, limit: usize) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len().saturating_add(data.len()) > limit {
                return Err(Status::too_large(limit));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

fn value(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| -> BoxError { match never {} }).boxed_unsync()
}
