//! Answers that are no objects.

use http::{HeaderValue, Response, StatusCode, header};

use crate::api::Body;
use crate::request::whole;

pub fn text(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = whole(code, "text/plain; charset=utf-8", text.into().into());
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// As Go's.
pub fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
