//! What a verb answers, and how it becomes a response in the form that was asked for.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::shape::{self, Include};
use super::{Accept, Call, Format, ListAnswer, Offers, Shape};
use crate::api::Body;
use crate::object::Object;
use crate::registry::Served;
use crate::status::{Result, Status};

pub enum Answer {
    /// An object as JSON, with its resourceVersion.
    Object {
        code: StatusCode,
        bytes: Bytes,
        /// What it is one of; `None`: nothing that has columns.
        served: Option<Arc<Served>>,
    },
    List(ListAnswer),
    /// A success that is no object.
    Status(Value),
    /// Whole already: watches, streams, documents.
    Raw(Response<Body>),
}

impl Answer {
    /// An object that is not stored as it is answered.
    pub fn of(code: StatusCode, object: &Object, served: Option<Arc<Served>>) -> Self {
        Self::Object { code, bytes: serde_json::to_vec(&object.0).expect("a value is JSON").into(), served }
    }

    /// # Errors
    /// 406, and what goes wrong while a record is made into another form.
    pub fn into_response(self, call: &Call) -> Result<Response<Body>> {
        match self {
            Self::Raw(response) => Ok(response),
            Self::Status(value) => {
                let accept = call.accept(Offers::Plain).unwrap_or_default();
                Ok(value_response(StatusCode::OK, &value, accept))
            }
            Self::List(list) => list.into_response(call),
            Self::Object { code, bytes, served } => {
                let offers = if served.is_some() { Offers::Objects } else { Offers::Plain };
                let accept = call.accept(offers)?;
                let bytes = match (accept.shape, &served) {
                    (Shape::Whole, _) | (_, None) => bytes,
                    (shape, Some(served)) => {
                        shape::one(served, shape, Include::of(&call.query)?, true, &bytes)?
                    }
                };
                Ok(bytes_response(code, bytes, accept))
            }
        }
    }
}

impl Status {
    pub fn into_response(self, accept: Accept) -> Response<Body> {
        let mut response = value_response(self.code(), &self.to_json(), accept);
        if let Some(time) = self.details().retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, time.as_secs().max(1).into());
        }
        response
    }
}

/// A value in the format that was asked for.
pub fn value_response(code: StatusCode, value: &Value, accept: Accept) -> Response<Body> {
    let bytes = match (accept.format, accept.pretty) {
        (Format::Json, false) => serde_json::to_vec(value).expect("a value is JSON"),
        (Format::Json, true) => {
            let mut bytes = serde_json::to_vec_pretty(value).expect("a value is JSON");
            bytes.push(b'\n');
            bytes
        }
        (Format::Yaml, _) => serde_yaml_ng::to_string(value).expect("a value is YAML").into_bytes(),
    };
    whole(code, accept.format.content_type(), bytes.into())
}

/// JSON bytes in the format that was asked for.
pub fn bytes_response(code: StatusCode, bytes: Bytes, accept: Accept) -> Response<Body> {
    if accept.format == Format::Json && !accept.pretty {
        return whole(code, Format::Json.content_type(), bytes);
    }
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    value_response(code, &value, accept)
}

pub fn json_response(code: StatusCode, value: &Value) -> Response<Body> {
    value_response(code, value, Accept::default())
}

pub fn whole(code: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
