//! A list on its way out: pieces of some 100 KiB made from the records as the client takes them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use corten_store::{KeyValue, Revision};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Frame;
use serde_json::{Map, Value};

use super::answer::bytes_response;
use super::shape::{self, Include};
use super::{Accept, Call, Format, Offers, Shape};
use crate::api::{Body, BoxError};
use crate::registry::Served;
use crate::status::Result;
use crate::stored::Form;

/// Records of one resource.
pub struct ListAnswer {
    pub served: Arc<Served>,
    pub items: Vec<Arc<KeyValue>>,
    pub meta: ListMeta,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListMeta {
    pub revision: Revision,
    /// Empty: there is no more.
    pub continue_token: String,
    pub remaining: Option<usize>,
}

impl ListMeta {
    pub fn to_json(&self) -> Value {
        let mut meta = Map::new();
        meta.insert("resourceVersion".to_owned(), self.revision.to_string().into());
        if !self.continue_token.is_empty() {
            meta.insert("continue".to_owned(), self.continue_token.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            meta.insert("remainingItemCount".to_owned(), remaining.into());
        }
        Value::Object(meta)
    }
}

/// Lists below this go out in one piece.
const PIECE_BYTES: usize = 128 << 10;

impl ListAnswer {
    /// # Errors
    /// 406; 500 of a record that cannot be read.
    pub fn into_response(self, call: &Call) -> Result<Response<Body>> {
        let accept = call.accept(Offers::Lists)?;
        let include = match accept.shape {
            Shape::Table { .. } => Include::of(&call.query)?,
            _ => Include::default(),
        };
        let bytes: usize = self.items.iter().map(|kv| kv.value.len() + 48).sum();
        let form = Form::of(&self.served);
        let mut pieces = Pieces { form, list: self, shape: accept.shape, include, at: 0, state: State::Head };
        if accept == (Accept { shape: accept.shape, ..Accept::default() }) && bytes > PIECE_BYTES {
            let mut response = Response::new(pieces.boxed_unsync());
            let json = HeaderValue::from_static(Format::Json.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            return Ok(response);
        }
        let mut all = BytesMut::with_capacity(bytes + 512);
        while pieces.next(&mut all, usize::MAX)? {}
        Ok(bytes_response(StatusCode::OK, all.freeze(), accept))
    }
}

enum State {
    Head,
    Items,
    Done,
}

struct Pieces {
    form: Form,
    list: ListAnswer,
    shape: Shape,
    include: Include,
    at: usize,
    state: State,
}

impl Pieces {
    /// Writes until `to` has so many bytes. `false`: that was all.
    fn next(&mut self, to: &mut BytesMut, limit: usize) -> Result<bool> {
        match self.state {
            State::Done => return Ok(false),
            State::Head => {
                shape::head_of_list(&self.list.served, self.shape, &self.list.meta.to_json(), to);
                self.state = State::Items;
            }
            State::Items => {}
        }
        while to.len() < limit {
            let Some(kv) = self.list.items.get(self.at) else {
                to.put_slice(b"]}\n");
                self.state = State::Done;
                break;
            };
            if self.at > 0 {
                to.put_u8(b',');
            }
            match self.shape {
                Shape::Whole => self.form.write_item(kv, to)?,
                shape => shape::item(&self.list.served, shape, self.include, &self.form.bytes(kv)?, to)?,
            }
            self.at += 1;
        }
        Ok(true)
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES + (16 << 10));
        Poll::Ready(match self.next(&mut piece, PIECE_BYTES) {
            Ok(true) => Some(Ok(Frame::data(piece.freeze()))),
            Ok(false) => None,
            // The client sees a body that breaks off.
            Err(status) => Some(Err(Box::new(status))),
        })
    }
}
