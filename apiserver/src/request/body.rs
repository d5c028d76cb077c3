//! What a client sends. Source: apiserver `pkg/endpoints/handlers/rest.go`, `negotiation/negotiate.go`.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;

use crate::api::Body;
use crate::status::{Result, Status};

/// A body as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Without parameters, in lower case; empty when none was said.
    pub media_type: String,
    pub bytes: Bytes,
}

impl Content {
    /// # Errors
    /// 413 above `limit`; 415 of a body that is encoded; 400 of one that broke off.
    pub async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let encoding = text(header::CONTENT_ENCODING);
        if !encoding.is_empty() && encoding != "identity" {
            let message = format!("the body of the request has an encoding that is not read: {encoding}");
            return Err(Status::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message));
        }
        let declared = text(header::CONTENT_LENGTH).parse().unwrap_or(0_usize);
        if declared > limit {
            return Err(Status::too_large(limit));
        }
        let mut bytes = BytesMut::with_capacity(declared);
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| Status::bad_request(format!("cannot read the body: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(Status::too_large(limit));
            }
            bytes.extend_from_slice(&data);
        }
        let media_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default();
        Ok(Self { media_type: media_type.trim().to_ascii_lowercase(), bytes: bytes.freeze() })
    }
}

/// 415. `accepted` as upstream lists them.
pub fn unsupported_media_type(accepted: &[&str]) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    );
    Status::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
}
