//! A list on its way out: pieces of some 100 KiB made from the records as the client takes them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use corten_store::{KeyValue, Revision};
use http::{Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Frame;
use serde_json::{Map, Value};

use super::answer::{bytes_response, whole};
use super::{Accept, Call, Format, Offers, Shape, not_acceptable};
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
        match accept.shape {
            Shape::Whole => self.plain(accept),
            Shape::Table { .. } | Shape::Metadata { .. } => Err(not_acceptable()),
        }
    }

    fn plain(self, accept: Accept) -> Result<Response<Body>> {
        let bytes: usize = self.items.iter().map(|kv| kv.value.len()).sum();
        let streamed = accept.format == Format::Json && !accept.pretty && bytes > PIECE_BYTES;
        let mut pieces = Pieces { list: self, at: 0, state: State::Head };
        if streamed {
            let mut response = Response::new(pieces.map_err(Into::into).boxed_unsync());
            let json = http::HeaderValue::from_static(Format::Json.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            return Ok(response);
        }
        let mut all = BytesMut::with_capacity(bytes + self_size(&pieces.list));
        while pieces.next(&mut all, usize::MAX)? {}
        let all = all.freeze();
        if accept.format == Format::Json && !accept.pretty {
            return Ok(whole(StatusCode::OK, Format::Json.content_type(), all));
        }
        Ok(bytes_response(StatusCode::OK, all, accept))
    }
}

fn self_size(list: &ListAnswer) -> usize {
    256 + list.items.len() * 40
}

enum State {
    Head,
    Items,
    Done,
}

struct Pieces {
    list: ListAnswer,
    at: usize,
    state: State,
}

impl Pieces {
    /// Writes until `to` has so many bytes. `false`: that was all.
    fn next(&mut self, to: &mut BytesMut, limit: usize) -> Result<bool> {
        let list = &self.list;
        match self.state {
            State::Done => return Ok(false),
            State::Head => {
                let resource = &list.served.resource;
                let head = format!(
                    "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
                    resource.kind,
                    resource.api_version(),
                    list.meta.to_json()
                );
                to.put_slice(head.as_bytes());
                self.state = State::Items;
            }
            State::Items => {}
        }
        let form = Form::of(&list.served);
        while to.len() < limit {
            let Some(kv) = list.items.get(self.at) else {
                to.put_slice(b"]}\n");
                self.state = State::Done;
                break;
            };
            if self.at > 0 {
                to.put_u8(b',');
            }
            form.write_item(kv, to)?;
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
